"""The stage cache: content-addressed files, entries known by the full key of their stage.

    <dir>/v1/entries/<2 hex>/<key>/entry.json     what was made, with the sha256 of each file
                                   <artifact>/... small files
    <dir>/v1/blobs/<2 hex>/<sha256>               large files, shared between entries
    <dir>/v1/tmp/<unique>/                        where entries are made, and what a run holds on to

Safe on a local disk and on NFS by construction: nothing is locked and nothing is ever rewritten;
an entry is made apart and renamed into place. A lost race means double work, never a torn entry.
A rename whose reply was lost is recognised by what stands at the target. Entries are verified by
digest when they are used; a damaged one is removed and counts as a miss. Large files that a run uses,
or that an entry in the making will use, have a second name under tmp (a hard link): whoever evicts
meanwhile leaves them alone, and their bytes stay as long as they are mapped.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import InternalError, Refused
from pipeline.run.plan import StageKey
from pipeline.stage import Storable, Streamed

LAYOUT: Final = "v1"
#: Files from this size on are kept once, whatever entry they belong to.
BLOB_BYTES: Final = 64 * 1024
#: Left-over folders of killed writers are removed when they are older than this, seconds.
STALE_TMP_S: Final = 24 * 3600.0


@dataclass(frozen=True)
class CacheEntry:
    """One stage's stored result."""

    key: str
    stage: str
    parts: Mapping[str, Any]
    verdict: Mapping[str, Any]
    artifacts: Mapping[str, tuple[Mapping[str, Any], ...]]  #: name -> files {path, size, sha256, blob}
    used: float  #: seconds since the epoch, by the file's time stamp

    @property
    def size(self) -> int:
        return sum(file["size"] for files in self.artifacts.values() for file in files)


class DamagedEntryError(Exception):
    """A file of an entry is missing or is not what its digest says."""


