"""Which loaded modules are the user's own, and whether the digest of the code has seen them."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

from pipeline.config.code import CallableSpec, package_root, user_code_digest
from pipeline.errors import Refused

#: The package, which is no real one, under which single files are imported.
FILES: Final = "network_file"
#: Modules from here down are never imported anew for a file that lies above them.
_INSTALLED: Final = ("site-packages", "dist-packages")
#: Modules of the user's that were imported for us, and what their files were then.
_LOADED_FROM: Final[dict[str, tuple[ModuleType, tuple[int, int, int]]]] = {}


@contextmanager
def found_from(folder: Path, path: Sequence[str]) -> Iterator[None]:
    """Files and modules are found as from this working folder with this sys.path; afterwards as before."""
    here, before = Path.cwd(), list(sys.path)
    os.chdir(folder)
    sys.path[:] = path
    try:
        yield
    finally:
        sys.path[:] = before
        os.chdir(here)


def root_of(spec: CallableSpec) -> Path:
    """The folder that imports of the callable's module are found in."""
    return Path.cwd() if spec.path is None else package_root(spec.path.absolute())[0]


def refuse_unseen(callables: Mapping[str, CallableSpec], loaded: set[str], path: Sequence[str]) -> None:
    """Refuse a module of the user's that the digest of the code has not got.

    No import statement says its name, or it is found only once the code has changed the path. Another
    version of it would get the results of this one.

    Args:
        callables: what the configuration names, by key.
        loaded: names of the modules.
        path: sys.path before the code ran.
    """
    roots = {Path.cwd().resolve(), *(root_of(spec).resolve() for spec in callables.values())}
    own = {name: file for name in loaded if (file := _own_file(name, roots)) is not None}
    if not own:
        return
    key, spec = next(iter(callables.items()))
    with found_from(Path.cwd(), path):  # the key was made before the code changed it
        digests = [user_code_digest(each.text, where) for where, each in callables.items()]
    seen = {file.resolve() for digest in digests for file in digest.files}
    for name, file in sorted(own.items()):
        if file.resolve() not in seen:
            place = spec.path.name if spec.path is not None else spec.module
            folder = _found_in(name, file) or file.parent
            what, step = "no import statement names", "Write"
            if folder.resolve() not in roots:
                what, step = (
                    "is not found before the code runs",
                    f"Type PYTHONPATH={folder} before the call and write",
                )
            raise Refused(
                "PL-233", f"{key} loads a module that {what}", where=str(file), found=name,
                expected="imports that can be seen before the code runs: what they name is part of the key",
                next_step=f"{step} import {name} in {place}; it counts where it is never run, too",
            )  # fmt: skip


def _own_file(name: str, roots: set[Path]) -> Path | None:
    """The file of a loaded module that is the user's: in one of these folders, or below it.

    What is loaded from elsewhere (torch.hub, transformers' remote code) cannot be written as an import: it is
    warned of like other files (`read_files`).
    """
    text = getattr(sys.modules.get(name), "__file__", None)
    if text is None or name.partition(".")[0] in ("pipeline", FILES):
        return None
    file = Path(text)
    folder = _found_in(name, file)
    if any(part in file.parts for part in _INSTALLED):
        return None
    if folder is not None and folder.resolve() in roots:
        return file
    below = not roots.isdisjoint(file.resolve().parents)
    return (
        file
        if below and file.suffix == ".py" and file.is_file() and not _is_of_others(name, file, folder)
        else None
    )


def _is_of_others(name: str, file: Path, folder: Path | None) -> bool:
    """Whether a module is of the standard library, or lies where packages were installed to."""
    top = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None) or ""
    if any(part in Path(top).parts for part in _INSTALLED):
        return True  # a package that writes modules of its own elsewhere
    if not _standard_library().isdisjoint(file.resolve().parents):
        return True
    return folder is not None and any(folder.glob("*.dist-info"))


@cache
def _standard_library() -> frozenset[Path]:
    return frozenset(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib"))


def _found_in(name: str, file: Path) -> Path | None:
    """The folder on the path that a module was found in."""
    above = name.count(".") + (file.name == "__init__.py")
    return file.parents[above] if above < len(file.parents) else None


def stale_modules(root: Path, path: Path | None) -> list[str]:
    """Loaded modules whose name is a file or package of `root`, but which are not those, nor `path` itself."""
    found = []
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        file = getattr(module, "__file__", None)
        if (
            file is None
            or top in ("pipeline", "__main__")
            or any(part in Path(file).parts for part in _INSTALLED)
        ):
            continue
        theirs = (root / f"{top}.py", root / top / "__init__.py")
        if not any(one.is_file() for one in theirs):
            continue
        loaded = Path(file)
        if root not in loaded.parents or loaded == path or not _unchanged(module, loaded):
            found.append(name)
    return found


def _state(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def note_states(names: set[str]) -> None:
    """Remember what the files of these modules were when they were loaded for us."""
    for name in names:
        module = sys.modules.get(name)
        text = getattr(module, "__file__", None)
        if (
            module is not None
            and text is not None
            and not any(part in Path(text).parts for part in _INSTALLED)
        ):
            with suppress(OSError):
                _LOADED_FROM[name] = module, _state(Path(text))


def _unchanged(module: ModuleType, file: Path) -> bool:
    """Whether the file is as it was when the module was loaded for us."""
    noted = _LOADED_FROM.get(module.__name__)
    with suppress(OSError):
        return noted is not None and noted[0] is module and noted[1] == _state(file)
    return False
