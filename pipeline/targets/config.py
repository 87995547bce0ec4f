"""`target`: where the model must finally run. No backend package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TargetConfig:
    name: str = "none"
    precision: str = "float32"
    timeout_s: float = 600.0  #: seconds for compile, and again for run
    rules: dict[str, Any] = field(default_factory=dict)  #: rule name -> false switches it off
