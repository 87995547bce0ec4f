"""Where output goes: results to stdout, progress to stderr, colour only where a person looks."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console

#: Width when nobody looks (a pipe, a file), columns, unless COLUMNS says otherwise.
PIPE_WIDTH: Final = 160
#: Column in which the text of a block begins.
INDENT: Final = 10

#: Status to colour; the status is always said in words too.
STYLES: Final = {
    "passed": "green", "failed": "bold red", "refused": "bold red", "vacuous": "yellow",
    "running": "cyan", "warning": "yellow", "not reached": "dim", "waiting": "dim", "interrupted": "yellow",
}  # fmt: skip

Line = tuple[str, str, str]  #: label, text, style of the label


def is_live(stream: TextIO) -> bool:
    """Whether a person looks at `stream` on a terminal that can be redrawn."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def console(stream: TextIO) -> Console:
    """A rich console on `stream`: colour and width of the terminal, or neither in a pipe."""
    from rich.console import Console

    live = is_live(stream)
    width = None if live or "COLUMNS" in os.environ else PIPE_WIDTH
    plain = not live or bool(os.environ.get("NO_COLOR"))
    return Console(
        file=stream, force_terminal=live, color_system=None if plain else "auto",
        width=width, highlight=False, emoji=False, markup=False,
    )  # fmt: skip


def write_anything() -> None:
    """A terminal that lacks a character shows its code; it is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def print_block(lines: Sequence[Line], stream: TextIO) -> None:
    """Labels in one column, texts in another; wrapped on a terminal, one line each in a pipe."""
    if not is_live(stream):
        for label, text, _ in lines:
            print(f"{label:<{INDENT - 1}} {text}", file=stream, flush=True)
        return
    from rich.text import Text

    screen = console(stream)
    for label, words, style in lines:
        wrapped = wrap(words, screen.width)
        text = ("\n" + " " * INDENT).join(wrapped)
        screen.print(Text.assemble((f"{label:<{INDENT - 1}} ", style), text), soft_wrap=True)


def wrap(text: str, width: int) -> list[str]:
    """Lines that fit beside the labels; a path is never broken."""
    return textwrap.wrap(
        text, max(width - INDENT - 1, 20), break_long_words=False, break_on_hyphens=False
    ) or [""]  # fmt: skip
