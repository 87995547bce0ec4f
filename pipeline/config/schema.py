"""The keys that a configuration may hold, read off the dataclasses, and names that are near them.

Three kinds of places: *keys* hold a value of a known type; *sections* hold keys; *free* keys hold
plain data whose shape somebody else checks (`model.inputs`, `model.args`, `rules` ...), so any
path below them is taken.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from pipeline.config.request import Config

#: Hydra groups: the sections whose values come from a file of conf/<group>/, and `experiment`.
GROUPS: Final = ("model", "export", "surgery", "simplify", "check", "parity", "target", "experiment")
#: How alike two names must be for one to be offered for the other (difflib's ratio).
NEAR: Final = 0.6
#: A name that is so much less alike than the nearest is not offered beside it.
NEARER: Final = 0.2


@dataclass(frozen=True)
class Key:
    """One place that holds a value.

    Attributes:
        path: dotted path from the top ("export.opset").
        hint: the annotation, resolved.
        default: the dataclass's own.
    """

    path: str
    hint: Any
    default: Any

    @property
    def free(self) -> bool:
        """Whether the value is a mapping with keys of the user's choice."""
        return typing.get_origin(plain_hint(self.hint)) is dict

    @property
    def optional(self) -> bool:
        return type(None) in typing.get_args(self.hint)


def plain_hint(hint: Any) -> Any:
    """`hint` without `| None`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        rest = [part for part in typing.get_args(hint) if part is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


@cache
def fields_of(kind: type) -> Mapping[str, tuple[Any, Any]]:
    """Field name to (annotation, default) of a configuration dataclass."""
    hints = typing.get_type_hints(kind)
    default = kind()
    return {
        field.name: (hints[field.name], getattr(default, field.name)) for field in dataclasses.fields(kind)
    }


@cache
def all_keys() -> Mapping[str, Key]:
    """Every key, by its path."""
    return {key.path: key for key in _keys_of(Config, "")}


@cache
def sections() -> frozenset[str]:
    """Paths of the dataclasses inside `Config`."""
    return frozenset(path.rpartition(".")[0] for path in all_keys()) - {""}


def _keys_of(kind: type, prefix: str) -> Iterable[Key]:
    for name, (hint, default) in fields_of(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _keys_of(typing.cast("type", hint), f"{prefix}{name}.")
        else:
            yield Key(f"{prefix}{name}", hint, default)


def key_of(path: str) -> Key | None:
    """The key that holds `path`: itself, or the free key that it lies below."""
    found = all_keys().get(path)
    while found is None and "." in path:
        path = path.rpartition(".")[0]
        above = all_keys().get(path)
        found = above if above is not None and above.free else None
    return found


def near(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Names that may have been meant, the likeliest first."""
    known = list(known)
    alike = {each: difflib.SequenceMatcher(None, each, name).ratio() for each in known}
    least = max(NEAR, max(alike.values(), default=0.0) - NEARER)
    found = sorted((each for each in known if alike[each] >= least), key=lambda each: -alike[each])[:limit]
    longer = [
        candidate for candidate in known
        if candidate not in found and len(name) > 2 and name.lower() in candidate.lower()
    ]  # fmt: skip
    return (found + longer)[:limit]


def near_options(group: str, option: str, known: Iterable[str]) -> list[str]:
    """Files of a group that may have been meant; nobody who names a target means none."""
    return near(option, [name for name in known if (group, name) != ("target", "none")])


def near_keys(path: str) -> list[str]:
    """Keys that may have been meant by the unknown `path`, the likeliest first.

    A key of that name in another section counts, because `opset=11` for `export.opset=11` is the
    commonest mistake.
    """
    section, _, name = path.rpartition(".")
    places = [*all_keys(), *sections(), "experiment"]
    elsewhere = [place for place in places if place.rpartition(".")[2] == name]
    siblings = [place for place in places if place.rpartition(".")[0] == section]
    by_name = {place.rpartition(".")[2]: place for place in siblings}
    in_section = [by_name[close] for close in near(name, by_name)]
    anywhere = near(path, places)
    return list(dict.fromkeys([*elsewhere, *in_section, *anywhere]))[:3]


def expected(hint: Any) -> str:
    """What a key takes, in words."""
    inner = plain_hint(hint)
    words = _words(inner)
    return f"{words} or null" if inner is not hint else words


def _words(hint: Any) -> str:
    simple = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if hint in simple:
        return simple[hint]
    origin = typing.get_origin(hint)
    if origin is Literal:
        values = [str(value) for value in typing.get_args(hint)]
        return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"
    if origin is tuple:
        return "a list of texts"
    if origin is dict:
        return "a mapping" if typing.get_args(hint)[1] is Any else "a mapping of names to whole numbers"
    return str(hint)


def names(paths: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    listed = list(paths)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"
