"""Walks a plan: cache, requires, run, ensures, record, let go.

Knows stages only by their contract. Live artifacts that a later point of the same process takes
too are kept in `Shared`, by digest, so that a sweep makes the network and the reference once.
"""

from __future__ import annotations

import gc
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import EXIT_FAILED, InternalError, PipelineError, Reason
from pipeline.events import CacheUse, Emit, Finding, LogLine, StageFinished, StageStarted
from pipeline.heap import give_freed_memory_back
from pipeline.run.beside import Copy, Outlet, begin
from pipeline.run.cache import Cache
from pipeline.run.plan import Plan
from pipeline.run.workspace import (
    DISK_FULL,
    NeverMadeError,
    RunWorkspace,
    Shared,
    keep,
    run_stage,
    say_again,
    say_damaged,
    verdict_from_json,
    verdict_to_json,
)
from pipeline.stage import Stage, Verdict


@dataclass(frozen=True)
class StageOutcome:
    """How one stage of this run went.

    `exit_code` is what the run ends with when this stage ends it: 2 when the stage found that the
    request should have been refused (weights that do not fit: only torch can see it). `beside` is
    true of one that ran in a copy of the process, while others did.
    """

    name: str
    verdict: Verdict
    seconds: float
    cache: CacheUse
    peak_mib: float
    exit_code: int = EXIT_FAILED
    beside: bool = False


@dataclass
class Outcome:
    """What a walk left: for the manifest and the run record."""

    stages: list[StageOutcome] = field(default_factory=list)
    files: dict[str, tuple[str, bool]] = field(default_factory=dict)  #: path -> (kind, same every time)
    digests: dict[str, str] = field(default_factory=dict)  #: path -> sha256 taken while it was written
    failed: StageOutcome | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)


def execute(
    plan: Plan,
    folder: Path,
    *,
    cache: Cache,
    emit: Emit,
    shared: Shared | None = None,
    on_stage: Callable[[str], None] = lambda name: None,
    debug: bool = False,
    copies: bool = False,
) -> Outcome:
    """Run the plan into `folder`; the outcome says which stage failed, if one did.

    Args:
        plan: what to do.
        folder: an existing folder that belongs to this run alone.
        cache: where stored results are looked for and kept.
        emit: gets every event.
        shared: what earlier points of this process left.
        on_stage: called with the stage's name before it starts (to mark the log).
        debug: report the traceback of an error as log lines.
        copies: stages that can may work in a copy of this process (see `pipeline.run.beside`).

    Raises:
        InternalError: a stage broke its contract. Everything else ends up in the outcome.
    """
    outcome = Outcome()

    def note(event: Any) -> None:
        if isinstance(event, Finding) and event.level == "warning":
            outcome.warnings.append(asdict(event))
        emit(event)

    workspace = RunWorkspace(plan, folder, cache, note, shared or Shared())
    walk = _Walk(workspace, outcome, on_stage, debug)
    try:
        for position, stage in enumerate(plan.stages):
            on_stage(stage.name)
            emit(StageStarted(stage.name))
            if not (copies and walk.begin_beside(position)):
                walk.do(stage)
            if outcome.failed is not None:
                break
            _let_go(position, workspace)
        walk.join(wait=True)
        walk.refuse_gaps()
    finally:
        walk.end_copies()
        outcome.files, outcome.digests = dict(workspace.files), dict(workspace.digests)
        workspace.values.clear()
        cache.let_go()
        shutil.rmtree(workspace.scratch, ignore_errors=True)
    return outcome


class _GaveUpError(Exception):
    """A copy has no answer that would count."""


