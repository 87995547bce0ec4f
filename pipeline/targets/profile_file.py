"""Profiles as YAML files: found, laid over each other, checked and built."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.config.canonical import canonical_json
from pipeline.errors import Refused
from pipeline.locations import CONF_DIR, resolve_packaged
from pipeline.targets.profile import Profile
from pipeline.targets.profile_schema import build

FOLDER: Final = Path("target") / "profiles"
#: libyaml where PyYAML has it: a profile of 160 operators takes 15 ms instead of 150.
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Where a request writes what is laid over a profile.
LIMITS: Final = "target.limits"
#: Keys that are followed when a file is read, and nowhere else.
_FILES_ONLY: Final = ("extends", "operators_from")
_SIDES: Final = ("accelerator", "cpu")
#: A profile is text of some 100 KB; more is no profile.
MOST_BYTES: Final = 4 * 1024 * 1024
#: libyaml's loader recurses in C and kills the process in the end; the schema nests five deep.
MOST_NESTED: Final = 60
#: Aliases can make a few lines mean gigabytes; the largest table has some 3,000 values.
MOST_VALUES: Final = 100_000


@dataclass(frozen=True)
class _Layer:
    """A file, and the data up to it: everything that it lies over, and its own."""

    where: str
    data: Mapping[str, Any]


def read(name_or_path: str, limits: Mapping[str, Any], config_dirs: Sequence[str | Path]) -> Profile:
    """See `pipeline.targets.profile.load_profile`."""
    folders = [*(Path(folder) for folder in config_dirs), CONF_DIR]
    path = find(name_or_path, folders)
    layers: list[_Layer] = []
    data, extends = _resolved(path, folders, (), layers)
    if not isinstance(limits, Mapping):
        raise Refused("PL-601", "limits are no mapping", where="target.limits", found=str(limits)[:60],
                      expected="keys of a profile", next_step="Write target.limits as a mapping")  # fmt: skip
    for key in _FILES_ONLY:
        if key in limits:
            raise Refused("PL-601", f"{key} has no effect in limits", where=f"{LIMITS}.{key}", found=str(limits[key]),
                          expected="keys of a profile that are laid over it",
                          next_step="Take it away, and name the profile with target.profile=NAME")  # fmt: skip
    data = overlaid(data, limits)
    data.pop("extends", None)
    name = path.stem if _is_path(name_or_path) else name_or_path
    where = LIMITS if limits else str(_shown(path))
    try:
        profile = build(name, data, where=where, extends=extends, digest="")
    except Refused as refusal:
        raise _blamed(refusal, layers) from None
    try:
        return replace(profile, digest=sha256(canonical_json(data).encode()).hexdigest())
    except (TypeError, ValueError) as error:
        raise Refused("PL-601", "the profile holds a value that has no digest", where=where, found=str(error),
                      expected="texts, truths and finite numbers", next_step=f"Mend {where}") from error  # fmt: skip


def _blamed(refusal: Refused, layers: Sequence[_Layer]) -> Refused:
    """The same refusal with the place where the mistake was made first: a file below, or the request."""
    wrong = _without_place(refusal)
    for layer in layers:
        try:
            build("", {**layer.data, "extends": None}, where=layer.where, extends=(), digest="")
        except Refused as lower:
            if _without_place(lower) == wrong:
                return lower
    reason = refusal.reason
    place = reason.where or ""
    if not place.startswith(LIMITS):
        return refusal
    # In the request a key has a path, where a file has a name and a key.
    typed = place.replace(": ", ".")
    step = (reason.next_step or "").replace(place, typed)
    return Refused(reason.code, reason.message, where=typed, found=reason.found, expected=reason.expected,
                   next_step=step)  # fmt: skip


def _without_place(refusal: Refused) -> tuple[str | None, ...]:
    reason = refusal.reason
    return (reason.code, reason.message, reason.found, reason.expected)


def profile_names(config_dirs: Sequence[str | Path] = ()) -> tuple[str, ...]:
    """Every profile by name, sorted."""
    folders = [*(Path(folder) for folder in config_dirs), CONF_DIR]
    return tuple(sorted({path.stem for folder in folders for path in (folder / FOLDER).glob("*.yaml")}))


def find(name_or_path: str, folders: Sequence[Path]) -> Path:
    """The file of a profile.

    Raises:
        Refused: there is none.
    """
    if _is_path(name_or_path):
        path = resolve_packaged(name_or_path)
        if path.is_file():
            return path
        raise Refused("PL-600", "there is no such profile", where="target.profile", found=f"no file {path}",
                      expected="the path of a YAML file", next_step="Type target.profile=PATH")  # fmt: skip
    for folder in folders:
        path = folder / FOLDER / f"{name_or_path}.yaml"
        if path.is_file() and "/" not in name_or_path:
            return path
    known = sorted({path.stem for folder in folders for path in (folder / FOLDER).glob("*.yaml")})
    close = get_close_matches(name_or_path, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise Refused(
        "PL-600", f"there is no target {name_or_path!r}", where="target", expected=", ".join(known),
        next_step=f"{hint}Type python -m pipeline targets",
    )  # fmt: skip


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`: mappings key by key, everything else replaces; null takes an operator away.

    Whoever says that an operator runs somewhere without limits, or nowhere, takes its limits there away.
    """
    made = copy.deepcopy(dict(base))
    for key, value in over.items():
        if key in _SIDES and value in ("full", "none") and f"{key}_limits" not in over:
            made.pop(f"{key}_limits", None)
        if isinstance(value, Mapping) and isinstance(made.get(key), Mapping):
            made[key] = overlaid(made[key], value)
        else:
            made[key] = copy.deepcopy(value)
    return made


