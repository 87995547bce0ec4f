"""Where in the source something happened, in words that do not depend on the machine. No torch."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

#: Code that carries a call but is never the line that a user looks for.
MACHINERY: Final = (
    "torch",
    "pipeline/exporters",
    "pipeline/sources",
    "onnxscript",
    "onnx_ir",
    "contextlib.py",
)
#: "path(123): forward", a line of TorchScript's source range.
_TORCHSCRIPT_FRAME: Final = re.compile(r"^(?P<file>.+)\((?P<line>\d+)\): \S+$")
#: 'File "path", line 123, in forward', a line of a stack trace.
_STACK_FRAME: Final = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def place(file: str, line: int) -> str:
    """A line as `torchvision/models/alexnet.py:48`: relative to where Python finds it, else to the working folder.

    A file that lies in neither is named by its folder and name.
    """
    return f"{short_path(file)}:{line}"


def short_path(file: str) -> str:
    """A file without the folder that depends on the machine."""
    # Called thousands of times: Path.cwd would cost ten times as much.
    return _short_path(file, os.getcwd(), tuple(sys.path))  # noqa: PTH109


@lru_cache(maxsize=4096)  # a stack of some twenty files, thousands of times
def _short_path(file: str, folder: str, search_path: tuple[str, ...]) -> str:
    path = Path(file)
    if not path.is_absolute():
        return path.as_posix()
    roots = (*_installed(), folder, *(entry for entry in search_path if entry))
    fitting = [root for root in roots if path.is_relative_to(root)]
    if fitting:
        return path.relative_to(max(fitting, key=len)).as_posix()
    return Path(*path.parts[-2:]).as_posix()


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    return tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))


@lru_cache(maxsize=4096)
def is_machinery(short: str) -> bool:
    """Whether a short path is torch's or the exporters' own."""
    return any(short == entry or short.startswith(entry + "/") for entry in MACHINERY)


def innermost_first(source_range: str) -> Iterable[tuple[str, int]]:
    """Frames of TorchScript's source range, as (file, line)."""
    for text in source_range.splitlines():
        if match := _TORCHSCRIPT_FRAME.match(text.strip()):
            yield match["file"], int(match["line"])


def innermost_last(stack_trace: str) -> Iterable[tuple[str, int]]:
    """Frames of a Python stack trace, as (file, line), turned so that the innermost comes first."""
    frames = [(match["file"], int(match["line"])) for match in _STACK_FRAME.finditer(stack_trace)]
    return reversed(frames)


def users_line(frames: Iterable[tuple[str, int]]) -> str | None:
    """The innermost frame that is no machinery; frames come innermost first."""
    for file, line in frames:
        short = short_path(file)
        if not is_machinery(short):
            return f"{short}:{line}"
    return None
