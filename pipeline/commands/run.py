"""A run or a sweep: what a command line without a command word does.

Progress goes to stderr; what came of it goes to stdout.
"""

from __future__ import annotations

import sys

from pipeline.commands.sweep import Planned, run_sweep
from pipeline.config.arguments import Arguments
from pipeline.config.points import Point
from pipeline.config.remembered import compose_remembered
from pipeline.errors import EXIT_FAILED, EXIT_MADE, EXIT_REFUSED, InternalError, PipelineError
from pipeline.plan import build_plan, run_options
from pipeline.report.blocks import block, reason_text
from pipeline.report.dry_run import dry_run_block
from pipeline.report.progress import stage_view
from pipeline.report.terminal import print_block, write_anything
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions
from pipeline.run.points import run_points


def main(arguments: Arguments) -> int:
    """Compose, plan, run and report; the exit code."""
    write_anything()
    composition = compose_remembered(arguments)
    points = [_planned(point, composition.multirun) for point in composition.points]
    if composition.multirun:
        return run_sweep(composition, points)
    (config,) = (point.config for point in composition.points)
    (plan,) = points
    assert config is not None
    assert isinstance(plan, Plan)
    options = run_options(config)
    if config.dry_run:
        print_block(dry_run_block(plan, options), sys.stdout)
        return EXIT_MADE
    return _single(plan, options)


def _planned(point: Point, multirun: bool) -> Planned:
    """The point's plan, or why there is none; the refusal of a single point is raised."""
    try:
        if point.config is None:
            raise point.refusal or InternalError("a point was neither composed nor refused")
        run_options(point.config)  # a size that cannot be read refuses its own point alone
        return build_plan(point.config, point.overrides)
    except PipelineError as refusal:
        if not multirun:
            raise
        return refusal


def _single(plan: Plan, options: RunOptions) -> int:
    view = stage_view(sys.stderr, debug=options.debug)
    try:
        results, interrupt = run_points(
            [plan], [options], lambda _, event: view.show(event), before_threads=view.start
        )
    finally:
        view.stop()
    (finished,) = results
    if finished is None:
        print("interrupted before anything was made", file=sys.stderr)
        return interrupt or EXIT_FAILED
    if finished.exit_code == EXIT_REFUSED and finished.reason is not None:
        print(reason_text(finished.reason), file=sys.stderr)
        return EXIT_REFUSED
    print_block(block(finished), sys.stderr if finished.exit_code else sys.stdout)
    return interrupt or finished.exit_code
