"""Names of ONNX operators and their attributes, as data: profiles are checked without importing onnx."""

from __future__ import annotations

import csv
from functools import cache
from types import MappingProxyType
from typing import Final

from pipeline.locations import CONF_DIR
from pipeline.targets.vocabulary import Kind, Names

TABLES: Final = CONF_DIR / "target" / "tables"


@cache
def onnx_attributes() -> MappingProxyType[str, dict[str, Kind]]:
    """Operator of the domain ai.onnx (every version) to its attributes and their kinds."""
    found = {}
    for operator, attributes in _rows("onnx_operators.csv"):
        pairs = (pair.partition(":") for pair in attributes.split())
        found[operator] = {name: kind for name, _, kind in pairs}
    return MappingProxyType(found)  # type: ignore[arg-type]


@cache
def vendor_operators() -> frozenset[str]:
    """Operators that vendors' tables name and ONNX never had."""
    return frozenset(operator for operator, _ in _rows("vendor_operators.csv"))


@cache
def operator_names() -> frozenset[str]:
    """All of them."""
    return frozenset(onnx_attributes()) | vendor_operators()


def names_of(operator: str | None) -> Names:
    """What a limit of this operator may name; None: a limit for every operator."""
    return Names(dict(onnx_attributes().get(operator or "", {})), operator_names())


def _rows(name: str) -> list[list[str]]:
    with (TABLES / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(line for line in stream if not line.startswith("#")))[1:]
