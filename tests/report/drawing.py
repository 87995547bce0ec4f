"""What a view draws, as the text of a screen of a certain size."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console, RenderableType

REPOSITORY = Path(__file__).resolve().parents[2]


def drawn(renderable: RenderableType, width: int) -> str:
    """The renderable without colours; no line is longer than the screen."""
    screen = Console(file=io.StringIO(), width=width, height=40, force_terminal=True, no_color=True)
    with screen.capture() as captured:
        screen.print(renderable)
    text = re.sub(r"\x1b\[[0-9;]*m", "", captured.get())
    assert all(len(line) <= width for line in text.splitlines())
    return "\n".join(line.rstrip() for line in text.splitlines())


def in_pipe(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line with fake plans, its output in pipes."""
    return subprocess.run(
        [sys.executable, "-m", "tests.report.fake_pipeline", *words],
        cwd=folder, env=_environment(environment), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def on_terminal(
    words: Sequence[str], folder: Path, columns: int, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """The command line with fake plans on a terminal: exit code and every byte that it got."""
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        size = {"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm-256color"}
        command = [sys.executable, "-m", "tests.report.fake_pipeline", *words]
        os.execve(sys.executable, command, _environment({**size, **(environment or {})}))
    got = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                piece = os.read(terminal, 1 << 16)
            except OSError:  # the child has closed its side
                break
            if not piece:
                break
            got += piece
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), got.decode().replace("\r\n", "\n")


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **(more or {})}
