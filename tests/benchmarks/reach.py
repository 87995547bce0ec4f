"""Which network reaches which opset, from either exporter, by rules and converters: makes docs/reach.md.

    python tests/benchmarks/reach.py [MODEL...] [--start dynamo] [--minutes 60] [--cache FOLDER]
    python tests/benchmarks/reach.py --only-page        # measure nothing

A start is one export: TorchScript at opset 17, dynamo at 18, made and kept in the stage cache by a run of
the product. From there every opset is reached in a process of its own: downwards by the rules, upwards by
the converters; the graph is checked, written, read back and compared with the network on ONNX Runtime on
the parity inputs. Rows are kept in docs/reach.json; what has a row of this code is not measured again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

import coverage  # noqa: E402 - the networks and versions of the other table
import small_transformers  # noqa: E402

PAGE: Final = ROOT / "docs" / "reach.md"
ROWS: Final = ROOT / "docs" / "reach.json"
OPSETS: Final = (9, 10, 11, 13, 15, 17, 18, 20, 21, 23)
#: Exporter to the opset that it writes here.
STARTS: Final = {"torchscript": 17, "dynamo": 18}
#: Seconds for the export of a start, and again for its cells.
START_LIMIT_S: Final = 1800
#: timm begins this network's head with zeros, and an output of zeros would prove nothing: it goes without.
WITHOUT_ZERO_HEAD: Final = {"gmixer_24_224": ", num_classes: 0"}
#: Networks of other packages, where those are installed: name -> (package, overrides).
EXTRAS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    f"timm {name}": (
        "timm",
        (
            "model=factory", "model.factory=timm:create_model",
            f"model.args={{model_name: {name}, pretrained: false{WITHOUT_ZERO_HEAD.get(name, '')}}}",
            f"model.inputs={{x: {{shape: [1, 3, {size}, {size}]}}}}",
        ),
    )
    for name, size in (
        ("resnet10t", 176), ("mobilenetv4_conv_small", 224), ("efficientvit_b0", 224), ("eva02_tiny_patch14_224", 224),
        ("convnextv2_atto", 224), ("fastvit_t8", 256), ("repvit_m0_9", 224), ("ghostnetv2_100", 224), ("mobileone_s0", 224),
        ("edgenext_xx_small", 256), ("levit_128s", 224), ("poolformer_s12", 224), ("gmixer_24_224", 224), ("tiny_vit_5m_224", 224),
        ("mobilevit_xxs", 256), ("crossvit_tiny_240", 240), ("regnetz_005", 224), ("hardcorenas_a", 224), ("starnet_s1", 224),
        ("deit_tiny_patch16_224", 224),
    )
} | {
    f"transformers {family}": (
        "transformers",
        (
            "model=factory", "model.factory=tests/benchmarks/small_transformers.py:build",
            f"model.args={{family: {family}}}", f"model.inputs={inputs}",
        ),
    )
    for family, inputs in small_transformers.INPUTS.items()
}  # fmt: skip
#: Cells that no rule can make green, because the operator first exists in a later opset: they do not count.
EXCLUSIONS: Final[dict[tuple[str, int], str]] = {
    ("ssdlite320_mobilenet_v3_large", 9): "NonMaxSuppression first exists at opset 10",
    ("fasterrcnn_mobilenet_v3_large_320_fpn", 9): "NonMaxSuppression and RoiAlign first exist at opset 10",
}
#: Where a sentence names the operator that stops a cell.
_OPERATOR: Final = re.compile(r"no rule brings (\w+)|implementation for (\w+)\(|cannot write aten::(\w+)")

TOP: Final = """# Which opset is reached

