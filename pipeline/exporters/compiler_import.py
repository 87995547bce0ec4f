"""Importing torch's compiler without packages that an export to ONNX does not use. Imports torch.

torch.export imports all of torch's compiler, which takes along what makes kernels for a GPU (triton,
75 MiB), what spreads a network over machines (FSDP) and what chooses what to keep for a backward pass
(networkx); together 0.2 s. While the compiler is imported, the first two look as if they were not
installed, which it copes with, and a stand-in is in the third one's place. Afterwards everybody gets
the real ones. Who has imported one of them, or the compiler, keeps what is there.

An import that fails half way cannot be repeated (operators are registered meanwhile), so only a torch
that is known to do without them is asked to.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, Final

import torch

from pipeline.sources.meta_kernels import load_meta_kernels
from pipeline.sources.module_lookup import frames_name_their_module
from pipeline.sources.stand_in import StandIn

#: Versions that this was tried with.
_KNOWN: Final = ("2.14.",)
_COMPILER: Final = "torch.export._trace"
#: What an export imports on its way: here, before it begins, they are no part of what it leaves.
_LATER: Final = ("torch.onnx._internal.exporter._compat", "onnxscript.function_libs.torch_lib.ops")
_NOT_INSTALLED: Final = ("triton", "torch.distributed.fsdp")
_GRAPHS: Final = "networkx"
#: What the compiler says networkx' graphs are when it annotates functions.
_GRAPH: Final = "DiGraph"
#: Module and function that remember whether there is a triton.
_LOOKS_FOR_TRITON: Final = ("torch.utils._triton", "has_triton_package")
#: Says on a machine with CUDA that there is no triton.
_SPEAKS_OF_TRITON: Final = "torch.utils.flop_counter"


def import_compiler() -> bool:
    """Import what torch.export needs; whether anything was left out."""
    graphs = StandIn(_GRAPHS)
    stand_ins = {**dict.fromkeys(_NOT_INSTALLED), _GRAPHS: graphs}
    there = any(name in sys.modules for name in (_COMPILER, "torch._dynamo", *stand_ins))
    if there or not torch.__version__.startswith(_KNOWN):
        return False
    # The compiler looks for the folder of every package whose code it does not step into.
    vars(graphs).update({"__spec__": importlib.util.find_spec(_GRAPHS), _GRAPH: object})
    with ExitStack() as stack:
        stack.callback(_forget)
        stack.callback(vars(graphs).pop, _GRAPH, None)
        stack.enter_context(_silent(_SPEAKS_OF_TRITON))
        stack.enter_context(_instead(stand_ins))
        stack.enter_context(frames_name_their_module())
        _forget()
        load_meta_kernels()
        for name in (_COMPILER, *_LATER):
            importlib.import_module(name)
    return True


@contextmanager
def _instead(stand_ins: Mapping[str, ModuleType | None]) -> Iterator[None]:
    sys.modules.update(stand_ins)  # type: ignore[arg-type] # None: there is no such module
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if name in sys.modules and sys.modules[name] is stand_in:
                del sys.modules[name]


def _forget() -> None:
    module, name = _LOOKS_FOR_TRITON
    looks: Any = getattr(sys.modules.get(module), name, None)
    if hasattr(looks, "cache_clear"):
        looks.cache_clear()


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
