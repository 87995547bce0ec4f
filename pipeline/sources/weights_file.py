"""What kind of checkpoint a file is, by its content, and whether it is whole and safe. No torch.

A pickle runs code while it is loaded. Which code is read off its opcodes without running it, so
that an unsafe file is refused before torch is imported; torch's own `weights_only` loading checks
again what is let through here.
"""

from __future__ import annotations

import json
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from pipeline.errors import Refused

Kind = Literal["zip", "pickle", "safetensors"]

#: Modules whose names may stand in a pickle of tensors; torch's `weights_only` is stricter still.
_SAFE_MODULES: Final = frozenset(
    {"torch", "torch._utils", "torch.nn.parameter", "torch.storage", "torch._tensor", "torch.serialization",
     "collections", "_codecs", "numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.dtypes",
     "torch.torch_version", "torch.distributed._tensor.api"}
)  # fmt: skip
_SAFE_BUILTINS: Final = frozenset(
    {"set", "frozenset", "bytearray", "complex", "slice", "dict", "list", "tuple"}
)
#: A safetensors header longer than this is no header (the format's own limit).
_LONGEST_HEADER: Final = 100_000_000
#: torch.save compresses nothing; an archive that was packed again may be smaller, a bomb is by far.
MOST_UNPACKED: Final = 10
#: What describes the tensors takes about 200 bytes a tensor.
LONGEST_PICKLE: Final = 64 << 20
#: Pickles of the old format: magic number, protocol version, system, the object, storage keys.
_LEGACY_PICKLES: Final = 5
_PROTOCOL: Final = b"\x80"


@dataclass(frozen=True)
class WeightsFile:
    """A checkpoint.

    Attributes:
        kind: zip (torch.save since 1.6), pickle (torch.save before, or plain pickle), safetensors.
        unsafe: callables in its pickle that are more than tensors need.
    """

    path: Path
    kind: Kind
    unsafe: tuple[str, ...] = ()


def inspect_weights(path: Path, *, trust_pickle: bool = False) -> WeightsFile:
    """See what the file is.

    Args:
        path: of the file.
        trust_pickle: whether code in a pickle is let through.

    Raises:
        Refused: it is missing, damaged, of no known kind, or would run code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0)
            if not head:
                raise _unusable(path, "an empty file")
            if head.startswith(b"PK"):
                found = _zip(path, file)
            elif _is_safetensors(head):
                found = _safetensors(path, file)
            elif head.startswith(_PROTOCOL):
                found = WeightsFile(path, "pickle", tuple(_unsafe(_legacy_opcodes(file))))
            else:
                raise _unusable(path, _what(head))
    except OSError as error:
        raise Refused(
            "PL-223", "the weights file cannot be read", where="model.weights",
            found=f"{path}: {error.strerror or error}", next_step="Type model.weights=path/to/weights.pth",
        ) from error  # fmt: skip
    except (
        zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, LookupError, TypeError, RecursionError,
        OverflowError, zlib.error,
    ) as error:  # fmt: skip
        raise _unusable(path, f"a damaged file ({error})") from error
    if found.unsafe and not trust_pickle:
        raise Refused(
            "PL-224", "the weights file would run code while it is loaded", where="model.weights",
            found=f"{', '.join(found.unsafe[:3])} in {path.name}", expected="tensors in dicts and lists",
            next_step="Save model.state_dict() alone, or type model.trust_pickle=true if you trust whoever made it",
        )  # fmt: skip
    return found


def _zip(path: Path, file: IO[bytes]) -> WeightsFile:
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MOST_UNPACKED * path.stat().st_size:
            raise ValueError(f"it unpacks to {unpacked} bytes")
        names = archive.namelist()
        data = next((name for name in names if name.endswith("data.pkl")), None)
        if data is None:
            raise _unusable(path, "a zip archive without data.pkl, which torch.save did not write")
        folder = data.removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names and any(name.startswith(f"{folder}code/") for name in names):
            raise Refused(
                "PL-223", "the weights file is a TorchScript program, not a state_dict", where="model.weights",
                found=str(path), next_step="Save torch.jit.load(FILE).state_dict() with torch.save",
            )  # fmt: skip
        if archive.getinfo(data).file_size > LONGEST_PICKLE:
            raise ValueError(f"its pickle has {archive.getinfo(data).file_size} bytes")
        return WeightsFile(path, "zip", tuple(_unsafe(pickletools.genops(archive.read(data)))))


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _safetensors(path: Path, file: IO[bytes]) -> WeightsFile:
    length = int.from_bytes(file.read(8), "little")
    header: Any = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")
    size = path.stat().st_size
    ends = [
        entry["data_offsets"][1]
        for name, entry in header.items()
        if name != "__metadata__" and isinstance(entry, dict) and "data_offsets" in entry
    ]
    if not ends:
        raise ValueError("it names no tensors")
    if 8 + length + max(ends) != size:
        raise ValueError(f"{size} bytes, expected {8 + length + max(ends)}")
    return WeightsFile(path, "safetensors")


def _legacy_opcodes(file: IO[bytes]) -> Iterator[tuple[Any, Any, Any]]:
    """Opcodes of the pickles that follow each other at the file's beginning."""
    for _ in range(_LEGACY_PICKLES):
        start = file.tell()
        if file.read(1) != _PROTOCOL:
            return  # a plain pickle has only one; what follows are storages
        file.seek(start)
        yield from pickletools.genops(file)


def _unsafe(opcodes: Iterator[tuple[Any, Any, Any]]) -> Iterator[str]:
    """Callables that are more than tensors need, each once, in their order."""
    texts: list[str] = []
    memo: dict[int, str | None] = {}
    last: str | None = None  #: the text that the opcode before has put on the stack
    seen: set[str] = set()
    for opcode, argument, _ in opcodes:
        here, last = last, None
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = here
        elif opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument)] = here
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            last = memo.get(int(argument))
            texts += [last] if last is not None else []
        elif isinstance(argument, str) and "UNICODE" in opcode.name:
            last = argument
            texts.append(argument)
        elif opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            module, name = str(argument).split(" ", 1) if argument else (["?", "?", *texts][-2:])
            full = f"{module}.{name}"
            if not _is_safe(module, name) and full not in seen:
                seen.add(full)
                yield full


def _is_safe(module: str, name: str) -> bool:
    return module in _SAFE_MODULES or (module in ("builtins", "__builtin__") and name in _SAFE_BUILTINS)


def _what(head: bytes) -> str:
    if head.startswith((b"<!DOCTYPE", b"<html", b"<HTML")):
        return "a web page (a download that went wrong)"
    if head.startswith(b"version https://"):
        return "a pointer of Git LFS (type git lfs pull)"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file"
    if head.startswith(b"\x08"):
        return "an ONNX file or another protobuf"
    return "neither torch.save's nor safetensors' format"


def _unusable(path: Path, found: str) -> Refused:
    return Refused(
        "PL-223", "the weights file cannot be used", where="model.weights", found=f"{path}: {found}",
        expected="a state_dict written by torch.save or safetensors",
        next_step="Type model.weights=path/to/weights.pth",
    )  # fmt: skip
