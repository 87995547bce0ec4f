"""Walks a plan: cache, requires, run, ensures, record, let go.

Knows stages only by their contract. Live artifacts that a later point of the same process takes
too are kept in `Shared`, by digest, so that a sweep makes the network and the reference once.
"""

from __future__ import annotations

import errno
import gc
import resource
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pipeline.errors import EXIT_FAILED, InternalError, PipelineError, Reason
from pipeline.events import CacheUse, Emit, Event, Finding, LogLine, StageFinished, StageStarted
from pipeline.heap import give_freed_memory_back
from pipeline.run.cache import Cache, CacheEntry, DamagedEntryError
from pipeline.run.plan import Plan
from pipeline.stage import Stage, Storable, Verdict

#: What the system says when there is no room: no space, or a quota that is used up.
DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
#: Where stages put what goes away with the run.
SCRATCH: Final = ".scratch"


@dataclass
class Shared:
    """Artifacts that live on between the points of one process.

    Attributes:
        values: digest to value.
        verdicts: key of a stage to the verdict that it had.
        findings: key of a stage to what it had to say.
        wanted: digests that later points take; everything else is let go.
    """

    values: dict[str, Any] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class StageOutcome:
    """How one stage of this run went.

    `exit_code` is what the run ends with when this stage ends it: 2 when the stage found that the
    request should have been refused (weights that do not fit: only torch can see it).
    """

    name: str
    verdict: Verdict
    seconds: float
    cache: CacheUse
    exit_code: int = EXIT_FAILED


@dataclass
class Outcome:
    """What a walk left: for the manifest and the run record."""

    stages: list[StageOutcome] = field(default_factory=list)
    files: dict[str, tuple[str, bool]] = field(default_factory=dict)  #: path -> (kind, same every time)
    digests: dict[str, str] = field(default_factory=dict)  #: path -> sha256 taken while it was written
    failed: StageOutcome | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)


class RunWorkspace:
    """What the stages of one point may touch (see `pipeline.stage.Workspace`)."""

    def __init__(self, plan: Plan, folder: Path, cache: Cache, emit: Emit, shared: Shared) -> None:
        self.plan = plan
        self.folder = folder
        self.cache = cache
        self.emit: Emit = self._tell
        self._emit = emit
        self.shared = shared
        self.scratch = folder / SCRATCH
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.values: dict[str, Any] = {}
        self.entries: dict[str, CacheEntry] = {}
        self.files: dict[str, tuple[str, bool]] = {}
        self.digests: dict[str, str] = {}
        self.making: list[str] = []
        self.findings: dict[str, list[Finding]] = {}  #: stage -> what it said while it worked

    def _tell(self, event: Event) -> None:
        """Pass an event on; what a stage finds is kept, to be said again when it is not run again."""
        if isinstance(event, Finding) and event.stage in self.making:
            self.findings.setdefault(event.stage, []).append(event)
        self._emit(event)

    def get(self, name: str) -> Any:
        """The artifact; loaded from the cache, or made by its stage when that had been put off."""
        real = self.plan.real_name(name)
        if real in self.values:
            return self.values[real]
        stage = self.plan.maker(real)
        digest = self.plan.digest(real)
        if digest in self.shared.values:
            self.values[real] = self.shared.values[digest]
        elif stage.name in self.entries:
            self._load(stage, real)
        else:
            self._make(stage)
        return self.values[real]

    def put(self, name: str, value: Any) -> None:
        """Take over an artifact that the running stage has declared."""
        if self.plan.maker(name).name not in self.making:
            raise InternalError(f"{name} was put by a stage that does not make it")
        self.values[name] = value
        digest = self.plan.digest(name)
        if digest in self.shared.wanted and _shareable(self.plan.maker(name)):
            self.shared.values[digest] = value

    def file(self, path: str, kind: str, *, same_every_time: bool = True) -> Path:
        """Where `path` of the run directory is to be written."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        self.files[path] = (kind, same_every_time)
        return target

    def digest(self, path: str, sha256: str) -> None:
        """The digest of a file that need not be read again for it."""
        self.digests[path] = sha256

    def release(self, name: str) -> None:
        """Let go of a live artifact, unless a later point takes it."""
        self.values.pop(self.plan.real_name(name), None)

    def _load(self, stage: Stage, name: str) -> None:
        entry = self.entries[stage.name]
        try:
            self.values[name] = self.cache.load(entry, name, self.plan.artifact_types[name], self.scratch)
        except DamagedEntryError as error:
            del self.entries[stage.name]
            _say_damaged(stage, self, str(error))
            self._make(stage)

    def _make(self, stage: Stage) -> None:
        if stage.name in self.making:
            raise InternalError(f"stage {stage.name} asks for what it makes itself")
        self.making.append(stage.name)
        try:
            stage.requires(self)
            verdict = stage.run(self)
            if verdict.status == "failed":
                raise InternalError(f"stage {stage.name} returned 'failed' instead of raising StageFailed")
            stage.ensures(self)
        finally:
            self.making.remove(stage.name)
        _remember(stage, self, verdict)
        if stage.storable and verdict.status == "passed" and self.cache.writes:
            _store(stage, self.plan, self, verdict)


def execute(
    plan: Plan,
    folder: Path,
    *,
    cache: Cache,
    emit: Emit,
    shared: Shared | None = None,
    on_stage: Callable[[str], None] = lambda name: None,
    debug: bool = False,
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

    Raises:
        InternalError: a stage broke its contract. Everything else ends up in the outcome.
    """
    outcome = Outcome()

    def note(event: Any) -> None:
        if isinstance(event, Finding) and event.level == "warning":
            outcome.warnings.append(asdict(event))
        emit(event)

    workspace = RunWorkspace(plan, folder, cache, note, shared or Shared())
    try:
        for position, stage in enumerate(plan.stages):
            on_stage(stage.name)
            emit(StageStarted(stage.name))
            done = _one_stage(stage, plan, workspace, debug)
            outcome.stages.append(done)
            emit(_finished(done))
            if not _may_go_on(done.verdict, plan):
                outcome.failed = done
                break
            _let_go(plan, position, workspace)
    finally:
        outcome.files, outcome.digests = dict(workspace.files), dict(workspace.digests)
        workspace.values.clear()
        cache.let_go()
        shutil.rmtree(workspace.scratch, ignore_errors=True)
    return outcome


