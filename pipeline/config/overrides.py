"""Overrides: read with Hydra's grammar, sorted into choices and edits, sweeps laid out as points."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType, ValueType
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import schema
from pipeline.config.build import literal, unknown_key
from pipeline.config.edits import Edit, check_key, split
from pipeline.config.folders import ConfigFolders
from pipeline.errors import Refused

#: More points than this are a slip of the keyboard, not a sweep.
MOST_POINTS: Final = 10_000

_HOW: Final[Mapping[OverrideType, Literal["set", "add", "force", "delete"]]] = {
    OverrideType.CHANGE: "set",
    OverrideType.ADD: "add",
    OverrideType.FORCE_ADD: "force",
    OverrideType.DEL: "delete",
}
#: Keys of Hydra's own that mean something here; what else one may set would be without effect.
_HYDRA_KEYS: Final = ("hydra.searchpath", "hydra.mode")
_HYDRA_SECTIONS: Final = ("hydra.sweeper.params.",)
_HYDRA_INSTEAD: Final = {
    "hydra.run.dir": "out=FOLDER",
    "hydra.sweep.dir": "out=FOLDER, and sweep=NAME for the sweep's own folder",
    "hydra.sweep.subdir": "sweep=NAME",
    "hydra.job.chdir": "out=FOLDER",
    "hydra.verbose": "debug=true",
}


@dataclass(frozen=True)
class Choice:
    """A group override: which file of a group is taken."""

    text: str
    group: str
    option: str | None


@dataclass(frozen=True)
class Sorted:
    """A point's overrides, apart by what they do."""

    choices: tuple[Choice, ...]
    edits: tuple[Edit, ...]
    hydra: tuple[Override, ...]
    others: tuple[str, ...]  #: left to Hydra: choices with a package, groups of the user's own


def parse(texts: Sequence[str]) -> list[Override]:
    """Read overrides.

    Raises:
        Refused: one of them cannot be read.
    """
    parser = OverridesParser.create()
    found = []
    for text in texts:
        try:
            found.extend(parser.parse_overrides([text]))
        except (HydraException, OmegaConfBaseException, ValueError, ArithmeticError, RecursionError) as error:
            raise _unreadable(text) from error
    return found


def _unreadable(text: str) -> Refused:
    key, equals, value = text.partition("=")
    if not equals and not text.startswith("~"):
        close = schema.near_keys(text.lstrip("+"))
        step = f"Type {close[0] if close else text}=VALUE"
        return Refused("PL-105", f"'{text}' is no override", expected="KEY=VALUE", next_step=step)
    if not equals:
        return Refused("PL-105", f"'{text}' cannot be read", expected="~KEY", next_step="Type KEY=VALUE")
    quoted = value.replace("'", "\\'")
    return Refused(
        "PL-105", f"the value of {key} cannot be read", where=key.lstrip("+~"), found=value or "nothing",
        expected="a number, a text, [a,list] or {a: mapping}",
        next_step=f"Type \"{key}='{quoted}'\" to give it as text",
    )  # fmt: skip


def is_choice(override: Override, folders: ConfigFolders) -> bool:
    """Whether it picks a file of a group (`model=alexnet`) and sets no key."""
    name = override.key_or_group
    if override.package is not None or "/" in name:
        return True
    if name in schema.GROUPS:
        return not isinstance(override.value(), Mapping)
    return name not in schema.all_keys() and name not in schema.sections() and folders.is_group(name)


def is_hydra(override: Override) -> bool:
    """Whether it sets something of Hydra's own."""
    return override.is_hydra_override() or override.key_or_group == "hydra"


def check_keys(overrides: Iterable[Override], folders: ConfigFolders) -> None:
    """Refuse what is wrong by its key alone, before any sweep is laid out.

    Raises:
        Refused: an unknown key, a key that cannot be taken away, a group given twice.
    """
    seen: dict[str, str] = {}
    for override in overrides:
        name, text = override.key_or_group, override.input_line or override.key_or_group
        if is_hydra(override):
            _check_hydra(override)
        elif is_choice(override, folders):
            _check_choice(override, text)
            if override.get_key_element() in seen:
                raise Refused(
                    "PL-105", f"{name} is chosen twice", found=f"{seen[override.get_key_element()]} and {text}",
                    next_step=f"Leave one of them out, or type -m {name}=A,B to run both",
                )  # fmt: skip
            seen[override.get_key_element()] = text
        else:
            value = None if override.is_sweep_override() else override.value()
            try:
                check_key(Edit(text, _HOW[override.type], name, value))
            except Refused:
                if override.is_sweep_override():
                    raise unknown_key(name, _sweep_text(override)) from None
                raise


