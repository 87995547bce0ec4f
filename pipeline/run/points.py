"""All points of a command line: those that are there already, then group by group the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from pipeline.errors import PipelineError, Reason
from pipeline.events import Event, RunFinished
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions, run_point
from pipeline.run.workers import InterruptedRun, Workers, interruptible

#: What the server of a sweep imports before it forks: modules only, nothing is computed there.
PRELOAD: Final = ("torch",)

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
    groups = _groups(plans)
    workers = Workers(plans, options[0], PRELOAD if len(groups) > 1 else ())
    workers.start()
    try:
        with interruptible():
            before_threads()
            for index, point in enumerate(points):
                if isinstance(point, PipelineError):
                    results[index] = _refused(point)
                    on_event(index, results[index])  # type: ignore[arg-type]
            for group in groups:
                _run_group(group, plans, options, workers, results, on_event)
                workers.next_group()
    except InterruptedRun as interrupt:
        return results, interrupt.exit_code
    finally:
        workers.stop()
    codes = {result.exit_code for result in results if result} & {130, 143}
    return results, max(codes) if codes else None


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

        def emit(event: Event, index: int = index) -> None:
            on_event(index, event)

        try:
            results[index] = run_point(
                plan,
                options[index],
                emit,
                lambda folder, report, index=index, wanted=wanted: workers.work(  # type: ignore[misc]
                    index, folder, wanted, report
                ),
            )
        except PipelineError as error:
            finished = replace(_refused(error), label=plan.label, row={**plan.row, **_refused(error).row})
            results[index] = finished
            emit(finished)
        if results[index] is not None and results[index].exit_code in (130, 143):  # type: ignore[union-attr]
            raise InterruptedRun(2 if results[index].exit_code == 130 else 15)  # type: ignore[union-attr]


def _groups(plans: Sequence[Plan | None]) -> list[list[int]]:
    """Indices of points that share a network, in the order in which they first appear."""
    groups: dict[str, list[int]] = {}
    for index, plan in enumerate(plans):
        if plan is not None:
            groups.setdefault(plan.group, []).append(index)
    return list(groups.values())


def _refused(error: PipelineError) -> RunFinished:
    reason: Reason = error.reason
    row: dict[str, Any] = {"status": "refused" if error.exit_code == 2 else "failed",
                           "stage": "config", "reason": reason.sentence(), "directory": ""}  # fmt: skip
    return RunFinished("", None, error.exit_code, reason=reason.to_json(), row=row)
