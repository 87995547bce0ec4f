"""Importing torch without the Python kernels of tensors that have no data.

`import torch` ends with torch._meta_registrations, which loads every decomposition and reference
implementation (torch._decomp, torch._prims, torch._refs): a quarter of the import's processor time,
for fake tensors and tensors on the meta device. Tracing and running a network of torchvision's needs
neither; torch.export does, and asks for them here (`load_meta_kernels`).

While torch is imported, a stand-in module is in their place; it is gone again afterwards, so that
whoever imports them later gets the real ones. It hands every name that it is asked for on to the
real module: a torch that uses the module while it is imported gets what it wants, only slower.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

_KERNELS: Final = "torch._meta_registrations"
_ATTRIBUTE: Final = _KERNELS.rpartition(".")[2]


class _StandIn(ModuleType):
    """Loads the real module when anything of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system itself looks for
            raise AttributeError(name)
        _remove(self)
        return getattr(importlib.import_module(_KERNELS), name)


def import_torch_without_meta_kernels() -> bool:
    """Import torch; whether the kernels were left out (not if torch had been imported before)."""
    if "torch" in sys.modules:
        return False
    stand_in = _StandIn(_KERNELS)
    sys.modules[_KERNELS] = stand_in
    try:
        import torch  # noqa: F401
    finally:
        _remove(stand_in)
    return _KERNELS not in sys.modules


def load_meta_kernels() -> None:
    """Import the kernels if they were left out; call it before torch.export, fake or meta tensors."""
    importlib.import_module(_KERNELS)


def _remove(stand_in: _StandIn) -> None:
    if sys.modules.get(_KERNELS) is stand_in:
        del sys.modules[_KERNELS]
    torch = sys.modules.get("torch")
    if torch is not None and vars(torch).get(_ATTRIBUTE) is stand_in:
        delattr(torch, _ATTRIBUTE)
