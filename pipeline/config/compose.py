"""From a command line, or from overrides and a tree given in Python, to typed configurations.

Hydra composes what the chosen files say (defaults lists, packages, search path); overrides of
values are applied here (`edits.py`), so that points of a sweep that choose the same files share
one composition.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError, safe_load

from pipeline.config import edits, messages, overrides, schema
from pipeline.config.arguments import Arguments, parse_arguments
from pipeline.config.build import Origin, build, typed
from pipeline.config.folders import ConfigFolders, config_folders
from pipeline.config.points import Composition, Point
from pipeline.config.request import Config
from pipeline.errors import InternalError, Refused
from pipeline.locations import CONF_DIR

#: Hydra's rules of this version, whatever version is installed.
VERSION_BASE: Final = "1.3"
#: Hydra keeps its state in process-wide singletons: one composition at a time.
_LOCK: Final = threading.RLock()


@dataclass(frozen=True)
class Base:
    """What the chosen files come to, before overrides of values.

    Attributes:
        tree: plain data without the hydra node, interpolations as they stand.
        hydra: plain data of the hydra node.
        choices: group to chosen file.
    """

    tree: dict[str, Any]
    hydra: dict[str, Any]
    choices: Mapping[str, str | None]


def compose_points(argv: Sequence[str] | Arguments, *, whole: bool = True) -> Composition:
    """Every point of a command line.

    Args:
        argv: the command line.
        whole: whether the points are to be run. To be looked at (`--cfg job`), a configuration may
            lack what a run needs (a model), and hold what contradicts.

    Raises:
        Refused: the command line itself is wrong, or its only point is refused. Refused points of
            a sweep are kept as data.
    """
    arguments = argv if isinstance(argv, Arguments) else parse_arguments(argv)
    parsed = overrides.parse(arguments.overrides)
    dirs = [arguments.config_dir] if arguments.config_dir is not None else []
    folders = config_folders(dirs, arguments.config_name, _searchpath(parsed))
    overrides.check_keys(parsed, folders)
    with _composer(folders) as base_of:
        return _points(arguments, parsed, folders, base_of, build if whole else typed)


#: From a resolved tree to the typed configuration.
Build = Callable[[Mapping[str, Any], Origin], Config]


def _points(
    arguments: Arguments,
    parsed: list[Override],
    folders: ConfigFolders,
    base_of: Callable[[overrides.Sorted], Base],
    build_with: Build,
) -> Composition:
    settled = [override for override in parsed if not override.is_sweep_override()]
    swept = len(settled) < len(parsed)
    if swept and not arguments.multirun:
        first = _sorted_or_none(settled, folders)
        if first is None or _mode(base_of(first)) != "MULTIRUN":
            overrides.refuse_sweeps(parsed, _config_flags(arguments))
    start = overrides.sort(settled, folders)
    master = base_of(start)
    if not (arguments.multirun or _mode(master) == "MULTIRUN"):
        return Composition((_point(0, parsed, folders, base_of, build_with),), multirun=False)
    parameters = _parameters(master, folders)
    points = []
    for index, point in enumerate(overrides.lay_out([*parameters, *parsed], folders)):
        try:
            points.append(_point(index, point, folders, base_of, build_with))
        except Refused as refusal:
            points.append(Point(index, _texts(point), refusal=refusal))
    return Composition(tuple(points), multirun=True)


def _config_flags(arguments: Arguments) -> list[str]:
    """What says where the configuration is, as typed."""
    flags = [] if arguments.config_dir is None else ["--config-dir", str(arguments.config_dir)]
    return flags if arguments.config_name is None else [*flags, "--config-name", arguments.config_name]


def _sorted_or_none(settled: list[Override], folders: ConfigFolders) -> overrides.Sorted | None:
    try:
        return overrides.sort(settled, folders)
    except Refused:
        return None


def _mode(base: Base) -> str | None:
    mode = base.hydra.get("mode")
    return str(getattr(mode, "name", mode)) if mode is not None else None


def _parameters(master: Base, folders: ConfigFolders) -> list[Override]:
    """The sweep that a file asks for in `hydra.sweeper.params`."""
    texts = [f"{key}={value}" for key, value in (master.hydra["sweeper"].get("params") or {}).items()]
    found = overrides.parse(texts)
    overrides.check_keys(found, folders)
    return found


def _point(
    index: int,
    point: list[Override],
    folders: ConfigFolders,
    base_of: Callable[[overrides.Sorted], Base],
    build_with: Build,
) -> Point:
    parts = overrides.sort(point, folders)
    base = base_of(parts)
    tree = copy.deepcopy(base.tree)
    edits.apply(tree, parts.edits)
    _find_profile(tree, folders)
    config = build_with(resolve(tree, base.hydra), messages.origin(folders, base.choices))
    return Point(index, _texts(point), config, choices=base.choices, tree=tree)


def _complete_target(target: Any, choice: str, folders: ConfigFolders) -> None:
    """A target file of the user's that states no name or profile, but what it lies over: its own count."""
    own = [path for path in folders.files("target", choice) if not path.is_relative_to(CONF_DIR)]
    if not own or not isinstance(target, dict):
        return
    stated, beside = safe_load(own[0].read_bytes()) or {}, own[0].parent / "profiles" / own[0].name
    if "name" not in stated:
        target["name"] = own[0].stem
    if "profile" not in stated and beside.is_file():
        target["profile"] = str(beside)


