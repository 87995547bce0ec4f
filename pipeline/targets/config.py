"""`target`: where the model must finally run. No backend package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class PreferredConfig:
    """What the target would have where the request leaves a choice."""

    opset: int | None = None  #: null: no preference
    exporter: Literal["torchscript", "dynamo"] | None = None  #: asked first when export.exporter=auto


@dataclass(frozen=True)
class CalibrationConfig:
    """Data for a vendor's quantization."""

    dir: str | None = None  #: folder of images or arrays; null: the run's inputs, marked as a placeholder


@dataclass(frozen=True)
class TargetConfig:
    """Its fields are the keys of `target`."""

    name: str = "none"
    profile: str | None = None  #: a name in conf/target/profiles or the path of a YAML file; null: name
    backend: str | None = None  #: null: the profile's; a third party's by its entry point
    precision: Literal["float32", "float16"] = "float32"
    timeout_s: float = 600.0  #: seconds for compile, and again for run
    preferred: PreferredConfig = field(default_factory=PreferredConfig)
    limits: dict[str, Any] = field(default_factory=dict)  #: laid over the profile, in its schema
    rules: dict[str, Any] = field(default_factory=dict)  #: rule name -> false switches it off
    options: dict[str, Any] = field(default_factory=dict)  #: for the backend's compiler
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    python: str | None = None  #: another interpreter for the backend's processes
