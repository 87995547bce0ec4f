"""A sweep on the screen: a live table while it runs, lines in a pipe, and the table at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

from pipeline.events import (
    Event,
    Finding,
    LogLine,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
)
from pipeline.report.blocks import reason_text
from pipeline.report.progress import REFRESH_PER_S
from pipeline.report.terminal import STYLES, Line, console, is_live, print_block
from pipeline.report.units import count, duration, figure, margin, milliseconds, place, size

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table

Row = Mapping[str, Any]
#: Lines of the terminal that the live table leaves free: title, heading, rest, prompt.
ROOM: Final = 7
#: What a column of the text table costs beside its text, columns.
GAP: Final = 2
#: A name is not cut below this, columns.
SHORTEST_NAME: Final = 12
NOT_FINISHED: Final = ("not reached", "running")
STATUSES: Final = ("passed", "vacuous", "failed", "refused", "not reached")


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        heading: with the unit, where cells do not carry it.
        cell: its text for a row.
        rank: columns of a lower rank are chosen first when there is too little room; 0 always.
        typical: how wide it becomes, columns.
        right: figures stand to the right.
        name: may be cut.
    """

    heading: str
    cell: Callable[[Row], str]
    rank: int
    typical: int
    right: bool = False
    name: bool = False


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(name) is None else str(row[name])


def _opset(row: Row) -> str:
    return _text("opset" if row.get("opset") else "opset_asked")(row)


def _status(row: Row) -> str:
    if row.get("status") == "running" and row.get("stage"):
        return f"running {row['stage']}"
    if row.get("status") == "failed" and row.get("stage"):
        return f"failed {row['stage']}"
    return str(row.get("status", ""))


def _margin(row: Row) -> str:
    return "" if row.get("error") is None else margin(row.get("margin"), row["error"])


def _time(row: Row) -> str:
    if row.get("status") == "running":
        return duration(time.perf_counter() - row["started"])
    if row.get("cached") and row.get("status") == "passed":
        return "cached"
    return "" if row.get("seconds") is None else duration(row["seconds"])


