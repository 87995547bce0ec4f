"""Importing torch without walking through every module for the name of a fake kernel's.

torch.library notes the module and the line that registers each fake kernel, and asks `inspect` with the
caller's frame. `inspect.getmodule` knows modules by file, and to have them all it resolves the path of
every module there is (ten calls of the system for each: 0.05 s while torch is imported). A frame knows
its module's name, though: while torch is imported, it is asked first, and `inspect` whenever that is not
the whole answer. The answers are the same; what every later import finds is `inspect` as it was.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any


@contextmanager
def frames_name_their_module() -> Iterator[None]:
    """While this is active, `inspect.getmodule` answers for frames without a search."""
    ordinary = inspect.getmodule

    def getmodule(object: Any, _filename: str | None = None) -> ModuleType | None:  # noqa: A002 - as in inspect
        if isinstance(object, FrameType):
            module = sys.modules.get(object.f_globals.get("__name__", ""))
            if module is not None and vars(module) is object.f_globals:
                return module
        return ordinary(object, _filename)

    inspect.getmodule = getmodule
    try:
        yield
    finally:
        if inspect.getmodule is getmodule:
            inspect.getmodule = ordinary