Made by `make reach`; do not edit. Every cell is a network and an opset. TorchScript writes opset 17 and
dynamo 18; from there the graph goes down by the rules of `python -m pipeline rules`, and up by onnx's
converters, is checked, written, read back and compared with the network on ONNX Runtime on all parity
inputs, none of them vacuous. A cell names the starts that arrived: T for TorchScript, D for dynamo. Where
neither did, it names the operator that is in the way, in bold; named exclusions are in parentheses. Networks of
timm are built by its own function, those of transformers by `tests/benchmarks/small_transformers.py`: both with
random weights, nothing is downloaded."""

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all shipped ones when none is named")
    parser.add_argument("--start", action="append", choices=tuple(STARTS))
    parser.add_argument("--minutes", type=float, help="begin no further network after that")
    parser.add_argument("--cache", type=Path, help="the stage cache (default: the user's)")
    parser.add_argument("--again", action="store_true", help="measure what has a row too")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--only-page", action="store_true", help="measure nothing, write the page anew")
    parser.add_argument("--cells", action="store_true", help=argparse.SUPPRESS)  # the child of one start
    asked = parser.parse_args()
    if asked.cells:
        print(json.dumps(cells(asked.models[0], asked.start[0], asked.cache)))
        return 0
    rows: list[Row] = json.loads(asked.rows.read_text()) if asked.rows.is_file() else []
    end = time.monotonic() + asked.minutes * 60 if asked.minutes else float("inf")
    for model in () if asked.only_page else asked.models or [*coverage.MODELS, *_installed()]:
        for start in asked.start or STARTS:
            have = {row["opset"] for row in rows if (row["model"], row["start"]) == (model, start)}
            if time.monotonic() > end or (set(OPSETS) <= have and not asked.again):
                continue
            made = measure(model, start, asked.cache)
            rows = merged(rows, made)
            asked.rows.write_text(coverage.as_json(rows))
            print(model, start, *(f"{row['opset']}:{row['status']}" for row in made), flush=True)
    asked.page.write_text(page(rows))
    return 0


def _installed() -> list[str]:
    return [name for name, (package, _) in EXTRAS.items() if importlib.util.find_spec(package)]


def measure(model: str, start: str, cache: Path | None) -> list[Row]:
    """A row an opset; a start that fails fails them all, with its reason."""
    package = EXTRAS[model][0] if model in EXTRAS else None
    own = {package: version(package)} if package else {}
    when = {"date": datetime.now(UTC).date().isoformat(), "versions": {**coverage.versions(), **own}}
    where = ["--cache", str(cache)] if cache else []
    done = subprocess.run(
        [sys.executable, __file__, "--cells", model, "--start", start, *where],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * START_LIMIT_S,
    )  # fmt: skip
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = (done.stderr.strip().splitlines() or [""])[-1]
        reason = coverage._portable(f"exit code {done.returncode}: {last}", str(ROOT))
        found = [{"opset": opset, "status": "failed", "reason": reason} for opset in OPSETS]
    for row in found:
        row["reason"] = row.get("reason") and shorten(
            row["reason"], coverage.LONGEST_REASON, placeholder=" ..."
        )
    return [{"model": model, "start": start, **row, **when} for row in found]


def cells(model: str, start: str, cache_dir: Path | None) -> list[Row]:
    """Export once (from the cache where it lies there), then every opset."""
    from pipeline.run.cache import Cache, default_directory
    from pipeline.run.runner import execute
    from pipeline.run.workspace import RunWorkspace, Shared

    with tempfile.TemporaryDirectory(prefix="reach-") as folder:
        cache = Cache(cache_dir or default_directory())
        plan = planned(model, start)
        (Path(folder) / "run").mkdir()
        outcome = execute(plan, Path(folder) / "run", cache=cache, emit=lambda event: None, shared=Shared())
        failed = outcome.failed.verdict.reason if outcome.failed is not None else None
        reason = failed.sentence() if failed is not None else "nothing was kept in the cache"
        entries = {}
        for stage in plan.stages:
            if stage.name in ("reference", "export"):
                found = cache.find(plan.stage_keys[stage.name].key)
                if found is None:
                    return [{"opset": opset, "status": "failed", "reason": reason} for opset in OPSETS]
                entries[stage.name] = found
        workspace = RunWorkspace(plan, Path(folder) / "work", cache, lambda event: None, Shared())
        workspace.entries.update(entries)
        return [{"opset": opset, **cell(workspace, plan, opset, Path(folder))} for opset in OPSETS]


def planned(model: str, start: str) -> Any:
    """The plan of a run of the start."""
    from pipeline.config.arguments import parse_arguments
    from pipeline.config.compose import compose_points
    from pipeline.plan import build_plan

    own = EXTRAS[model][1] if model in EXTRAS else (f"model={model}",)
    words = [*own, f"export.exporter={start}", f"export.opset={STARTS[start]}", "simplify=none"]
    point = compose_points(parse_arguments(words)).points[0]
    if point.config is None:
        raise point.refusal
    return build_plan(point.config, point.overrides)


class _Cell:
    """The workspace of one cell's parity."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)

    def emit(self, event: Any) -> None:
        """Nobody listens."""

    def get(self, name: str) -> Any:
        return self.values[name]

    def put(self, name: str, value: Any) -> None:
        self.values[name] = value


