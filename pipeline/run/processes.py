"""What forked processes of ours have in common."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  #: Linux: <linux/prctl.h>


def die_with_parent() -> None:
    """Whoever forked this process takes it along, however that one ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def flush_prints() -> None:
    """Write out what Python and C have kept back."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def printing_into(log: Path) -> Iterator[None]:
    """Everything that this process prints, native code included, goes into `log`."""
    saved = os.dup(1), os.dup(2)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    flush_prints()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield
    finally:
        flush_prints()
        for number, old in zip((1, 2), saved, strict=True):
            os.dup2(old, number)
            os.close(old)


def send_line(descriptor: int, line: str) -> None:
    """The whole of it, and a line's end, into a pipe."""
    data = line.encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]
