"""Files that a network's own code opens while it is built: no key can see them.

An audit hook hears of them. It cannot be taken out again, so only a process that ends with its run may
have one: the command line's worker, never the caller of the library.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import source_from_cache
from pathlib import Path
from typing import Any, Final

#: A library counts by the version of its package; nothing of the user's is expected to be built.
_BUILT: Final = ".so"
#: Of the system and of installed packages: upgrading them changes versions, which count.
_SYSTEM: Final = ("/dev", "/etc", "/lib", "/proc", "/run", "/sys", "/usr")
_OURS: Final = Path(__file__).resolve().parents[1]
_WRITES: Final = os.O_WRONLY | os.O_RDWR


class _Listener:
    """What the hook tells, while somebody listens."""

    def __init__(self) -> None:
        self.opened: set[str] | None = None
        self.hooked = False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or self.opened is None:
            return
        path, _, flags = arguments
        if isinstance(path, (str, bytes)) and not (flags or 0) & _WRITES:
            self.opened.add(str(Path(os.fsdecode(path)).absolute()))


_LISTENER: Final = _Listener()


@contextmanager
def files_opened() -> Iterator[set[str]]:
    """Absolute paths of the files that Python opens for reading meanwhile, in this process.

    A library that opens a file in its own native code (safetensors) is not heard of.
    """
    if not _LISTENER.hooked:
        sys.addaudithook(_LISTENER.hear)
        _LISTENER.hooked = True
    _LISTENER.opened = set()
    try:
        yield _LISTENER.opened
    finally:
        _LISTENER.opened = None


def unseen(opened: Iterable[str], declared: Iterable[Path]) -> list[Path]:
    """Those of the files that are the user's and named by no key, compiled code by its source; sorted."""
    known = {path.resolve() for path in declared}
    paths = {_source(Path(text)) for text in opened if Path(text).suffix != _BUILT}
    return sorted(
        path for path in paths if not _is_kept(path) and path.is_file() and path.resolve() not in known
    )


def _source(path: Path) -> Path:
    if path.suffix != ".pyc":
        return path
    try:
        return Path(source_from_cache(str(path)))
    except ValueError:  # no file of Python's own cache
        return path


def _is_kept(path: Path) -> bool:
    """Whether somebody else than the user looks after the file: a package, the system, a program's cache."""
    if any(part.startswith(".") or part in ("site-packages", "dist-packages") for part in path.parts):
        return True
    installed = (sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"], str(_OURS))
    return any(path.is_relative_to(folder) for folder in (*_SYSTEM, *installed))