@dataclass
class _Walk:
    """One walk over the stages of a plan."""

    workspace: RunWorkspace
    outcome: Outcome
    on_stage: Callable[[str], None]
    debug: bool
    answered: list[Copy] = field(default_factory=list)

    def do(self, stage: Stage) -> None:
        """Run the stage here, and take in what copies have ended meanwhile."""
        try:
            done = _one_stage(stage, self.workspace, self.debug)
        except NeverMadeError:
            self.join(wait=True)
            if self.outcome.failed is None:  # the copy died, and what it was to make has been made here
                self.on_stage(stage.name)
                self.workspace.emit(StageStarted(stage.name))
                self.do(stage)
            return
        self.join(wait=not _may_go_on(done.verdict, self.workspace.plan))
        self._note(done)

    def begin_beside(self, position: int) -> bool:
        """Let a copy of this process do the stage, where that can be and somebody has work meanwhile."""
        workspace, stages = self.workspace, self.workspace.plan.stages
        stage, following = stages[position], stages[position + 1 : position + 2]
        asks = getattr(stage, "beside", None)
        if asks is None or not all(map(workspace.has, stage.takes)):
            return False
        if any(_is_kept(one, workspace) for one in (stage, *following)):
            return False
        prepare = asks(workspace)
        if prepare is None:
            return False

        def run() -> tuple[Verdict, CacheUse]:
            try:
                return run_stage(stage, workspace)
            except (MemoryError, OSError) as error:  # alone it may have room enough
                raise _GaveUpError from error

        def work(outlet: Outlet) -> dict[str, Any]:
            workspace.outlet = outlet
            prepare()
            done = _outcome(stage, workspace, self.debug, run)
            return {**vars(done), "verdict": verdict_to_json(done.verdict), "beside": True}

        copy = begin(work, workspace.scratch / f"{stage.name}-beside", workspace.emit)
        if copy is None:
            return False
        workspace.copies[stage.name] = copy
        workspace.making.append(stage.name)
        return True

    def join(self, *, wait: bool) -> None:
        """Take in what copies say; of those that have ended, or made everything, how they ended."""
        for stage in [stage for stage in self.workspace.plan.stages if stage.name in self.workspace.copies]:
            copy = self.workspace.copies[stage.name]
            copy.listen(lambda: True)
            if wait or copy.has_made(stage.makes):
                copy.wait()
            if copy.answer is not None or copy.gone:
                self._take_in(stage, copy)

    def refuse_gaps(self) -> None:
        """A run that went well has a verdict of every stage."""
        done = {each.name for each in self.outcome.stages}
        gaps = [stage.name for stage in self.workspace.plan.stages if stage.name not in done]
        if gaps and self.outcome.failed is None:
            raise InternalError(f"nobody knows how the stages {gaps} went")

    def end_copies(self) -> None:
        """None is left when the walk has ended, however."""
        for stage, copy in self.workspace.copies.items():
            self._log(stage, copy)
        for copy in (*self.answered, *self.workspace.copies.values()):
            copy.end()

    def _log(self, stage: str, copy: Copy) -> None:
        if printed := copy.printed():
            self.on_stage(stage)
            sys.stdout.write(printed)  # log.txt, in a worker

    def _take_in(self, stage: Stage, copy: Copy) -> None:
        workspace, verdict = self.workspace, None
        if copy.answer is not None:
            verdict, _ = verdict_from_json(copy.answer["verdict"])
            if verdict.status != "failed":
                for name in stage.makes:
                    workspace.get(name)
                keep(stage, workspace, verdict)
        self.answered.append(workspace.copies.pop(stage.name))  # it is waited for when it has had time to go
        workspace.making.remove(stage.name)
        self._log(stage.name, copy)
        if copy.answer is not None and verdict is not None:
            self._note(StageOutcome(**{**copy.answer, "verdict": verdict}))
            return
        again = "the process that worked beside gave no answer: the stage was run again"
        workspace.emit(Finding(stage.name, "warning", again))
        self.on_stage(stage.name)
        workspace.emit(StageStarted(stage.name))
        self._note(_one_stage(stage, workspace, self.debug))

    def _note(self, done: StageOutcome) -> None:
        outcome, plan = self.outcome, self.workspace.plan
        names = [stage.name for stage in plan.stages]
        outcome.stages.append(done)
        outcome.stages.sort(key=lambda each: names.index(each.name))
        outcome.failed = next((each for each in outcome.stages if not _may_go_on(each.verdict, plan)), None)
        self.workspace.emit(_finished(done))


def _one_stage(stage: Stage, workspace: RunWorkspace, debug: bool) -> StageOutcome:
    return _outcome(stage, workspace, debug, lambda: _reuse_or_run(stage, workspace))


def _outcome(
    stage: Stage, workspace: RunWorkspace, debug: bool, work: Callable[[], tuple[Verdict, CacheUse]]
) -> StageOutcome:
    started, waited = time.perf_counter(), workspace.waited
    use: CacheUse = "off"
    code = EXIT_FAILED
    try:
        verdict, use = work()
    except PipelineError as error:
        code = error.exit_code
        if debug:
            workspace.emit(LogLine(stage.name, traceback.format_exc()))
        verdict = Verdict("failed", error.reason, measured=error.measured,
                          recorded=error.recorded)  # fmt: skip
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        verdict = Verdict("failed", disk_full(workspace.folder.parent.parent))
    except MemoryError:
        verdict = Verdict("failed", out_of_memory())
    seconds = time.perf_counter() - started - (workspace.waited - waited)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return StageOutcome(stage.name, verdict, seconds, use, peak_mib, code)


def _is_shared(stage: Stage, workspace: RunWorkspace) -> bool:
    """Whether an earlier point of this process has made it."""
    plan, shared = workspace.plan, workspace.shared
    made = all(plan.digest(name) in shared.values for name in stage.makes)
    return bool(stage.makes) and made and plan.stage_keys[stage.name].key in shared.verdicts


