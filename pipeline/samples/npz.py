"""Named arrays in a file: bytes that depend on the arrays alone, and a reader that no bomb overwhelms."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

#: The earliest time stamp that a zip file can hold: the same for every file.
NO_TIME: Final = (1980, 1, 1, 0, 0, 0)
#: Else a zip entry says on which system it was written.
UNIX: Final = 3


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays, uncompressed, in the order given; `numpy.load` reads them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", NO_TIME)
            entry.create_system = UNIX
            entry.external_attr = 0o644 << 16
            # force_zip64: numpy streams, so the size is not known when the header is written.
            with archive.open(entry, "w", force_zip64=True) as stream:
                npy.write_array(stream, np.asanyarray(array, order="C"), version=(1, 0), allow_pickle=False)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `write_npz` wrote.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: it is not there, is no such archive, or unpacks to more
            than it is.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"{path.name} unpacks to {unpacked} bytes, more than it has")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
