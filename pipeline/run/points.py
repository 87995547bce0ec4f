"""All points of a command line: those that are there already, then group by group the others."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pipeline.errors import EXIT_SIGINT, EXIT_SIGTERM, PipelineError, Reason
from pipeline.events import Event, RunFinished
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions, present, run_point
from pipeline.run.workers import InterruptedRun, Workers, interruptible

#: What the server of a sweep imports before it forks: modules only, nothing is computed there.
PRELOAD: Final = ("torch",)
INTERRUPTS: Final = {EXIT_SIGINT: signal.SIGINT, EXIT_SIGTERM: signal.SIGTERM}

OnEvent = Callable[[int, Event], None]


def run_points(
    points: Sequence[Plan | PipelineError],
    options: Sequence[RunOptions],
    on_event: OnEvent,
    before_threads: Callable[[], None] = lambda: None,
) -> tuple[list[RunFinished | None], int | None]:
    """Make every point; a point that fails or was refused does not stop the others.

    Args:
        points: a plan each, or why the point was refused.
        options: how to go about each point.
        on_event: gets each event with the index of its point.
        before_threads: called once the children are forked (a live display may start then).

    Returns:
        A result a point in the order of `points` (None: not reached, because of an interrupt),
        and the exit code of the interrupt, if there was one.
    """
    results: list[RunFinished | None] = [None] * len(points)
    plans = [point if isinstance(point, Plan) else None for point in points]
    there, groups = _groups(plans, options)
    several = len(groups) > 1
    wanted = {name for plan in plans if plan is not None for name in plan.packages}
    preload = tuple(name for name in PRELOAD if several and name in wanted)
    workers = Workers(plans, options, server=len(plans) > 1, preload=preload)
    workers.start()
    try:
        with interruptible():
            before_threads()
            for index, point in enumerate(points):
                if isinstance(point, PipelineError):
                    refused = _refused(point)
                    results[index] = refused
                    on_event(index, refused)
            for group in [there, *groups]:
                _run_group(group, plans, options, workers, results, on_event)
                workers.next_group()
    except InterruptedRun as interrupt:
        return results, interrupt.exit_code
    finally:
        workers.stop()
    return results, None


def _run_group(
    group: Sequence[int],
    plans: Sequence[Plan | None],
    options: Sequence[RunOptions],
    workers: Workers,
    results: list[RunFinished | None],
    on_event: OnEvent,
) -> None:
    for position, index in enumerate(group):
        plan = plans[index]
        assert plan is not None
        later = [plans[other] for other in group[position + 1 :]]
        wanted = {digest for other in later if other is not None for digest in other.taken()}
        try:
            done = run_point(
                plan,
                options[index],
                partial(on_event, index),
                partial(workers.work, index, wanted),
            )
        except PipelineError as error:
            refused = _refused(error)
            done = replace(refused, label=plan.label, row={**plan.row, **refused.row})
            on_event(index, done)
        results[index] = done
        if done.exit_code in INTERRUPTS:
            raise InterruptedRun(INTERRUPTS[done.exit_code])


def _groups(plans: Sequence[Plan | None], options: Sequence[RunOptions]) -> tuple[list[int], list[list[int]]]:
    """Points whose directory is there already, and the others by network, as they first appear.

    The former come first, so that an interrupt does not leave a table that knows nothing of them.
    """
    there: list[int] = []
    groups: dict[str, list[int]] = {}
    for index, plan in enumerate(plans):
        if plan is None:
            continue
        if present(plan, options[index]):
            there.append(index)
        else:
            groups.setdefault(plan.group, []).append(index)
    return there, list(groups.values())


def _refused(error: PipelineError) -> RunFinished:
    reason: Reason = error.reason
    row: dict[str, Any] = {"status": "refused" if error.exit_code == 2 else "failed",
                           "stage": "config", "reason": reason.sentence(), "directory": ""}  # fmt: skip
    return RunFinished("", None, error.exit_code, reason=reason.to_json(), row=row)
