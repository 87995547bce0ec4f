"""What a command line composed to, remembered by everything that it depends on.

Importing Hydra and composing take half of what the command line's process does before the work
begins. What came of it is plain data, which depends on the words typed, the pipeline's own
configuration files, its code and Hydra's version: it is kept in the user's cache folder under the
digest of exactly these, beside the digests of source files (`source_digest`). An entry can be
missing, never outdated; it is sealed with its own digest, and a damaged one is done without. The
configuration is built and checked anew every time. Where the run directory and the cache lie shapes
nothing else, so a plain path is left out of the digest and put in afterwards: another folder is no
reason to compose again.

Whatever else may take part is composed every time: folders of the user's, Hydra's own settings and
plugins, sweeps, and trees with references (`${oc.env:...}`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pipeline.config.arguments import Arguments
from pipeline.config.build import build
from pipeline.config.code import full_version, unsaved_code_digest
from pipeline.config.points import Composition, Point
from pipeline.config.source_digest import index_path
from pipeline.errors import Refused
from pipeline.locations import CONF_DIR

#: Raised whenever an entry means something else than before.
FORMAT: Final = 2
#: Entries kept, about 2 kB each; the oldest go first, a quarter at a time.
MOST_ENTRIES: Final = 1_000
FOLDER: Final = f"composed-{FORMAT}"
#: Data of targets, which no choice names.
_NO_CHOICES: Final = CONF_DIR / "target" / "profiles"
#: A folder of this name on the import path holds plugins that may change what Hydra composes.
_PLUGINS: Final = "hydra_plugins"
#: Keys of folders, with the section that each stands in.
_FOLDERS: Final[dict[str, tuple[str, ...]]] = {"out": (), "cache.dir": ("cache",)}
#: Values that Hydra's grammar takes as they are.
_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9_./-]*", re.ASCII)


def compose_remembered(arguments: Arguments) -> Composition:
    """As `compose.compose_points`, without Hydra where the same has been composed before.

    Raises:
        Refused: see `compose_points`.
    """
    folders = _folders(arguments.overrides)
    path = _place(arguments)
    known = _recall(path, folders) if path is not None else None
    if known is not None:
        # What is refused is composed again, for the words that say which file is at fault.
        with suppress(Refused):
            config = build(known["tree"])
            point = Point(0, tuple(known["overrides"]), config, choices=known["choices"], tree=known["tree"])
            return Composition((point,), multirun=False)
    from pipeline.config.compose import compose_points

    composition = compose_points(arguments)
    if path is not None and not composition.multirun:
        _remember(path, composition.points[0], folders)
    return composition


def _folders(words: Sequence[str]) -> dict[str, str]:
    """Key to path, of every folder that is named once and plainly."""
    found = {}
    for key in _FOLDERS:
        values = [word.partition("=")[2] for word in words if word.partition("=")[0].lstrip("+~") == key]
        if len(values) == 1 and f"{key}={values[0]}" in words and _PLAIN_PATH.fullmatch(values[0]):
            found[key] = values[0]
    return found


def _place(arguments: Arguments) -> Path | None:
    """Where the entry of these arguments lies; None where more than we know takes part."""
    named = {f"{key}={value}": f"{key}=" for key, value in _folders(arguments.overrides).items()}
    words = [named.get(word, word) for word in arguments.overrides]
    if arguments.multirun or arguments.config_dir is not None or arguments.config_name is not None:
        return None
    if any("hydra" in word.partition("=")[0] for word in words) or _plugins():
        return None
    parts = {
        "words": words,
        "files": _own_files(),
        "code": unsaved_code_digest(("pipeline.config.compose",)),
        "packages": [full_version(name) for name in ("hydra-core", "omegaconf", "PyYAML")],
        "python": sys.implementation.cache_tag,
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return index_path().parent / FOLDER / f"{key}.json"


def _own_files() -> list[list[str]]:
    """Every configuration file of the pipeline's that Hydra may read, with the digest of what it says."""
    return [
        [path.relative_to(CONF_DIR).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()]
        for path in sorted(CONF_DIR.rglob("*.yaml"))
        if not path.is_relative_to(_NO_CHOICES)
    ]


def _plugins() -> bool:
    return any((Path(entry or ".") / _PLUGINS).is_dir() for entry in sys.path)


def _recall(path: Path, folders: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        seal, _, body = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    if hashlib.sha256(body.encode()).hexdigest() != seal:
        return None
    with suppress(OSError):
        os.utime(path)  # used now: others go first
    known: dict[str, Any] = json.loads(body)
    named = {f"{key}=": f"{key}={value}" for key, value in folders.items()}
    known["overrides"] = [named.get(word, word) for word in known["overrides"]]
    for key, value in folders.items():
        _section(known["tree"], key)[key.rpartition(".")[2]] = value
    return known


def _section(tree: dict[str, Any], key: str) -> dict[str, Any]:
    for name in _FOLDERS[key]:
        tree = tree[name]
    return tree


def _remember(path: Path, point: Point, folders: Mapping[str, str]) -> None:
    """Keep the point; a folder that cannot be written is done without."""
    if point.config is None:
        return
    known = {"tree": point.tree, "choices": dict(point.choices), "overrides": list(point.overrides)}
    try:
        body = json.dumps(known, allow_nan=False)
    except (TypeError, ValueError):
        return  # YAML knows more than JSON: dates, infinity, keys that are no text
    if "${" in body or json.loads(body) != known:
        return
    known = json.loads(body)
    for key, value in folders.items():
        section, name = _section(known["tree"], key), key.rpartition(".")[2]
        if section[name] != value or f"{key}={value}" not in known["overrides"]:
            return
        section[name] = None
        known["overrides"][known["overrides"].index(f"{key}={value}")] = f"{key}="
    body = json.dumps(known)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".composed-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}")
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink()
            raise
        _make_room(path.parent)


def _make_room(folder: Path) -> None:
    entries = [entry for entry in os.scandir(folder) if entry.is_file()]
    if len(entries) > MOST_ENTRIES:
        entries.sort(key=lambda entry: entry.stat().st_mtime_ns)
        for entry in entries[: len(entries) - MOST_ENTRIES + MOST_ENTRIES // 4]:
            Path(entry.path).unlink(missing_ok=True)
