"""While a network computes, memory that its activations leave behind is kept for the next ones.

By default the C library gives it back to the system as soon as it is free and asks for it again at the
next layer: a fault for each 4 KiB, a tenth of the time that a small network takes here. From the moment
when a network is built until it is let go, freed memory stays in a worker's process, up to a bound. Then
what is free is given back, and so is again what becomes free later. Weights come before and after: where
copies of them take each other's place (a simplifier's transposed ones), kept memory was the double.

`mallopt` and `malloc_trim` are public functions of glibc; on other C libraries nothing is changed.
"""

from __future__ import annotations

import ctypes
from typing import Final

#: Numbers of the options in glibc's malloc.h, and what they are without us (its adaptive values cannot be
#: had again once an option was set).
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
DEFAULT_BYTES: Final = 128 * 1024
#: Larger arrays are mapped apart: as large as glibc lets it grow by itself (DEFAULT_MMAP_THRESHOLD_MAX).
MAPPED_APART_BYTES: Final = 32 * 1024 * 1024
#: So much of what is free at the heap's end stays.
KEPT_BYTES: Final = 256 * 1024 * 1024

_kept = False


def keep_freed_memory() -> bool:
    """Change it for this process; whether the C library did."""
    global _kept  # noqa: PLW0603 - the C library's state is the process' own, too
    _kept = _set(MAPPED_APART_BYTES, KEPT_BYTES)
    return _kept


def give_freed_memory_back() -> None:
    """Undo it and give the system what is free now; nothing where nothing is kept."""
    global _kept  # noqa: PLW0603 - as above
    if _kept:
        _kept = False
        _set(DEFAULT_BYTES, DEFAULT_BYTES)
        ctypes.CDLL(None).malloc_trim(0)


def _set(mapped_apart: int, kept: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(
        mallopt(M_MMAP_THRESHOLD, mapped_apart) and mallopt(M_TRIM_THRESHOLD, kept)
    )
