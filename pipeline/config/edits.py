"""What an override does to the composed tree of plain data.

Hydra's rules, with three differences that the keys here need: a mapping given whole to a free key
replaces what stood there (Hydra merges), keys that a file left out need no `+`, and nothing
outside the dataclasses is added or removed.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config import schema
from pipeline.config.build import literal, unknown_key
from pipeline.errors import Refused


@dataclass(frozen=True)
class Edit:
    """One value override.

    Attributes:
        text: as it was typed.
        how: set (`key=v`), add (`+key=v`), force (`++key=v`), delete (`~key`).
        path: dotted path of the key.
        value: plain data; None for delete.
    """

    text: str
    how: Literal["set", "add", "force", "delete"]
    path: str
    value: Any = None


def split(path: str) -> list[str]:
    """Segments of a path: dots, and [index] as OmegaConf writes it."""
    return [part for part in re.split(r"[.\[\]]+", path) if part]


def check_key(edit: Edit) -> None:
    """Refuse a key that there is not, and the removal of one that has to be there.

    Raises:
        Refused: see above; decided by the key alone, whatever the value.
    """
    path = ".".join(split(edit.path))
    key = schema.key_of(path)
    if key is None and path not in schema.sections():
        raise unknown_key(path, edit.value)
    if edit.how != "delete":
        return
    if key is not None and key.free and path != key.path:
        return
    if key is None:
        step = f"Type {path}=none" if path in schema.GROUPS else f"Leave ~{path} out"
    elif path == "model.inputs":
        step = f"Leave ~{path} out, or type '{path}={{NAME: {{shape: [1,3,224,224]}}}}' for other inputs"
    else:
        step = f"Type {path}={literal(key.default)} for the default"
    raise Refused("PL-107", f"{path} cannot be taken away", next_step=step)


def apply(tree: dict[str, Any], edits: Iterable[Edit]) -> None:
    """Change `tree` in place, in order.

    Raises:
        Refused: an edit goes below something that is no mapping, removes what is not there, or
            names an input that the model does not have.
    """
    for edit in edits:
        _apply(tree, edit)


def _apply(tree: dict[str, Any], edit: Edit) -> None:
    parts = split(edit.path)
    key = schema.key_of(".".join(parts))
    if key is None:
        _lay_over(tree, parts, edit)
        return
    depth = len(split(key.path))
    if key.free and len(parts) > depth:
        _edit_free(tree, parts, depth, edit)
        return
    node = _descend(tree, parts[:-1], edit)
    value = edit.value
    if (
        key.free
        and edit.how != "set"
        and isinstance(value, Mapping)
        and isinstance(node.get(parts[-1]), dict)
    ):
        value = _merged(node[parts[-1]], value)
    node[parts[-1]] = value


def _lay_over(tree: dict[str, Any], parts: list[str], edit: Edit) -> None:
    """A mapping for a whole section: each of its keys is an edit of its own."""
    if not isinstance(edit.value, Mapping):
        _descend(tree, parts[:-1], edit)[parts[-1]] = edit.value  # refused by build, which names the keys
        return
    for name, value in edit.value.items():
        inner = Edit(edit.text, edit.how, ".".join([*parts, str(name)]), value)
        check_key(inner)
        _apply(tree, inner)


def _descend(tree: dict[str, Any], parts: list[str], edit: Edit) -> dict[str, Any]:
    node: Any = tree
    for index, part in enumerate(parts):
        if not isinstance(node.get(part), dict):
            if node.get(part) is not None:
                raise _not_a_mapping(".".join(parts[: index + 1]), node[part], edit)
            node[part] = {}
        node = node[part]
    return node  # type: ignore[no-any-return]


def _not_a_mapping(path: str, value: Any, edit: Edit) -> Refused:
    return Refused(
        "PL-102", f"{edit.path} lies below {path}, which is no mapping", where=edit.path,
        found=literal(value), expected="a mapping", next_step=f"Type {path}={{...}} to give it whole",
    )  # fmt: skip


def _edit_free(tree: dict[str, Any], parts: list[str], depth: int, edit: Edit) -> None:
    root = _descend(tree, parts[:depth], edit)
    if typing.get_args(schema.plain_hint(schema.all_keys()[".".join(parts[:depth])].hint))[1] is not Any:
        parts = [*parts[:depth], ".".join(parts[depth:])]  # a domain such as com.microsoft has dots itself
    name = parts[depth]
    path = ".".join(parts[:depth])
    if path == "model.inputs" and root and name not in root and edit.how in ("set", "delete"):
        close = schema.near(name, map(str, root)) or [str(given) for given in root]
        rest = ".".join([path, close[0], *parts[depth + 1 :]])
        step = f"Did you mean {schema.names(close)}? Type {rest}={literal(edit.value)}"
        if edit.how == "set":
            step += f", or +{edit.text} for one more input"
        raise Refused(
            "PL-101", f"the model has no input {name}", where=edit.path,
            found=", ".join(map(str, root)), next_step=step,
        )  # fmt: skip
    node: Any = root
    for index, part in enumerate(parts[depth:-1]):
        node = _step(node, part, ".".join(parts[: depth + index + 1]), edit)
    _put(node, parts[-1], edit)


def _step(node: Any, part: str, path: str, edit: Edit) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, path, edit)]
    if isinstance(node.get(part), (dict, list)):
        return node[part]
    if node.get(part) is not None:
        raise _not_a_mapping(path, node[part], edit)
    node[part] = {}
    return node[part]


def _index(node: list[Any], part: str, path: str, edit: Edit) -> int:
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    raise Refused(
        "PL-102", f"{edit.path} points past a list", where=path, found=f"[{part}]",
        expected=f"0 to {len(node) - 1}", next_step=f"Type {path}=[...] to give it whole",
    )  # fmt: skip


def _put(node: Any, part: str, edit: Edit) -> None:
    if isinstance(node, list):
        position = _index(node, part, edit.path, edit)
        if edit.how == "delete":
            del node[position]
        else:
            node[position] = edit.value
        return
    name: Any = part
    if part not in node and part.isdecimal() and int(part) in node:
        name = int(part)  # the axis numbers of `dynamic`
    if edit.how == "delete":
        if name not in node:
            raise Refused(
                "PL-107", f"{edit.path} is not there to be taken away", next_step=f"Leave {edit.text} out"
            )
        del node[name]
        return
    if edit.how == "add" and name in node and not isinstance(edit.value, (Mapping, list)):
        raise Refused(
            "PL-105", f"{edit.path} is there already", where=edit.text, found=literal(node[name]),
            next_step=f"Type {edit.text.removeprefix('+')} to change it",
        )  # fmt: skip
    merge = edit.how != "set" and isinstance(edit.value, Mapping) and isinstance(node.get(name), dict)
    node[name] = _merged(node[name], edit.value) if merge else edit.value


def _merged(below: Mapping[Any, Any], above: Mapping[Any, Any]) -> dict[Any, Any]:
    result = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = _merged(result[name], value) if both else value
    return result