def _is_path(text: str) -> bool:
    return text.endswith((".yaml", ".yml"))


def _resolved(
    path: Path, folders: Sequence[Path], seen: tuple[Path, ...], layers: list[_Layer]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The data of a file, laid over what it extends and over its table of operators; `layers` grows."""
    if path.resolve() in seen:
        chain = " extends ".join([*(one.stem for one in seen), path.stem])
        raise Refused("PL-604", "a profile extends itself", where=str(_shown(path)), found=chain,
                      expected="a chain that ends", next_step="Change its key extends")  # fmt: skip
    data = _yaml(path)
    base: dict[str, Any] = {}
    extends: tuple[str, ...] = ()
    parent = data.get("extends")
    if parent is not None:
        if not isinstance(parent, str):
            raise Refused("PL-601", "extends names no profile", where=f"{_shown(path)}: extends",
                          found=str(parent), expected="a name", next_step="Write extends: NAME")  # fmt: skip
        if _is_path(parent) and not Path(parent).is_absolute() and not parent.startswith("pkg://"):
            parent = str(path.parent / parent)
        beside = path.parent / f"{parent}.yaml"
        # A file may lie over one of ours of its own name.
        above = (
            find(parent, folders) if _is_path(parent) or beside == path or not beside.is_file() else beside
        )
        base, further = _resolved(above, folders, (*seen, path.resolve()), layers)
        extends = (above.stem, *further)
    table = data.pop("operators_from", None)
    if table is not None:
        rows = path.parent.parent / "operators" / f"{table}.yaml"
        if not isinstance(table, str) or not rows.is_file():
            raise Refused("PL-601", "there is no such table of operators", where=f"{_shown(path)}: operators_from",
                          found=str(table), expected=f"a file {rows}", next_step="Mend operators_from")  # fmt: skip
        base = overlaid(base, _yaml(rows))
    made = overlaid(base, data)
    layers.append(_Layer(str(_shown(path)), made))
    return made, extends


def _yaml(path: Path) -> dict[str, Any]:
    where = str(_shown(path))
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Refused("PL-601", "the profile is too large", where=where, found=f"{path.stat().st_size} bytes",
                          expected=f"at most {MOST_BYTES}", next_step=f"Mend {where}")  # fmt: skip
        text = path.read_bytes().decode()
        if _nesting(text) > MOST_NESTED:
            raise Refused("PL-601", "the profile nests too deep", where=where, expected=f"at most {MOST_NESTED} levels",
                          next_step=f"Mend {where}")  # fmt: skip
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark is not None else where
        problem = str(getattr(error, "problem", None) or "bytes that are no UTF-8 text")
        raise Refused("PL-601", "the profile is no YAML", where=place, found=problem,
                      next_step=f"Mend {place}") from error  # fmt: skip
    except OSError as error:
        raise Refused("PL-601", "the profile cannot be read", where=where, found=error.strerror,
                      next_step="Mend its permissions") from error  # fmt: skip
    if _size(data, MOST_VALUES) < 0:
        raise Refused("PL-601", "the profile's aliases make too much of it", where=where,
                      expected=f"at most {MOST_VALUES} values", next_step=f"Mend {where}")  # fmt: skip
    if not isinstance(data, dict):
        raise Refused("PL-601", "the profile is no mapping", where=where, found=type(data).__name__,
                      expected="keys such as opset and operators", next_step=f"Mend {where}")  # fmt: skip
    return data


def _nesting(text: str) -> int:
    """At least as deep as YAML makes it: brackets, and what stands before the first word of a line."""
    deepest = depth = 0
    for bracket in re.findall(r"[][{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return max(deepest, *(len(lead) for lead in re.findall(r"^[ ?-]*", text, re.MULTILINE)))


def _size(data: Any, left: int) -> int:
    """How many values are left of `left` when all of `data` are counted; -1: none."""
    if left < 0:
        return -1
    items: Any = ()
    if isinstance(data, dict):
        items = data.values()
    elif isinstance(data, list):
        items = data
    for item in items:
        left = _size(item, left - 1)
    return left


def _shown(path: Path) -> Path | str:
    if path.is_relative_to(CONF_DIR):
        return f"conf/{path.relative_to(CONF_DIR).as_posix()}"
    return path
