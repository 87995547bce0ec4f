"""The last block of a run: what was made, how well it matches, where it is; or why there is nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.errors import EXIT_MADE, EXIT_REFUSED, Reason
from pipeline.events import RunFinished
from pipeline.report.terminal import STYLES, Line
from pipeline.report.units import count, duration, figure, margin, milliseconds, place, size

LABEL: Final = "bold"


def block(finished: RunFinished) -> list[Line]:
    """The lines for one finished point."""
    if finished.exit_code == EXIT_MADE:
        return made_block(finished)
    return failed_block(finished)


def made_block(finished: RunFinished) -> list[Line]:
    """For a run directory that is whole: made now, or found there and verified."""
    row = finished.row
    where = place(finished.directory or "")
    if finished.reused:
        first = ("there", f"{where} (made before, verified now: whole and unchanged)", STYLES["passed"])
    else:
        first = ("made", where, STYLES["passed"])
    lines: list[Line] = [first, ("model", _model(row), LABEL), _match(row), *target_lines(row)]
    lines += predicted_lines(row, finished.directory)
    if not finished.reused and row.get("seconds") is not None:
        cached = ", every stage that can be from the cache" if row.get("cached") else ""
        lines.append(("took", duration(row["seconds"]) + cached, LABEL))
    return lines


def _model(row: Mapping[str, Any]) -> str:
    parts = ["model.onnx"]
    if row.get("size_bytes") is not None:
        parts.append(size(row["size_bytes"]))
    if row.get("opset") is not None:
        parts.append(f"opset {row['opset']}")
    if row.get("nodes") is not None:
        parts.append(count(row["nodes"], "node"))
    if row.get("exporter"):
        parts.append(f"by {row['exporter']}")
    return ", ".join(parts)


def _match(row: Mapping[str, Any]) -> Line:
    """How well it matches: the worst output, its error and metric, and the room to the tolerance."""
    unproved = row.get("unproved")
    # What is vacuous on the target alone is said there.
    proved = row.get("status") != "vacuous" or (unproved is None and "target_unproved" in row)
    label, style = ("matches", LABEL) if proved else ("vacuous", STYLES["vacuous"])
    if row.get("error") is None:
        return ("unproved", unproved or "the outputs were not compared", STYLES["vacuous"])
    compared = int(row.get("compared") or 1)
    which = f"worst of {compared}: " if compared > 1 else ""
    metric = f" ({row['metric']})" if row.get("metric") else ""
    text = (
        f"{which}{row.get('output') or 'output'}, error {figure(row['error'])}, "
        f"tolerance {figure(row.get('tolerance'))}, margin {margin(row.get('margin'), row['error'])}{metric}"
    )
    return (label, f"{text}; {unproved}" if unproved else text, style)


def target_lines(row: Mapping[str, Any]) -> list[Line]:
    """What was measured on the target: how well it matches, how long it takes, how large it is."""
    if row.get("compile_seconds") is None:
        return []
    name = row.get("target_versions") or row.get("target") or "target"
    precision = f" in {row['target_precision']}" if row.get("target_precision") else ""
    lines: list[Line] = []
    if row.get("target_error") is not None:
        text = (
            f"{name}{precision}: {row.get('target_output')}, error {figure(row['target_error'])}, tolerance "
            f"{figure(row['target_tolerance'])}, margin {margin(row['target_margin'], row['target_error'])}"
        )
        unproved = row.get("target_unproved")
        style = STYLES["vacuous"] if unproved else LABEL
        lines.append(("target", f"{text}; vacuous: {unproved}" if unproved else text, style))
    parts = [f"compiled in {duration(row['compile_seconds'])}"]
    if row.get("artifact_bytes") is not None:
        parts.append(size(row["artifact_bytes"]))
    if row.get("run_seconds") is not None:
        parts.append(f"all inputs run in {duration(row['run_seconds'])}")
    if row.get("latency_ms") is not None:
        parts.append(
            f"latency {milliseconds(row['latency_ms'])} median, {milliseconds(row['latency_p95_ms'])} p95 "
            f"of {count(row['latency_runs'], 'run')} on {count(row['threads'], 'thread')}"
        )
    lines.append(("speed", ", ".join(parts), LABEL))
    return lines


def predicted_lines(row: Mapping[str, Any], directory: str | None) -> list[Line]:
    """For a target whose compiler is not here: that nothing was compiled, and where to read on."""
    name = row.get("target") or "none"
    if name == "none" or row.get("compile_seconds") is not None or directory is None:
        return []
    folder = Path(directory) / name
    page = next((one for one in ("README.md", "placement.csv") if (folder / one).is_file()), "")
    text = f"{name}: predicted, not compiled; see {place(folder / page)}"
    return [("target", text, STYLES["warning"])]


def failed_block(finished: RunFinished) -> list[Line]:
    """For a run that did not reach its end: stage, code, sentence, and where log and record lie."""
    row = finished.row
    stage = row.get("stage") or "run"
    interrupted = (finished.reason or {}).get("code") == "PL-707"
    if finished.exit_code == EXIT_REFUSED:
        label = "refused"
    else:
        label = "interrupted" if interrupted else "failed"
    lines: list[Line] = [(label, f"in {stage}" if interrupted else stage, STYLES[label])]
    if finished.reason is not None and not interrupted:
        lines.append(("reason", reason_text(finished.reason), LABEL))
    if row.get("error") is not None:
        lines.append(_match({**row, "status": "failed"}))
        # What failed later (a target) is no fault of the file, which did match.
        lines[-1] = ("worst" if stage == "parity" else lines[-1][0], lines[-1][1], LABEL)
    lines += target_lines(row)
    if finished.directory:
        folder = Path(finished.directory)
        for name, file in (("log", "log.txt"), ("record", "run.json")):
            if (folder / file).is_file():
                lines.append((name, place(folder / file), LABEL))
    return lines


def reason_text(reason: Mapping[str, Any]) -> str:
    """`PL-310: the sentence`."""
    return f"{reason['code']}: {Reason(**reason).sentence()}"
