"""A module that stands in the place of a real one while something else is imported."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """Named like the real module; gives what that one has to whoever asks for it, and is gone then."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system itself looks for
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
