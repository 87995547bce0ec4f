"""From the canonical request of a manifest back to a configuration: `canonical.py` the other way round.

The canonical form knows files by name and digest and callables by name, not by where they lie; whoever
restores it says where they are now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.config.build import build
from pipeline.config.canonical import CODE_KEYS
from pipeline.config.request import Config
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
    tree = {name: _back(value, locate_file) for name, value in request.items()}
    tree["model"]["inputs"] = {name: _back(value, locate_file) for name, value in request["model"]["inputs"]}
    for key in CODE_KEYS:
        section, _, name = key.partition(".")
        text = tree[section].get(name)
        if text is not None and is_source_file(text):
            tree[section][name] = locate_code(key, text)
    return build(tree)


def is_source_file(text: str) -> bool:
    """Whether a canonical callable names a file of the user's."""
    return not is_packaged(text) and _SOURCE_FILE.match(text) is not None


def _back(value: Any, locate_file: LocateFile) -> Any:
    if isinstance(value, Mapping):
        for kind in ("file", "folder"):
            if set(value) == {kind, "sha256"}:
                return locate_file(value[kind], value["sha256"])
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