def _find_profile(tree: dict[str, Any], folders: ConfigFolders) -> None:
    """A profile in a user's folder is found by its name, as ours are."""
    target = tree.get("target")
    if not isinstance(target, dict):
        return
    name = target.get("profile") or target.get("name")
    for folder in folders.on_disk:
        path = folder / "target" / "profiles" / f"{name}.yaml"
        if folder != CONF_DIR and path.is_file():
            target["profile"] = str(path)
            return


def _texts(point: list[Override]) -> tuple[str, ...]:
    return tuple(override.input_line or "" for override in point if not overrides.is_hydra(override))


def compose(
    given: Sequence[str] = (),
    *,
    tree: Mapping[str, Any] | None = None,
    config_dirs: Sequence[str | Path] = (),
) -> Config:
    """The configuration of overrides as on the command line and of a config tree, for library use.

    Args:
        given: overrides ("model=alexnet", "export.opset=11").
        tree: the same as nested mappings: `{"model": "alexnet", "export": {"opset": 11}}`. A text
            for a group chooses its file; a mapping sets keys, and `"_choice_"` in it names the file
            as well. Dotted keys work too. The tree is laid over the overrides.
        config_dirs: folders of your own configuration files.

    Raises:
        Refused: see `compose_points`.
    """
    parsed = overrides.parse(given)
    folders = config_folders([Path(folder) for folder in config_dirs], None, _searchpath(parsed))
    chosen, changes = _from_tree(tree or {})
    parsed = [override for override in parsed if override.get_key_element() not in chosen]
    parsed += overrides.parse([f"{group}={overrides.value_text(option)}" for group, option in chosen.items()])
    overrides.check_keys(parsed, folders)
    overrides.refuse_sweeps(parsed)
    for edit in changes:
        edits.check_key(edit)
    with _composer(folders) as base_of:
        parts = overrides.sort(parsed, folders)
        base = base_of(parts)
        made = copy.deepcopy(base.tree)
        edits.apply(made, [*parts.edits, *changes])
        _find_profile(made, folders)
        return build(resolve(made, base.hydra), messages.origin(folders, base.choices))


def _from_tree(tree: Mapping[str, Any]) -> tuple[dict[str, str | None], list[edits.Edit]]:
    chosen: dict[str, str | None] = {}
    changes = []
    for name, given in tree.items():
        if name in schema.GROUPS and (given is None or isinstance(given, str)):
            chosen[name] = given
            continue
        value = copy.deepcopy(given)
        if name in schema.GROUPS and isinstance(value, Mapping) and "_choice_" in value:
            chosen[name] = value["_choice_"]
            value = {key: inner for key, inner in value.items() if key != "_choice_"}
        changes.append(edits.Edit(f"{name}={overrides.value_text(value)}", "set", str(name), value))
    return chosen, changes


def _searchpath(parsed: Sequence[Override]) -> list[str]:
    for override in parsed:
        if override.key_or_group == "hydra.searchpath":
            value = override.value()
            if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
                return list(value)
            raise Refused(
                "PL-102", "hydra.searchpath has a value of the wrong type", where="hydra.searchpath",
                found=str(override.input_line).partition("=")[2], expected="a list of folders",
                next_step="Type 'hydra.searchpath=[file://FOLDER]'",
            )  # fmt: skip
    return []


