"""`model`: where the network comes from and what goes into it. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ModelConfig:
    """The network, its inputs and its outputs."""

    source: Literal["torchvision", "factory", "onnx_file"] = "torchvision"
    name: str | None = None  #: torchvision: the model's name; else the label
    weights: str | None = None  #: null, an enum name such as DEFAULT, or a file
    factory: str | None = None  #: my_pkg.net:build or path/to/net.py:build
    path: str | None = None  #: onnx_file: the .onnx
    args: dict[str, Any] = field(default_factory=dict)  #: keyword arguments of the builder
    prepare: str | None = None  #: callable applied to the network before export
    trust_pickle: bool = False  #: let a checkpoint run code while it is loaded
    init: Literal["live", "plain"] = "live"  #: of random weights: seeded and calibrated, or torch's own
    inputs: dict[str, Any] = field(default_factory=dict)  #: see pipeline.samples.spec
    outputs: tuple[str, ...] | None = None  #: names in flattened order
