"""The file's outputs against the network's, output by output and input by input. No torch.

Outputs are matched by name. What an output is (numbers, indices, detections) is read from the
reference, and decides how it is compared: `floating`, `integers`, `detections`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StageFailed
from pipeline.parity.config import ParityConfig
from pipeline.parity.detections import DetectionNoise, find_groups, judge_detections, measure_noise
from pipeline.parity.floating import Criterion, FloatOutput, Floats, Measure, as_floats, judge_fixed
from pipeline.parity.integers import judge_integers
from pipeline.parity.reference import EXPORT_LABEL, Reference
from pipeline.parity.tolerance import Rule, rule_for

Arrays = Mapping[str, NDArray[Any]]

#: Labels of inputs with other sizes begin with this: "sizes:batch=3".
SIZES: Final = "sizes:"
#: What the error of a line is, in words.
METRICS: Final[dict[Criterion, str]] = {
    "scale": "max |difference| / max |reference|",
    "channel": "max |difference| / max |reference| within a channel",
    "element": "max |difference / reference|",
    "fixed": "max |difference| / (atol + rtol |reference|)",
    "exact": "share of the elements that differ",
    "set": "paired as sets",
}


@dataclass(frozen=True)
class OutputComparison:
    """One output on one set of inputs.

    Attributes:
        output, label: which output, on which inputs ("seed0", "sizes:batch=3").
        passed: whether it is the network's.
        error, noise, tolerance, margin, criterion, place: see `pipeline.parity.floating.Measure`;
            error None: not comparable, `problem` says why.
        problem: a sentence without a full stop where no figure tells (another shape, NaN elsewhere).
        problem_kind: "shape", "dtype", "finite" or "".
        drowned: the network's own noise on these inputs hides a fault; the tolerance follows it.
    """

    output: str
    label: str
    passed: bool
    error: float | None
    noise: float | None
    tolerance: float
    margin: float
    criterion: Criterion
    place: str = ""
    problem: str = ""
    problem_kind: str = ""
    drowned: bool = False

    def line(self) -> dict[str, Any]:
        """A line of run.json; only finite numbers."""
        line: dict[str, Any] = {
            "output": self.output,
            "seed": self.label,
            "error": self.error,
            "noise": self.noise,
            "tolerance": self.tolerance,
            "margin": self.margin,
            "metric": METRICS[self.criterion],
        }
        return {**line, **({"problem": self.problem} if self.problem else {})}


def compare(
    reference: Reference, outputs: Mapping[str, Arrays], config: ParityConfig
) -> list[OutputComparison]:
    """Compare every output on every set of inputs that `outputs` holds.

    Args:
        reference: what the network gave.
        outputs: label of the inputs to output name to array, as the file gave it.
        config: which rule.

    Raises:
        StageFailed: PL-513, the file's outputs are not named like the network's.
    """
    judge = _Judge(reference, config)
    comparisons = []
    for label, outcome in outputs.items():
        _same_names(reference.outputs[label], outcome)
        comparisons += list(judge.compare(label, outcome))
    return comparisons


def float_outputs(reference: Reference, config: ParityConfig, label: str) -> dict[str, FloatOutput]:
    """Every floating output on one set of inputs, with its rule and its noise, by name."""
    found = {}
    for name, array in reference.outputs[label].items():
        if not is_floating(array):
            continue
        exact = reference.exact.get(label, {}).get(name)
        if exact is not None and exact.shape != array.shape:
            exact = None
        own = as_floats(array)
        own = np.where(np.isfinite(own), own, 0.0)
        if exact is not None:
            wide = as_floats(exact)
            exact = np.where(np.isfinite(wide) & np.isfinite(as_floats(array)), wide, own)
        found[name] = FloatOutput(
            own, exact, rule_for(array.dtype.name, config), measures_noise=label == reference.first
        )
    return found


def is_floating(array: NDArray[Any]) -> bool:
    """Whether an array holds floating or complex numbers (bfloat16 has a numpy dtype of its own kind)."""
    return array.dtype.kind in "fc" or array.dtype.name == "bfloat16"


class _Judge:
    """What is known of the reference, worked out once for all sets of inputs."""

    def __init__(self, reference: Reference, config: ParityConfig) -> None:
        self.reference = reference
        self.config = config
        self.groups = find_groups(
            {label: arrays for label, arrays in reference.outputs.items() if label != EXPORT_LABEL}
        )
        self.grouped = {name for group in self.groups for name in group.names}
        first = reference.first
        self.floats = {label: float_outputs(reference, config, label) for label in {first, *reference.exact}}
        self.group_rules: list[tuple[Rule, DetectionNoise]] = []
        for group in self.groups:
            rule = self.floats[first][group.scores].rule
            noise = measure_noise(group, reference.outputs[first], reference.exact.get(first, {}))
            self.group_rules.append((rule, noise))

    def compare(self, label: str, outcome: Arrays) -> Iterator[OutputComparison]:
        expected = self.reference.outputs[label]
        found: dict[str, OutputComparison] = {}
        for group, (rule, noise) in zip(self.groups, self.group_rules, strict=True):
            bad = {
                name: problem
                for name in group.names
                if (problem := _problem(expected[name], outcome[name], label, any_length=True))
            }
            lengths = {len(outcome[name]) for name in group.names} if not bad else set()
            if len(lengths) > 1:
                kind = ("shape", "the outputs of one image differ in their number of boxes")
                bad = dict.fromkeys(group.names, kind)
            if bad:
                kind = next(iter(bad.values()))
                found |= {name: _failed(name, label, *bad.get(name, kind)) for name in group.names}
                continue
            for name, measure in judge_detections(group, expected, outcome, noise, rule).items():
                found[name] = _measured(name, label, measure)
        for name in expected:
            if name not in found:
                found[name] = self._one(name, label, expected, outcome[name])
        yield from (found[name] for name in expected)

    def _one(self, name: str, label: str, expected: Arrays, outcome: NDArray[Any]) -> OutputComparison:
        problem = _problem(expected[name], outcome, label, any_length=False)
        if problem:
            return _failed(name, label, *problem)
        if is_floating(expected[name]):
            return self._floating(name, label, expected[name], outcome)
        measure = judge_integers(
            expected[name], outcome, self._values(expected), noise=self._share(name), k=self.config.k
        )
        return _measured(name, label, measure)

    def _floating(
        self, name: str, label: str, expected: NDArray[Any], outcome: NDArray[Any]
    ) -> OutputComparison:
        truth, values = as_floats(expected), as_floats(outcome)
        finite = np.isfinite(truth) & np.isfinite(values)  # the others are known to be the same
        truth, values = np.where(finite, truth, 0.0), np.where(finite, values, 0.0)
        if self.config.kind == "fixed":
            fixed = judge_fixed(truth, values, rtol=self.config.rtol, atol=self.config.atol)
            return _measured(name, label, fixed)
        own = self.floats.get(label, {}).get(name)
        if own is not None and own.exact is not None:
            return replace(_measured(name, label, own.judge(values)), drowned=own.drowned)
        first = self.floats[self.reference.first][name]
        return _measured(name, label, first.judge_scale(truth, values))

    def _values(self, expected: Arrays) -> dict[str, tuple[Floats, float]]:
        """The floating outputs that an index may point into, with their absolute tolerance."""
        found = {}
        for name, output in self.floats[self.reference.first].items():
            values = as_floats(expected[name])
            if name in self.grouped or not values.size:
                continue
            scale = max(output.scale, float(np.abs(values).max()))
            # Two values that each may be off by the tolerance change places when they are twice as near.
            found[name] = (values, 2 * scale * output.rule.tolerance(output.noise))
        return found

    def _share(self, name: str) -> float | None:
        exact = self.reference.exact.get(self.reference.first, {}).get(name)
        if exact is None:
            return None
        own = self.reference.outputs[self.reference.first][name]
        if own.shape != exact.shape:
            return None
        return float(np.count_nonzero(own != exact)) / max(1, own.size)


def axes_of(label: str) -> str:
    """The dynamic axes in the label of inputs with other sizes: "batch, height"."""
    return ", ".join(part.split("=")[0] for part in label.removeprefix(SIZES).split(","))


def _same_names(expected: Arrays, outcome: Arrays) -> None:
    missing = [name for name in expected if name not in outcome]
    added = [name for name in outcome if name not in expected]
    if missing or added:
        raise StageFailed(
            "PL-513",
            "the file's outputs are not named like the network's",
            found=", ".join(outcome) or "no output",
            expected=", ".join(expected),
            next_step="Name them with export.output_names, in the order of the network's outputs",
        )


def _problem(
    expected: NDArray[Any], outcome: NDArray[Any], label: str, *, any_length: bool
) -> tuple[str, str] | None:
    """Why the two cannot be compared number by number: kind and sentence."""
    skip = 1 if any_length else 0  # detections: the number of boxes is judged by itself
    if expected.ndim != outcome.ndim or expected.shape[skip:] != outcome.shape[skip:]:
        text = f"the file gives the shape {list(outcome.shape)} instead of {list(expected.shape)}"
        if label.startswith(SIZES):
            text += f": the size depends on {axes_of(label)} and was baked in"
        return "shape", text
    if expected.dtype != outcome.dtype:
        return "dtype", f"the file gives {outcome.dtype} instead of {expected.dtype}"
    if not any_length and is_floating(expected):
        for word, same in (("NaN", np.isnan), ("infinity", np.isposinf), ("-infinity", np.isneginf)):
            one, other = (same(as_floats(array)) for array in (expected, outcome))
            if not np.array_equal(one, other):
                first = np.unravel_index(int(np.argmax(one != other)), one.shape)
                counts = f"{np.count_nonzero(other)} in the file, {np.count_nonzero(one)} in the network"
                at = [int(part) for part in first]
                return "finite", f"{word} stands elsewhere: {counts}, first at {at}"
    if any_length and is_floating(outcome) and not np.isfinite(as_floats(outcome)).all():
        return "finite", "NaN or infinity stands in the file's output"
    return None


def _measured(name: str, label: str, measure: Measure) -> OutputComparison:
    return OutputComparison(
        name, label, measure.passed, measure.error, measure.noise, measure.tolerance, measure.margin,
        measure.criterion, measure.place,
    )  # fmt: skip


def _failed(name: str, label: str, kind: str, problem: str) -> OutputComparison:
    return OutputComparison(name, label, False, None, None, 0.0, 0.0, "exact", "", problem, kind)
