"""Floating outputs: the error under three norms, each against the network's own noise. No torch.

On the inputs that were run in float64 the same rule is applied three times with another base, so that
a fault cannot hide behind an element that is a thousand times larger (pixels beside probabilities):

* `scale`: relative to the largest magnitude of the output;
* `channel`: relative to the largest magnitude in each slice along each axis, where a slice has
  enough elements for its own noise to be known;
* `element`: relative to each element, or to the median magnitude where the element is smaller.

Noise is |r - q| in the same norm: r the network in its own precision, q in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.parity.tolerance import Rule, margin

Floats = NDArray[np.float64]
Criterion = Literal["scale", "channel", "element", "fixed", "exact", "set"]

#: A slice is judged by itself when at least so many of its elements show rounding: the largest of
#: so many errors hardly varies from one run to the next.
SOLID_ELEMENTS: Final = 64
#: Axes longer than this are positions, not channels.
MOST_CHANNELS: Final = 8192
#: A quotient stays finite, so that it can stand in a record.
_NO_QUOTIENT: Final = 1e30


@dataclass(frozen=True)
class Measure:
    """One comparison under one norm.

    Attributes:
        criterion: the norm; "fixed" is rtol and atol, "exact" integers, "set" detections.
        error, noise, tolerance: relative to the norm's base; noise None: not measured. With
            "exact" they are shares of the elements.
        place: where the error is largest: "channel 3 of axis 1", "element [0, 7]".
    """

    criterion: Criterion
    error: float
    noise: float | None
    tolerance: float
    place: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance

    @property
    def margin(self) -> float:
        """How often the error fits into the tolerance; above 1 is a pass."""
        return margin(self.tolerance, self.error)


@dataclass(frozen=True)
class FloatOutput:
    """One floating output on the inputs that were run in float64: its size and its noise.

    Attributes:
        reference: the network's output in its own precision, as float64 numbers.
        exact: the output of the float64 run, of the same shape; None when there is none.
        rule: how the element type is judged.
        measures_noise: the noise of other inputs is taken from these; where it is too large, no
            tolerance follows it. On inputs that stand for themselves alone it does: such inputs
            prove little, and others prove the file.
    """

    reference: Floats
    exact: Floats | None
    rule: Rule
    measures_noise: bool = True

    @property
    def truth(self) -> Floats:
        return self.reference if self.exact is None else self.exact

    @cached_property
    def difference(self) -> Floats | None:
        """|r - q|; None where nothing was measured, or where r is in float64 already."""
        if self.exact is None or self.rule.dtype == "float64":
            return None
        return np.abs(self.reference - self.exact)

    @cached_property
    def scale(self) -> float:
        return _largest(self.truth)

    @cached_property
    def noise(self) -> float | None:
        """The largest |r - q| relative to the scale."""
        if self.difference is None:
            return None
        return _over(_largest(self.difference), self.scale)

    @cached_property
    def _base(self) -> Floats:
        """What an element's error is relative to: itself, or the median magnitude where it is smaller."""
        magnitudes = np.abs(self.truth)
        # Without the zeros, of which a ReLU leaves half.
        some = magnitudes[magnitudes > 0]
        return np.maximum(magnitudes, median(some) if some.size else 0.0)

    @cached_property
    def element_noise(self) -> float:
        """The largest |r - q| relative to the elements; only where `difference` is."""
        return _over_each(self.difference, self._base)[0]

    @cached_property
    def channels(self) -> dict[int, tuple[NDArray[np.bool_], Floats, Floats]]:
        """Axis -> (slices that are judged by themselves, their magnitude, their noise), both absolute."""
        found: dict[int, tuple[NDArray[np.bool_], Floats, Floats]] = {}
        if self.difference is None:
            return found
        for axis in range(self.truth.ndim):
            size = self.truth.shape[axis]
            if not 2 <= size <= MOST_CHANNELS or self.truth.size < SOLID_ELEMENTS * size:
                continue
            others = tuple(other for other in range(self.truth.ndim) if other != axis)
            solid = np.count_nonzero(self.difference, axis=others) >= SOLID_ELEMENTS
            if solid.any():
                found[axis] = (solid, np.abs(self.truth).max(axis=others), self.difference.max(axis=others))
        return found

    @property
    def drowned(self) -> bool:
        """The network's own rounding hides a fault on these inputs, and they are not the only ones."""
        return not self.measures_noise and self.rule.drowns(self.noise)

    def judge(self, outcome: Floats) -> Measure:
        """The file's output on the inputs that were run in float64.

        Returns:
            the norm under which it is nearest to its limit, or furthest beyond it.
        """
        measures = [self.judge_scale(self.truth, outcome)]
        if self.drowned:
            return measures[0]
        if self.difference is not None:
            measures += self._by_channel(outcome)
            measures.append(self._by_element(outcome))
        return min(measures, key=lambda measure: measure.margin)

    def judge_scale(self, truth: Floats, outcome: Floats) -> Measure:
        """The file's output on other inputs, for which the network gives `truth`.

        Only the scale carries over from inputs to inputs: which element or channel is small, and so
        noisy for its size, is another matter on each.
        """
        # On inputs that give less (a last ReLU that hardly lets anything through) rounding does not
        # shrink along: the scale is never below that of the inputs on which noise was measured.
        error = np.abs(outcome - truth)
        worst = _over(_largest(error), max(self.scale, _largest(truth)))
        tolerance = self.rule.tolerance(self.noise)
        if self.drowned:
            tolerance = self.rule.k * (self.noise or 0.0)
        return Measure("scale", worst, self.noise, tolerance, _element(error))

    def _by_element(self, outcome: Floats) -> Measure:
        worst, place = _over_each(np.abs(outcome - self.truth), self._base)
        noise = self.element_noise
        return Measure("element", worst, noise, self.rule.tolerance(noise), place)

    def _by_channel(self, outcome: Floats) -> list[Measure]:
        measures = []
        for axis, (solid, magnitude, noise) in self.channels.items():
            others = tuple(other for other in range(outcome.ndim) if other != axis)
            error = np.abs(outcome - self.truth).max(axis=others)
            relative_noise = noise[solid] / magnitude[solid]
            relative_error = error[solid] / magnitude[solid]
            tolerance = np.array([self.rule.tolerance(value) for value in relative_noise])
            worst = int(np.argmax(relative_error / tolerance))
            measures.append(
                Measure(
                    "channel",
                    float(relative_error[worst]),
                    float(relative_noise[worst]),
                    float(tolerance[worst]),
                    f"channel {int(np.flatnonzero(solid)[worst])} of axis {axis}",
                )
            )
        return measures


