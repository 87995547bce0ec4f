"""One point from its lock to its final directory, whoever does the work.

The work itself is a callable: in a command-line run a child process does it (`workers.py`), in
library use the caller's own (`pipeline.export`). Either way the steps around it are these.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import EXIT_FAILED, EXIT_MADE, EXIT_REFUSED, PipelineError, Reason, Refused, StageFailed
from pipeline.events import UNSEEN, Emit, Event, Finding, RunFinished, RunStarted, StageFinished, StageStarted
from pipeline.run import records
from pipeline.run.beside import PRINTED
from pipeline.run.directory import RunDirectory
from pipeline.run.plan import Plan
from pipeline.run.runner import disk_full
from pipeline.run.verify import NotARunDirectoryError, verify_directory
from pipeline.run.workspace import DISK_FULL, SCRATCH


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about it; no part of the request.

    Attributes:
        out: where run directories are put.
        cache_dir, cache_mode, cache_bytes: the stage cache.
        wait_s: how long to wait for another run of the same request, seconds.
        timeout_s: a point that takes longer has failed, seconds.
        memory_bytes: a point whose processes hold more has failed.
        force: make it again beside the old one and compare.
        checkouts: folders whose git state run.json notes.
    """

    out: Path
    cache_dir: Path
    cache_mode: str = "readwrite"
    cache_bytes: int | None = None
    wait_s: float = 600.0
    timeout_s: float | None = None
    memory_bytes: int | None = None
    force: bool = False
    debug: bool = False
    private_apis: bool = True
    checkouts: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkResult:
    """What doing the work came to.

    Attributes:
        files: path -> (kind, same for the same request), of what stands in the folder.
        reason: why it failed; None when every stage went well.
        exit_code: 0, 1, 2 when a stage found that the request has to be refused, or 130/143 when
            it was interrupted.
    """

    files: Mapping[str, tuple[str, bool]]
    reason: Reason | None = None
    stage: str | None = None
    exit_code: int = EXIT_MADE


Work = Callable[[Path, Emit], WorkResult]


class Collector:
    """Keeps what run.json needs of the events that go by."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.stages: list[dict[str, Any]] = []
        self.warnings: list[dict[str, Any]] = []
        self._running: dict[str, float] = {}  #: stage to when it started, by time.perf_counter

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._running.pop(event.stage, None)  # what starts again comes last
            self._running[event.stage] = time.perf_counter()
        elif isinstance(event, StageFinished):
            self.stages.append(asdict(event))
            self._running.pop(event.stage, None)
        elif isinstance(event, Finding) and event.level == "warning":
            self.warnings.append({"stage": event.stage, "message": event.message, **event.data})
        self._emit(event)

    @property
    def running(self) -> str | None:
        """The stage that started last of those that have not ended."""
        return next(reversed(self._running), None)

    def close(self, stage: str | None, reason: Reason) -> None:
        """A running stage died without a word: say how it ended. What ran beside it never came to an end."""
        if stage in self._running:
            seconds = time.perf_counter() - self._running[stage]
            self(StageFinished(stage, "failed", seconds, "off", reason=reason.to_json()))


def run_point(plan: Plan, options: RunOptions, emit: Emit, work: Work) -> RunFinished:
    """Make the plan's run directory, or verify and return the one that is there.

    Raises:
        Refused: the output folder cannot be written, or another run held the lock too long.
    """
    place = RunDirectory(options.out, plan.label)
    try:
        place.prepare()
    except Refused:  # what stands there whole needs neither a lock nor a place to write
        kept = _whole(plan, place) if present(plan, options) else None
        if not isinstance(kept, RunFinished):
            raise
        _say_returned(plan, place, kept, emit)
        return kept
    waiting = Finding("run", "info", "another run of the same request is at work: waiting for it")
    with place.lock(options.wait_s, lambda: emit(waiting)):
        if os.path.lexists(place.final):  # a link that leads nowhere stands in the way, too
            kept = _reuse(plan, place, emit)
            if kept is not None and not options.force:
                _say_returned(plan, place, kept, emit)
                return kept
        finished = _make(plan, place, options, emit, work)
    if finished.exit_code == EXIT_REFUSED:
        place.remove_if_empty()
    emit(finished)
    return finished


def present(plan: Plan, options: RunOptions) -> bool:
    """Whether the plan's directory stands already and would be returned (its files not looked at)."""
    return not options.force and RunDirectory(options.out, plan.label).final.exists()


