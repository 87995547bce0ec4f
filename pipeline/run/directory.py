"""The run directory: made under a temporary name, synced, renamed when it is whole.

    outputs/<label>/                 whole, never replaced
    outputs/failed/<label>/          the last failed try
    outputs/damaged/<label>-<hex>/   what was whole once, moved aside
    outputs/.making/<label>-<hex>/   a run at work (or what a killed one left: cleaned by the next)
    outputs/.locks/<label>           held while a run of this request is at work

The lock is an flock: the kernel drops it with the process, so none is ever stale. (The cache,
which may lie on NFS, does without.)
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import Refused, StageFailed
from pipeline.run.cache import move_into_place, sync_tree

MAKING: Final = ".making"
LOCKS: Final = ".locks"
FAILED: Final = "failed"
DAMAGED: Final = "damaged"
SWEEPS: Final = "sweeps"
#: How often a waiting run looks whether the other one is done, seconds.
LOCK_POLL_S: Final = 0.05


@dataclass(frozen=True)
class RunDirectory:
    """Where one request's directory is and how it comes into being."""

    out: Path
    label: str

    @property
    def final(self) -> Path:
        return self.out / self.label

    @property
    def failed(self) -> Path:
        return self.out / FAILED / self.label

    def prepare(self) -> None:
        """Make the output folder; Refused when it cannot be written."""
        try:
            (self.out / MAKING).mkdir(parents=True, exist_ok=True)
            (self.out / LOCKS).mkdir(exist_ok=True)
            # A directory is made in the one and gets its name in the other.
            for folder in (self.out / MAKING, self.out):
                probe = folder / f".probe-{uuid.uuid4().hex}"
                probe.touch()
                probe.unlink()
        except OSError as error:
            raise Refused(
                "PL-701",
                "the output folder cannot be written",
                where="out",
                found=f"{self.out} ({error.strerror})",
                expected="a folder that you may write",
                next_step="Type out=FOLDER for another one",
            ) from error

    @contextmanager
    def lock(self, wait_s: float, on_wait: Callable[[], None] = lambda: None) -> Iterator[bool]:
        """Hold the request's lock; yields whether another run had to be waited for.

        Args:
            wait_s: how long to wait, seconds.
            on_wait: called once when there is somebody to wait for.

        Raises:
            Refused: another run held it for longer than `wait_s` seconds.
        """
        path = self.out / LOCKS / self.label
        deadline = time.monotonic() + wait_s
        waited = False
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                self.prepare()  # a refused run removed the empty folders between our two steps
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if not waited:
                    on_wait()
                waited = True
                if time.monotonic() >= deadline:
                    raise Refused(
                        "PL-702",
                        "another run of the same request is at work",
                        where=str(self.final),
                        found=f"its lock held for more than {wait_s:g} s",
                        expected="an end of that run",
                        next_step=f"Type wait_s={max(600, int(2 * wait_s))} to wait longer, or out=FOLDER",
                    ) from error
                time.sleep(LOCK_POLL_S)
                continue
            if _same_file(descriptor, path):
                break
            os.close(descriptor)  # its owner removed it between our open and our lock
        try:
            yield waited
        finally:
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)

    def begin(self) -> Path:
        """A fresh folder to work in; what killed runs of this request left is removed.

        Only call it while the lock is held.
        """
        making = self.out / MAKING
        making.mkdir(parents=True, exist_ok=True)
        for old in making.glob(f"{self.label}-*"):
            shutil.rmtree(old, ignore_errors=True)
        folder = making / f"{self.label}-{uuid.uuid4().hex[:12]}"
        folder.mkdir()
        return folder

    def publish(self, folder: Path, target: Path | None = None) -> None:
        """Give a whole folder its final name. Nothing that stands there is ever replaced."""
        try:
            sync_tree(folder)
            done = move_into_place(folder, target or self.final)
            _sync_folder(self.out)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StageFailed(
                    "PL-703", "the disk is full", where=str(self.final),
                    next_step="Make room, or type out=FOLDER for another disk",
                ) from error  # fmt: skip
            raise
        if not done:
            raise StageFailed(
                "PL-709",
                "something else stands where the run directory belongs",
                where=str(self.final),
                next_step="Look at it with `python -m pipeline verify`, then move it away",
            )
        shutil.rmtree(self.failed, ignore_errors=True)

    def keep_failure(self, folder: Path) -> Path:
        """Put a failed try where the last failed try is kept."""
        self._beside(self.failed.parent)
        grave = folder.with_name(folder.name + ".old")
        with suppress(FileNotFoundError):
            os.rename(self.failed, grave)
        os.rename(folder, self.failed)
        shutil.rmtree(grave, ignore_errors=True)
        return self.failed

    def move_aside(self) -> Path:
        """Put what stands under the final name, and is damaged, where damaged directories are kept."""
        aside = self.out / DAMAGED / f"{self.label}-{time.time_ns():x}"
        self._beside(aside.parent)
        os.rename(self.final, aside)
        return aside

    def _beside(self, folder: Path) -> None:
        """Make a folder for what is not whole."""
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise StageFailed(
                "PL-709", f"something else stands where {folder.name} directories belong", where=str(folder),
                found="no folder", next_step="Move it away, or type out=FOLDER for another place",
            ) from error  # fmt: skip

    def discard(self, folder: Path) -> None:
        """Remove what was begun."""
        shutil.rmtree(folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """After a refusal: no folder of ours stays where nothing was made."""
        for folder in (self.out / MAKING, self.out / LOCKS, self.out):
            with suppress(OSError):
                folder.rmdir()


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
