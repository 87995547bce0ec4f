"""Importing torch's compiler without packages that an export to ONNX does not use. Imports torch.

torch.export imports all of torch's compiler, which takes along what makes kernels for a GPU (triton,
75 MiB), what spreads a network over machines (FSDP) and what chooses what to keep for a backward pass
(networkx); together 0.2 s. While the compiler is imported, the first two look as if they were not
installed, which it copes with, and a stand-in is in the third one's place. Afterwards everybody gets
the real ones. Who has imported one of them, or the compiler, keeps what is there.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, Final

from torch.utils import _triton

_COMPILER: Final = "torch.export._trace"
_NOT_INSTALLED: Final = ("triton", "torch.distributed.fsdp")
_GRAPHS: Final = "networkx"
#: What the compiler says networkx' graphs are when it annotates functions.
_GRAPH: Final = "DiGraph"
#: Remembers whether there is a triton: it is made to forget before and afterwards.
_LOOKS_FOR_TRITON: Final = "has_triton_package"
#: Says on a machine with CUDA that there is no triton.
_SPEAKS_OF_TRITON: Final = "torch.utils.flop_counter"


def import_compiler() -> bool:
    """Import what torch.export needs; whether anything was left out."""
    forget = getattr(getattr(_triton, _LOOKS_FOR_TRITON, None), "cache_clear", None)
    graphs = _Graphs(_GRAPHS)
    stand_ins = {**dict.fromkeys(_NOT_INSTALLED), _GRAPHS: graphs}
    if forget is None or any(name in sys.modules for name in (_COMPILER, "torch._dynamo", *stand_ins)):
        return False
    # The compiler looks for the folder of every package whose code it does not step into.
    vars(graphs).update({"__spec__": importlib.util.find_spec(_GRAPHS), _GRAPH: object})
    with ExitStack() as stack:
        stack.callback(forget)
        stack.callback(vars(graphs).pop, _GRAPH, None)
        stack.enter_context(_silent(_SPEAKS_OF_TRITON))
        stack.enter_context(_instead(stand_ins))
        forget()
        try:
            importlib.import_module(_COMPILER)
        except Exception:  # noqa: BLE001 - wants more of them than expected, and gets it the next time
            return False
    return True


class _Graphs(ModuleType):
    """Gives what the real module has to whoever asks for it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system itself looks for
            raise AttributeError(name)
        if sys.modules.get(_GRAPHS) is self:
            del sys.modules[_GRAPHS]
        return getattr(importlib.import_module(_GRAPHS), name)


@contextmanager
def _instead(stand_ins: Mapping[str, ModuleType | None]) -> Iterator[None]:
    sys.modules.update(stand_ins)  # type: ignore[arg-type] # None: there is no such module
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if name in sys.modules and sys.modules[name] is stand_in:
                del sys.modules[name]


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
