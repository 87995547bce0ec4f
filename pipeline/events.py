"""Events: what happens while a plan runs, as plain data.

Stages report; the terminal, run.json and pages only render. Every event travels between
processes as one line of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

Status: TypeAlias = Literal["passed", "failed", "vacuous", "skipped", "not reached"]
CacheUse: TypeAlias = Literal["hit", "miss", "off"]

#: Key in the data of a warning: files that shape what is made, and that no key sees.
UNSEEN: Final = "files"


@dataclass(frozen=True)
class RunStarted:
    """A point begins: its label, its directory and the stages that its plan holds, in order."""

    label: str
    directory: str
    key: str
    stages: tuple[str, ...]


@dataclass(frozen=True)
class StageStarted:
    stage: str


@dataclass(frozen=True)
class Progress:
    """How far a long stage is, in `unit` (seeds, tensors, bytes ...)."""

    stage: str
    done: float
    total: float
    unit: str


@dataclass(frozen=True)
class LogLine:
    """A line that a tool printed or logged while `stage` ran; it goes to log.txt."""

    stage: str
    text: str


@dataclass(frozen=True)
class Finding:
    """Something that the user should know although the stage goes on."""

    stage: str
    level: Literal["info", "warning"]
    message: str  #: one sentence
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageFinished:
    stage: str
    status: Status
    seconds: float
    cache: CacheUse
    peak_mib: float | None = None  #: highest resident memory of the process so far, MiB
    reason: dict[str, Any] | None = None  #: `Reason.to_json()` when status is not passed
    summary: str = ""  #: a few words for the terminal: "20 nodes", "opset 11, 233 MiB"
    measured: dict[str, Any] = field(default_factory=dict)  #: goes to run.json
    beside: bool = False  #: it ran beside the stages after it: its seconds overlap theirs


@dataclass(frozen=True)
class RunFinished:
    """The end of a point.

    `row` is its line of table.csv; `exit_code` as in the table of exit codes.
    """

    label: str
    directory: str | None
    exit_code: int
    reason: dict[str, Any] | None = None
    reused: bool = False  #: an earlier, whole run directory was verified and returned
    row: dict[str, Any] = field(default_factory=dict)


Event: TypeAlias = RunStarted | StageStarted | Progress | LogLine | Finding | StageFinished | RunFinished
Emit: TypeAlias = Callable[[Event], None]

KINDS: Final[dict[str, type[Event]]] = {
    kind.__name__: kind
    for kind in (RunStarted, StageStarted, Progress, LogLine, Finding, StageFinished, RunFinished)
}


def encode(event: Event) -> str:
    """One line of JSON, without the newline."""
    return json.dumps({"event": type(event).__name__, **asdict(event)}, separators=(",", ":"))


def decode(line: str) -> Event:
    """The event that `encode` wrote; KeyError when the kind is unknown."""
    data = json.loads(line)
    kind = KINDS[data.pop("event")]
    if "stages" in data:
        data["stages"] = tuple(data["stages"])
    return kind(**data)
