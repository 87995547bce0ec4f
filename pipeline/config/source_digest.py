"""What a Python source file says, as a digest that comments, blank lines and positions do not change.

The digest is over the syntax tree. Parsing costs about 10 ms per 1,000 lines, so results are kept
in a small index in the user's cache folder, by the sha256 of the file's bytes and the interpreter's
version: an entry can be missing, never outdated. The index is sealed with its own digest; a
damaged or unwritable one is done without.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: Raised whenever the digest of an unchanged file would come out differently.
FORMAT: Final = 1
#: Entries kept; the oldest go first. One is about 0.4 kB.
MOST_ENTRIES: Final = 5_000

_INDEX_NAME: Final = f"code-{FORMAT}-{sys.implementation.cache_tag}.json"


@dataclass(frozen=True)
class Import:
    """One import statement.

    Attributes:
        level: number of leading dots.
        module: what stands after them ("" for `from . import x`).
        names: what is taken from it; empty for `import module`.
    """

    level: int
    module: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What a source file says: a digest and the modules that it imports."""

    digest: str
    imports: tuple[Import, ...]


def read_source(data: bytes) -> Source:
    """Parse and digest; SyntaxError or ValueError when it is no Python."""
    tokens: list[str] = []
    imports: list[Import] = []
    _write(ast.parse(data), tokens.append, imports, guarded=False)
    text = "\0".join(tokens).encode("utf-8", "surrogatepass")
    return Source(hashlib.sha256(text).hexdigest(), tuple(dict.fromkeys(imports)))


def _write(node: ast.AST, out: Callable[[str], None], imports: list[Import], guarded: bool) -> None:
    """One token a node, field and constant; absent fields leave no trace."""
    out(node.__class__.__name__)
    if not guarded:
        imports.extend(_imports(node))
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == []:
            if isinstance(node, ast.Constant) and name == "value":
                out("None")
            continue
        out(name)
        # What only the type checker imports takes no part in what the code does.
        inside = guarded or (name == "body" and isinstance(node, ast.If) and _is_type_checking(node.test))
        if isinstance(value, ast.AST):
            _write(value, out, imports, inside)
        elif isinstance(value, list):
            out("[")
            for item in value:
                if isinstance(item, ast.AST):
                    _write(item, out, imports, inside)
                else:
                    out(repr(item))
            out("]")
        else:
            out(f"{type(value).__name__} {value!r}")


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _imports(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(0, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield Import(node.level, node.module or "", tuple(alias.name for alias in node.names))
    elif isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0]
        if (
            called in ("import_module", "__import__")
            and isinstance(first, ast.Constant)
            and isinstance(first.value, str)
            and not first.value.startswith(".")
        ):
            yield Import(0, first.value)


class SourceIndex:
    """Digests by content, kept between processes."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or index_path()
        self._known: dict[str, list[Any]] | None = None
        self._new = False

    def read(self, data: bytes) -> Source:
        """As `read_source`, from the index where it has these bytes."""
        content = hashlib.sha256(data).hexdigest()
        if self._known is None:
            self._known = _load(self._path)
        entry = self._known.get(content)
        if entry is None:
            source = read_source(data)
            self._known[content] = [
                source.digest,
                [[item.level, item.module, list(item.names)] for item in source.imports],
            ]
            self._new = True
            return source
        digest, imports = entry
        return Source(digest, tuple(Import(level, module, tuple(names)) for level, module, names in imports))

    def save(self) -> None:
        """Write the index if it has grown; a folder that cannot be written is done without."""
        if not self._new or self._known is None:
            return
        kept = dict(list({**_load(self._path), **self._known}.items())[-MOST_ENTRIES:])
        body = json.dumps(kept, separators=(",", ":"))
        seal = hashlib.sha256(body.encode()).hexdigest()
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".code-")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    stream.write(f"{seal}\n{body}\n")
                os.replace(temporary, self._path)
            except OSError:
                Path(temporary).unlink()
                raise
        self._new = False


def index_path() -> Path:
    """Where the index lies: in the cache folder of the pipeline, whatever `cache.dir` says."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "onnx-export-pipeline" / _INDEX_NAME


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        seal, _, body = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    body = body.removesuffix("\n")
    if hashlib.sha256(body.encode()).hexdigest() != seal:
        return {}
    known: dict[str, list[Any]] = json.loads(body)
    return known
