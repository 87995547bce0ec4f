"""Whether a comparison can prove anything: a reference that does not depend on its input cannot. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Reason
from pipeline.parity.compare import SIZES, float_outputs, is_floating
from pipeline.parity.config import ParityConfig
from pipeline.parity.detections import (
    LEAST_SCORE_TOLERANCE,
    Group,
    find_groups,
    match,
    measure_noise,
)
from pipeline.parity.floating import FloatOutput, as_floats
from pipeline.parity.reference import Reference

Arrays = Mapping[str, NDArray[Any]]
Kind = Literal["empty", "zero", "constant", "insensitive", "unstable", "drowned"]

#: The spread of an output over the inputs must be this many tolerances: a fault of a tenth of what
#: the output says of its input is then seen.
SPREAD_PER_TOLERANCE: Final = 10.0

SENTENCES: Final[dict[Kind, str]] = {
    "empty": "is empty on every input",
    "zero": "is zero on every input",
    "constant": "is the same on every input",
    "insensitive": "hardly depends on the input: a wrong file could pass as well",
    "drowned": "is drowned in the network's own rounding",
    "unstable": "is not determined: the network itself finds other boxes in float64",
}


@dataclass(frozen=True)
class Vacuity:
    """An output whose comparison proves nothing or little.

    Attributes:
        output: its name.
        kind: see `SENTENCES`.
        spread: largest deviation from the mean over the inputs, relative to the scale.
    """

    output: str
    kind: Kind
    spread: float = 0.0

    @property
    def sentence(self) -> str:
        return f"output {self.output} {SENTENCES[self.kind]}"


def find_vacuous(reference: Reference, config: ParityConfig) -> tuple[Vacuity, ...]:
    """Outputs that say nothing of their input, in the reference's order."""
    seeds = {label: arrays for label, arrays in reference.outputs.items() if not label.startswith(SIZES)}
    runs = list(seeds.values()) or list(reference.outputs.values())
    rules = float_outputs(reference, config, reference.first)
    found: dict[str, Vacuity] = {}
    grouped: set[str] = set()
    for group in find_groups(reference.outputs):
        grouped.update(group.names)
        kind = _of_group(group, runs, reference, rules)
        found |= {name: Vacuity(name, kind) for name in group.names if kind}
    for name in runs[0]:
        if name not in grouped:
            vacuity = _of_output(name, [run[name] for run in runs], rules.get(name), config)
            if vacuity:
                found[name] = vacuity
    return tuple(found[name] for name in runs[0] if name in found)


def judge_vacuous(found: Sequence[Vacuity], outputs: Sequence[str]) -> Reason | None:
    """Why the whole comparison is vacuous, or None.

    An output that is the same on every input may be meant (anchors, a table of positions) and is
    compared like any other: it makes the whole vacuous only when no other output says anything.
    Every other kind does (a dead head beside a live one is a fault that nobody would see).
    """
    grave = [vacuity for vacuity in found if vacuity.kind != "constant"]
    if not grave and len(found) < len(outputs):
        return None
    worst = (grave or list(found))[0]
    more = len(grave or found) - 1
    message = worst.sentence + (f" (and {more} more outputs)" if more else "")
    return Reason(
        "PL-521",
        message,
        where=worst.output,
        expected="outputs that differ from input to input by far more than the tolerance",
        next_step=_next_step(worst.kind),
    )


def _next_step(kind: Kind) -> str:
    accept = "type parity.allow_vacuous=true to accept it"
    if kind == "empty":
        return f"Use model.init=live or trained model.weights so that something is found, or {accept}"
    return f"Use model.init=live or trained model.weights, another fill of model.inputs, or {accept}"


def _of_group(
    group: Group, runs: Sequence[Arrays], reference: Reference, rules: Mapping[str, FloatOutput]
) -> Kind | None:
    if all(len(run[group.boxes]) == 0 for run in runs):
        return "empty"
    first, exact = reference.outputs[reference.first], reference.exact.get(reference.first, {})
    if measure_noise(group, first, exact).unstable:
        return "unstable"
    others = [match(runs[0], run, group, score_tolerance=LEAST_SCORE_TOLERANCE) for run in runs[1:]]
    if others and all(len(m.pairs) and m.unmatched == 0 and m.score_error == 0 for m in others):
        return "constant"
    return None


def _of_output(
    name: str, arrays: Sequence[NDArray[Any]], output: FloatOutput | None, config: ParityConfig
) -> Vacuity | None:
    if all(array.size == 0 for array in arrays):
        return Vacuity(name, "empty")
    if is_floating(arrays[0]) and not any(array.any() for array in arrays):
        return Vacuity(name, "zero")
    if len(arrays) < 2 or len({array.shape for array in arrays}) > 1:
        return None
    if all(np.array_equal(array, arrays[0]) for array in arrays[1:]):
        return Vacuity(name, "constant")
    if output is None:
        return None
    if config.kind == "noise" and output.rule.drowns(output.noise):
        return Vacuity(name, "drowned")
    stacked = np.stack([as_floats(array) for array in arrays])
    spread = float(np.abs(stacked - stacked.mean(axis=0)).max())
    scale = float(np.abs(stacked).max())
    if config.kind == "fixed":
        tolerance = config.atol / scale + config.rtol
    else:
        tolerance = output.rule.tolerance(output.noise)
    if spread < SPREAD_PER_TOLERANCE * tolerance * scale:
        return Vacuity(name, "insensitive", spread / scale)
    return None
