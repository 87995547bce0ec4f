"""What the stages of one point share: artifacts by name, the run directory's files, the stage cache.

Running a stage stands here too: an artifact that was put off, or whose cache entry is damaged, is made when
it is asked for.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pipeline.errors import InternalError, Reason
from pipeline.events import CacheUse, Emit, Event, Finding
from pipeline.run.beside import Copy, Outlet
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


class NeverMadeError(Exception):
    """A stage takes what another one, at work beside it, will not make."""


class RunWorkspace:
    """What the stages of one point may touch (see `pipeline.stage.Workspace`)."""

    def __init__(self, plan: Plan, folder: Path, cache: Cache, emit: Emit, shared: Shared) -> None:
        self.plan = plan
        self.folder = folder
        self.cache = cache
        self._emit = emit
        self.shared = shared
        self.scratch = folder / SCRATCH
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.values: dict[str, Any] = {}
        self.entries: dict[str, CacheEntry] = {}
        self.files: dict[str, tuple[str, bool]] = {}
        self.digests: dict[str, str] = {}
        self.making: list[str] = []  #: stages that run, here and in copies
        self.copies: dict[str, Copy] = {}  #: stages that are at work beside us
        self.outlet: Outlet | None = None  #: in such a copy: where everything goes
        self.waited = 0.0  #: for copies, seconds
        self.findings: dict[str, list[Finding]] = {}  #: stage -> what it said while it worked

    def emit(self, event: Event) -> None:
        """Pass an event on; what a stage finds is kept, to be said again when it is not run again."""
        if self.outlet is not None:
            self.outlet.tell(event)
            return
        if isinstance(event, Finding) and event.stage in self.making:
            told = self.findings.setdefault(event.stage, [])
            if event in told:
                return  # by a copy that has died since
            told.append(event)
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
        elif stage.name in self.copies:
            self._take_over(stage, real)
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
        if self.outlet is not None:
            self.outlet.hand_over(name, value)

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
            say_damaged(stage, self, str(error))
            self._make(stage)

    def has(self, name: str) -> bool:
        """Whether the artifact is there already."""
        real = self.plan.real_name(name)
        return real in self.values or self.plan.digest(real) in self.shared.values

    def _take_over(self, stage: Stage, name: str) -> None:
        started = time.perf_counter()
        folder = self.copies[stage.name].handed_over(name)
        self.waited += time.perf_counter() - started
        if folder is None:
            raise NeverMadeError(f"{name}: stage {stage.name} failed")
        self.put(name, self.plan.artifact_types[name].load(folder))

    def _make(self, stage: Stage) -> None:
        if stage.name in self.making:
            raise InternalError(f"stage {stage.name} asks for what it makes itself")
        verdict, _ = run_stage(stage, self)
        if verdict.status == "failed":
            raise InternalError(f"stage {stage.name} returned 'failed' instead of raising StageFailed")
        keep(stage, self, verdict)


def run_stage(stage: Stage, workspace: RunWorkspace) -> tuple[Verdict, CacheUse]:
    """Run it here and now; nothing is looked up or kept."""
    workspace.making.append(stage.name)
    try:
        stage.requires(workspace)
        verdict = stage.run(workspace)
        stage.ensures(workspace)
    finally:
        workspace.making.remove(stage.name)
    return verdict, use_of_a_run(stage, workspace)


def use_of_a_run(stage: Stage, workspace: RunWorkspace) -> CacheUse:
    """What a stage that ran has had of the cache."""
    return "miss" if stage.storable and workspace.cache.reads else "off"


def keep(stage: Stage, workspace: RunWorkspace, verdict: Verdict) -> None:
    """For later points of this process, and in the cache."""
    _remember(stage, workspace, verdict)
    if stage.storable and verdict.status == "passed" and workspace.cache.writes:
        _store(stage, workspace, verdict)


def say_damaged(stage: Stage, workspace: RunWorkspace, what: str) -> None:
    """Remove the stage's damaged entry, where this run may, and say so."""
    cache = workspace.cache
    gone = cache.writes and cache.remove(workspace.plan.stage_keys[stage.name].key)
    done = "was removed and is made again" if gone else "is not used"
    workspace.emit(Finding(stage.name, "warning", f"a damaged cache entry {done}: {what}"))


def say_again(workspace: RunWorkspace, findings: Iterable[Finding]) -> None:
    """A simplifier that fell back is worth a warning in every run that takes what came of it."""
    for finding in findings:
        workspace.emit(finding)


def _remember(stage: Stage, workspace: RunWorkspace, verdict: Verdict) -> None:
    key = workspace.plan.stage_keys[stage.name].key
    workspace.shared.verdicts[key] = verdict
    workspace.shared.findings[key] = workspace.findings.get(stage.name, [])


def _with_live(stage: Stage, workspace: RunWorkspace) -> list[Finding]:
    """What the stage found, and those that made live values for it: they do not run where it is cached."""
    plan, found = workspace.plan, list(workspace.findings.get(stage.name, ()))
    for maker in {plan.maker(name).name: plan.maker(name) for name in stage.takes}.values():
        if getattr(maker, "on_demand", False):
            found += workspace.shared.findings.get(plan.stage_keys[maker.name].key, ())
    return found


def _shareable(stage: Stage) -> bool:
    """Whether a later point may take what this one made: not when it is a file of this run's directory."""
    return stage.storable or getattr(stage, "on_demand", False)


def _store(stage: Stage, workspace: RunWorkspace, verdict: Verdict) -> None:
    values: dict[str, Storable] = {name: workspace.values[name] for name in stage.makes}
    told = verdict_to_json(verdict, _with_live(stage, workspace))
    try:
        workspace.cache.store(workspace.plan.stage_keys[stage.name], values, told)
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


def verdict_to_json(verdict: Verdict, findings: Iterable[Finding] = ()) -> dict[str, Any]:
    """As it lies in the cache, with what the stage has found."""
    return {
        "findings": [asdict(finding) for finding in findings],
        "status": verdict.status,
        "reason": verdict.reason.to_json() if verdict.reason else None,
        "summary": verdict.summary,
        "measured": dict(verdict.measured),
        "recorded": dict(verdict.recorded),
    }


def verdict_from_json(data: Mapping[str, Any]) -> tuple[Verdict, list[Finding]]:
    """What `verdict_to_json` wrote."""
    known = dict(data)
    findings = [Finding(**each) for each in known.pop("findings", ())]
    reason = Reason(**known["reason"]) if known["reason"] else None
    return replace(Verdict(**{**known, "reason": None}), reason=reason), findings
