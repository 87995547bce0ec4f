"""What a file holds that fills an input, read off its header. No torch, no numpy, no pillow.

The arrays themselves are read in `pipeline.samples.make`.
"""

from __future__ import annotations

import ast
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from pipeline.config.schema import near
from pipeline.errors import Refused
from pipeline.locations import resolve_packaged

_NPY_MAGIC: Final = b"\x93NUMPY"
#: An .npy header is a line of text of about 100 bytes; more is no array of ours.
_LONGEST_HEADER: Final = 64 << 10
#: Members of an .npz are read whole: more than this is refused before anything is unpacked.
LARGEST_MEMBER: Final = 4 << 30
_IMAGES: Final = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP",
    b"II*\x00": "TIFF", b"MM\x00*": "TIFF",
}  # fmt: skip


@dataclass(frozen=True)
class FileContent:
    """What is in the file.

    Attributes:
        kind: array (.npy, or one member of an .npz), or image.
        shape: of the array; None for an image.
        dtype: numpy's name; float32 for an image, unless the configuration says otherwise.
        member: the .npz member's name without ".npy"; None elsewhere.
    """

    kind: Literal["array", "image"]
    shape: tuple[int, ...] | None
    dtype: str
    member: str | None = None


def path_of(text: str) -> Path:
    """The file that a fill names (`pkg://` files ship with the pipeline).

    Raises:
        ValueError: `pkg://` that leads nowhere.
    """
    return resolve_packaged(text).expanduser()


def look(text: str, name: str, key: str) -> FileContent:
    """Read the header of the file.

    Args:
        text: the path as written in the configuration.
        name: the input's name: the member of an .npz that is looked for, when it has several.
        key: where the path stands in the configuration.

    Raises:
        Refused: it is not there, is none of the kinds, is damaged, or has no such member.
    """
    try:
        path = path_of(text)
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0)
            if head.startswith(_NPY_MAGIC):
                shape, dtype = _npy_header(file)
                return FileContent("array", shape, dtype)
            if head.startswith(b"PK"):
                return _npz(file, name, text, key)
    except OSError as error:
        raise Refused(
            "PL-205", "the file cannot be read", where=key, found=f"{text}: {error.strerror or error}",
            next_step=f"Type {key}=FILE",
        ) from error  # fmt: skip
    except (ValueError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise Refused("PL-205", f"the file is damaged: {error}", where=key, found=text) from error
    if any(head.startswith(magic) for magic in _IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return FileContent("image", None, "float32")
    raise Refused(
        "PL-205", "the file is neither .npy nor .npz nor an image", where=key, found=text,
        expected="numpy.save, numpy.savez, PNG, JPEG, BMP, GIF, TIFF or WebP",
    )  # fmt: skip


def _npz(file: IO[bytes], name: str, text: str, key: str) -> FileContent:
    with zipfile.ZipFile(file) as archive:
        members = {
            entry.filename.removesuffix(".npy"): entry
            for entry in archive.infolist() if entry.filename.endswith(".npy")
        }  # fmt: skip
        if not members:
            raise Refused("PL-205", "the archive holds no arrays", where=key, found=text)
        member = name if name in members else next(iter(members)) if len(members) == 1 else None
        if member is None:
            close = near(name, members)
            raise Refused(
                "PL-205", f"the archive has no array {name}", where=key,
                found=", ".join(list(members)[:8]),
                next_step=f"Rename the input to {close[0] if close else next(iter(members))}, or save one array alone",
            )  # fmt: skip
        if members[member].file_size > LARGEST_MEMBER:
            raise Refused(
                "PL-205", "the array is too large", where=key, found=f"{members[member].file_size} bytes",
                expected=f"at most {LARGEST_MEMBER} bytes",
            )  # fmt: skip
        with archive.open(members[member]) as stream:
            shape, dtype = _npy_header(stream)
        return FileContent("array", shape, dtype, member)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], str]:
    """Shape and dtype; ValueError when the header is no header of a plain array."""
    start = file.read(8)
    if len(start) < 8 or not start.startswith(_NPY_MAGIC):
        raise ValueError("it does not begin like an .npy file")
    width = "<H" if start[6] == 1 else "<I"
    (length,) = struct.unpack(width, _exactly(file, struct.calcsize(width)))
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes")
    try:
        header: Any = ast.literal_eval(_exactly(file, length).decode("utf-8").strip())
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError("its header cannot be read") from error
    if not isinstance(header, Mapping):
        raise ValueError("its header is no mapping")
    shape, descr = header.get("shape"), header.get("descr")
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError("its header has no shape")
    if not isinstance(descr, str) or (dtype := _DTYPES.get(descr[1:])) is None:
        raise ValueError(f"its element type {descr} is not one of an input's")
    return shape, dtype


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("it ends too early")
    return data


_DTYPES: Final = {
    "f2": "float16", "f4": "float32", "f8": "float64", "b1": "bool",
    "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
}  # fmt: skip
