"""How far outputs may be apart: limits by element type, and the noise that they are measured by. No torch.

Every figure is relative to the reference (see `pipeline.parity.floating`); how they were chosen
stands in docs/decisions/0021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pipeline.parity.config import ParityConfig

#: Machine epsilon of the floating element types.
EPSILON: Final = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
#: Smallest tolerance in units of epsilon. Short types round at every layer by as much as a whole
#: fault may weigh, so that theirs must stay low.
FLOOR_EPSILONS: Final = {"float64": 64, "float32": 64, "float16": 4, "bfloat16": 4}
#: Noise that is assumed where there is no float64 run to measure it: that of a deep network.
ASSUMED_NOISE_EPSILONS: Final = {"float64": 64, "float32": 64, "float16": 4, "bfloat16": 4}
#: No measured noise makes the tolerance larger: an error of one part in a hundred is a fault.
LARGEST_TOLERANCE: Final = {"float64": 1e-2, "float32": 1e-2, "float16": 5e-2, "bfloat16": 2e-1}
#: A correct file is off by up to so many times the network's own noise (docs/decisions/0021).
HONEST_FACTOR: Final = 4.0
#: Of integers and booleans that the network itself decides otherwise in float64: a share of k times
#: that may differ, but never more than this.
LARGEST_SHARE: Final = 0.01
#: margin = tolerance / error; of an error of 0 it is this.
LARGEST_MARGIN: Final = 1e6


@dataclass(frozen=True)
class Rule:
    """How one element type is judged: `error <= max(k * noise, floor)`, at most `largest`."""

    dtype: str
    k: float
    floor: float
    assumed_noise: float
    largest: float

    def tolerance(self, noise: float | None) -> float:
        """The largest relative error that passes; None: the noise could not be measured."""
        return min(max(self.k * (self.assumed_noise if noise is None else noise), self.floor), self.largest)

    def drowns(self, noise: float | None) -> bool:
        """Whether a correct file may well be off by more than the largest tolerance."""
        return noise is not None and HONEST_FACTOR * noise > self.largest


def rule_for(dtype: str, config: ParityConfig) -> Rule:
    """The rule of an element type: what the configuration says, else the type's own figures."""
    kind = dtype if dtype in EPSILON else "float32"
    floor = EPSILON[kind] * FLOOR_EPSILONS[kind] if config.floor is None else config.floor
    return Rule(
        kind,
        config.k,
        floor,
        EPSILON[kind] * ASSUMED_NOISE_EPSILONS[kind],
        # Who asks for a floor above the limit gets it.
        max(LARGEST_TOLERANCE[kind], floor),
    )


def margin(tolerance: float, error: float) -> float:
    """How often the error fits into the tolerance; finite."""
    return min(tolerance / error, LARGEST_MARGIN) if error > 0 else LARGEST_MARGIN


def recorded(config: ParityConfig, dtypes: set[str]) -> dict[str, Any]:
    """What the manifest says of the rule; no measured figure."""
    from pipeline.parity.detections import (
        LEAST_CORNER_TOLERANCE,
        LEAST_IOU,
        LEAST_SCORE_TOLERANCE,
        UNMATCHED_SHARE,
    )

    floats = sorted(dtypes & set(EPSILON))
    record: dict[str, Any] = {"rule": config.kind, "seeds": config.seeds}
    if config.kind == "fixed":
        record |= {"rtol": config.rtol, "atol": config.atol}
    else:
        rules = {dtype: rule_for(dtype, config) for dtype in floats}
        record["k"] = config.k
        record["floor"] = {dtype: rule.floor for dtype, rule in rules.items()}
        record["largest"] = {dtype: rule.largest for dtype, rule in rules.items()}
    record["integers"] = "exact, ties within the tolerance of the values that they point at"
    record["detections"] = {
        "least_iou": LEAST_IOU,
        "least_corner_tolerance": LEAST_CORNER_TOLERANCE,
        "least_score_tolerance": LEAST_SCORE_TOLERANCE,
        "unmatched_share": UNMATCHED_SHARE,
    }
    return record
