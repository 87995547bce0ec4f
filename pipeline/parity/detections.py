"""Detections: boxes with scores and labels, compared as sets. No torch.

Scores that are nearer to one another than rounding come out in another order, and the last of the
kept ones may be another (docs/decisions/0022 has what was measured). So each box of the reference is
paired with the file's box of the same label that overlaps it most, and pairs are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.parity.floating import Measure, as_floats
from pipeline.parity.tolerance import Rule

Arrays = Mapping[str, NDArray[Any]]

#: Two boxes are the same box when intersection over union is at least this.
LEAST_IOU: Final = 0.95
#: ... or when no corner is further away than this, relative to the largest coordinate: of a sliver at
#: the border, a hundredth of a pixel wide, rounding leaves no intersection.
LEAST_CORNER_TOLERANCE: Final = 1e-4
#: Tolerance of a score relative to the largest score, however small the network's own noise.
LEAST_SCORE_TOLERANCE: Final = 1e-4
#: Share of the boxes that may be without a partner: non-maximum suppression decides by a threshold.
UNMATCHED_SHARE: Final = 0.01
#: As a multiple of the share that is without a partner between float32 and float64.
UNMATCHED_FACTOR: Final = 2.0
#: Share of the boxes that may have gone at the cut of the list; of a short list one box.
CUT_SHARE: Final = 0.1
#: Above this share the network does not agree with itself: such a comparison proves nothing.
UNSTABLE_SHARE: Final = 0.25

_WORDS: Final = ("box",)
#: Lists that are not named boxes are taken for detections when their length differs from input to
#: input, or is at least this: a handful of numbers may look like corners by chance.
LEAST_NAMELESS: Final = 16


@dataclass(frozen=True)
class Group:
    """The outputs of one image.

    Attributes:
        boxes: float [n, 4], corners (x1, y1, x2, y2).
        scores: float [n], in [0, 1].
        labels: integer [n]; None when there is one class only.
        others: outputs whose first axis is the boxes' (masks, keypoints).
    """

    boxes: str
    scores: str
    labels: str | None = None
    others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.boxes, self.scores, *([self.labels] if self.labels else []), *self.others)


def find_groups(outputs: Mapping[str, Arrays]) -> tuple[Group, ...]:
    """Detections among the reference's outputs, told by their shapes and values on all inputs.

    Args:
        outputs: label of the inputs to output name to array.
    """
    runs = list(outputs.values())
    groups: list[Group] = []
    taken: set[str] = set()
    names = list(runs[0])
    for boxes in names:
        if boxes in taken or not _are_boxes(runs, boxes):
            continue
        same = [
            name
            for name in names
            if name not in taken
            and name != boxes
            and all(run[name].ndim >= 1 and len(run[name]) == len(run[boxes]) for run in runs)
            and _same_image(boxes, name)
        ]
        scores = next((name for name in same if _are_scores(runs, name)), None)
        if scores is None:
            continue
        labels = next(
            (name for name in same if all(r[name].ndim == 1 and r[name].dtype.kind in "iu" for r in runs)),
            None,
        )
        others = tuple(
            name for name in same if name not in (scores, labels) and not _are_boxes(runs, name)
            and _word(boxes) is not None
        )  # fmt: skip
        group = Group(boxes, scores, labels, others)
        taken.update(group.names)
        groups.append(group)
    return tuple(groups)


def _are_boxes(runs: Sequence[Arrays], name: str) -> bool:
    arrays = [run[name] for run in runs]
    if any(a.ndim != 2 or a.shape[1] != 4 or a.dtype.kind != "f" for a in arrays):
        return False
    lengths = {len(a) for a in arrays}
    if _word(name) is None and len(lengths) == 1 and min(lengths) < LEAST_NAMELESS:
        return False
    every = np.concatenate(arrays)
    return len(every) > 0 and bool((every[:, 2:] >= every[:, :2]).all())


def _are_scores(runs: Sequence[Arrays], name: str) -> bool:
    """Probabilities, sorted: the mark of a list that was cut at a threshold or a number."""
    arrays = [run[name] for run in runs]
    return all(
        a.ndim == 1
        and a.dtype.kind == "f"
        and bool(((a >= 0) & (a <= 1)).all())
        and bool((np.diff(a) <= 0).all())
        for a in arrays
    )


def _word(boxes: str) -> str | None:
    return next((word for word in _WORDS if word in boxes.lower()), None)


def _same_image(boxes: str, other: str) -> bool:
    """Names that say boxes must agree in their number: boxes_1 goes with scores_1."""
    if _word(boxes) is None:
        return True
    return "".join(filter(str.isdigit, boxes)) == "".join(filter(str.isdigit, other))


@dataclass(frozen=True)
class Matching:
    """Boxes of two sets in pairs.

    Attributes:
        pairs: index in the first set, index in the second; int [m, 2].
        corner_error: largest difference of paired corners relative to the largest coordinate.
        score_error: largest difference of paired scores relative to the largest score.
        alone: share of the boxes of both sets that have no partner.
        unmatched: share of those that have no excuse either.
        place: the first box without a partner, those without an excuse first.
    """

    pairs: NDArray[np.int64]
    corner_error: float
    score_error: float
    alone: float
    unmatched: float
    place: str = ""


def match(
    first: Arrays, second: Arrays, group: Group, *, score_tolerance: float, cut_share: float | None = None
) -> Matching:
    """Pair the boxes of two runs on the same inputs.

    A box without a partner is excused when its score lies within the tolerance of the lowest score
    that was kept: where the list was cut, either side of a tie may go.

    Args:
        first: the arrays of one run.
        second: the arrays of the other.
        group: which of them are boxes, scores and labels.
        score_tolerance: relative to the largest score.
        cut_share: with more excused boxes than this share (or one a side) none is excused.
    """
    boxes = [as_floats(run[group.boxes]) for run in (first, second)]
    scores = [as_floats(run[group.scores]) for run in (first, second)]
    top = max((float(values.max()) for values in scores if values.size), default=0.0) or 1.0
    allowed = score_tolerance * top
    reach = max((float(np.abs(values).max()) for values in boxes if values.size), default=0.0) or 1.0
    overlap = _iou(boxes[0], boxes[1])
    corners_apart = np.abs(boxes[0][:, None] - boxes[1][None, :]).max(axis=2, initial=0.0) / reach
    overlap = np.where(corners_apart <= LEAST_CORNER_TOLERANCE, np.maximum(overlap, LEAST_IOU), overlap)
    if group.labels:
        overlap = np.where(first[group.labels][:, None] == second[group.labels][None, :], overlap, 0.0)
    apart = np.abs(scores[0][:, None] - scores[1][None, :])
    near = np.argwhere(overlap >= LEAST_IOU)
    rows, columns = near[:, 0], near[:, 1]
    # Scores that agree first, then the larger overlap.
    order = np.lexsort((-overlap[rows, columns], apart[rows, columns] > allowed))
    free = [np.ones(len(boxes[0]), bool), np.ones(len(boxes[1]), bool)]
    pairs = []
    for row, column in near[order]:
        if free[0][row] and free[1][column]:
            free[0][row] = free[1][column] = False
            pairs.append((row, column))
    matched = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    alone, missing, place = 0, 0, ""
    for side, word in ((0, "missing"), (1, "added")):
        cut = float(scores[side].min()) if scores[side].size and scores[1 - side].size else -1.0
        without = np.flatnonzero(free[side])
        inexcusable = without[scores[side][without] > cut + allowed]
        alone, missing = alone + len(without), missing + len(inexcusable)
        if len(without) and (not place or (len(inexcusable) and missing == len(inexcusable))):
            first_one = (inexcusable if len(inexcusable) else without)[0]
            corners = ", ".join(f"{value:.1f}" for value in boxes[side][first_one])
            place = f"{word} box [{corners}] of score {scores[side][first_one]:.3g}"
    every = max(1, len(boxes[0]) + len(boxes[1]))
    if cut_share is not None and alone - missing > max(2, cut_share * every):
        missing = alone
    return Matching(
        matched,
        float(corners_apart[matched[:, 0], matched[:, 1]].max()) if len(matched) else 0.0,
        float(apart[matched[:, 0], matched[:, 1]].max()) / top if len(matched) else 0.0,
        alone / every,
        missing / every,
        place,
    )


@dataclass(frozen=True)
class DetectionNoise:
    """How far float32 and float64 are apart, as sets."""

    corner: float | None = None
    score: float | None = None
    unmatched: float | None = None
    alone: float | None = None
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def unstable(self) -> bool:
        """The network hardly agrees with itself (all scores alike)."""
        return self.alone is not None and self.alone > UNSTABLE_SHARE


def measure_noise(group: Group, reference: Arrays, exact: Arrays) -> DetectionNoise:
    """The noise on the inputs that were run in float64; nothing when `exact` is empty."""
    if not exact:
        return DetectionNoise()
    found = match(exact, reference, group, score_tolerance=LEAST_SCORE_TOLERANCE)
    return DetectionNoise(
        found.corner_error,
        found.score_error,
        found.unmatched,
        found.alone,
        {name: _other_error(name, exact, reference, found) for name in group.others},
    )


def judge_detections(
    group: Group, reference: Arrays, outcome: Arrays, noise: DetectionNoise, rule: Rule
) -> dict[str, Measure]:
    """A measure an output of the group.

    Boxes: the largest difference of a pair's corners, relative to the largest coordinate; scores:
    the same, relative to the largest score; labels: the share of boxes without a partner of the same label (on the boxes' line too when they are too many).
    """
    score_tolerance = max(rule.tolerance(noise.score), LEAST_SCORE_TOLERANCE)
    cut_share = max(CUT_SHARE, UNMATCHED_FACTOR * (noise.alone or 0.0))
    found = match(reference, outcome, group, score_tolerance=score_tolerance, cut_share=cut_share)
    share = min(max(UNMATCHED_FACTOR * (noise.unmatched or 0.0), UNMATCHED_SHARE), UNSTABLE_SHARE)
    alone = Measure("set", found.unmatched, noise.unmatched, share, found.place)
    corner_tolerance = max(rule.tolerance(noise.corner), LEAST_CORNER_TOLERANCE)
    boxes = Measure("set", found.corner_error, noise.corner, corner_tolerance)
    measures = {
        group.boxes: boxes if group.labels and alone.passed else min(boxes, alone, key=lambda m: m.margin),
        group.scores: Measure("set", found.score_error, noise.score, score_tolerance),
    }
    if group.labels:
        measures[group.labels] = alone
    for name in group.others:
        error, own = _other_error(name, reference, outcome, found), noise.others.get(name)
        measures[name] = Measure("set", error, own, max(rule.tolerance(own), LEAST_SCORE_TOLERANCE))
    return measures


def _other_error(name: str, first: Arrays, second: Arrays, found: Matching) -> float:
    """The largest difference over paired boxes, relative to the largest magnitude."""
    one, other = as_floats(first[name])[found.pairs[:, 0]], as_floats(second[name])[found.pairs[:, 1]]
    if one.shape != other.shape:
        return float(np.finfo(np.float32).max)
    scale = float(np.abs(one).max()) if one.size else 0.0
    return float(np.abs(one - other).max()) / (scale or 1.0) if one.size else 0.0


def _iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of every pair, [n, m]; 0 where both are empty."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1.0), 0.0)
