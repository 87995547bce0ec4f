"""A run or a sweep: what a command line without a command word does."""

from __future__ import annotations

import sys

from pipeline.config.arguments import Arguments
from pipeline.config.compose import Composition, compose_points
from pipeline.errors import EXIT_FAILED, EXIT_MADE, PipelineError, Refused
from pipeline.plan import build_plan, run_options, sweep_folder
from pipeline.run.plan import Plan
from pipeline.run.points import run_points


def main(arguments: Arguments) -> int:
    """Compose, plan, run and report; the exit code."""
    composition = compose_points(arguments)
    configs = [point.config for point in composition.points]
    points: list[Plan | PipelineError] = []
    for point in composition.points:
        try:
            if point.config is None:
                assert point.refusal is not None
                raise point.refusal
            points.append(build_plan(point.config, point.overrides))
        except Refused as refusal:
            if not composition.multirun:
                raise
            points.append(refusal)
    first = next((config for config in configs if config is not None), None)
    if first is not None and first.dry_run:
        return _dry_run(points)
    return _sweep(points, composition) if composition.multirun else _single(points, composition)
