"""Which shipped network goes through which exporter at which opset: makes docs/coverage.md.

    python tests/benchmarks/coverage.py [MODEL...] [--exporter torchscript] [--opset 11] [--minutes 20]
    python tests/benchmarks/coverage.py --missing          # only what has no row yet
    python tests/benchmarks/coverage.py --only-page        # measure nothing

Every point is made by the product's own sweep, from nothing (`cache.mode=none`), in a folder that
is thrown away. What was measured is kept in docs/coverage.json, a row a point, so that a matrix that
takes an hour can be made in pieces and a part of it anew: the page is written from all rows that there
are, each with the versions that made it. A cell without a row is a dash: not measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from textwrap import shorten
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "coverage.md"
ROWS: Final = ROOT / "docs" / "coverage.json"

#: From small to large, by what a point costs: a run that is cut off has measured the most networks.
MODELS: Final = (
    "mynet", "mynet_multi_input", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small",
    "mobilenet_v2", "resnet18", "alexnet", "efficientnet_b0", "lraspp_mobilenet_v3_large", "resnet50",
    "densenet121", "convnext_tiny", "vgg11", "vit_b_16", "swin_t", "deeplabv3_mobilenet_v3_large",
    "ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "raft_small", "r3d_18",
    "mvit_v1_b",
)  # fmt: skip
EXPORTERS: Final = ("torchscript", "dynamo")
OPSETS: Final = (11, 17, 18, 21)
#: A point that takes longer has failed, seconds: well above what anything shipped took on two cores.
POINT_LIMIT_S: Final = 900
#: Characters of a sentence that the page shows.
LONGEST_REASON: Final = 400
PACKAGES: Final = (
    "torch", "torchvision", "onnx", "onnxruntime", "onnxsim", "onnxscript", "onnx-ir", "numpy",
)  # fmt: skip
#: What of a row of table.json the page shows, or groups by.
KEPT: Final = ("status", "stage", "reason", "margin", "nodes", "size_bytes", "seconds")

TOP: Final = """# What exports

