"""A sweep: the points of `-m`, their rows, the folder with the table, and what is shown of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from pipeline.config.canonical import asked_opset
from pipeline.config.points import Composition, Point
from pipeline.config.request import REQUEST_KEYS, Config
from pipeline.config.rules import check_sweep_name
from pipeline.errors import EXIT_FAILED, EXIT_MADE, PipelineError
from pipeline.events import Event, RunFinished
from pipeline.plan import run_options
from pipeline.report.dry_run import dry_run_line, refused_line
from pipeline.report.sweep import print_table, sweep_view
from pipeline.report.sweep_table import SWEEPS, SweepTable, sweep_name
from pipeline.report.terminal import print_block
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions
from pipeline.run.points import run_points

#: Overrides that the table has a column for; others that vary stand in the column "changes".
SHOWN: Final = ("model", "model.name", "export.opset", "export.exporter", "target")

Planned = Plan | PipelineError


def run_sweep(composition: Composition, points: Sequence[Planned]) -> int:
    """Run every point and print the table; the exit code.

    Args:
        composition: the points as they were composed.
        points: a plan each, or why the point was refused.

    Raises:
        Refused: the sweep's folder cannot be named or written.
    """
    first = next((point.config for point in composition.points if point.config is not None), None)
    first = first or _as_typed(composition.points[0].overrides)
    # Nothing is made of a point that was refused: it has only a place in the table.
    nothing = replace(run_options(Config()), out=Path(first.out).expanduser(), debug=first.debug)
    options = [
        run_options(point.config) if point.config is not None and isinstance(plan, Plan) else nothing
        for point, plan in zip(composition.points, points, strict=True)
    ]
    if first.dry_run:
        return _dry_sweep(composition, points, options)
    changing = _changing(composition)
    rows = [_row(point, plan, changing) for point, plan in zip(composition.points, points, strict=True)]
    name = _name(composition, rows, first)
    table = SweepTable(nothing.out / SWEEPS / name, rows, [point.overrides for point in composition.points])
    table.begin()
    view = sweep_view(sys.stderr, [dict(row) for row in rows], name, debug=first.debug)

    def on_event(index: int, event: Event) -> None:
        if isinstance(event, RunFinished):
            table.finish(index, event)
        view.show(index, event)

    try:
        results, interrupt = run_points(points, options, on_event, before_threads=view.start)
    finally:
        view.stop()
    print_table(table.rows, str(table.folder), sys.stdout)
    if interrupt:
        print("interrupted: the same command line makes what is missing", file=sys.stderr)
        return interrupt
    made = all(finished is not None and finished.exit_code == EXIT_MADE for finished in results)
    return EXIT_MADE if made else EXIT_FAILED


def _dry_sweep(composition: Composition, points: Sequence[Planned], options: Sequence[RunOptions]) -> int:
    lines = []
    for point, plan, option in zip(composition.points, points, options, strict=True):
        if isinstance(plan, Plan):
            lines.append(dry_run_line(plan, option))
        else:
            typed = " ".join(text for text in point.overrides if _is_request(text))
            lines.append(refused_line(plan.reason.to_json(), typed))
    print_block(lines, sys.stdout)
    return EXIT_MADE if all(isinstance(plan, Plan) for plan in points) else EXIT_FAILED


def _as_typed(overrides: Sequence[str]) -> Config:
    """When every point is refused: at least the place that was typed."""
    given = dict(text.split("=", 1) for text in overrides if "=" in text)
    return Config(
        out=given.get("out", Config.out).strip("'\""),
        sweep=given.get("sweep"),
        dry_run=given.get("dry_run", "").lower() == "true",
    )


def _row(point: Point, plan: Planned, changing: Sequence[str]) -> dict[str, Any]:
    """What is known of a point before it is made: its line of the table."""
    given = dict(text.split("=", 1) for text in point.overrides if "=" in text)
    config = point.config
    exporter = config.export.exporter if config else given.get("export.exporter")
    row = {
        "point": point.index,
        "model": given.get("model") or point.choices.get("model"),
        "opset_asked": asked_opset(config) if config else given.get("export.opset"),
        "exporter": exporter if exporter != "auto" else None,
        "target": config.target.name if config else given.get("target"),
        "status": "not reached",
        "changes": " ".join(text for text in point.overrides if text.partition("=")[0] in changing),
    }
    return {**row, **plan.row} if isinstance(plan, Plan) else row


def _changing(composition: Composition) -> list[str]:
    """Keys that tell the points apart and have no column of their own."""
    values: dict[str, set[str]] = {}
    for point in composition.points:
        for text in point.overrides:
            key, _, value = text.partition("=")
            values.setdefault(key, set()).add(value)
    return [key for key, found in values.items() if len(found) > 1 and key not in SHOWN]


def _name(composition: Composition, rows: Sequence[Mapping[str, Any]], first: Config) -> str:
    """`sweep=NAME`, or a label of what was typed.

    Of what was typed and not of request keys: a point that is refused today and not tomorrow (its
    weights were missing) must not move the sweep to another folder.

    Raises:
        Refused: the name is not that of one folder.
    """
    if first.sweep is not None:
        check_sweep_name(first.sweep)
        return first.sweep
    identities = [
        " ".join(sorted(text for text in point.overrides if _is_request(text)))
        for point in composition.points
    ]
    return sweep_name([str(row.get("model") or "unnamed") for row in rows], identities)


def _is_request(text: str) -> bool:
    """Whether an override takes part in what is wanted (not where it is put, how fast, how shown)."""
    top = text.lstrip("+~").partition("=")[0].partition(".")[0]
    return top in REQUEST_KEYS or top not in {field.name for field in fields(Config)}
