"""The table of networks by targets, from the table of a sweep: makes docs/target_matrix.md.

    python -m pipeline -m experiment=target_matrix
    python tests/benchmarks/target_matrix.py [outputs/sweeps/target_matrix]
    python tests/benchmarks/target_matrix.py --only-page        # from docs/target_matrix.json alone

Rows are kept in docs/target_matrix.json. A point that was not reached is not measured; it is no green cell.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "target_matrix.md"
ROWS: Final = ROOT / "docs" / "target_matrix.json"
SWEEP: Final = Path("outputs/sweeps/target_matrix")
#: Columns of table.csv that the page shows.
KEPT: Final = (
    "model", "target", "status", "stage", "reason", "exporter", "opset", "target_precision", "target_error",
    "target_tolerance", "latency_ms", "compile_seconds", "artifact_bytes", "threads",
)  # fmt: skip
MIB: Final = 2**20

TOP: Final = """# Networks by targets

Made by `tests/benchmarks/target_matrix.py` from a sweep of `experiment=target_matrix`; do not edit. Every cell
was compiled, loaded again in a fresh process, run on three sets of inputs and compared with the network, and
its bundle's program was run. A cell shows the largest difference over the largest value of the output, then
the median latency in ms ({threads} threads; the machine was busy with other processes, so latencies compare
within a row at best). In bold: not green, with the cause below.

- {date}: {versions}

"""


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("sweep", nargs="?", type=Path, default=SWEEP)
    parser.add_argument("--only-page", action="store_true")
    given = parser.parse_args(words)
    if not given.only_page:
        ROWS.write_text(json.dumps(measured(given.sweep), indent=1) + "\n", encoding="utf-8")
    data = json.loads(ROWS.read_text(encoding="utf-8"))
    PAGE.write_text(page(data), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {summary(data['rows'])}", file=sys.stderr)


def measured(sweep: Path) -> dict[str, Any]:
    """The rows of a sweep, and what they were measured with."""
    with (sweep / "table.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    versions: dict[str, str] = {}
    for row in rows:
        manifest = Path(row["directory"] or ".") / "manifest.json"
        if row["status"] == "passed" and manifest.is_file():
            versions |= json.loads(manifest.read_text(encoding="utf-8"))["versions"]
    return {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "versions": dict(sorted(versions.items())),
        "rows": [{name: row[name] for name in KEPT} for row in rows],
    }


def page(data: Mapping[str, Any]) -> str:
    """The page of the rows."""
    rows: list[dict[str, str]] = data["rows"]
    targets, models = (list(dict.fromkeys(row[name] for row in rows)) for name in ("target", "model"))
    cells = {(row["model"], row["target"]): row for row in rows}
    threads = sorted({row["threads"] for row in rows if row["threads"]})
    text = TOP.format(
        threads=" or ".join(threads),
        date=data["date"],
        versions=", ".join(f"{name} {version}" for name, version in data["versions"].items()),
    )
    text += f"| network | {' | '.join(targets)} |\n|---|{'---|' * len(targets)}\n"
    for model in models:
        text += f"| {model} | {' | '.join(cell(cells.get((model, target))) for target in targets)} |\n"
    text += f"\n{summary(rows)}\n"
    tolerances = {row["target"]: row["target_tolerance"] for row in rows if row["target_tolerance"]}
    if tolerances:
        said = ", ".join(f"{name} {float(value):.0e}" for name, value in tolerances.items())
        text += f"\nTolerances, float32: {said} (or the network's own noise times `parity.k`, where that is more).\n"
    causes = [row for row in rows if row["status"] not in ("passed", "not reached")]
    if causes:
        text += "\n## What is not green\n| network | target | stage | cause |\n|---|---|---|---|\n"
        for row in causes:
            cause = row["reason"].replace("|", "\\|")
            text += f"| {row['model']} | {row['target']} | {row['stage']} | {cause} |\n"
    return text


def cell(row: Mapping[str, str] | None) -> str:
    """What one point shows."""
    if row is None or row["status"] == "not reached":
        return "not measured"
    if row["status"] != "passed":
        return f"**{row['stage']}**"
    return f"{float(row['target_error']):.0e}, {float(row['latency_ms']):.3g} ms"


def summary(rows: Sequence[Mapping[str, str]]) -> str:
    """How many cells are green."""
    green = sum(row["status"] == "passed" for row in rows)
    tried = sum(row["status"] != "not reached" for row in rows)
    left = f"; {len(rows) - tried} not measured" if tried < len(rows) else ""
    return f"{green} of {len(rows)} cells are green ({green / len(rows):.1%}){left}."


if __name__ == "__main__":
    main()