def _sweep_text(override: Override) -> str:
    return (override.input_line or "=").partition("=")[2]


def _check_hydra(override: Override) -> None:
    name = override.key_or_group
    if name in _HYDRA_KEYS or name.startswith(_HYDRA_SECTIONS):
        return
    if name in ("hydra/launcher", "hydra/sweeper") and override.value() == "basic":
        return
    instead = _HYDRA_INSTEAD.get(name)
    if name in ("hydra/launcher", "hydra/sweeper"):
        instead = "-m KEY=A,B; the pipeline lays out and runs sweeps itself"
    raise Refused(
        "PL-112", f"{name} has no effect here", where=name,
        next_step=f"Type {instead}" if instead else f"Leave {override.input_line} out",
    )  # fmt: skip


def _check_choice(override: Override, text: str) -> None:
    name = override.key_or_group
    if name not in schema.GROUPS or override.package is not None:
        return
    if override.is_delete():
        instead = {"model": "Type model=NAME for another one", "experiment": "Type experiment=null for none",
                   "export": "Leave ~export out"}  # fmt: skip
        step = instead.get(name, f"Type {name}=none")
        raise Refused("PL-107", f"{name} cannot be taken away", next_step=step)
    if override.type is not OverrideType.CHANGE:
        raise Refused("PL-105", f"{name} takes no +", found=text, next_step=f"Type {text.lstrip('+')}")


def sort(overrides: Iterable[Override], folders: ConfigFolders) -> Sorted:
    """Tell choices, edits and Hydra's own apart.

    Raises:
        Refused: a choice that there is not, a list where one name is wanted.
    """
    choices: list[Choice] = []
    edits: list[Edit] = []
    hydra: list[Override] = []
    others: list[str] = []
    for override in overrides:
        text = override.input_line or ""
        if is_hydra(override):
            hydra.append(override)
        elif not is_choice(override, folders):
            edits.append(Edit(text, _HOW[override.type], override.key_or_group, override.value()))
        elif override.key_or_group in schema.GROUPS and override.package is None:
            choices.append(_choice(override, text, folders))
        else:
            _check_other_choice(override, text)
            others.append(text)
    return Sorted(tuple(choices), tuple(edits), tuple(hydra), tuple(others))


def _check_other_choice(override: Override, text: str) -> None:
    """What Hydra itself does not look at: a choice in a package, or of a group of the user's own."""
    value = override.value()
    if override.key_or_group and (override.is_delete() or isinstance(value, (str, list))):
        return
    raise Refused(
        "PL-105", f"'{text}' chooses no file of a group", expected="GROUP=FILE, or GROUP@PACKAGE=FILE",
        next_step=f"Leave {text} out",
    )  # fmt: skip


def _choice(override: Override, text: str, folders: ConfigFolders) -> Choice:
    group, option = override.key_or_group, override.value()
    if option is None and group in ("model", "experiment"):
        return Choice(text, group, None)
    if not isinstance(option, str):
        example = (folders.options(group) or ("NAME",))[0]
        raise Refused(
            "PL-102", f"{group} takes the name of one file", where=group, found=literal(option),
            expected=f"a name such as {example}", next_step=f"Type {group}={example}",
        )  # fmt: skip
    check_option(group, option, folders)
    return Choice(text, group, option)