Made by `python tests/benchmarks/coverage.py`; do not edit. Every cell is a whole run: exported, simplified,
checked, read back and compared with the network on ONNX Runtime, CPU, with the default settings and the
exporter named (`export.exporter=auto`, the default, tries the other one when the first fails). Weights are
random and seeded."""
FIGURES: Final = (
    "| model | exporter | opset | status | margin | nodes | file |",
    "|---|---|---:|---|---:|---:|---:|",
)

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all shipped ones when none is named")
    parser.add_argument("--exporter", action="append", choices=EXPORTERS)
    parser.add_argument("--opset", action="append", type=int)
    parser.add_argument("--minutes", type=float, help="begin no further network after that")
    parser.add_argument("--rows", type=Path, default=ROWS, help="where the rows are kept")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--only-page", action="store_true", help="measure nothing, write the page anew")
    parser.add_argument("--missing", action="store_true", help="leave out what has a row")
    asked = parser.parse_args()
    rows: list[Row] = json.loads(asked.rows.read_text()) if asked.rows.is_file() else []
    end = time.monotonic() + asked.minutes * 60 if asked.minutes else float("inf")
    for model in () if asked.only_page else asked.models or MODELS:
        if time.monotonic() > end:
            break
        for exporter in asked.exporter or EXPORTERS:
            have = {(row["model"], row["exporter"], row["opset"]) for row in rows} if asked.missing else set()
            opsets = [number for number in asked.opset or OPSETS if (model, exporter, number) not in have]
            if not opsets:
                continue
            made = measure(model, exporter, opsets)
            rows = merged(rows, made)
            asked.rows.write_text(as_json(rows))
            print(
                " ".join([model, exporter, *(f"{row['opset']}:{row['status']}" for row in made)]), flush=True
            )
    asked.page.write_text(page(rows))
    return 0


def as_json(rows: Sequence[Row]) -> str:
    """The rows, a line each."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def measure(model: str, exporter: str, opsets: Sequence[int]) -> list[Row]:
    """A row an opset, from the table.json of one sweep.

    Raises:
        RuntimeError: the sweep left no table.
    """
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        words = [
            f"model={model}", f"export.exporter={exporter}",
            f"export.opset={','.join(map(str, opsets))}", "cache.mode=none", "sweep=coverage",
            f"timeout_s={POINT_LIMIT_S}", f"out={folder}",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "-m", *words],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        table = Path(folder) / "sweeps" / "coverage" / "table.json"
        if not table.is_file():
            raise RuntimeError(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")
        made = json.loads(table.read_text())
    when = {"date": datetime.now(UTC).date().isoformat(), "versions": versions()}
    return [
        {"model": model, "exporter": exporter, "opset": point["opset_asked"], **when,
         **{name: point[name] for name in KEPT}, "reason": _portable(point["reason"], folder)}
        for point in made
    ]  # fmt: skip


def versions() -> dict[str, str]:
    """What the rows were made with: public versions, and the digest of the pipeline's own code."""
    sys.path.insert(0, str(ROOT))  # the sweep runs this tree, whatever is installed
    from pipeline.config.code import pipeline_code_digest

    found = {name: version(name).partition("+")[0] for name in PACKAGES}
    return {
        "python": platform.python_version(),
        **found,
        "pipeline": pipeline_code_digest(("pipeline.plan",))[:8],
    }


def _portable(text: str | None, folder: str) -> str | None:
    """The sentence without places that only this machine has."""
    if text is None:
        return None
    text = text.replace(folder, "outputs").replace(f"{ROOT}/", "")
    return re.sub(r"/\S*/(?:site-packages|lib/python3\.\d+)/", "", text)


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """The newest row a cell, networks in the order of `MODELS`."""
    cells = {(row["model"], row["exporter"], row["opset"]): row for row in [*old, *new]}
    return sorted(
        cells.values(), key=lambda row: (_place(row["model"]), EXPORTERS.index(row["exporter"]), row["opset"])
    )


def _place(model: str) -> tuple[int, str]:
    return (MODELS.index(model) if model in MODELS else len(MODELS), model)


def page(rows: Sequence[Row]) -> str:
    """The page as Markdown: how it was made, the matrix, the figures, and why the others fail."""
    passed = [row for row in rows if row["status"] == "passed"]
    columns = [(exporter, opset) for exporter in EXPORTERS for opset in OPSETS]
    count = (
        f"{len(passed)} of {len(rows)} measured points passed; the matrix has {len(MODELS) * len(columns)}."
    )
    failures = _sentences(row for row in rows if row["status"] != "passed")
    parts = [
        TOP,
        "\n".join(_head(rows)),
        f"{count} A number is the margin of parity, tolerance over error: above 1 is within it. A dash: not measured.",
        "\n".join(_matrix(rows, columns)),
        "## Figures\n" + "\n".join([*FIGURES, *map(_figures, rows)]),
        "## What does not export, and why\n" + "\n".join(failures),
    ]
    return "\n\n".join(parts) + "\n"


def _head(rows: Sequence[Row]) -> list[str]:
    """A line for each set of versions that rows were made with."""
    known: dict[str, list[Row]] = {}
    for row in rows:
        known.setdefault(json.dumps(row["versions"]), []).append(row)
    lines = []
    for text, made in known.items():
        dates = sorted({row["date"] for row in made})
        names = ", ".join(f"{name} {number}" for name, number in json.loads(text).items())
        lines.append(f"- {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, {len(made)} points: {names}")
    return lines


def _matrix(rows: Sequence[Row], columns: Sequence[tuple[str, int]]) -> list[str]:
    cells = {(row["model"], row["exporter"], row["opset"]): row for row in rows}
    names = [*MODELS, *sorted({row["model"] for row in rows} - set(MODELS))]
    return [
        "| model | " + " | ".join(f"{exporter} {opset}" for exporter, opset in columns) + " |",
        "|---|" + "---:|" * len(columns),
        *(
            f"| {name} | " + " | ".join(_cell(cells.get((name, *column))) for column in columns) + " |"
            for name in names
        ),
    ]


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return _margin(row) if row["status"] == "passed" else f"**{row['status']}**"


def _margin(row: Mapping[str, Any]) -> str:
    margin = row["margin"]
    if margin is None:
        return "exact" if row["status"] == "passed" else ""
    return f"{margin:.3g}" if margin < 1000 else "> 1000"


def _figures(row: Row) -> str:
    size = f"{row['size_bytes'] / 2**20:.1f} MiB" if row["size_bytes"] else ""
    shown = (
        row["model"],
        row["exporter"],
        row["opset"],
        row["status"],
        _margin(row),
        row["nodes"] or "",
        size,
    )
    return f"| {' | '.join(map(str, shown))} |"


def _sentences(rows: Iterable[Row]) -> list[str]:
    """One entry a sentence, with the points that it holds for."""
    lines = []
    ordered = sorted(
        rows, key=lambda row: (_place(row["model"]), row["exporter"], row["reason"] or "", row["opset"])
    )
    for (model, exporter, status, stage, reason), group in groupby(
        ordered,
        key=lambda row: tuple(row[name] for name in ("model", "exporter", "status", "stage", "reason")),
    ):
        opsets = ", ".join(str(row["opset"]) for row in group)
        text = shorten(str(reason), LONGEST_REASON, placeholder=" ...").replace("<", "&lt;")
        lines.append(f"- **{model}, {exporter}, opset {opsets}**: {status} in {stage}. {text}")
    return lines or ["Nothing."]


if __name__ == "__main__":
    sys.exit(main())
