"""Importing torchvision without the compiler that it does not need.

torchvision/ops/roi_align.py says `from torch._dynamo.utils import is_compile_supported` at its
top, which loads torch._dynamo, sympy, torch.distributed and triton: about 1000 modules, 1.2 s and
145 MiB, for a function that is called when operators are made deterministic. While torchvision is
imported, two stand-in modules offer that one function; it imports the real one when it is called.
They are gone again before anybody else can see them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

from pipeline.sources.data_sets import without_data_sets

_STANDS_IN: Final = ("torch._dynamo", "torch._dynamo.utils")


def import_torchvision(*, private_apis: bool) -> Any:
    """The module `torchvision.models`.

    Args:
        private_apis: whether stand-ins may be in `sys.modules` for the time of the import.
    """
    if private_apis and "torchvision" not in sys.modules and not _already_loaded():
        import torch  # noqa: F401 - all of it, before anything of it is stood in for

        with _without_dynamo(), without_data_sets():
            import torchvision.models
    import torchvision.models

    return torchvision.models


def _already_loaded() -> bool:
    return any(name == _STANDS_IN[0] or name.startswith(f"{_STANDS_IN[0]}.") for name in sys.modules)


@contextmanager
def _without_dynamo() -> Iterator[None]:
    if _already_loaded():  # importing torch brought it
        yield
        return
    stand_ins = {name: ModuleType(name) for name in _STANDS_IN}
    package, utils = (stand_ins[name] for name in _STANDS_IN)
    package.__path__ = []
    package.utils = utils  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _is_compile_supported(device_type: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))
