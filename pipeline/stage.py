"""The stage contract: one step with declared inputs and outputs.

A stage is a small frozen object. It never calls another stage, never prints and never decides
where files lie: it gets a `Workspace`, takes artifacts from it by name, puts what it made, and
reports events. `requires` and `ensures` are not optional: what a stage promises is read back
and asserted there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from pipeline.errors import Reason
from pipeline.events import Emit, Status


@dataclass(frozen=True)
class Verdict:
    """How a stage ended, with the reason when it did not simply pass.

    Attributes:
        summary: a few words for the terminal.
        measured: figures and tables for run.json (may differ from run to run).
        recorded: facts for manifest.json (the same for the same request).
    """

    status: Status = "passed"
    reason: Reason | None = None
    summary: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    recorded: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactParts:
    """What shapes one artifact of a stage, where that is less than what the stage keys on.

    The stage's code, packages and extra digests count in any case. Whoever states this promises that
    whatever else changes, the artifact stays the same to the byte: stages that take it are found in
    the cache by these parts alone.

    Attributes:
        config: as in `KeyParts`.
        takes: those of the stage's artifacts that shape this one.
    """

    config: Any = None
    takes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyParts:
    """What a stage keys on besides the artifacts that it takes.

    Attributes:
        config: JSON data: the part of the request that shapes what the stage makes.
        code: dotted names of the pipeline modules that do the work; modules of the pipeline
            that they import count too.
        packages: distributions whose public version takes part.
        extra: digests of things outside the pipeline (the network's code, its weights).
        artifacts: name of an artifact to what shapes it; everything shapes those that are not named.
    """

    config: Any = None
    code: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactParts] = field(default_factory=dict)


@runtime_checkable
class Storable(Protocol):
    """An artifact value that can lie in the cache: written to and read from a folder of its own."""

    def store(self, folder: Path) -> None:
        """Write everything into the empty `folder`."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The value that `store` wrote; large data stays on disk until it is asked for."""


@runtime_checkable
class Streamed(Storable, Protocol):
    """A storable value with one large file whose bytes it can give again and again.

    The cache takes their digest first, and does not write what it holds already: the same weights
    belong to the graphs of every opset, before and after the simplifier.
    """

    @property
    def large_file(self) -> str:
        """The file's name in the folder."""

    def pieces(self) -> Iterator[memoryview | bytes]:
        """The file from front to back."""

    def store_rest(self, folder: Path) -> None:
        """Write everything but that file into the empty `folder`."""


class Workspace(Protocol):
    """What a stage may touch."""

    scratch: Path  #: an empty folder that is removed with the run

    @property
    def emit(self) -> Emit:
        """Takes events."""

    def get(self, name: str) -> Any:
        """The artifact `name`; made or loaded at the first call."""

    def put(self, name: str, value: Any) -> None:
        """Hand over the artifact `name`, which the stage has declared in `makes`."""

    def file(self, path: str, kind: str, *, same_every_time: bool = True) -> Path:
        """Where the run directory's file `path` is to be written.

        `same_every_time` says whether its bytes are the same for the same request: such files
        are listed in manifest.json, the others in run.json.
        """

    def digest(self, path: str, sha256: str) -> None:
        """Say the sha256 of the run directory's file `path`, taken while it was written."""

    def release(self, name: str) -> None:
        """Let go of a live artifact; a later `get` makes it again."""


class Stage(Protocol):
    """One step. Implementations are frozen dataclasses, one file each.

    A stage may have more, which docs/architecture.md explains: `on_demand` (made when a stage that runs takes
    it), `cyclic` (what it makes may hold itself), `beside(workspace)` (it may run in a copy of the process).
    """

    @property
    def name(self) -> str: ...
    @property
    def takes(self) -> tuple[str, ...]: ...
    @property
    def makes(self) -> tuple[str, ...]: ...
    @property
    def storable(self) -> bool:
        """False for live values (the network) and for stages that write the run directory."""

    def key_parts(self) -> KeyParts: ...
    def requires(self, workspace: Workspace) -> None:
        """Raise `StageFailed` when what is taken does not fit."""

    def run(self, workspace: Workspace) -> Verdict:
        """Do the work. A verdict that is not passed, or vacuous and accepted, ends the run."""

    def ensures(self, workspace: Workspace) -> None:
        """Read back what was made and raise `StageFailed` when a promise is broken."""
