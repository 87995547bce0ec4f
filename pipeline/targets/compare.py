"""The target's outputs against the network's: a stated tolerance by backend and precision.

What an output is decides how it is compared, as in `pipeline.parity.compare`. Of floating outputs
the error is max |difference| / max |reference| over the output. In float32 an element or a channel
may besides be off by no more than `FINER` times the tolerance relative to itself, so that one
wrong channel does not hide behind the largest one. A network that rounds more than the tolerance by
itself is allowed k times its own noise, in float16 as much noise as it would have in that type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from pipeline.errors import StageFailed
from pipeline.parity.compare import OutputComparison, compare, float_outputs
from pipeline.parity.config import ParityConfig
from pipeline.parity.diagnosis import describe
from pipeline.parity.floating import FloatOutput, Measure, as_floats
from pipeline.parity.reference import Arrays, Reference
from pipeline.parity.tolerance import EPSILON, FLOOR_EPSILONS, LARGEST_TOLERANCE, margin

REPORT_FILE: Final = "report.json"
#: An element or channel of a tenth of the largest value may be off by as much as that one.
FINER: Final = 10.0
#: What rounds in float16 rounds so many times as coarsely: measured errors are 0.1 to 0.5 of the network's
#: float32 noise times this (docs/decisions/0061).
HALF_NOISE: Final = EPSILON["float16"] / EPSILON["float32"]
#: A backend is not blamed for what an element type cannot hold.
_SHORT: Final = ("float16", "bfloat16")


@dataclass(frozen=True)
class TargetReport:
    """How the target compared, as it lies in the cache.

    Attributes:
        lines: one an output and set of inputs, as in run.json.
        tolerance: the one of the bundle, max |difference| / max |reference|: see `whole_tolerance`.
    """

    lines: tuple[Mapping[str, Any], ...]
    tolerance: float

    def store(self, folder: Path) -> None:
        """Write report.json."""
        text = json.dumps({"lines": self.lines, "tolerance": self.tolerance}, indent=1, allow_nan=False)
        (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `store` wrote."""
        data = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        return cls(tuple(data["lines"]), data["tolerance"])


class TargetComparisonFailed(StageFailed):
    """PL-649, with the figures for run.json."""


def compare_target(
    reference: Reference,
    outputs: Mapping[str, Arrays],
    *,
    precision: str,
    tolerance: float,
    k: float,
) -> list[OutputComparison]:
    """Compare every output on every set of inputs.

    Args:
        reference: what the network gave.
        outputs: label of the inputs to output name to array, as the target gave it.
        precision: what the target was asked to run in.
        tolerance: max |difference| / max |reference| that passes.
        k: how many times its own noise a noisy network is allowed.

    Returns:
        one an output and set of inputs: of a floating output that passes over the whole of it, of one
        that fails where it is furthest off.

    Raises:
        StageFailed: PL-513, outputs are missing or added.
    """
    rule = rule_of(reference, tolerance=tolerance, k=k)
    finer = replace(rule, floor=FINER * (rule.floor or 0.0)) if precision == "float32" else None
    known: dict[tuple[str, float], dict[str, FloatOutput]] = {}

    def outputs_on(label: str, config: ParityConfig) -> dict[str, FloatOutput]:
        key = (label, config.floor or 0.0)
        if key not in known:
            known[key] = float_outputs(reference, config, label)
        return known[key]

    found = []
    for one in compare(reference, outputs, rule):
        if one.criterion in ("channel", "element"):
            values = as_floats(outputs[one.label][one.output])
            values = np.where(np.isfinite(values), values, 0.0)  # what is not finite was compared by place
            own = outputs_on(one.label, rule)[one.output]
            measures: list[Measure] = [own.judge_scale(own.truth, values)]
            if finer is not None:
                measures.append(outputs_on(one.label, finer)[one.output].judge(values))
            worst = min(measures, key=lambda measure: measure.margin)
            if worst.passed:  # what run.json and the bundle's program state is the one tolerance of the whole
                worst = measures[0]
            one = replace(  # noqa: PLW2901 - the same comparison under the target's rule
                one, passed=worst.passed, error=worst.error, noise=worst.noise, tolerance=worst.tolerance,
                margin=worst.margin, criterion=worst.criterion, place=worst.place,
            )  # fmt: skip
        if precision == "float16":
            one = _in_half(one, first=one.label == reference.first)  # noqa: PLW2901
        found.append(one)
    return found