def _reuse(plan: Plan, place: RunDirectory, emit: Emit) -> RunFinished | None:
    """The whole directory that is there already; a damaged one is moved aside."""
    kept = _whole(plan, place)
    if isinstance(kept, RunFinished):
        return kept
    aside = place.move_aside()
    emit(
        Finding(
            "run", "warning",
            f"the directory that was there is damaged ({kept}); it is now {aside} and is made again",
        )
    )  # fmt: skip
    return None


def _whole(plan: Plan, place: RunDirectory) -> RunFinished | str:
    """The directory that is there already, or what is wrong with it."""
    try:
        problems = [f"{problem.path} {problem.message}" for problem in verify_directory(place.final)]
    except NotARunDirectoryError as error:
        problems = [str(error)]
    if problems:
        return problems[0]
    manifest = records.load(place.final / records.MANIFEST)
    if manifest["keys"]["result"] != plan.keys["result"]:
        raise StageFailed(
            "PL-709", "another request's directory has this name", where=str(place.final),
            found=f"result key {manifest['keys']['result'][:16]}...",
            expected=f"{plan.keys['result'][:16]}...", next_step="Type out=FOLDER for another place",
        )  # fmt: skip
    record = records.load(place.final / records.RECORD)
    row = {**plan.row, **records.row_of(manifest, record), "directory": str(place.final), "cached": True}
    return RunFinished(plan.label, str(place.final), EXIT_MADE, reused=True, row=row)


def _say_returned(plan: Plan, place: RunDirectory, finished: RunFinished, emit: Emit) -> None:
    """With every warning that it may be out of date: what else was found then stands in its run.json."""
    emit(RunStarted(plan.label, str(place.final), plan.keys["result"], ()))
    for warning in records.load(place.final / records.RECORD)["warnings"]:
        if UNSEEN in warning:
            emit(Finding(warning["stage"], "warning", warning["message"], {UNSEEN: warning[UNSEEN]}))
    emit(finished)


def _make(plan: Plan, place: RunDirectory, options: RunOptions, emit: Emit, work: Work) -> RunFinished:
    started, clock = _now(), time.perf_counter()
    emit(
        RunStarted(
            plan.label, str(place.final), plan.keys["result"], tuple(stage.name for stage in plan.stages)
        )
    )
    collector = Collector(emit)
    folder = place.begin()
    try:
        (folder / "config.yaml").write_text(plan.config_yaml, encoding="utf-8")
        result = work(folder, collector)
        _keep_prints(folder)
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)  # a worker that died left it
        if result.reason is not None:
            stage = result.stage or collector.running
            collector.close(stage, result.reason)
            result = replace(result, stage=stage)
        if result.reason is not None and result.exit_code == EXIT_REFUSED:
            return _failed_row(plan, None, result.reason, result.stage, EXIT_REFUSED, {})
        if result.reason is not None and result.reason.code == "PL-703":
            make_room(folder)
        files = {"config.yaml": ("config", True), records.LOG: ("log", False), **result.files}
        if result.reason is None:
            files[records.MANIFEST] = ("manifest", False)  # a record cannot hold its own digest
        record = records.run_record(
            plan,
            started=started,
            seconds=time.perf_counter() - clock,
            status="failed" if result.reason else "passed",
            reason=result.reason,
            stages=collector.stages,
            files=records.artifacts(folder, files, same=bool(result.reason), every=bool(result.reason)),
            warnings=collector.warnings,
            versions={name: records.full_version(name) for name in sorted(plan.packages)},
            git=records.git_state(options.checkouts),
        )
        records.write(folder / records.RECORD, record)
        if result.reason is None:
            return _publish(plan, place, folder, options, record)
        return _keep_failure(plan, place, folder, result, record)
    except PipelineError as error:
        return _failed_row(plan, None, error.reason, "run", EXIT_FAILED, {})
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        return _failed_row(plan, None, disk_full(place.out), collector.running or "run", EXIT_FAILED, {})
    finally:
        with suppress(OSError):
            shutil.rmtree(folder, ignore_errors=True)


