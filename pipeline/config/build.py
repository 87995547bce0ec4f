"""From composed plain data to the typed `Config`, with nothing let through unseen.

Hydra takes `+key=` that no dataclass knows and falls back in silence after `~key`; here the
composed keys are compared with the dataclasses, and every value with its annotation.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, cast

from pipeline.config import schema
from pipeline.config.request import Config
from pipeline.config.rules import check
from pipeline.errors import InternalError, Refused

#: What OmegaConf writes for a value that somebody must give.
MISSING: Final = "???"

#: Says in which file a key was set ("experiment/classic.yaml"), where that is known.
Origin = Callable[[str], str | None]


def build(tree: Mapping[str, Any], origin: Origin = lambda path: None) -> Config:
    """The typed configuration of a composed, resolved tree.

    Args:
        tree: plain data: mappings, lists and scalars. Keys that are absent have their default.
        origin: see `Origin`.

    Raises:
        Refused: an unknown key, a wrong type, a value out of range, keys that contradict.
    """
    config = typed(tree, origin)
    check(config)
    return config


def typed(tree: Mapping[str, Any], origin: Origin = lambda path: None) -> Config:
    """The typed configuration without the checks across keys.

    Raises:
        Refused: an unknown key, a wrong type, a value that the key does not take.
    """
    return cast("Config", _section(Config, tree, "", origin))


def _section(kind: type, node: Any, path: str, origin: Origin) -> Any:
    if not isinstance(node, Mapping):
        raise Refused(
            "PL-102", f"{path} is a section of keys", where=path, found=show(node),
            expected=schema.names([f"{path}.{name}" for name in list(schema.fields_of(kind))[:3]]) + " ...",
            next_step=_for_a_section(path, node),
        )  # fmt: skip
    fields = schema.fields_of(kind)
    for name in node:
        if name not in fields:
            raise unknown_key(f"{path}.{name}" if path else str(name), node[name], origin)
    values = {}
    for name, (hint, _) in fields.items():
        if name not in node:
            continue
        inner = f"{path}.{name}" if path else name
        if dataclasses.is_dataclass(hint):
            values[name] = _section(cast("type", hint), node[name], inner, origin)
        else:
            values[name] = convert(node[name], hint, inner)
    return kind(**values)


def _for_a_section(path: str, node: Any) -> str:
    if path in schema.GROUPS and isinstance(node, str):
        return f"Type {path}={node} to choose a file of that group, or {path}.KEY=VALUE to set one key"
    return f"Type {path}.KEY=VALUE to set one key"


def unknown_key(path: str, value: Any = None, origin: Origin = lambda path: None) -> Refused:
    """The refusal of a key that no dataclass has."""
    close = schema.near_keys(path)
    shown = literal(value)
    file = origin(path)
    if not close:
        section = path.rpartition(".")[0]
        place = f" of {section}" if section else ""
        step = f"Type python -m pipeline --cfg job to see the keys{place}"
    elif file:
        step = f"Did you mean {schema.names(close)}?"
    else:
        step = f"Did you mean {schema.names(close)}? Type {_settable(close[0], shown)}"
    message = f"there is no key {path}"
    return Refused("PL-101", message, where=file, next_step=step) if file else Refused(
        "PL-101", message, next_step=step
    )  # fmt: skip


def _settable(path: str, shown: str) -> str:
    if path in schema.sections() and path not in schema.GROUPS:
        return f"{path}.KEY={shown}"
    return f"{path}={shown}"


def convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the annotation wants it.

    Taken: a whole number where a float is wanted, text that is exactly a number or true/false (what
    `${oc.env:...}` gives), a whole number where text is wanted. Refused: true for a number, 11.0 for
    a whole number, one text where a list is wanted.

    Raises:
        Refused: the type does not fit, or the value is not one of those allowed.
    """
    if isinstance(value, str) and value == MISSING:
        raise Refused("PL-110", f"{path} has to be given", next_step=f"Type {path}=VALUE")
    inner = schema.plain_hint(hint)
    if value is None:
        if inner is not hint:
            return None
        raise _wrong(value, hint, path)
    origin = typing.get_origin(inner)
    if inner is bool:
        return _bool(value, hint, path)
    if inner is int:
        return _int(value, hint, path)
    if inner is float:
        return _float(value, hint, path)
    if inner is str:
        return _str(value, hint, path)
    if origin is Literal:
        return _literal(value, hint, path, typing.get_args(inner))
    if origin is tuple:
        return _texts(value, hint, path)
    if origin is dict:
        return _mapping(value, hint, path, typing.get_args(inner)[1])
    raise InternalError(f"no rule for the annotation {hint} of {path}")


