"""Digests of code: the pipeline's own modules, and the modules of the user's that a run names.

Nothing is imported to find out: files are found as Python's import would find them, and read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

from pipeline.config.source_digest import Import, Source, SourceIndex
from pipeline.errors import InternalError, Refused
from pipeline.locations import PREFIX, is_packaged, resolve_packaged

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_OURS: Final = "pipeline"
#: Versions of packages that count instead of the installed ones; see `as_recorded`.
_RECORDED: ContextVar[Mapping[str, str]] = ContextVar("recorded versions", default=MappingProxyType({}))


@dataclass(frozen=True)
class CodeDigest:
    """What the user's code is.

    Attributes:
        sha256: over every module of the user's that takes part, and the public versions of the
            installed packages that they import. Where the files lie does not enter it.
        files: the user's files that take part, sorted.
        packages: installed distributions that they import, sorted.
    """

    sha256: str
    files: tuple[Path, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class CallableSpec:
    """`pkg.module:name`, `path/to/file.py:name` or `pkg://models/file.py:name`, taken apart."""

    text: str
    module: str | None
    path: Path | None
    name: str

    @property
    def canonical(self) -> str:
        """The spelling that does not depend on folders."""
        if self.path is None or is_packaged(self.text):
            return self.text
        return f"{self.path.name}:{self.name}"


def parse_callable(text: str, key: str) -> CallableSpec:
    """Take a callable's name apart; nothing is looked for yet.

    Raises:
        Refused: it is neither `module:name` nor `file.py:name`.
    """
    place, colon, name = text.rpartition(":")
    if colon and name.replace(".", "").isidentifier() and place and not place.endswith((":", "/")):
        if is_packaged(place):
            try:
                return CallableSpec(text, None, resolve_packaged(place), name)
            except ValueError as error:
                raise _no_callable(text, key) from error
        if place.endswith(".py") or "/" in place:
            return CallableSpec(text, None, Path(place).expanduser(), name)
        if all(part.isidentifier() for part in place.split(".")):
            return CallableSpec(text, place, None, name)
    raise _no_callable(text, key)


def _no_callable(text: str, key: str) -> Refused:
    return Refused(
        "PL-114", f"{key} names no callable", where=key, found=f"'{text}'",
        expected="my_pkg.net:build or path/to/net.py:build", next_step=f"Type {key}=path/to/net.py:build",
    )  # fmt: skip


# -- the pipeline's own modules ------------------------------------------------------------------


@lru_cache(maxsize=256)
def pipeline_code_digest(modules: tuple[str, ...]) -> str:
    """Digest of modules of the pipeline and of every module of the pipeline that they import.

    Args:
        modules: dotted names ("pipeline.graph.simplify").

    Returns:
        sha256, full. The same from a checkout and from an installed package.

    Raises:
        InternalError: a module is not there.
    """
    digest = unsaved_code_digest(modules)
    _index().save()
    return digest


def unsaved_code_digest(modules: tuple[str, ...]) -> str:
    """The same, and nothing is written: for a request that may yet be refused, which leaves nothing."""
    digests: dict[str, str] = {}
    for name in modules:
        if _own_file(name) is None:
            raise InternalError(f"no module {name} to take the digest of")
    waiting = set(modules)
    while waiting:
        name = waiting.pop()
        digests[name], imported = _own_module(name)
        waiting |= imported - digests.keys()
    return _sha256(sorted(digests.items()))


@cache
def _own_module(name: str) -> tuple[str, frozenset[str]]:
    """Digest of a module of the pipeline's, and the modules of the pipeline's that it leads to."""
    file = _own_file(name)
    assert file is not None, name
    source = _own_source(file)
    leads_to = {name.rpartition(".")[0]} if "." in name else set()
    for item in source.imports:
        if item.module == _OURS or item.module.startswith(f"{_OURS}."):
            leads_to |= {item.module, *(f"{item.module}.{taken}" for taken in item.names)}
    # What is taken from a module is not always a module.
    return source.digest, frozenset(other for other in leads_to if _own_file(other) is not None)


def _own_file(name: str) -> str | None:
    return _own_files().get(name)


@cache
def _own_files() -> dict[str, str]:
    """Dotted name of every module of the pipeline's to its file."""
    found = {}
    folders = [(_OURS, str(_PACKAGE))]
    for package, folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == "__init__.py":
                    found[package] = entry.path
                elif entry.name.endswith(".py"):
                    found[f"{package}.{entry.name[:-3]}"] = entry.path
                elif entry.name != "__pycache__" and entry.is_dir():
                    folders.append((f"{package}.{entry.name}", entry.path))
    return found


@cache
def _own_source(path: str) -> Source:
    return _index().read(Path(path).read_bytes())


@cache
def _index() -> SourceIndex:
    return SourceIndex()