class Cache:
    """Reads and writes entries; `mode` as in `cache.mode`."""

    def __init__(self, directory: Path, mode: str = "readwrite", size: int | None = None) -> None:
        self.root = directory.absolute() / LAYOUT  # files are linked to, from other folders
        self.reads = mode in ("readwrite", "read")
        self.writes = mode in ("readwrite", "write")
        self.size = size
        self._held = self.root / "tmp" / uuid.uuid4().hex

    # -- reading ---------------------------------------------------------------------------------

    def find(self, key: str) -> CacheEntry | None:
        """The entry of `key`, or None. Its files are verified by `load`."""
        return self._read(self._entry_dir(key)) if self.reads else None

    def is_damaged(self, key: str) -> bool:
        """Whether there is an entry of `key` whose record is damaged: `find` gives None for it."""
        folder = self._entry_dir(key)
        try:
            return folder.exists() and self._read(folder) is None
        except OSError:  # whether there is one cannot be seen
            return False

    def load(self, entry: CacheEntry, artifact: str, kind: type[Storable], scratch: Path) -> Storable:
        """The artifact's value, each of its files verified; DamagedEntryError otherwise."""
        folder = scratch / f"cached-{entry.key[:16]}-{artifact}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in entry.artifacts[artifact]:
            source = self._file(entry.key, artifact, file)
            if file["blob"]:
                source = self._hold(source, self._held)
            if file_sha256(source) != file["sha256"]:
                if file["blob"] and self.writes:  # else it would pass for what is there already
                    with contextlib.suppress(OSError):
                        self._blob(file["sha256"]).unlink()
                raise DamagedEntryError(f"{source.name} of {entry.stage} is not what it was")
            target = folder / file["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
        self._touch(entry.key)
        try:
            return kind.load(folder)
        except FileNotFoundError as error:  # another run removed it between two looks
            raise DamagedEntryError(f"{artifact} of {entry.stage} has gone") from error

    def let_go(self) -> None:
        """What was loaded is no longer read from the cache's folder."""
        shutil.rmtree(self._held, ignore_errors=True)

    def check(self, entry: CacheEntry) -> str | None:
        """What is wrong with the entry's files, or None."""
        for artifact, files in entry.artifacts.items():
            for file in files:
                path = self._file(entry.key, artifact, file)
                try:
                    if file_sha256(path) != file["sha256"]:
                        return f"{artifact}/{file['path']} is not what it was"
                except DamagedEntryError:
                    return f"{artifact}/{file['path']} is missing"
        return None

    def damaged(self) -> Iterator[tuple[CacheEntry | Path, str]]:
        """Every entry that is not whole, with what is wrong with it."""
        for found in self.entries():
            wrong = self.check(found) if isinstance(found, CacheEntry) else "entry.json is damaged"
            if wrong:
                yield found, wrong

    def entries(self) -> Iterator[CacheEntry | Path]:
        """Every entry, or the path of what should be one and cannot be read.

        Raises:
            OSError: a folder cannot be listed.
        """
        root = self.root / "entries"
        if not root.is_dir():
            return
        for shelf in sorted(root.iterdir()):
            for folder in sorted(shelf.iterdir()) if shelf.is_dir() else ():
                yield self._read(folder) or folder

    # -- writing ---------------------------------------------------------------------------------

    def store(self, key: StageKey, values: Mapping[str, Storable], verdict: Mapping[str, Any]) -> None:
        """Keep what a stage made. Losing a race against another writer is no error."""
        if not self.writes:
            return
        making, held = (self.root / "tmp" / uuid.uuid4().hex for _ in range(2))
        making.mkdir(parents=True)
        self._sweep()
        try:
            artifacts = {}
            for name, value in values.items():
                folder = making / name
                folder.mkdir()
                if isinstance(value, Streamed):
                    value.store_rest(folder)
                    artifacts[name] = [self._shelve(folder, file, held) for file in _files(folder)]
                    artifacts[name].append(self._shelve_stream(folder, value, held))
                else:
                    value.store(folder)
                    artifacts[name] = [self._shelve(folder, file, held) for file in _files(folder)]
            record = {"key": key.key, "stage": key.stage, "parts": key.parts, "verdict": verdict,
                      "artifacts": artifacts}  # fmt: skip
            body = json.dumps(record, sort_keys=True, indent=1)
            seal = hashlib.sha256(body.encode()).hexdigest()
            (making / "entry.json").write_text(f"{seal}\n{body}")
            sync_tree(making)
            if self.is_damaged(key.key):  # it would stand in the way
                self.remove(key.key)
            move_into_place(making, self._entry_dir(key.key))
        finally:
            shutil.rmtree(making, ignore_errors=True)
            shutil.rmtree(held, ignore_errors=True)
        if self.size is not None:
            self.evict(self.size)

    def remove(self, key: str) -> bool:
        """Take the entry away, where the folder can be written; whether it went."""
        try:
            self._discard(self._entry_dir(key))
        except OSError:  # a read-only cache is used with its damage
            return False
        return True

    def clear(self) -> tuple[int, OSError | None]:
        """Remove everything; how many entries went, and why something did not."""
        count = sum(1 for _ in self.entries())
        shutil.rmtree(self.root, ignore_errors=True)
        try:
            shutil.rmtree(self.root)  # what still stands says why
        except FileNotFoundError:
            return count, None
        except OSError as error:
            return count - sum(1 for _ in self.entries()), error
        return count, None

    def clear_damaged(self) -> tuple[int, OSError | None]:
        """Remove what is not whole, and large files that nobody uses then; as `clear`."""
        count, damaged = 0, list(self.damaged())  # all are known before a shared large file goes
        try:
            for found, _ in damaged:
                self._discard(found if isinstance(found, Path) else self._entry_dir(found.key))
                count += 1
            self._drop_unused_blobs([entry for entry in self.entries() if isinstance(entry, CacheEntry)])
        except OSError as error:
            return count, error
        return count, None

    def evict(self, limit: int) -> list[str]:
        """Remove least recently used entries, and blobs that nobody uses, until `limit` bytes hold."""
        found = [entry for entry in self.entries() if isinstance(entry, CacheEntry)]
        if self._bytes_on_disk() <= limit:
            return []
        removed: list[str] = []
        self._drop_unused_blobs(found)  # what killed writers left goes before anything that is whole
        for entry in sorted(found, key=lambda entry: entry.used):
            if self._bytes_on_disk() <= limit:
                break
            if not self.remove(entry.key):
                continue
            removed.append(entry.key)
            found.remove(entry)
            self._drop_unused_blobs(found)
        return removed

    # -- inside ----------------------------------------------------------------------------------

    def _entry_dir(self, key: str) -> Path:
        if len(key) != 64:
            raise InternalError(f"a stage key has 64 hexadecimal digits, this has {len(key)}")
        return self.root / "entries" / key[:2] / key

    def _blob(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256

    def _file(self, key: str, artifact: str, file: Mapping[str, Any]) -> Path:
        return self._blob(file["sha256"]) if file["blob"] else self._entry_dir(key) / artifact / file["path"]

    def _read(self, folder: Path) -> CacheEntry | None:
        try:
            seal, _, body = (folder / "entry.json").read_text().partition("\n")
            used = (folder / "entry.json").stat().st_mtime
        except (OSError, UnicodeDecodeError):
            return None
        if hashlib.sha256(body.encode()).hexdigest() != seal:
            return None
        record = json.loads(body)
        if record["key"] != folder.name:  # an entry that was swapped with another
            return None
        artifacts = {name: tuple(files) for name, files in record["artifacts"].items()}
        return CacheEntry(record["key"], record["stage"], record["parts"], record["verdict"], artifacts, used)

    def _shelve_stream(self, folder: Path, value: Streamed, held: Path) -> dict[str, Any]:
        """The large file of a value; it is written only where no other entry has the same."""
        digest, size = hashlib.sha256(), 0
        for piece in value.pieces():
            digest.update(piece)
            size += len(piece)
        sha256, path = digest.hexdigest(), folder / value.large_file
        target = self._blob(sha256)
        if size >= BLOB_BYTES:
            there = self._hold(target, held)
            if there != target and there.stat().st_size == size:
                return {"path": value.large_file, "size": size, "sha256": sha256, "blob": True}
        with path.open("xb") as stream:
            for piece in value.pieces():
                stream.write(piece)
        return self._shelve(folder, path, held, sha256)

    def _shelve(self, folder: Path, path: Path, held: Path, sha256: str | None = None) -> dict[str, Any]:
        size, sha256 = path.stat().st_size, sha256 or file_sha256(path)
        blob = size >= BLOB_BYTES
        if blob:
            target = self._blob(sha256)
            there = self._hold(target, held)
            if there != target and there.stat().st_size == size:
                path.unlink()
            else:
                self._hold(path, held, sha256)
                sync_file(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
        return {"path": str(path.relative_to(folder)), "size": size, "sha256": sha256, "blob": blob}

    def _hold(self, source: Path, held: Path, name: str | None = None) -> Path:
        """A second name for a large file, so that it is not evicted; the file's own where there can be none."""
        other = held / (name or source.name)
        try:
            held.mkdir(parents=True, exist_ok=True)
            other.unlink(missing_ok=True)
            os.link(source, other)
        except OSError:  # it is not there, the folder is read-only, or this file system has no hard links
            return source
        return other

    def _sweep(self) -> None:
        """Remove what killed runs left under tmp."""
        for folder in (self.root / "tmp").iterdir():
            try:
                age = time.time() - folder.stat().st_mtime  # noqa: TID251 - beside the time stamps of files
            except FileNotFoundError:
                continue
            if age > STALE_TMP_S:
                shutil.rmtree(folder, ignore_errors=True)

    def _touch(self, key: str) -> None:
        try:
            os.utime(self._entry_dir(key) / "entry.json")
        except OSError:  # a read-only cache is used without its order of use
            return

    def _discard(self, path: Path) -> None:
        """Take a folder away: first out of sight in one step, then from the disk."""
        grave = self.root / "tmp" / uuid.uuid4().hex
        grave.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(path, grave)
        except FileNotFoundError:
            return
        shutil.rmtree(grave, ignore_errors=True)

    def _drop_unused_blobs(self, entries: list[CacheEntry]) -> None:
        used = {
            file["sha256"]
            for entry in entries
            for files in entry.artifacts.values()
            for file in files
            if file["blob"]
        }
        for blob in (self.root / "blobs").glob("*/*"):
            try:
                if blob.name not in used and blob.stat().st_nlink == 1:
                    blob.unlink(missing_ok=True)
            except FileNotFoundError:
                continue  # somebody else evicts as well

    def _bytes_on_disk(self) -> int:
        """Of entries and large files; what is in the making is counted when it is there."""
        total = 0
        for path in (*(self.root / "entries").rglob("*"), *(self.root / "blobs").rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                total += status.st_size if stat.S_ISREG(status.st_mode) else 0
        return total


def default_directory() -> Path:
    """The user's cache folder: XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "onnx-export-pipeline"


def file_sha256(path: Path) -> str:
    """sha256 of a file; DamagedEntryError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DamagedEntryError(f"{path.name} cannot be read: {error.strerror}") from error


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Bring a folder and everything in it to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if not path.is_symlink():
                sync_file(path)
        sync_file(Path(root))


def move_into_place(source: Path, target: Path) -> bool:
    """Rename a finished folder to its final name; False when another one already stands there.

    On NFS the reply to a rename can be lost: the client then sees ENOENT or EEXIST although the
    rename took place. What stands at source and target decides.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
            raise
        if target.exists() and not source.exists():
            return True
        if error.errno == errno.ENOENT:
            raise
        return False
    return True


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


UNITS: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
                "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


def parse_size(text: str, key: str) -> int:
    """Bytes of '20GB', '512MiB' or a plain number."""
    number = text.strip().rstrip("KMGTIBkmgtib")
    unit = text.strip()[len(number) :].upper()
    try:
        size = int(float(number) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        size = -1
    if size < 0:
        raise Refused(
            "PL-700", "a size that cannot be read", where=key, found=repr(text),
            expected="a number with a unit", next_step=f"Type {key}=20GB",
        )  # fmt: skip
    return size