def _one_stage(stage: Stage, plan: Plan, workspace: RunWorkspace, debug: bool) -> StageOutcome:
    started = time.perf_counter()
    use: CacheUse = "off"
    code = EXIT_FAILED
    try:
        verdict, use = _reuse_or_run(stage, plan, workspace)
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
    return StageOutcome(stage.name, verdict, time.perf_counter() - started, use, code)


def _reuse_or_run(stage: Stage, plan: Plan, workspace: RunWorkspace) -> tuple[Verdict, CacheUse]:
    digests = [plan.digest(name) for name in stage.makes]
    shared = workspace.shared
    key = plan.stage_keys[stage.name]
    if digests and key.key in shared.verdicts and all(digest in shared.values for digest in digests):
        _say_again(workspace, shared.findings.get(key.key, ()))
        return shared.verdicts[key.key], "hit" if stage.storable and workspace.cache.reads else "off"
    if stage.storable:
        entry = workspace.cache.find(key.key)
        if entry is not None:
            workspace.entries[stage.name] = entry
            verdict, told = _verdict_from_json(entry.verdict)
            findings = [finding for finding in told if finding.stage == stage.name]
            if any(plan.digest(name) in shared.wanted for name in stage.makes):
                shared.verdicts[key.key], shared.findings[key.key] = verdict, findings
            _say_again(workspace, findings)
            return verdict, "hit"
        if workspace.cache.reads and workspace.cache.is_damaged(key.key):
            _say_damaged(stage, workspace, "its entry.json is damaged")
    elif getattr(stage, "on_demand", False) and not _needed(stage, plan, workspace):
        _say_again(workspace, _kept_by_others(stage, plan, workspace))
        return Verdict(summary="not needed: what takes it is cached"), "off"
    workspace.making.append(stage.name)
    try:
        stage.requires(workspace)
        verdict = stage.run(workspace)
        stage.ensures(workspace)
    finally:
        workspace.making.remove(stage.name)
    _remember(stage, workspace, verdict)
    if not stage.storable:
        return verdict, "off"
    if verdict.status == "passed" and workspace.cache.writes:
        _store(stage, plan, workspace, verdict)
    return verdict, "miss" if workspace.cache.reads else "off"