# -- the user's modules --------------------------------------------------------------------------


def module_digest(path: Path) -> str:
    """Digest of one file: its syntax tree, or its bytes when it is no Python."""
    data = path.read_bytes()
    try:
        return _index().read(data).digest
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return hashlib.sha256(data).hexdigest()


@contextmanager
def as_recorded(versions: Mapping[str, str]) -> Iterator[None]:
    """Digests of the user's code as they were with other versions of the packages that it imports.

    Whether a source is the one of an earlier run does not depend on what has been upgraded since.
    """
    token = _RECORDED.set(versions)
    try:
        yield
    finally:
        _RECORDED.reset(token)


def user_code_digest(text: str, key: str = "model.factory") -> CodeDigest:
    """Digest of a callable's module and, transitively, of the user's own modules that it imports.

    Modules of the standard library do not count (the interpreter's version does elsewhere),
    installed distributions count by their public version, everything else by what its files say.

    Args:
        text: `pkg.module:name`, `path/to/file.py:name` or `pkg://models/file.py:name`.
        key: the configuration key, for messages.

    Raises:
        Refused: the module is not found, or is no Python.
    """
    spec = parse_callable(text, key)
    walk = _Walk()
    if spec.path is not None:
        file = spec.path.absolute()
        if not file.is_file():
            raise Refused(
                "PL-114", f"{key} names a file that is not there", where=key, found=f"'{text}'",
                expected="a Python file", next_step=f"Type {key}=path/to/file.py:{spec.name}",
            )  # fmt: skip
        root, name = _packaged_root(spec.text) if is_packaged(spec.text) else package_root(file)
        walk.search = [str(root), *walk.search]
        _check_parses(file, key)
        walk.file(name, file, is_package=file.name == "__init__.py")
        if "." in name and not is_packaged(spec.text):  # importing it runs the packages around it first
            walk.waiting.append(name.rpartition(".")[0])
    else:
        assert spec.module is not None
        found = walk.find(spec.module)
        if found is None:
            raise _no_module(spec, key, walk)
        if found.origin and found.origin.endswith(".py") and not walk.is_foreign(spec.module, found):
            _check_parses(Path(found.origin), key)
        walk.module(spec.module)
    walk.run()
    _index().save()
    described = {
        "name": spec.name,
        "modules": sorted(walk.digests.items()),
        "packages": [
            [name, _RECORDED.get().get(name) or public_version(name)] for name in sorted(walk.packages)
        ],
        "missing": sorted(walk.missing),
    }
    return CodeDigest(_sha256(described), tuple(sorted(walk.files)), tuple(sorted(walk.packages)))


def _no_module(spec: CallableSpec, key: str, walk: _Walk) -> Refused:
    assert spec.module is not None
    missing = spec.module
    while "." in missing and walk.find(missing.rpartition(".")[0]) is None:
        missing = missing.rpartition(".")[0]
    return Refused(
        "PL-114", f"{key} names a module that is not found", where=key, found=f"'{missing}'",
        expected="a module in this folder, on PYTHONPATH or installed",
        next_step=f"Type {key}=path/to/{spec.module.rpartition('.')[2]}.py:{spec.name}",
    )  # fmt: skip


def _check_parses(file: Path, key: str) -> None:
    data = file.read_bytes()
    try:
        _index().read(data)
    except SyntaxError as error:
        raise Refused(
            "PL-114", f"{key} names a file that is no Python", where=f"{file}:{error.lineno or 1}",
            found=str(error.msg), next_step=f"Mend {file.name}",
        ) from error  # fmt: skip
    except (ValueError, RecursionError, MemoryError) as error:
        raise Refused(
            "PL-114", f"{key} names a file that is no Python", where=str(file), found=str(error),
            next_step=f"Mend {file.name}",
        ) from error  # fmt: skip


def _packaged_root(text: str) -> tuple[Path, str]:
    """The same for a file that ships with the pipeline: by what the text says, not by where it lies.

    In a wheel the file is inside the package, in a checkout beside it; its name is the same.
    """
    place = text.rpartition(":")[0]
    parts = PurePosixPath(place.removeprefix(PREFIX)).with_suffix("").parts
    root = resolve_packaged(place).parents[len(parts) - 1]
    return root, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_root(file: Path) -> tuple[Path, str]:
    """The folder that has to be on the path to import `file`, and its dotted name from there."""
    parts = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