def _bool(value: Any, hint: Any, path: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _wrong(value, hint, path)


def _int(value: Any, hint: Any, path: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise _wrong(value, hint, path)


def _float(value: Any, hint: Any, path: str) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise _wrong(value, hint, path) from None
        if math.isfinite(number):
            return number
        raise Refused(
            "PL-103", f"{path} must be finite", where=path, found=show(value),
            expected=schema.expected(hint), next_step=f"Type {path}={literal(_default(path))}",
        )  # fmt: skip
    raise _wrong(value, hint, path)


def _str(value: Any, hint: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _wrong(value, hint, path)


def _literal(value: Any, hint: Any, path: str, allowed: Sequence[str]) -> str:
    if isinstance(value, str) and value in allowed:
        return value
    text = "none" if value is False else str(value)  # YAML 1.1 reads off and no as false
    close = schema.near(text, allowed, limit=1)
    raise Refused(
        "PL-103", f"{path} cannot be {show(value)}", where=path, expected=schema.expected(hint),
        next_step=f"Type {path}={close[0] if close else allowed[0]}",
    )  # fmt: skip


def _texts(value: Any, hint: Any, path: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(value, hint, path)
    return tuple(_str(item, str, f"{path}[{index}]") for index, item in enumerate(value))


def _mapping(value: Any, hint: Any, path: str, item: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(value, hint, path)
    if item is Any:
        return {key: _plain(inner, f"{path}.{key}") for key, inner in value.items()}
    return {str(key): convert(inner, item, f"{path}.{key}") for key, inner in value.items()}


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, str) and value == MISSING:
        raise Refused("PL-110", f"{path} has to be given", next_step=f"Type {path}=VALUE")
    if isinstance(value, Mapping):
        return {key: _plain(inner, f"{path}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{path}[{index}]") for index, inner in enumerate(value)]
    return value


def _wrong(value: Any, hint: Any, path: str) -> Refused:
    inner = schema.plain_hint(hint)
    base = path.partition("[")[0]
    if typing.get_origin(inner) is tuple and isinstance(value, (str, int)):
        step = f"Type {path}=[{literal(value)}]"
    elif inner is str and value is not None and not isinstance(value, (list, tuple, Mapping)):
        step = f"Type {path}=\"'{literal(value)}'\" to give it as text"
    else:
        step = f"Type {base}={_example(base, inner)}"
    return Refused(
        "PL-102", f"{path} has a value of the wrong type", where=path, found=show(value),
        expected=schema.expected(hint), next_step=step,
    )  # fmt: skip


def _example(path: str, inner: Any) -> str:
    default = _default(path)
    if default is not None:
        return literal(default)
    if typing.get_origin(inner) is tuple:
        return "[NAME,...]"
    return {int: "17", float: "60", str: "TEXT"}.get(inner, "VALUE")


def _default(path: str) -> Any:
    key = schema.key_of(path)
    return key.default if key is not None else None


def show(value: Any) -> str:
    """A value in a message, cut to a readable length."""
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, Mapping):
        text = f"a mapping with {', '.join(map(str, list(value)[:3])) or 'no keys'}"
    elif isinstance(value, (list, tuple)):
        text = f"a list of {len(value)}"
    else:
        text = literal(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def literal(value: Any) -> str:
    """A value as it is typed after `=` on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}: {literal(inner)}' for key, inner in value.items())}}}"
    return str(value)
