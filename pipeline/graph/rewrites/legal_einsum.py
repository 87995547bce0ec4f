"""Einsum, for targets that have none, written as where an opset has none."""

from __future__ import annotations

from typing import Final

from pipeline.graph.rewrites.lower_einsum import MADE, NEEDED, check_products, products
from pipeline.graph.rewrites.rule import Rule

RULES: Final = (
    Rule("einsum_to_matmul", "legalise", ("Einsum",), MADE, "float noise", "Einsum becomes products of matrices",
         products, check_products, NEEDED),
)  # fmt: skip
