"""`parity`: how the outputs are compared with the reference. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ParityConfig:
    """See docs/decisions for how the defaults were measured."""

    kind: Literal["noise", "fixed", "none"] = "noise"
    seeds: int = 3  #: fresh inputs; the second is negated and the third is scaled
    k: float = 16.0  #: tolerance as a multiple of the network's own float32 noise
    floor: float | None = None  #: smallest tolerance, relative to max |q|; null: the dtype's own
    rtol: float = 1e-3  #: kind=fixed
    atol: float = 1e-5  #: kind=fixed
    allow_vacuous: bool = False
