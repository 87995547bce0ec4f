"""Is a run directory whole and unchanged? Files only: no torch, no onnx."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from pipeline.run.cache import DamagedEntryError, file_sha256
from pipeline.run.records import MANIFEST, RECORD
from pipeline.run.schemas import problems_of

#: A record larger than this is not one of ours, bytes.
RECORD_LIMIT: Final = 64 * 2**20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a run directory."""

    kind: Literal["changed", "missing", "extra", "invalid"]
    path: str
    message: str


class NotARunDirectoryError(Exception):
    """There is no manifest and no run record to verify against."""


def verify_directory(folder: Path) -> list[Problem]:
    """Every problem; an empty list means whole and unchanged.

    Raises:
        NotARunDirectoryError: neither record is there.
    """
    if not _may_be_file(folder / MANIFEST) and not _may_be_file(folder / RECORD):
        raise NotARunDirectoryError(f"{folder} holds no {MANIFEST} and no {RECORD}")
    problems: list[Problem] = []
    listed: set[str] = {MANIFEST, RECORD}
    for name in (MANIFEST, RECORD):
        record = read_record(folder / name, problems)
        if record is None:
            continue
        for file in record["artifacts"]:
            listed.add(file["path"])
            problems += _file_problems(folder, file)
    problems += [
        Problem("extra", _shown(path), "is listed in no record")
        for path in _paths(folder, problems)
        if path not in listed
    ]
    return list(dict.fromkeys(problems))  # run.json lists the manifest, which was read as a record too


def _may_be_file(path: Path) -> bool:
    """False where there is no such file; one that may not be looked at is told of when it is read."""
    try:
        return path.is_file()
    except PermissionError:
        return True
    except OSError:  # no name that a file can have
        return False


def read_record(path: Path, problems: list[Problem]) -> dict[str, Any] | None:
    """A record that satisfies its schema and names only files inside the folder, or None."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):  # a named pipe would never end
            problems.append(Problem("invalid", path.name, "is no plain file"))
            return None
        if status.st_size > RECORD_LIMIT:
            problems.append(Problem("invalid", path.name, "is too large to be a record"))
            return None
        record = json.loads(path.read_bytes(), parse_int=_whole)
        # Half a surrogate is no name and cannot be printed; NaN is no JSON.
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except FileNotFoundError:
        problems.append(Problem("missing", path.name, "is not there"))
        return None
    except OSError as error:
        problems.append(_unreadable(path.name, error))
        return None
    except UnicodeEncodeError:
        problems.append(Problem("invalid", path.name, "holds text that is no Unicode"))
        return None
    except (ValueError, RecursionError):
        problems.append(Problem("invalid", path.name, "is no JSON"))
        return None
    wrong = problems_of(path.name, record)
    problems += [Problem("invalid", path.name, text) for text in wrong]
    if wrong:
        return None
    outside = [file["path"] for file in record["artifacts"] if not _inside(file["path"])]
    problems += [Problem("invalid", path.name, f"names {name!r} outside the folder") for name in outside]
    return None if outside else dict(record)


def _whole(digits: str) -> int:
    if math.isinf(float(digits)):
        raise ValueError("a whole number that is no float")
    return int(digits)


def _inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and "\0" not in path


def _unreadable(path: str, error: OSError) -> Problem:
    return Problem("invalid", path, f"cannot be read: {error.strerror}")


def _file_problems(folder: Path, file: Mapping[str, Any]) -> list[Problem]:
    path = folder / file["path"]
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return [Problem("missing", file["path"], "is not there")]
    except OSError as error:
        return [_unreadable(file["path"], error)]
    if not stat.S_ISREG(status.st_mode):
        return [Problem("changed", file["path"], "is no plain file")]
    if status.st_size != file["size"]:
        return [Problem("changed", file["path"], f"has {status.st_size} bytes, recorded {file['size']}")]
    try:
        if file_sha256(path) != file["sha256"]:
            return [Problem("changed", file["path"], "has another sha256 than recorded")]
    except DamagedEntryError as error:
        return [Problem("invalid", file["path"], str(error).removeprefix(f"{path.name} "))]
    return []


def _paths(folder: Path, problems: list[Problem]) -> list[str]:
    found = []

    def note(error: OSError) -> None:
        problems.append(_unreadable(os.path.relpath(error.filename, folder), error))

    for root, folders, names in os.walk(folder, onerror=note):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        found += [str((Path(root) / name).relative_to(folder)) for name in [*names, *links]]
    return sorted(found)


def _shown(path: str) -> str:
    """A name whose bytes are no text, as text."""
    return os.fsencode(path).decode(errors="backslashreplace")
