"""The request in its one canonical form: plain JSON data in which every spelling looks the same.

Defaults are written out, tuples are lists, whole numbers in float fields are floats, mappings whose
order means something are lists of pairs, the opset is the one that will be asked for. Files are
known by their name and, where they hold data, by the digest of what is in them; never by where they
lie: the same request from another folder, checkout or home has the same form. What a file of code
says takes part in the graph and result keys (`keys.py`), so that a comment there changes nothing.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pipeline.config.code import parse_callable
from pipeline.config.request import REQUEST_KEYS, Config
from pipeline.errors import InternalError, Refused
from pipeline.exporters.config import DEFAULT_OPSET
from pipeline.locations import is_packaged, resolve_packaged
from pipeline.targets.config import TargetConfig

#: Keys that name a callable of the user's.
CODE_KEYS: Final = ("model.factory", "model.prepare", "export.custom_symbolics")
#: Keys of `parity` that its kind does not read: another value there asks for nothing else.
WITHOUT_EFFECT: Final[Mapping[str, tuple[str, ...]]] = {
    "noise": ("rtol", "atol"),
    "fixed": ("k", "floor"),
    "none": ("k", "floor", "rtol", "atol", "allow_vacuous"),
}
#: Keys of `target` that say how, not what.
TARGET_HOW: Final = ("timeout_s", "python")
#: An enum name of torchvision's weights: DEFAULT, IMAGENET1K_V1, ResNet50_Weights.DEFAULT.
_ENUM: Final = re.compile(r"[A-Za-z]\w*(\.[A-Z][A-Z0-9_]*)?")


def canonical_request(config: Config) -> dict[str, Any]:
    """The request as plain JSON data: what manifest.json shows and the request key digests.

    Raises:
        Refused: a file that the request names cannot be read.
    """
    data = {name: _data(getattr(config, name), name) for name in REQUEST_KEYS}
    data["export"]["opset"] = asked_opset(config)
    for path in CODE_KEYS:
        section, _, name = path.partition(".")
        text = data[section][name]
        if text is not None:
            data[section][name] = parse_callable(text, path).canonical
    for name in WITHOUT_EFFECT[config.parity.kind]:
        del data["parity"][name]
    model = data["model"]
    if names_file(model["weights"]):
        model["weights"] = _file(model["weights"], "model.weights")
    if model["path"] is not None:
        model["path"] = _file(model["path"], "model.path")
    model["inputs"] = _inputs(config.model.inputs)
    data["target"] = _target(config.target, data["target"])
    for section in ("export", "target"):
        if rules := data[section].get("rules"):
            data[section]["rules"] = {name: value for name, value in rules.items() if value is not True}
    return data


def canonical_json(data: Any) -> str:
    """The one JSON text of canonical data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def asked_opset(config: Config) -> int:
    """The opset that will be asked for: the user's, else what the target prefers, else ours."""
    if config.export.opset is not None:
        return config.export.opset
    preferred = config.target.preferred.opset
    return DEFAULT_OPSET if preferred is None else preferred


def _target(target: TargetConfig, data: dict[str, Any]) -> dict[str, Any]:
    """What is asked of the target; how long it may take and which interpreter runs it is not asked."""
    if target.name == "none":
        return {"name": "none"}
    for name in TARGET_HOW:
        del data[name]
    if target.profile is not None and is_profile_file(target.profile):
        data["profile"] = _file(target.profile, "target.profile")
    if target.calibration.dir is not None:
        data["calibration"]["dir"] = _folder(target.calibration.dir, "target.calibration.dir")
    return data


def is_profile_file(profile: str) -> bool:
    """Whether `target.profile` is the path of a YAML file, not the name of a profile that ships."""
    return profile.endswith((".yaml", ".yml"))


def names_file(weights: str | None) -> bool:
    """Whether `model.weights` names a file, not an enum member of torchvision's."""
    return weights is not None and _ENUM.fullmatch(weights) is None


def _data(value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _data(getattr(value, field.name), f"{path}.{field.name}")
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return _mapping(value, path)
    if isinstance(value, (list, tuple)):
        return [_data(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no word for it
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InternalError(f"{path} holds a {type(value).__name__}, which is no plain data")


def _mapping(value: Mapping[Any, Any], path: str) -> Any:
    if all(isinstance(key, str) for key in value):
        return {key: _data(value[key], f"{path}.{key}") for key in sorted(value)}
    pairs = [[_data(key, path), _data(inner, f"{path}.{key}")] for key, inner in value.items()]
    return {"pairs": sorted(pairs, key=canonical_json)}


def _inputs(node: Mapping[str, Any]) -> list[list[Any]]:
    """Arguments in the order of the call."""
    return [[name, _with_files(value, f"model.inputs.{name}")] for name, value in node.items()]


def _with_files(value: Any, path: str) -> Any:
    if isinstance(value, Mapping) and set(value) == {"file"} and isinstance(value["file"], str):
        return _file(value["file"], f"{path}.file")
    if isinstance(value, Mapping):
        return _mapping({key: _with_files(inner, f"{path}.{key}") for key, inner in value.items()}, path)
    if isinstance(value, (list, tuple)):
        return [_with_files(item, f"{path}[{index}]") for index, item in enumerate(value)]
    return _data(value, path)


def _file(text: str, key: str) -> dict[str, str]:
    try:
        path = resolve_packaged(text) if is_packaged(text) else Path(text).expanduser()
        return {"file": path.name, "sha256": file_sha256(path)}
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else str(error)
        raise Refused(
            "PL-115", f"{key} names a file that cannot be read", where=key,
            found=f"'{text}' ({problem})", expected="a file that you may read",
            next_step=f"Type {key}=path/to/file",
        ) from error  # fmt: skip


def _folder(text: str, key: str) -> dict[str, str]:
    """A folder of data by its name and by what is in it: relative paths and the digest of every file."""
    path = Path(text).expanduser()
    try:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "no such folder")
        lines = [
            f"{file.relative_to(path).as_posix()}\0{file_sha256(file)}"
            for file in sorted(path.rglob("*")) if file.is_file()
        ]  # fmt: skip
    except OSError as error:
        raise Refused(
            "PL-115", f"{key} names a folder that cannot be read", where=key,
            found=f"'{text}' ({error.strerror})", expected="a folder that you may read",
            next_step=f"Type {key}=path/to/folder",
        ) from error  # fmt: skip
    return {"folder": path.name, "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, full; read once as long as its size and time stamp stay.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return _file_sha256(str(path.absolute()), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_sha256(path: str, inode: int, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
