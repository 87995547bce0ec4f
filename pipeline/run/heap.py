"""Memory that a network's activations leave behind is kept for the next ones.

By default the C library gives it back to the system as soon as it is free and asks for it again at the
next layer: a fault for each 4 KiB, a tenth of the time that a small network takes here. In a worker, a
process that ends with its work, freed memory stays in the process up to a bound. Large arrays (weights)
are mapped one by one and given back at once as before.

`mallopt` is a public function of glibc; on other C libraries nothing is changed.
"""

from __future__ import annotations

import ctypes
from typing import Final

#: Numbers of the options in glibc's malloc.h.
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
#: Larger arrays are mapped apart: as large as glibc lets it grow by itself (DEFAULT_MMAP_THRESHOLD_MAX).
MAPPED_APART_BYTES: Final = 32 * 1024 * 1024
#: So much of what is free at the heap's end stays.
KEPT_BYTES: Final = 256 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Change it for this process; whether the C library did."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MAPPED_APART_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
