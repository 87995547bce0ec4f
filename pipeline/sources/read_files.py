"""Files that a network's own code opens while it is built or runs: no key can see them.

An audit hook hears of them. It cannot be taken out again, so only a process that ends with its run may
have one: the command line's worker, never the caller of the library.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import source_from_cache
from pathlib import Path
from typing import Any, Final

from pipeline.config.canonical import names_file
from pipeline.config.code import CallableSpec, user_code_digest
from pipeline.config.source_digest import index_path
from pipeline.events import UNSEEN, Emit, Finding
from pipeline.samples.files import path_of
from pipeline.samples.spec import InputSpecs
from pipeline.sources.config import ModelConfig
from pipeline.sources.user_code import own_callables

#: A library counts by the version of its package; nothing of the user's is expected to be built.
_BUILT: Final = ".so"
#: Of the system and of installed packages: upgrading them changes versions, which count.
_SYSTEM: Final = ("/dev", "/etc", "/lib", "/proc", "/run", "/sys", "/usr")
#: What programs keep for themselves: hidden folders, and what torch.compile has compiled.
_KEPT_BY_PROGRAMS: Final = (".", "torchinductor_")
_OURS: Final = Path(__file__).resolve().parents[1]
_WRITES: Final = os.O_WRONLY | os.O_RDWR


class _Listener:
    """What the hook tells, while somebody listens."""

    def __init__(self) -> None:
        self.opened: set[str] | None = None
        self.written: set[str] = set()
        self.hooked = False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or self.opened is None:
            return
        path, _, flags = arguments
        if not isinstance(path, (str, bytes)):
            return
        place = str(Path(os.fsdecode(path)).absolute())
        if (flags or 0) & _WRITES:
            self.written.add(place)
        elif place not in self.written and not _for_a_traceback():  # what it wrote itself is made of its code
            self.opened.add(place)


def _for_a_traceback() -> bool:
    """Whether lines of source are looked up to be shown: torch notes the stack when it is given a seed."""
    opening = sys._getframe(2)  # tokenize.open, where it is so
    caller = opening.f_back
    return caller is not None and caller.f_globals.get("__name__") == "linecache"


_LISTENER: Final = _Listener()


@dataclass
class OwnCode:
    """The user's code behind a network, and what it opened so far.

    Attributes:
        model, specs: whose files are in a key.
        private_apis: whether it may be listened to at all.
        told: files that the user has been warned of.
    """

    model: ModelConfig
    specs: InputSpecs
    private_apis: bool
    told: set[Path] = field(default_factory=set)

    @contextmanager
    def at_work(self, stage: str, emit: Emit) -> Iterator[None]:
        """Warn of what it opens meanwhile; nothing is listened to where there is none, or in library use."""
        callables = own_callables(self.model)
        if not (callables and self.private_apis):
            yield
            return
        with files_opened() as opened:
            yield
        self._warn(opened, callables, stage, emit)

    def _warn(self, opened: set[str], callables: Mapping[str, CallableSpec], stage: str, emit: Emit) -> None:
        """A result is returned again although such a file has changed: say so, and what to do."""
        declared = [path_of(text) for text in self.specs.files()]
        if self.model.weights is not None and names_file(self.model.weights):
            declared.append(Path(self.model.weights).expanduser())
        for key, spec in callables.items() if opened else ():
            declared += user_code_digest(spec.text, key).files
        found = unseen(opened, [*declared, *self.told])
        if found:
            self.told.update(found)
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            message = (
                f"{next(iter(callables))} reads {found[0]}{more} by itself: a change of it is not noticed, and what was "
                "made before is returned. Name weights as model.weights, or type cache.mode=none out=ANOTHER after a "
                "change"
            )
            emit(Finding(stage, "warning", message, {UNSEEN: [str(path) for path in found]}))


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
    known = {path.resolve() for path in (*declared, index_path())}
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
    if any(
        part.startswith(_KEPT_BY_PROGRAMS) or part in ("site-packages", "dist-packages")
        for part in path.parts
    ):
        return True
    installed = (sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"], str(_OURS))
    return any(path.is_relative_to(folder) for folder in (*_SYSTEM, *installed))