@dataclass
class _Walk:
    """Follows imports through the user's own files."""

    search: list[str] = field(default_factory=lambda: [str(Path.cwd())])
    digests: dict[str, str] = field(default_factory=dict)
    files: set[Path] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    waiting: list[str] = field(default_factory=list)
    specs: dict[str, ModuleSpec | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        importlib.invalidate_caches()

    def run(self) -> None:
        while self.waiting:
            self.module(self.waiting.pop())

    def module(self, name: str) -> None:
        """Count one module and queue what it imports."""
        if name in self.digests or name in self.missing or name.partition(".")[0] == _OURS:
            return
        if "." in name:
            self.waiting.append(name.rpartition(".")[0])
        found = self.find(name)
        if found is None:
            self.missing.add(name)
            return
        if self.is_foreign(name, found):
            return
        if found.origin is None or found.origin in ("built-in", "frozen", "namespace"):
            self.digests[name] = "namespace"
            return
        self.file(name, Path(found.origin), is_package=found.submodule_search_locations is not None)

    def file(self, name: str, path: Path, *, is_package: bool) -> None:
        """Count the file of a module."""
        self.digests[name] = module_digest(path)
        self.files.add(path)
        if path.suffix != ".py":
            return
        try:
            source = _index().read(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return  # counted by its bytes; importing it says what is wrong with it
        for item in source.imports:
            self.waiting += self.imported(item, name, is_package)

    def imported(self, item: Import, importer: str, is_package: bool) -> Iterator[str]:
        """Dotted names of the modules that an import statement may load."""
        base = item.module
        if item.level:
            parents = importer.split(".")
            cut = item.level - (1 if is_package else 0)
            if cut >= len(parents) and not (cut == len(parents) and item.module):
                self.missing.add("." * item.level + item.module)
                return
            above = parents[: len(parents) - cut] if cut else parents
            base = ".".join([*above, *([item.module] if item.module else [])])
        if base:
            yield base
        for taken in item.names:
            inner = f"{base}.{taken}" if base else taken
            if taken != "*" and self.is_submodule(base, inner):
                yield inner

    def is_submodule(self, base: str, name: str) -> bool:
        found = self.find(base) if base else None
        if base and (found is None or found.submodule_search_locations is None):
            return False
        if found is not None and self.is_foreign(base, found):
            return False
        return self.find(name) is not None

    def find(self, name: str) -> ModuleSpec | None:
        """Where import would find a module; parents are looked into, never executed."""
        if name not in self.specs:
            self.specs[name] = self._find(name)
        return self.specs[name]

    def _find(self, name: str) -> ModuleSpec | None:
        parent, _, _ = name.rpartition(".")
        try:
            if parent:
                above = self.find(parent)
                if above is None or above.submodule_search_locations is None:
                    return None
                return _below(name, list(above.submodule_search_locations))
            return PathFinder.find_spec(name, self.search) or _first(name, None)
        except (ImportError, ValueError, OSError):
            return None

    def is_foreign(self, name: str, found: ModuleSpec) -> bool:
        """Whether the module is not the user's: of the standard library or of a distribution."""
        top = name.partition(".")[0]
        places = [found.origin] if found.origin else list(found.submodule_search_locations or ())
        if any(_is_below(place, _installed_folders()) for place in places):
            distribution = _distribution(top)
            if distribution is None:
                return False  # lies there without belonging to anything: counted by what it says
            self.packages.add(distribution)
            return True
        if top not in sys.stdlib_module_names:
            return False
        return not any(_is_below(place, tuple(self.search)) for place in places)


def _below(name: str, path: Sequence[str]) -> ModuleSpec | None:
    """A submodule in its parent's folders; the parent may be a package without a file, and not imported."""
    try:
        return _first(name, path)
    except KeyError:  # Python looks for such a package's parent among the modules that are loaded
        tail = name.rpartition(".")[2]
        folders = [str(Path(folder) / tail) for folder in path if (Path(folder) / tail).is_dir()]
        found = ModuleSpec(name, None, is_package=True) if folders else None
        if found is not None:
            found.submodule_search_locations = folders
        return found


def _first(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        found: ModuleSpec | None = find_spec(name, path) if find_spec is not None else None
        if found is not None:
            return found
    return None


def _is_below(place: str, folders: Iterable[str]) -> bool:
    return any(place == folder or place.startswith(folder.rstrip("/") + "/") for folder in folders)


@cache
def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()]
    folders += [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return tuple(dict.fromkeys(folders))


@cache
def _distribution(top: str) -> str | None:
    """The distribution that brings a top-level module."""
    for name in (top, top.replace("_", "-")):
        try:
            return importlib.metadata.distribution(name).metadata["Name"].lower()
        except importlib.metadata.PackageNotFoundError:
            continue
    return next((name.lower() for name in _distributions().get(top, ())), None)


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


@cache
def public_version(name: str) -> str:
    """A distribution's version without what a build adds to it ("2.14.1" of "2.14.1+cpu")."""
    return full_version(name).partition("+")[0]


@cache
def full_version(name: str) -> str:
    """A distribution's version as it is installed; "missing" when it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _sha256(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
