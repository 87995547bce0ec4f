"""torch.export's list of composite operators, made once an export. Imports torch.

For its table of decompositions torch.export goes through every namespace of operators, and for each
namespace asks for all composite operators of all of them first: sixty times the same, 0.1 s. While
this is active it asks once. Nobody registers operators meanwhile: the network's own code has been
imported and has run before it is exported.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_MODULE: Final = "torch._export.utils"
_FUNCTION: Final = "_materialize_cpp_cia_ops"


@contextmanager
def composite_operators_once() -> Iterator[bool]:
    """Yields whether the short way is taken: not where torch is built otherwise than expected."""
    module = importlib.import_module(_MODULE)
    real = vars(module).get(_FUNCTION)
    if not callable(real):
        yield False
        return
    asked = False

    def once() -> None:
        nonlocal asked
        if not asked:
            real()
            asked = True

    setattr(module, _FUNCTION, once)
    try:
        yield True
    finally:
        setattr(module, _FUNCTION, real)