def check_option(group: str, option: str, folders: ConfigFolders) -> None:
    """Refuse a file that there is not, or that stands in two folders.

    Raises:
        Refused: see above, with the nearest names.
    """
    files = folders.files(group, option.removesuffix(".yaml"))
    if len(files) > 1:
        raise Refused(
            "PL-113", f"{group}={option} could mean two files", found=" and ".join(map(str, files)),
            next_step=f"Rename {files[-1]} and type {group}=NEW_NAME",
        )  # fmt: skip
    if files or not folders.all_on_disk:
        return
    known = folders.options(group)
    close = schema.near_options(group, option, known)
    if close:
        step = f"Did you mean {schema.names(close)}? Type {group}={close[0]}"
    elif group == "model":
        step = f"Type model=torchvision model.name={option} for any network of torchvision"
    elif group == "target":
        step = "Type python -m pipeline targets"
    elif known:
        step = f"Type {group}={known[0]}"
    else:
        step = f"Put it into FOLDER/{group}/{option}.yaml and type --config-dir FOLDER"
    expected = schema.names(known) if 0 < len(known) <= 12 else None
    raise Refused("PL-104", f"there is no {group} '{option}'", expected=expected, next_step=step)


def refuse_sweeps(overrides: Sequence[Override], flags: Sequence[str] = ()) -> None:
    """Without `-m` every override has one value.

    Args:
        overrides: all that were typed.
        flags: words of the command line that stand before them.

    Raises:
        Refused: one has several.
    """
    for override in overrides:
        if not override.is_sweep_override():
            continue
        name, value = override.key_or_group, _sweep_text(override)
        key = schema.key_of(".".join(split(name)))
        typed = shlex.join([*flags, *(other.input_line or "" for other in overrides)])
        step = f"Did you mean a sweep? Type python -m pipeline -m {typed}"
        if (
            override.value_type is ValueType.SIMPLE_CHOICE_SWEEP
            and key is not None
            and name not in schema.GROUPS
        ):
            inner = schema.plain_hint(key.hint)
            if schema.expected(inner) == "a list of texts":
                step = f"Type {name}=[{value}] for a list"
        raise Refused("PL-106", f"{name} has several values", found=value, expected="one", next_step=step)


def lay_out(overrides: Sequence[Override], folders: ConfigFolders) -> list[list[Override]]:
    """The points of a sweep: every combination, the last override varying fastest.

    A key that is given twice has its last value, at its first place (so the command line wins over
    `hydra.sweeper.params`).

    Raises:
        Refused: an interval, an empty sweep, too many points.
    """
    axes: dict[str, list[Override]] = {}
    for override in overrides:
        axes[override.get_key_element()] = _values(override, folders)
    total = math.prod(len(values) for values in axes.values())
    if total > MOST_POINTS:
        raise Refused(
            "PL-116", "the sweep has too many points", found=str(total), expected=f"at most {MOST_POINTS}",
            next_step="Type fewer values",
        )  # fmt: skip
    return [list(point) for point in itertools.product(*axes.values())]


def _values(override: Override, folders: ConfigFolders) -> list[Override]:
    if not override.is_sweep_override():
        return [override]
    key, shown = override.get_key_element(), _sweep_text(override)
    if is_hydra(override):
        raise Refused("PL-116", f"{key} cannot be swept", found=shown, next_step=f"Type {key}=VALUE")
    if not override.is_discrete_sweep():
        raise Refused(
            "PL-116", f"{key} has no values to run through", found=shown,
            expected="a,b,c or choice(a,b,c) or range(start,stop)", next_step=f"Type {key}=A,B",
        )  # fmt: skip
    glob = override.value() if override.value_type is ValueType.GLOB_CHOICE_SWEEP else None
    if glob is not None:
        texts = cast("Glob", glob).filter(list(folders.options(override.key_or_group)))
    else:
        try:
            texts = list(itertools.islice(override.sweep_string_iterator(), MOST_POINTS + 1))
        except (HydraException, ArithmeticError, ValueError, TypeError) as error:
            raise Refused(
                "PL-116", f"{key} has a range that cannot be run through", found=shown,
                expected="range(start,stop,step) with a step that leads there", next_step=f"Type {key}=A,B",
            ) from error  # fmt: skip
    if not texts:
        raise Refused("PL-116", f"{key} has no value at all", found=shown, next_step=f"Type {key}=A,B")
    return parse([f"{key}={text}" for text in texts])


def value_text(value: Any) -> str:
    """A plain value as Hydra's grammar reads it, quoted where that is needed."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{value_text(key)}: {value_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(value_text, value)) + "]"
    return literal(value)