def cell(workspace: Any, plan: Any, opset: int, folder: Path) -> Row:
    """One opset: passed with margin and rules, or why not."""
    from pipeline.errors import PipelineError
    from pipeline.exporters.conversion import lowered, raised
    from pipeline.graph.assemble import assemble
    from pipeline.graph.check import check
    from pipeline.graph.readback import read_contract

    model, values = workspace.get("exported"), workspace.get("export_inputs")
    begun = time.process_time()
    try:
        written = next(one.version for one in model.parsed().opset_import if not one.domain)
        rules: Mapping[str, int] = {}
        if opset < written:
            model, rewriting = lowered(model, opset, values, {})
            rules = rewriting.counts
        else:
            model = raised(model, opset, values)
        seconds = time.process_time() - begun
        check(model)
        file = assemble(model, folder / f"{opset}.onnx")
        reached = read_contract(file.path).opsets[""]
        assert reached == opset, f"the file has opset {reached}"
        parity = next(stage for stage in plan.stages if stage.name == "parity")
        own = _Cell(
            {name: workspace.get(name) for name in ("parity_inputs", "reference", "signature", "attempts")}
        )
        own.put("model", file)
        verdict = parity.run(own)
    except PipelineError as error:
        return {"status": "failed", "reason": coverage._portable(error.reason.sentence(), str(folder))}
    finally:
        for path in folder.glob(f"{opset}.onnx*"):
            path.unlink()
    margins = [line["margin"] for line in verdict.measured["parity"] if line.get("margin") is not None]
    return {
        "status": verdict.status,
        "reason": verdict.reason.sentence() if verdict.reason else None,
        "margin": min(margins, default=None),
        "rules": dict(rules),
        "cpu_seconds": round(seconds, 2),
    }


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The newest row a cell."""
    found = {(row["model"], row["start"], row["opset"]): row for row in [*old, *new]}
    return sorted(found.values(), key=lambda row: (coverage._place(row["model"]), row["start"], row["opset"]))


def page(rows: Sequence[Row]) -> str:
    """The page as Markdown: how it was made, the table, shares, exclusions, and what stops a start."""
    models = sorted({row["model"] for row in rows}, key=coverage._place)
    starts = {(row["model"], row["start"], row["opset"]): row for row in rows}
    lines = ["| network | " + " | ".join(map(str, OPSETS)) + " |", "|---|" + "---|" * len(OPSETS)]
    lines += [
        f"| {model} | " + " | ".join(_shown(starts, model, opset) for opset in OPSETS) + " |"
        for model in models
    ]
    shares = [_share(starts, models, [o for o in OPSETS if o >= 11], "from 11 up"),
              _share(starts, models, [9, 10], "of 9 and 10")]  # fmt: skip
    named = [
        f"- **{model}, opset {opset}**: {reason}"
        for (model, opset), reason in EXCLUSIONS.items()
        if model in models
    ]
    stopped = _sentences([row for row in rows if row["status"] != "passed"])
    return "\n\n".join(
        [TOP, "\n".join(_head(rows)), "\n".join(lines), " ".join(shares),
         "## Named exclusions, which do not count\n" + "\n".join(named or ["None."]),
         "## What stops a start\n" + "\n".join(stopped)]
    ) + "\n"  # fmt: skip


def _head(rows: Sequence[Row]) -> list[str]:
    """What the rows were made with; digests of the pipeline's code that differ stand side by side."""
    known: dict[str, list[Row]] = {}
    for row in rows:
        packages = {name: number for name, number in row["versions"].items() if name != "pipeline"}
        known.setdefault(", ".join(f"{name} {number}" for name, number in packages.items()), []).append(row)
    lines = []
    for packages, made in known.items():
        dates = sorted({row["date"] for row in made})
        digests = sorted({row["versions"]["pipeline"] for row in made if row["versions"]})
        code = f", pipeline {' '.join(digests)}" if digests else ""
        when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
        lines.append(f"- {when}, {len(made)} points: {packages}{code}")
    return lines


def _shown(starts: Mapping[tuple[str, str, int], Row], model: str, opset: int) -> str:
    found = [row for start in STARTS if (row := starts.get((model, start, opset)))]
    if not found:
        return "-"
    arrived = [row["start"][0].upper() for row in found if row["status"] == "passed"]
    if arrived:
        return " ".join(arrived)
    if (model, opset) in EXCLUSIONS:
        return f"({EXCLUSIONS[model, opset].split()[0]})"
    named = [next(filter(None, one.groups())) for row in found if (one := _OPERATOR.search(row["reason"]))]
    return f"**{named[0] if named else 'no'}**"


def _share(
    starts: Mapping[tuple[str, str, int], Row], models: Sequence[str], opsets: Sequence[int], words: str
) -> str:
    counted = [(model, opset) for model in models for opset in opsets if (model, opset) not in EXCLUSIONS]
    shown = [text for cell in counted if (text := _shown(starts, *cell)) != "-"]
    green = sum(not text.startswith("**") for text in shown)
    return f"{green} of {len(shown)} cells {words} are green ({100 * green / max(len(shown), 1):.1f} %)."


def _sentences(rows: Sequence[Row]) -> list[str]:
    grouped: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        grouped.setdefault((row["model"], row["start"], str(row["reason"])), []).append(row["opset"])
    return [
        f"- **{model}, {start}, opset {', '.join(map(str, opsets))}**: {reason}".replace("<", "&lt;")
        for (model, start, reason), opsets in grouped.items()
    ] or ["Nothing."]


if __name__ == "__main__":
    sys.exit(main())
