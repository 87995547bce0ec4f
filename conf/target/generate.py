"""Makes the data of conf/target again: `python conf/target/generate.py` (needs onnx).

tables/onnx_operators.csv comes from the installed onnx package (and tables/vendor_operators.csv); operators/NAME.yaml from tables/NAME.csv,
the vendors' tables restated, and tables/clauses.yaml, which says what every clause of theirs means in the
language of limits. A clause without a meaning there ends this program: none is dropped.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
TABLES: Final = HERE / "tables"
#: Kind of an attribute in the language of limits, by onnx's type of it.
KINDS: Final = {"INT": "number", "FLOAT": "number", "STRING": "text", "INTS": "numbers", "FLOATS": "numbers"}


def onnx_operators() -> list[tuple[str, str]]:
    """Every operator of the standard domain that onnx ever had, with its attributes and their kinds."""
    import onnx.defs

    attributes: dict[str, dict[str, str]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            row = attributes.setdefault(schema.name, {})
            row.update({name: KINDS.get(one.type.name, "truth") for name, one in schema.attributes.items()})
    return [
        (name, " ".join(f"{key}:{kind}" for key, kind in sorted(row.items())))
        for name, row in sorted(attributes.items())
    ]


def write_onnx_operators() -> None:
    """tables/onnx_operators.csv: profiles are checked against it without importing onnx."""
    import onnx

    with (TABLES / "onnx_operators.csv").open("w", encoding="utf-8", newline="") as stream:
        stream.write(f"# Operators of the domain ai.onnx, all versions, with attributes and their kinds; onnx {onnx.__version__}\n")
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("operator", "attributes"))
        rows.writerows(onnx_operators())
