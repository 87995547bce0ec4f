"""`simplify`, `check` and `surgery`: what is done to the graph after the export. No onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SimplifyConfig:
    kind: Literal["onnxsim", "none"] = "onnxsim"


@dataclass(frozen=True)
class CheckConfig:
    kind: Literal["full", "none"] = "full"


@dataclass(frozen=True)
class SurgeryConfig:
    kind: Literal["none"] = "none"