def rule_of(reference: Reference, *, tolerance: float, k: float) -> ParityConfig:
    """The rule of parity with the target's tolerance for its floor; see `compare_target`."""
    first = next(iter(reference.outputs.values()))
    short = [array.dtype.name for array in first.values() if array.dtype.name in _SHORT]
    floor = max([tolerance, *(EPSILON[name] * FLOOR_EPSILONS[name] for name in short)])
    return ParityConfig(kind="noise", floor=floor, k=k)


def whole_tolerance(reference: Reference, *, precision: str, tolerance: float, k: float) -> float:
    """What `compare_target` allows the floating outputs over the whole output on the first inputs, at most.

    Args:
        reference: what the network gave.
        precision: as given to `compare_target`, and so the other two.
        tolerance: the stated one.
        k: how many times its own noise a noisy network is allowed.

    Returns:
        the largest max |difference| / max |reference| that passes; the stated tolerance, or more where
        the network itself rounds more.
    """
    rule = rule_of(reference, tolerance=tolerance, k=k)
    found = [tolerance]
    for output in float_outputs(reference, rule, reference.first).values():
        measure = output.judge_scale(output.truth, output.truth)
        limit = measure.tolerance
        if precision == "float16" and measure.noise is not None:
            limit = _limit_in_half(limit, measure.noise, first=True)
        found.append(limit)
    return max(found)


def _limit_in_half(limit: float, noise: float, *, first: bool) -> float:
    """`limit`, or the noise that the network would have in float16: see `_in_half`."""
    wide = noise * HALF_NOISE
    return max(limit, min(wide, LARGEST_TOLERANCE["float16"]) if first else wide)


def _in_half(one: OutputComparison, *, first: bool) -> OutputComparison:
    """The comparison with the noise that the network would have in float16.

    On the first inputs no noise makes the tolerance larger than what float16 is ever allowed; others
    may drown in it, and then prove little.
    """
    if one.error is None or one.noise is None or one.criterion != "scale":
        return one
    limit = _limit_in_half(one.tolerance, one.noise, first=first)
    return replace(
        one, tolerance=limit, passed=one.error <= limit, margin=margin(limit, one.error),
        drowned=one.drowned or limit > LARGEST_TOLERANCE["float16"],
    )  # fmt: skip


def failure(
    comparisons: Sequence[OutputComparison], target: str, precision: str, lines: Sequence[Mapping[str, Any]]
) -> TargetComparisonFailed:
    """The error for comparisons of which at least one failed: the worst output and its place."""
    worst = min((one for one in comparisons if not one.passed), key=lambda one: (one.margin, not one.problem))
    place = f" at {worst.place}" if worst.place else ""
    error = TargetComparisonFailed(
        "PL-649",
        f"output {worst.output} of {target} in {precision} is not what the network computes",
        where=f"{worst.output}, inputs {describe(worst.label)}",
        found=worst.problem or f"an error of {worst.error:.2g}{place}",
        expected=None if worst.problem else f"at most {worst.tolerance:.2g}",
        next_step=_step(target),
    )
    error.measured = {"target": {"parity": list(lines), "worst": worst.line()}}
    return error


def _step(target: str) -> str:
    other = "Another export.opset or export.exporter writes other operators"
    return other if target == "onnxruntime" else f"Type target=onnxruntime to see the file run. {other}"