def judge_fixed(truth: Floats, outcome: Floats, *, rtol: float, atol: float) -> Measure:
    """|y - r| <= atol + rtol * |r|; the error is the largest quotient of the two sides."""
    if truth.size == 0:
        return Measure("fixed", 0.0, None, 1.0)
    error, allowed = np.abs(outcome - truth), atol + rtol * np.abs(truth)
    # Where nothing at all is allowed the quotient is that of the smallest number.
    ratio = np.minimum(error / np.maximum(allowed, np.finfo(np.float64).tiny), _NO_QUOTIENT)
    worst = int(np.argmax(ratio))
    return Measure("fixed", float(ratio.flat[worst]), None, 1.0, _place(truth.shape, worst))


def median(values: Floats) -> Any:
    """The median of at least one value. numpy's own looks for NaN, for which it imports numpy.ma (0.03 s)."""
    flat, half = values.reshape(-1), values.size // 2
    if values.size % 2:
        return np.partition(flat, half)[half]
    low, high = np.partition(flat, (half - 1, half))[half - 1 : half + 1]
    return (low + high) / 2


def _largest(values: Floats) -> float:
    return float(np.abs(values).max()) if values.size else 0.0


def _over(value: float, base: float) -> float:
    """The quotient; relative to nothing an error is as large as it is."""
    return value / base if base > 0 else value


def _over_each(values: Floats | None, base: Floats) -> tuple[float, str]:
    if values is None or values.size == 0:
        return 0.0, ""
    ratio = np.where(base > 0, values / np.where(base > 0, base, 1.0), values)
    worst = int(np.argmax(ratio))
    return float(ratio.flat[worst]), _place(values.shape, worst)


def _element(error: Floats) -> str:
    return _place(error.shape, int(np.argmax(error))) if error.size else ""


def _place(shape: tuple[int, ...], flat: int) -> str:
    """A flat index as "element [0, 7]"."""
    return f"element {[int(index) for index in np.unravel_index(flat, shape)]}"


def as_floats(array: NDArray[Any]) -> Floats:
    """Any floating or complex array as float64 numbers (complex: real and imaginary last)."""
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], axis=-1)
    return array.astype(np.float64)
