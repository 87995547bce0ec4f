"""The stages of one point as they go by: a live list on a terminal, plain lines in a pipe."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from pipeline.events import (
    Event,
    Finding,
    LogLine,
    Progress,
    RunStarted,
    StageFinished,
    StageStarted,
)
from pipeline.report.terminal import STYLES, console, is_live
from pipeline.report.units import duration

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

#: How often the live list is drawn, per second.
REFRESH_PER_S: Final = 8
NAME_WIDTH: Final = 10
STATUS_WIDTH: Final = 8
TIME_WIDTH: Final = 10


class View(Protocol):
    """Shows the events of a run while it goes on."""

    def start(self) -> None:
        """Begin; called when no process will be forked any more."""

    def show(self, event: Event) -> None:
        """Take in one event."""

    def stop(self) -> None:
        """Leave the screen in its last state."""


def stage_view(stream: TextIO, *, debug: bool = False) -> View:
    """The view that fits `stream`.

    Args:
        stream: where progress goes.
        debug: show log lines (tracebacks) too.
    """
    return LiveStages(stream, debug) if is_live(stream) else PlainStages(stream, debug)


@dataclass
class StageLine:
    """What is known of a stage: its line in the list."""

    name: str
    status: str = "waiting"
    seconds: float = 0.0
    note: str = ""
    started: float = 0.0  #: by time.perf_counter


@dataclass
class StageList:
    """The stages of a plan and how far they are."""

    label: str = ""
    lines: dict[str, StageLine] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Take in one event."""
        if isinstance(event, RunStarted):
            self.label = event.label
            self.lines = {name: StageLine(name) for name in event.stages}
        elif isinstance(event, StageStarted):
            line = self._line(event.stage)
            line.status, line.started = "running", time.perf_counter()
        elif isinstance(event, Progress):
            line = self._line(event.stage)
            if line.status == "running":
                line.note = f"{event.done:g} of {event.total:g} {event.unit}"
        elif isinstance(event, StageFinished):
            line = self._line(event.stage)
            line.status = "cached" if event.cache == "hit" and event.status == "passed" else event.status
            line.seconds, line.note = event.seconds, event.summary or _why(event.reason)
            if event.beside and event.status == "passed":
                line.note += ", meanwhile"
        elif isinstance(event, Finding):
            (self.warnings if event.level == "warning" else self.notes).append(_finding(event))

    def _line(self, name: str) -> StageLine:
        return self.lines.setdefault(name, StageLine(name))


class LiveStages:
    """Redrawn in place; the clock of the running stage ticks."""

    def __init__(self, stream: TextIO, debug: bool) -> None:
        self._stream = stream
        self._debug = debug
        self._stages = StageList()
        self._live: Live | None = None

    def start(self) -> None:
        from rich.live import Live

        self._live = Live(
            console=console(self._stream), get_renderable=self._draw, refresh_per_second=REFRESH_PER_S,
            redirect_stdout=False, redirect_stderr=False, vertical_overflow="visible",
        )  # fmt: skip
        self._live.start()

    def show(self, event: Event) -> None:
        self._stages.take(event)
        if self._debug and isinstance(event, LogLine) and self._live is not None:
            self._live.console.print(event.text, soft_wrap=True)

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        stages = self._stages
        drawn = [Text(stages.label, style="bold")] if stages.label else []
        for line in list(stages.lines.values()):
            style = STYLES.get(line.status, STYLES["passed"])
            drawn.append(
                Text.assemble(
                    f"  {line.name:<{NAME_WIDTH}} ", (f"{line.status:<{STATUS_WIDTH}}", style),
                    f" {_time(line):>{TIME_WIDTH}}  ", (line.note, "dim"), no_wrap=True, overflow="ellipsis",
                )
            )  # fmt: skip
        drawn += [Text(f"  note: {text}") for text in stages.notes]
        drawn += [Text(f"  warning: {text}", style=STYLES["warning"]) for text in stages.warnings]
        return Group(*drawn)


class PlainStages:
    """One line when a stage has ended, in the order in which they started, and one for each warning."""

    def __init__(self, stream: TextIO, debug: bool) -> None:
        self._stream = stream
        self._debug = debug
        self._started: dict[str, str] = {}  #: stage to its line, "" while it runs

    def start(self) -> None:
        """Nothing has to be set up."""

    def stop(self) -> None:
        """Say what waited for a stage that has not ended."""
        self._say_ended(all_of_them=True)
        self._started.clear()

    def show(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.stop()
            self._say(event.label)
        elif isinstance(event, StageStarted):
            self._started[event.stage] = ""
        elif isinstance(event, StageFinished):
            lines = StageList()
            lines.take(event)
            line = lines.lines[event.stage]
            self._started[event.stage] = (
                f"  {line.name:<{NAME_WIDTH}} {line.status:<{STATUS_WIDTH}} "
                f"{_time(line):>{TIME_WIDTH}}  {line.note}".rstrip()
            )
            self._say_ended()
        elif isinstance(event, Finding):
            self._say(f"  {'warning' if event.level == 'warning' else 'note'}: {_finding(event)}")
        elif isinstance(event, LogLine) and self._debug:
            self._say(event.text)

    def _say_ended(self, *, all_of_them: bool = False) -> None:
        for stage, line in list(self._started.items()):
            if line:
                self._say(line)
                del self._started[stage]
            elif not all_of_them:
                return

    def _say(self, text: str) -> None:
        try:
            print(text, file=self._stream, flush=True)
        except BrokenPipeError:
            # Nobody reads the progress any more (head, less): the run goes on.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def _time(line: StageLine) -> str:
    if line.status in ("waiting", "not reached"):
        return ""
    return duration(time.perf_counter() - line.started if line.status == "running" else line.seconds)


def _finding(event: Finding) -> str:
    return event.message if event.stage in ("", "run") else f"{event.stage}: {event.message}"


def _why(reason: dict[str, Any] | None) -> str:
    return f"{reason['code']}: {reason['message']}" if reason else ""