def _is_kept(stage: Stage, workspace: RunWorkspace) -> bool:
    """Whether nothing has to be made, or something damaged is there to be told of."""
    key, cache = workspace.plan.stage_keys[stage.name].key, workspace.cache
    if _is_shared(stage, workspace) or cache.find(key) is not None:
        return True
    return cache.reads and cache.is_damaged(key)


def _reuse_or_run(stage: Stage, workspace: RunWorkspace) -> tuple[Verdict, CacheUse]:
    plan, shared = workspace.plan, workspace.shared
    key = plan.stage_keys[stage.name]
    if _is_shared(stage, workspace):
        say_again(workspace, shared.findings.get(key.key, ()))
        return shared.verdicts[key.key], "hit" if stage.storable and workspace.cache.reads else "off"
    if stage.storable:
        entry = workspace.cache.find(key.key)
        if entry is not None:
            workspace.entries[stage.name] = entry
            verdict, told = verdict_from_json(entry.verdict)
            findings = [finding for finding in told if finding.stage == stage.name]
            if any(plan.digest(name) in shared.wanted for name in stage.makes):
                shared.verdicts[key.key], shared.findings[key.key] = verdict, findings
            say_again(workspace, findings)
            return verdict, "hit"
        if workspace.cache.reads and workspace.cache.is_damaged(key.key):
            say_damaged(stage, workspace, "its entry.json is damaged")
    elif getattr(stage, "on_demand", False) and not _needed(stage, workspace):
        say_again(workspace, _kept_by_others(stage, workspace))
        return Verdict(summary="not needed: what takes it is cached"), "off"
    verdict, use = run_stage(stage, workspace)
    keep(stage, workspace, verdict)
    return verdict, use


def _kept_by_others(stage: Stage, workspace: RunWorkspace) -> list[Finding]:
    """What a stage that is not needed found when it last ran: the entries of what takes it say it."""
    plan = workspace.plan
    found: list[Finding] = []
    for other in plan.stages:
        if other.storable and not set(stage.makes).isdisjoint(map(plan.real_name, other.takes)):
            entry = workspace.cache.find(plan.stage_keys[other.name].key)
            told = verdict_from_json(entry.verdict)[1] if entry is not None else []
            found += [one for one in told if one.stage == stage.name and one not in found]
    return found


def _needed(stage: Stage, workspace: RunWorkspace) -> bool:
    """Whether a stage that will really run takes what this one makes (the network, mostly).

    A guess that costs nothing when it is wrong: `RunWorkspace.get` makes what is asked for.
    """
    plan = workspace.plan
    made = {plan.real_name(name) for name in stage.makes}
    for other in plan.stages:
        if made.isdisjoint(plan.real_name(name) for name in other.takes):
            continue
        shared = all(plan.digest(name) in workspace.shared.values for name in other.makes)
        if other.makes and shared:
            continue
        if not other.storable or workspace.cache.find(plan.stage_keys[other.name].key) is None:
            return True
    return False


def _let_go(position: int, workspace: RunWorkspace) -> None:
    plan = workspace.plan
    later = {plan.real_name(name) for stage in plan.stages[position + 1 :] for name in stage.takes}
    gone = [name for name in workspace.values if name not in later]
    for name in gone:
        workspace.release(name)
    kept = workspace.shared.values
    needed = workspace.shared.wanted | {plan.digest(name) for name in later}
    for digest in [digest for digest in kept if digest not in needed]:
        del kept[digest]
    # A network and what an exporter made of it may hold each other; arrays and graphs do not. With an
    # exporter's compiler loaded, a collection takes 0.3 s.
    if any(getattr(plan.maker(name), "cyclic", False) for name in gone):
        gc.collect()
        give_freed_memory_back()


def _may_go_on(verdict: Verdict, plan: Plan) -> bool:
    if verdict.status == "vacuous":
        return plan.allow_vacuous
    return verdict.status in ("passed", "skipped")


def _finished(done: StageOutcome) -> StageFinished:
    return StageFinished(
        stage=done.name,
        status=done.verdict.status,
        seconds=done.seconds,
        cache=done.cache,
        peak_mib=done.peak_mib,
        reason=done.verdict.reason.to_json() if done.verdict.reason else None,
        summary=done.verdict.summary,
        measured=dict(done.verdict.measured),
        beside=done.beside,
    )


def disk_full(out: Path) -> Reason:
    """Why a run failed that could not write on."""
    return Reason(
        "PL-703",
        "the disk is full",
        where=str(out),
        next_step="Make room, or type out=FOLDER for another disk",
    )


def out_of_memory() -> Reason:
    """Why a run failed whose process was refused memory."""
    return Reason(
        "PL-711",
        "the machine's memory is exhausted",
        next_step="Use a smaller batch, or a machine with more memory",
    )