@contextmanager
def _composer(folders: ConfigFolders) -> Iterator[Callable[[overrides.Sorted], Base]]:
    """Hydra, initialised once; compositions of the same files are made once.

    What Hydra changes process-wide (its singletons, the version base, resolvers) is put back, so
    that this works inside another Hydra application and leaves none behind.
    """
    with _LOCK:
        instance, version = GlobalHydra.instance(), VersionBase.instance()
        outer, outer_version = instance.hydra, version.version_base
        instance.clear()
        made: dict[tuple[str, ...], Base] = {}

        def base_of(parts: overrides.Sorted) -> Base:
            wanted = _for_hydra(parts, folders)
            if wanted not in made:
                made[wanted] = _compose(folders, wanted)
            return made[wanted]

        try:
            with (
                _translated(folders),
                initialize_config_dir(str(folders.main), job_name="pipeline", version_base=VERSION_BASE),
            ):
                yield base_of
        finally:
            GlobalHydra.instance().hydra = outer
            version.version_base = outer_version


@contextmanager
def _translated(folders: ConfigFolders) -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise messages.translate(error, folders) from error


def _for_hydra(parts: overrides.Sorted, folders: ConfigFolders) -> tuple[str, ...]:
    """What Hydra has to know: the choices, sorted so that the order of typing does not matter."""
    # Hydra cannot read `model=null`: no file of the group is chosen when its line is taken away.
    choices = [
        f"~{choice.group}"
        if choice.option is None
        else f"{choice.group}={overrides.value_text(choice.option)}"
        for choice in parts.choices
    ]
    hydra = [
        str(override.input_line)
        for override in parts.hydra
        if override.key_or_group != "hydra.searchpath"
        and not override.key_or_group.startswith("hydra.sweeper.params.")
    ]
    # A parameter of the sweep that no file has yet needs the +; whether one has is not known here.
    hydra += [
        f"++{override.key_or_group}={overrides.value_text(override.get_value_string())}"
        for override in parts.hydra
        if override.key_or_group.startswith("hydra.sweeper.params.")
    ]
    search = [f"hydra.searchpath={overrides.value_text(list(folders.added))}"] if folders.added else []
    return (*sorted(choices), *parts.others, *hydra, *search)


def _compose(folders: ConfigFolders, wanted: tuple[str, ...]) -> Base:
    with _translated(folders):
        try:
            composed = hydra_compose(folders.name, overrides=list(wanted), return_hydra_config=True)
        except RecursionError:
            raise Refused(
                "PL-100", "the configuration could not be composed: a defaults list names its own file, by itself "
                "or through others", found=" ".join(wanted), next_step="Take it out of defaults",
            ) from None  # fmt: skip
        except (AssertionError, TypeError, ValueError, LookupError, AttributeError) as error:
            # Hydra's own checks of odd choices and files; whatever it is, it was typed.
            if isinstance(error, HydraException | OmegaConfBaseException | UnicodeDecodeError):
                raise
            first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise Refused(
                "PL-100", f"the configuration could not be composed: {first}", found=" ".join(wanted),
                next_step="Type python -m pipeline --info defaults-tree to see its files",
            ) from error  # fmt: skip
        tree = OmegaConf.to_container(composed, resolve=False)
    if not isinstance(tree, dict):
        raise InternalError("Hydra composed no mapping")
    plain: dict[str, Any] = {str(key): value for key, value in tree.items()}
    hydra = plain.pop("hydra")
    choices = {str(group): option for group, option in hydra["runtime"]["choices"].items()}
    for group, option in choices.items():
        if group in schema.GROUPS and option is not None:
            overrides.check_option(group, option, folders)
    _complete_target(plain.get("target"), choices.get("target") or "none", folders)
    return Base(plain, hydra, choices)


def resolve(tree: dict[str, Any], hydra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`tree` with interpolations replaced by what they refer to.

    Raises:
        Refused: one refers to nothing, or to itself.
    """
    if not _has_interpolation(tree):
        return tree
    try:
        whole = OmegaConf.create({**tree, "hydra": dict(hydra or {})})
        resolved: dict[str, Any] = {}
        for name in tree:
            node = OmegaConf.select(whole, name)
            resolved[name] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        raise messages.interpolation(error, tree) from error
    return resolved


def _has_interpolation(node: Any) -> bool:
    if isinstance(node, str):
        return "${" in node
    if isinstance(node, Mapping):
        return any(_has_interpolation(value) for value in node.values())
    if isinstance(node, (list, tuple)):
        return any(_has_interpolation(value) for value in node)
    return False
