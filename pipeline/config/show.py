"""The composed request as YAML: what `--cfg job` prints and config.yaml of a run directory holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from pipeline.config import schema
from pipeline.config.arguments import Arguments
from pipeline.config.compose import compose_points
from pipeline.config.points import Point
from pipeline.config.request import Config
from pipeline.errors import Refused

#: The package that means everything, as Hydra names it.
WHOLE = "_global_"


def config_yaml(config: Config) -> str:
    """Every key of a configuration with its value, defaults written out, in the dataclasses' order."""
    return _yaml(plain(config))


def show_job(arguments: Arguments) -> str:
    """What `--cfg job [--package P] [--resolve]` prints; the points of a sweep one after the other.

    Interpolations are shown as they stand; `--resolve` shows what they come to.

    Raises:
        Refused: the command line is refused, or there is no such package. That a run would need
            more (a model) is no reason.
    """
    composition = compose_points(arguments, whole=False)
    texts = []
    for point in composition.points:
        if point.config is None:
            assert point.refusal is not None
            raise point.refusal
        heading = f"# {' '.join(point.overrides)}\n" if composition.multirun else ""
        texts.append(heading + _document(point, point.config, arguments))
    return "---\n".join(texts)


def plain(value: Any) -> Any:
    """Dataclasses as mappings and tuples as lists, all the way down."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _document(point: Point, config: Config, arguments: Arguments) -> str:
    data = plain(config)
    if not arguments.resolve:
        data = _with_interpolations(data, point.tree)
    package = arguments.package
    if package is None or package == WHOLE:
        return _yaml(data)
    found: Any = data
    for part in package.replace("/", ".").split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise _no_package(package)
        found = found[part]
    heading = f"# @package {package}\n"
    return heading + _yaml(found) if isinstance(found, (Mapping, list)) else f"{found}\n"


def _no_package(package: str) -> Refused:
    close = schema.near_keys(package)
    return Refused(
        "PL-112", f"the configuration has no package '{package}'", where="--package",
        next_step=f"Did you mean {schema.names(close)}?" if close else "Type --cfg job to see all of it",
    )  # fmt: skip


def _with_interpolations(data: Any, raw: Any) -> Any:
    """`data`, but what `raw` refers to elsewhere shown as it stands there."""
    if isinstance(raw, str):
        return raw if "${" in raw else data
    if isinstance(raw, Mapping) and isinstance(data, Mapping):
        return {
            key: _with_interpolations(value, raw[key]) if key in raw else value for key, value in data.items()
        }
    if isinstance(raw, list) and isinstance(data, list) and len(raw) == len(data):
        return [_with_interpolations(value, inner) for value, inner in zip(data, raw, strict=True)]
    return data


def _yaml(data: Any) -> str:
    text: str = OmegaConf.to_yaml(OmegaConf.create(data))
    return text
