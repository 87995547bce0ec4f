"""What Hydra and OmegaConf say, as one sentence of ours; nothing of theirs leaks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

from pipeline.config import schema
from pipeline.config.build import Origin
from pipeline.config.folders import ConfigFolders
from pipeline.errors import Refused


def translate(error: Exception, folders: ConfigFolders) -> Refused:
    """The refusal that stands for an error of Hydra's, OmegaConf's or YAML's."""
    text = str(error)
    if isinstance(error, (yaml.YAMLError, UnicodeDecodeError)):
        return _damaged_file(error, folders)
    if isinstance(error, OSError) and not isinstance(error, HydraException):  # one of Hydra's is both
        return Refused(
            "PL-108", "a configuration file cannot be read", where=str(error.filename),
            found=error.strerror, expected="a file that you may read", next_step="Mend its permissions",
        )  # fmt: skip
    missing = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if missing:
        return _missing_file(missing[1], text, folders)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if "Cannot merge" in str(cause):
        return _unlike(text, folders, getattr(cause, "full_key", None))
    first = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    key = getattr(cause, "full_key", None)
    return Refused(
        "PL-100", f"the configuration could not be composed: {first.rstrip('.')}",
        where=str(key) if key else None, next_step="Type python -m pipeline --info defaults-tree to see its files",
    )  # fmt: skip


def _unlike(text: str, folders: ConfigFolders, key: str | None) -> Refused:
    """A list where a file below has a mapping, or the other way round; OmegaConf seldom says where."""
    laid = re.search(r"In '([^']+)'", text)
    group, _, option = (laid[1] if laid else "").rpartition("/")
    for file in folders.files(group, option) if option else ():
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
        names = [str(name) for name, value in node.items() if _is_unlike(f"{group}.{name}", value)]
        key = f"{group}.{names[0]}" if names else key
    where = f"{laid[1]}.yaml" if laid else None
    return Refused(
        "PL-102", f"{key or 'a key'} has a value of the wrong type", where=where,
        found="a list where what it lies over has a mapping, or the other way round",
        expected="a mapping over a mapping, a list over a list",
        next_step=f"Mend {f'{key} in ' if key else ''}{where or 'the file'}",
    )  # fmt: skip


def _is_unlike(path: str, value: Any) -> bool:
    """Whether a key that is a mapping has another value."""
    key = schema.key_of(path)
    mapping = path in schema.sections() or (key is not None and "mapping" in schema.expected(key.hint))
    return mapping and isinstance(value, list)


def _missing_file(path: str, text: str, folders: ConfigFolders) -> Refused:
    group, _, option = path.rpartition("/")
    wanted_by = re.search(r"In '([^']+)'", text)
    close = schema.near_options(group, option, folders.options(group))
    step = f"Did you mean {schema.names([f'{group}/{name}' if group else name for name in close])}?" if close else (
        f"Put {path}.yaml into a folder and type --config-dir FOLDER"
    )  # fmt: skip
    return Refused(
        "PL-104",
        f"there is no {path}.yaml",
        where=f"{wanted_by[1]}.yaml" if wanted_by else None,
        next_step=step,
    )


def _damaged_file(error: Exception, folders: ConfigFolders) -> Refused:
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}:{mark.line + 1}" if mark is not None else _undecodable(folders)
    problem = str(getattr(error, "problem", None) or "bytes that are no UTF-8")
    return Refused(
        "PL-108", "a configuration file is no YAML", where=where, found=problem,
        next_step=f"Mend {where}" if where else "Mend it",
    )  # fmt: skip


def _undecodable(folders: ConfigFolders) -> str | None:
    for folder in folders.on_disk:
        for path in sorted(folder.rglob("*.yaml")):
            try:
                path.read_bytes().decode()
            except UnicodeDecodeError:
                return str(path)
    return None


def interpolation(error: Exception, tree: Mapping[str, Any]) -> Refused:
    """An interpolation that cannot be resolved."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    key = getattr(error, "full_key", None) or None
    if isinstance(error, UnsupportedInterpolationType):
        expected = "a key (${seed}), ${oc.env:NAME} or ${oc.decode:...}"
    else:
        expected = "a reference to a key that there is"
    return Refused(
        "PL-109", "a reference cannot be resolved", where=str(key) if key else _first_reference(tree, ""),
        found=first.rstrip("."), expected=expected, next_step=f"Type {key or 'KEY'}=VALUE",
    )  # fmt: skip


def _first_reference(node: Any, path: str) -> str | None:
    if isinstance(node, str):
        return path if "${" in node else None
    items: Any = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    for name, value in items:
        found = _first_reference(value, f"{path}.{name}" if path else str(name))
        if found:
            return found
    return None


def origin(folders: ConfigFolders, choices: Mapping[str, str | None]) -> Origin:
    """Says which of the chosen files sets a key; looks into them only when it is asked."""

    def find(path: str) -> str | None:
        parts = path.split(".")
        for group, option in reversed(list(choices.items())):
            for file in folders.files(group, option) if option else ():
                if _sets(file, group, parts):
                    return _shown(file, group)
        primary = folders.main / f"{folders.name}.yaml"
        return str(primary) if _sets(primary, "", parts) else None

    return find


def _shown(file: Path, group: str) -> str:
    return str(file) if group not in schema.GROUPS else f"{group}/{file.name}"


def _sets(file: Path, group: str, parts: list[str]) -> bool:
    text = file.read_text(encoding="utf-8")
    package = re.search(r"^\s*#\s*@package\s+(\S+)", text)
    prefix = [] if package and package[1] == "_global_" else [part for part in group.split("/") if part]
    node: Any = yaml.safe_load(text)
    if parts[: len(prefix)] != prefix:
        return False
    for part in parts[len(prefix) :]:
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True
