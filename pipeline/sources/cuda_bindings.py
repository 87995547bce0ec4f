"""Importing torch as if the package cuda-python were not installed.

torch.cuda imports it where it is there (0.04 s, 53 modules and their native code; torch's CUDA build brings
it along) for one thing, green contexts, which a network that is exported has no use for. Tensors on a GPU
do not need it. Without it torch says so to whoever asks for a green context; nothing else changes. The
package itself can be imported by everybody afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_BINDINGS: Final = "cuda.bindings"


@contextmanager
def without_cuda_bindings() -> Iterator[None]:
    """While this is active, an import of the package fails as where it is missing."""
    if _BINDINGS in sys.modules:
        yield
        return
    sys.modules[_BINDINGS] = None  # type: ignore[assignment] # Python's way to say that there is none
    try:
        yield
    finally:
        if sys.modules.get(_BINDINGS, True) is None:
            del sys.modules[_BINDINGS]
