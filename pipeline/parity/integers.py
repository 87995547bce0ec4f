"""Integers and booleans: exact, but for ties. No torch.

An index (argmax, top-k) may point elsewhere where the values that it chooses between are nearer to
one another than the tolerance of those values: both choices are right then. The values must stand
among the outputs; an index without them is compared exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.parity.floating import Floats, Measure
from pipeline.parity.tolerance import LARGEST_SHARE

#: Arrays with more elements than this on an axis are not searched for the values behind an index.
MOST_TIED: Final = 4096


def judge_integers(
    truth: NDArray[Any],
    outcome: NDArray[Any],
    floats: Mapping[str, tuple[Floats, float]],
    *,
    noise: float | None,
    k: float,
) -> Measure:
    """The share of elements that differ and that no tie explains.

    Args:
        truth: what the network gave.
        outcome: what the file gave, of the same shape.
        floats: the reference's floating outputs of the same inputs, with the absolute tolerance of each.
        noise: share of the elements that the network itself gives otherwise in float64; None: unknown.
        k: multiple of that share which may differ, up to `LARGEST_SHARE`.
    """
    differ = np.asarray(truth != outcome)
    if differ.any():
        for values, allowed in floats.values():
            differ = differ & ~_ties(truth, outcome, values, allowed)
    share = float(np.count_nonzero(differ)) / max(1, differ.size)
    place = ""
    if differ.any():
        at = np.unravel_index(int(np.argmax(differ)), truth.shape)
        place = f"element {[int(part) for part in at]}: {outcome[at]} instead of {truth[at]}"
    return Measure("exact", share, noise, min(k * (noise or 0.0), LARGEST_SHARE), place)


def _ties(truth: NDArray[Any], outcome: NDArray[Any], values: Floats, allowed: float) -> NDArray[np.bool_]:
    """Where both choices are as good, if `truth` chooses from `values` or ranks them."""
    none = np.zeros(truth.shape, bool)
    if truth.dtype.kind not in "iu":
        return none
    for axis in range(values.ndim):
        if not 2 <= values.shape[axis] <= MOST_TIED:
            continue
        chosen = np.expand_dims(truth, axis) if truth.ndim == values.ndim - 1 else truth
        size = values.shape[axis]
        if chosen.shape != (*values.shape[:axis], 1, *values.shape[axis + 1 :]) or not _inside(truth, size):
            continue
        best = np.take_along_axis(values, chosen.astype(np.int64), axis)
        for extreme in (values.max(axis, keepdims=True), values.min(axis, keepdims=True)):
            if np.array_equal(best, extreme) and _inside(outcome, size):
                other = np.take_along_axis(values, outcome.reshape(chosen.shape).astype(np.int64), axis)
                return (np.abs(other - best) <= allowed).reshape(truth.shape)
    if truth.shape == values.shape and truth.ndim and 2 <= truth.shape[-1] <= MOST_TIED:
        steps = np.diff(values, axis=-1)
        if (steps <= 0).all() or (steps >= 0).all():
            return _swapped(truth, outcome, values, allowed)
    return none


def _inside(index: NDArray[Any], size: int) -> bool:
    return bool(index.size and index.min() >= 0 and index.max() < size)


def _swapped(truth: NDArray[Any], outcome: NDArray[Any], values: Floats, allowed: float) -> NDArray[np.bool_]:
    """Ranks along the last axis: each index must have, where it stands, a value near to its own."""
    excused = np.zeros(truth.shape, bool)
    for line in np.ndindex(truth.shape[:-1]):
        places = {int(index): place for place, index in enumerate(truth[line])}
        seen: set[int] = set()
        for place, index in enumerate(int(item) for item in outcome[line]):
            # An index that the reference lacks has taken the last place, or one as good.
            own = values[line][places.get(index, -1)]
            excused[(*line, place)] = index not in seen and abs(values[line][place] - own) <= allowed
            seen.add(index)
    return excused