def _figure(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(name) is None else figure(row[name])


def _target_margin(row: Row) -> str:
    if row.get("target_error") is None:
        judged = row.get("target") not in (None, "", "none") and row.get("compile_seconds") is None
        return "predicted" if judged and row.get("status") == "passed" else ""
    return margin(row.get("target_margin"), row["target_error"])


def _latency(row: Row) -> str:
    return "" if row.get("latency_ms") is None else milliseconds(row["latency_ms"])


def _artifact(row: Row) -> str:
    return "" if row.get("artifact_bytes") is None else size(row["artifact_bytes"])


def _seconds(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(name) is None else duration(row[name])


def _size(row: Row) -> str:
    return "" if row.get("size_bytes") is None else size(row["size_bytes"])


def _directory(row: Row) -> str:
    return place(row["directory"]) if row.get("directory") else ""


COLUMNS: Final = (
    Column("#", _text("point"), 0, 2, right=True),
    Column("model", _text("model"), 0, SHORTEST_NAME, name=True),
    Column("changes", _text("changes"), 0, SHORTEST_NAME, name=True),
    Column("opset", _opset, 0, 5, right=True),
    Column("exporter", _text("exporter"), 2, 11),
    Column("target", _text("target"), 1, 8),
    Column("status", _status, 0, 17),
    Column("margin", _margin, 1, 6, right=True),
    Column("on target", _target_margin, 1, 9, right=True),
    Column("latency", _latency, 2, 8, right=True),
    Column("compile", _seconds("compile_seconds"), 3, 7, right=True),
    Column("run", _seconds("run_seconds"), 4, 6, right=True),
    Column("artifact", _artifact, 4, 8, right=True),
    Column("error", _figure("error"), 5, 7, right=True),
    Column("tolerance", _figure("tolerance"), 5, 9, right=True),
    Column("nodes", _text("nodes"), 4, 5, right=True),
    Column("size", _size, 3, 8, right=True),
    Column("time", _time, 1, 7, right=True),
    Column("directory", _directory, 6, 24),
)

#: Columns that say nothing where no point has a target.
OF_TARGETS: Final = ("target", "on target", "latency", "compile", "run", "artifact")


def widths_for(rows: Sequence[Row], width: int, *, live: bool = False) -> dict[Column, int]:
    """The columns that say something and fit into `width`, with their widths, in order of showing.

    Args:
        rows: all rows of the table.
        width: of the terminal, columns.
        live: more rows will be filled: keep room for what will come, so that nothing jumps about.
    """
    longest = {
        column: max(
            column.typical if live else 0, len(column.heading), *(len(column.cell(row)) for row in rows)
        )
        for column in COLUMNS
        if _says_something(column, rows, live)
    }
    chosen: dict[Column, int] = {}
    left = width + GAP
    for column in sorted(longest, key=lambda column: column.rank):
        # Names may be cut; nothing else is.
        needed = min(longest[column], SHORTEST_NAME) if column.name else longest[column]
        if column.rank == 0 or needed + GAP <= left:
            chosen[column] = needed
            left -= needed + GAP
    for column in chosen:
        if column.name and left > 0:
            more = min(left, longest[column] - chosen[column])
            chosen[column] += more
            left -= more
    return {column: chosen[column] for column in COLUMNS if column in chosen}


def _says_something(column: Column, rows: Sequence[Row], live: bool) -> bool:
    if column.heading in OF_TARGETS and all(row.get("target") in (None, "", "none") for row in rows):
        return False
    if column.heading == "target":
        return True
    if column.heading in ("changes", "directory"):
        return any(column.cell(row) for row in rows)
    return live or column.rank == 0 or any(column.cell(row) for row in rows)


def table_of(rows: Sequence[Row], widths: Mapping[Column, int]) -> Table:
    """The rich table of some rows."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for column, width in widths.items():
        table.add_column(
            column.heading, justify="right" if column.right else "left", no_wrap=True,
            overflow="ellipsis", width=width,
        )  # fmt: skip
    for row in rows:
        style = STYLES.get(str(row.get("status")), "")
        table.add_row(
            *(Text(column.cell(row), style=style if column.heading == "status" else "") for column in widths)
        )
    return table


def summary(rows: Sequence[Row]) -> str:
    """`6 points: 4 passed (2 cached), 1 failed, 1 refused`."""
    found = Counter(
        "not reached" if row.get("status") == "running" else str(row.get("status")) for row in rows
    )
    parts = [f"{found[status]} {status}" for status in STATUSES if found[status]]
    cached = sum(bool(row.get("cached")) and row.get("status") == "passed" for row in rows)
    if cached and parts and parts[0].endswith("passed"):
        parts[0] += f" ({cached} cached)"
    return f"{count(len(rows), 'point')}: {', '.join(parts)}"


def print_table(rows: Sequence[Row], folder: str, stream: TextIO) -> None:
    """The final table, the sentence of each point that did not pass, and where the files are."""
    screen = console(stream)
    screen.print(table_of(rows, widths_for(rows, screen.width)))
    lines = _reasons(rows)
    lines.append(("sweep", summary(rows), "bold"))
    lines.append(("table", f"{place(folder)}/table.csv", "bold"))
    print_block(lines, stream)


def _reasons(rows: Sequence[Row]) -> list[Line]:
    """A line for each reason, with the points that it holds for."""
    points: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.get("reason"):
            stage = "" if row.get("stage") in (None, "config") else f" in {row['stage']}"
            points.setdefault((str(row["status"]), stage, str(row["reason"])), []).append(row)
    lines = []
    for (status, stage, reason), found in points.items():
        models = ", ".join(dict.fromkeys(str(row.get("model")) for row in found))
        who = f"{ranges([int(row['point']) for row in found])} {models}"
        lines.append((status, f"{who}{stage}: {reason}", STYLES.get(status, "")))
    return lines


def ranges(numbers: Sequence[int]) -> str:
    """`0`, `0, 4`, `2-5, 9`: ascending numbers, shortened."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)


class LiveSweep:
    """The table, redrawn in place; only the rows around the running point when it is long."""

    def __init__(self, stream: TextIO, rows: list[dict[str, Any]], title: str, debug: bool) -> None:
        self._console = console(stream)
        self._rows = [dict(row) for row in rows]
        self._title = title
        self._debug = debug
        self._begun = time.perf_counter()
        self._current = 0
        self._warnings: list[str] = []
        self._live: Live | None = None

    def start(self) -> None:
        from rich.live import Live

        self._live = Live(
            console=self._console, get_renderable=self._draw, refresh_per_second=REFRESH_PER_S,
            redirect_stdout=False, redirect_stderr=False, transient=True,
        )  # fmt: skip
        self._live.start()

    def show(self, index: int, event: Event) -> None:
        row = self._rows[index]
        if isinstance(event, RunStarted):
            row |= {"status": "running", "started": time.perf_counter(), "stage": None}
            self._current = index
        elif isinstance(event, StageStarted):
            row["stage"] = event.stage
        elif isinstance(event, StageFinished):
            row |= {key: event.measured[key] for key in ("nodes",) if key in event.measured}
        elif isinstance(event, Finding) and event.level == "warning":
            self._warnings.append(f"{row.get('model')}: {event.stage}: {event.message}")
        elif isinstance(event, LogLine) and self._debug:
            self._console.print(event.text, soft_wrap=True)
        elif isinstance(event, RunFinished):
            row |= {**event.row, "point": row["point"]}

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        for text in self._warnings:
            self._console.print(f"warning: {text}", style=STYLES["warning"], soft_wrap=True)

    def _draw(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        done = [row for row in self._rows if row["status"] not in NOT_FINISHED]
        bad = sum(row["status"] != "passed" for row in done)
        heading = Text(f"sweep {self._title}  ", style="bold")
        heading.append(f"{len(done)} of {len(self._rows)} done", style="default")
        if bad:
            heading.append(f", {bad} not passed", style=STYLES["failed"])
        if self._warnings:
            heading.append(f", {count(len(self._warnings), 'warning')}", style=STYLES["warning"])
        heading.append(f"  {duration(time.perf_counter() - self._begun)}", style="default")
        rows, left_out = self._window(max(self._console.height - ROOM, 3))
        table = table_of(rows, widths_for(self._rows, self._console.width, live=True))
        rest = [Text(f"and {count(left_out, 'point')} more", style="dim")] if left_out else []
        return Group(heading, table, *rest)

    def _window(self, room: int) -> tuple[list[dict[str, Any]], int]:
        """The rows around the running point that fit, and how many are left out."""
        if len(self._rows) <= room:
            return self._rows, 0
        first = min(max(self._current - room // 2, 0), len(self._rows) - room)
        return self._rows[first : first + room], len(self._rows) - room


class PlainSweep:
    """One line a point when it has ended, and one for each warning."""

    def __init__(self, stream: TextIO, rows: list[dict[str, Any]], title: str, debug: bool) -> None:
        self._stream = stream
        self._rows = rows
        self._title = title
        self._debug = debug
        self._done = 0

    def start(self) -> None:
        self._say(f"sweep {self._title}: {count(len(self._rows), 'point')}")

    def stop(self) -> None:
        """Nothing is left open."""

    def show(self, index: int, event: Event) -> None:
        who = self._rows[index]
        if isinstance(event, Finding):
            level = "warning" if event.level == "warning" else "note"
            self._say(f"  {level}: {who.get('model')}: {event.stage}: {event.message}")
        elif isinstance(event, LogLine) and self._debug:
            self._say(event.text)
        elif isinstance(event, RunFinished):
            self._done += 1
            row = {**who, **event.row}
            parts = [f"  {self._done}/{len(self._rows)}", event.label or str(row.get("model")), _status(row)]
            parts += [text for text in (_margin(row) and f"margin {_margin(row)}", _time(row)) if text]
            if event.reason:
                parts.append(reason_text(event.reason))
            self._say("  ".join(parts))

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def sweep_view(
    stream: TextIO, rows: list[dict[str, Any]], title: str, *, debug: bool = False
) -> LiveSweep | PlainSweep:
    """The view that fits `stream`.

    Args:
        stream: where progress goes.
        rows: what is known of each point, in order.
        title: the sweep's name.
        debug: show log lines (tracebacks) too.
    """
    kind = LiveSweep if is_live(stream) else PlainSweep
    return kind(stream, rows, title, debug)
