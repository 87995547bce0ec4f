"""Whether a file defines the callable that a configuration names, read off its text. No torch."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.config.code import CallableSpec
from pipeline.config.schema import near
from pipeline.errors import Refused


def refuse_undefined(spec: CallableSpec, key: str) -> None:
    """Refuse a name that the file neither defines nor imports.

    Only what is sure is refused: a file with `import *`, a module level `__getattr__`, or names
    made at run time is left to the import.

    Args:
        spec: what the configuration names; its module has been found before.
        key: where it stands in the configuration.

    Raises:
        Refused: there is no such name.
    """
    path = spec.path if spec.path is not None else _file_of(spec.module or "")
    if path is None or path.suffix != ".py" or not path.is_file():
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    names = set(_defined(tree.body))
    wanted = spec.name.partition(".")[0]
    if wanted in names or "*" in names or "__getattr__" in names or _writes_globals(tree):
        return
    callables = [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"
    ]
    close = near(wanted, callables, limit=1) or callables[:1]
    place = spec.text.rpartition(":")[0]
    raise Refused(
        "PL-227", f"{path.name} defines no {wanted}", where=key, found=spec.text,
        expected=", ".join(callables[:6]) or None,
        next_step=f"Type {key}={place}:{close[0]}" if close else None,
    )  # fmt: skip


def _file_of(module: str) -> Path | None:
    if "." in module:
        return None  # looking for it would import its parents
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found is not None and found.origin else None


def _defined(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for item in node.names:
                yield item.asname or item.name.partition(".")[0]
        else:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id
                elif isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
                    yield inner.name
                elif isinstance(inner, (ast.Import, ast.ImportFrom)):
                    for item in inner.names:
                        yield item.asname or item.name.partition(".")[0]


def _writes_globals(tree: ast.Module) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id in ("globals", "exec", "setattr"))
        or (isinstance(node, ast.Global))
        for node in ast.walk(tree)
    )
