"""From the canonical request of a manifest back to a configuration: `canonical.py` the other way round.

The canonical form knows files by name and digest and callables by name, not by where they lie; whoever
restores it says where they are now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from pipeline.config.build import build
from pipeline.config.canonical import CODE_KEYS
from pipeline.config.request import Config
from pipeline.errors import Refused
from pipeline.locations import is_packaged

#: Where a data file is now: (name, sha256) -> path.
LocateFile = Callable[[str, str], str]
#: Where a source file is now: (key, "net.py:build") -> "path/to/net.py:build".
LocateCode = Callable[[str, str], str]

_SOURCE_FILE: Final = re.compile(r"^[^:]+\.py:\w[\w.]*$")


def restore(request: Mapping[str, Any], locate_file: LocateFile, locate_code: LocateCode) -> Config:
    """The configuration of a canonical request.

    Args:
        request: what `canonical_request` gave.
        locate_file: see `LocateFile`; called for weights, inputs and model files.
        locate_code: see `LocateCode`; called for callables that stand in a file of the user's.

    Raises:
        Refused: the request holds what this version's keys do not take, or a file is not found.
    """
    try:
        tree = _tree(request, locate_file, locate_code)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise Refused(
            "PL-801", "the request in the manifest is damaged", where="manifest.json",
            found=f"{type(error).__name__}: {error}", next_step="Make the run directory again",
        ) from error  # fmt: skip
    return build(tree)


def _tree(request: Mapping[str, Any], locate_file: LocateFile, locate_code: LocateCode) -> dict[str, Any]:
    tree = {name: _back(value, locate_file) for name, value in request.items()}
    tree["model"]["inputs"] = {name: _back(value, locate_file) for name, value in request["model"]["inputs"]}
    for key in CODE_KEYS:
        section, _, name = key.partition(".")
        text = tree[section].get(name)
        if text is not None and is_source_file(text):
            _plain_name(text.rpartition(":")[0])
            tree[section][name] = locate_code(key, text)
    return tree


def is_source_file(text: str) -> bool:
    """Whether a canonical callable names a file of the user's."""
    return not is_packaged(text) and _SOURCE_FILE.match(text) is not None


def _plain_name(name: Any) -> str:
    """The name of a file, which must not lead anywhere: a link of that name is made."""
    if not isinstance(name, str) or not name or "\0" in name or PurePosixPath(name).name != name:
        raise ValueError(f"{name!r} is no name of a file")
    return name


def _back(value: Any, locate_file: LocateFile) -> Any:
    if isinstance(value, Mapping):
        for kind in ("file", "folder"):
            if set(value) == {kind, "sha256"}:
                return locate_file(_plain_name(value[kind]), str(value["sha256"]))
        if set(value) == {"pairs"}:
            return {key: _back(inner, locate_file) for key, inner in value["pairs"]}
        if set(value) == {"float"}:
            return float(value["float"])
        found = {key: _back(inner, locate_file) for key, inner in value.items()}
        fill = value.get("fill")
        if isinstance(fill, Mapping) and set(fill) == {"file", "sha256"}:
            found["fill"] = {"file": found["fill"]}
        return found
    if isinstance(value, (list, tuple)):
        return [_back(inner, locate_file) for inner in value]
    return value