def _keep_prints(folder: Path) -> None:
    """What a worker that died had not put into log.txt of its copies' words."""
    for printed in sorted((folder / SCRATCH).glob(f"*/{PRINTED}")):
        with suppress(OSError), (folder / records.LOG).open("ab") as log:
            log.write(f"== {printed.parent.name}\n".encode() + printed.read_bytes())


def _now() -> str:
    """Wall clock, for run.json."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")  # noqa: TID251


def make_room(folder: Path) -> None:
    """The disk is full: the record of the failed run is worth more than half a model."""
    for path in folder.glob("model.onnx*"):
        path.unlink()


def _publish(
    plan: Plan, place: RunDirectory, folder: Path, options: RunOptions, record: Mapping[str, Any]
) -> RunFinished:
    manifest = records.load(folder / records.MANIFEST)
    target = place.final
    if options.force and place.final.exists():
        difference = records.difference(records.load(place.final / records.MANIFEST), manifest)
        if difference is None:
            row = {**plan.row, **records.row_of(manifest, record), "directory": str(target)}
            return RunFinished(plan.label, str(target), EXIT_MADE, row=row)
        target = place.out / f"{plan.label}-again-{time.time_ns():x}"
        place.publish(folder, target)
        reason = Reason(
            "PL-708", "made again, but different", where=difference, found=str(target), expected=str(place.final),
            next_step=f"Type python -m pipeline compare {place.final} {target}" + _may_have_changed(
                records.load(place.final / records.RECORD), record),
        )  # fmt: skip
        known = {**records.row_of(manifest, record), "status": "failed"}
        return _failed_row(plan, target, reason, "run", EXIT_FAILED, known)
    place.publish(folder)
    row = {**plan.row, **records.row_of(manifest, record), "directory": str(target)}
    return RunFinished(plan.label, str(target), EXIT_MADE, row=row)


def _may_have_changed(*runs: Mapping[str, Any]) -> str:
    """What no key sees, as far as the runs' warnings say so: the likeliest cause of another result."""
    found = sorted({file for run in runs for warning in run["warnings"] for file in warning.get(UNSEEN, ())})
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"; what the code reads by itself may have changed since: {found[0]}{more}" if found else ""


def _keep_failure(
    plan: Plan, place: RunDirectory, folder: Path, result: WorkResult, record: Mapping[str, Any]
) -> RunFinished:
    assert result.reason is not None
    kept = place.keep_failure(folder)
    known = records.row_of(None, record)
    if any(stage["status"] == "vacuous" for stage in record["stages"]):
        known["status"] = "vacuous"
    return _failed_row(plan, kept, result.reason, result.stage, result.exit_code, known)


def _failed_row(
    plan: Plan, folder: Path | None, reason: Reason, stage: str | None, code: int, known: Mapping[str, Any]
) -> RunFinished:
    status = "refused" if code == EXIT_REFUSED else "failed"
    row = {**plan.row, "status": status, **known, "stage": stage, "reason": reason.sentence(),
           "directory": str(folder) if folder else ""}  # fmt: skip
    return RunFinished(plan.label, str(folder) if folder else None, code, reason=reason.to_json(), row=row)