def _say_damaged(stage: Stage, workspace: RunWorkspace, what: str) -> None:
    """Remove the stage's damaged entry, where this run may, and say so."""
    cache = workspace.cache
    gone = cache.writes and cache.remove(workspace.plan.stage_keys[stage.name].key)
    done = "was removed and is made again" if gone else "is not used"
    workspace.emit(Finding(stage.name, "warning", f"a damaged cache entry {done}: {what}"))


def _remember(stage: Stage, workspace: RunWorkspace, verdict: Verdict) -> None:
    key = workspace.plan.stage_keys[stage.name].key
    workspace.shared.verdicts[key] = verdict
    workspace.shared.findings[key] = workspace.findings.get(stage.name, [])


def _say_again(workspace: RunWorkspace, findings: Iterable[Finding]) -> None:
    """A simplifier that fell back is worth a warning in every run that takes what came of it."""
    for finding in findings:
        workspace.emit(finding)


def _with_live(stage: Stage, workspace: RunWorkspace) -> list[Finding]:
    """What the stage found, and those that made live values for it: they do not run where it is cached."""
    plan, found = workspace.plan, list(workspace.findings.get(stage.name, ()))
    for maker in {plan.maker(name).name: plan.maker(name) for name in stage.takes}.values():
        if getattr(maker, "on_demand", False):
            found += workspace.shared.findings.get(plan.stage_keys[maker.name].key, ())
    return found


def _kept_by_others(stage: Stage, plan: Plan, workspace: RunWorkspace) -> list[Finding]:
    """What a stage that is not needed found when it last ran: the entries of what takes it say it."""
    found: list[Finding] = []
    for other in plan.stages:
        if other.storable and not set(stage.makes).isdisjoint(map(plan.real_name, other.takes)):
            entry = workspace.cache.find(plan.stage_keys[other.name].key)
            told = _verdict_from_json(entry.verdict)[1] if entry is not None else []
            found += [one for one in told if one.stage == stage.name and one not in found]
    return found


def _shareable(stage: Stage) -> bool:
    """Whether a later point may take what this one made: not when it is a file of this run's directory."""
    return stage.storable or getattr(stage, "on_demand", False)


def _needed(stage: Stage, plan: Plan, workspace: RunWorkspace) -> bool:
    """Whether a stage that will really run takes what this one makes (the network, mostly).

    A guess that costs nothing when it is wrong: `RunWorkspace.get` makes what is asked for.
    """
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


def _store(stage: Stage, plan: Plan, workspace: RunWorkspace, verdict: Verdict) -> None:
    values: dict[str, Storable] = {name: workspace.values[name] for name in stage.makes}
    told = _verdict_to_json(verdict, _with_live(stage, workspace))
    try:
        workspace.cache.store(plan.stage_keys[stage.name], values, told)
    except OSError as error:
        # The cache is a convenience: a full or read-only disk there must not fail the run. A full one may
        # have room for what comes later; elsewhere one attempt is enough.
        workspace.cache.writes = error.errno in DISK_FULL
        workspace.emit(
            Finding(
                stage.name,
                "warning",
                f"the cache in {workspace.cache.root.parent} could not keep "
                f"{'this stage' if workspace.cache.writes else 'what this run makes'} ({error.strerror}); type "
                "cache.dir=FOLDER for another folder, or cache.mode=read or none to go without",
            )
        )


def _let_go(plan: Plan, position: int, workspace: RunWorkspace) -> None:
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
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        reason=done.verdict.reason.to_json() if done.verdict.reason else None,
        summary=done.verdict.summary,
        measured=dict(done.verdict.measured),
    )


def _verdict_to_json(verdict: Verdict, findings: Iterable[Finding] = ()) -> dict[str, Any]:
    return {
        "findings": [asdict(finding) for finding in findings],
        "status": verdict.status,
        "reason": verdict.reason.to_json() if verdict.reason else None,
        "summary": verdict.summary,
        "measured": dict(verdict.measured),
        "recorded": dict(verdict.recorded),
    }


def _verdict_from_json(data: Mapping[str, Any]) -> tuple[Verdict, list[Finding]]:
    known = dict(data)
    findings = [Finding(**each) for each in known.pop("findings", ())]
    reason = Reason(**known["reason"]) if known["reason"] else None
    return replace(Verdict(**{**known, "reason": None}), reason=reason), findings


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
