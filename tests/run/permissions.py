"""File permissions that hold for root as well, so that tests of them mean the same for everybody."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER (linux/capability.h).
OVERRIDES: Final = 1 << 1 | 1 << 2 | 1 << 3
VERSION: Final = 0x20080522  #: _LINUX_CAPABILITY_VERSION_3


@contextmanager
def as_anybody() -> Iterator[None]:
    """This thread may read and write what the permission bits say, and nothing else."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits of each
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] = before & ~OVERRIDES
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0
