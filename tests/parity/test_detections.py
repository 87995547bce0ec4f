"""Detections are sets: order and ties do not count, boxes and labels do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.parity.compare import compare
from pipeline.parity.config import ParityConfig
from pipeline.parity.detections import Group, find_groups, match
from pipeline.parity.reference import Reference
from pipeline.parity.vacuous import find_vacuous

Detections = dict[str, np.ndarray[Any, Any]]


def detections(count: int = 40, seed: int = 0) -> Detections:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 100, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(10, 50, (count, 2))], 1)
    return {
        "boxes": boxes.astype(np.float32),
        "labels": random.integers(1, 5, count),
        "scores": np.sort(random.uniform(0.1, 0.9, count))[::-1].astype(np.float32),
    }


def changed(found: Detections, order: Any = slice(None), **arrays: Any) -> Detections:
    return {name: arrays.get(name, array)[order] for name, array in found.items()}


def judge(truth: Detections, outcome: Detections, exact: Detections | None = None) -> dict[str, bool]:
    others = {"seed1": detections(30, 1)}
    reference = Reference({"seed0": truth, **others}, {"seed0": truth if exact is None else exact})
    lines = compare(reference, {"seed0": outcome}, ParityConfig())
    assert {line.criterion for line in lines} <= {"set", "exact"}
    return {line.output: line.passed for line in lines}


GOOD = {"boxes": True, "labels": True, "scores": True}


class TestSets:
    def test_the_same(self) -> None:
        assert judge(detections(), detections()) == GOOD

    def test_tied_scores_in_another_order(self) -> None:
        truth = detections()
        truth["scores"][10:14] = truth["scores"][10]
        order = np.arange(40)
        order[10:14] = [13, 10, 12, 11]
        assert judge(truth, changed(truth, order)) == GOOD

    def test_two_boxes_at_one_place_keep_their_scores(self) -> None:
        truth = detections()
        truth["boxes"][5], truth["labels"][5] = truth["boxes"][4], truth["labels"][4]
        assert judge(truth, changed(truth, np.r_[0:4, 5, 4, 6:40])) == GOOD

    def test_a_missing_and_an_added_box(self) -> None:
        truth = detections()
        assert not judge(truth, changed(truth, np.r_[0:3, 4:40]))["labels"]
        assert not judge(changed(truth, np.r_[0:3, 4:40]), truth)["labels"]

    def test_no_box_at_all(self) -> None:
        truth = detections()
        assert not judge(truth, changed(truth, slice(0)))["labels"]

    def test_the_last_of_a_cut_list_may_be_another(self) -> None:
        truth = detections()
        truth["scores"][-2:] = truth["scores"][-1]
        outcome = changed(truth)
        outcome["boxes"] = truth["boxes"].copy()
        outcome["boxes"][-1] += 100
        assert judge(truth, outcome) == GOOD
        outcome["boxes"][0] += 100
        assert not judge(truth, outcome)["labels"]

    def test_a_list_of_ties_is_not_excused_as_a_whole(self) -> None:
        truth = detections()
        truth["scores"][:] = truth["scores"][-1]
        assert not judge(truth, changed(truth, boxes=truth["boxes"] + np.float32(50)))["labels"]

    def test_wrong_boxes(self) -> None:
        truth = detections()
        assert not judge(truth, changed(truth, boxes=truth["boxes"] * np.float32(1.1)))["labels"]
        slightly = judge(truth, changed(truth, boxes=truth["boxes"] + np.float32(0.05)))
        assert slightly == {**GOOD, "boxes": False}

    def test_a_wrong_label(self) -> None:
        truth = detections()
        labels = truth["labels"].copy()
        labels[3] = 9
        assert judge(truth, changed(truth, labels=labels)) == {**GOOD, "boxes": False, "labels": False}

    def test_wrong_scores(self) -> None:
        truth = detections()
        found = judge(truth, changed(truth, scores=truth["scores"] * np.float32(1.01)))
        assert found == {**GOOD, "scores": False}

    def test_outputs_that_do_not_agree_in_their_number(self) -> None:
        truth = detections()
        outcome = {**truth, "scores": truth["scores"][:-1]}
        assert judge(truth, outcome) == dict.fromkeys(GOOD, False)

    def test_nan(self) -> None:
        truth = detections()
        boxes = truth["boxes"].copy()
        boxes[0, 0] = np.nan
        assert not judge(truth, changed(truth, boxes=boxes))["boxes"]

    def test_masks_go_with_their_boxes(self) -> None:
        truth = {**detections(), "masks": np.random.default_rng(3).random((40, 1, 6, 6), np.float32)}
        reference = Reference({"seed0": truth})
        order = np.arange(40)[::-1]
        moved = compare(reference, {"seed0": changed(truth, order)}, ParityConfig())
        assert all(line.passed for line in moved)
        wrong = changed(truth, order) | {"masks": truth["masks"]}
        lines = {line.output: line.passed for line in compare(reference, {"seed0": wrong}, ParityConfig())}
        assert lines == {**GOOD, "masks": False}


class TestGroups:
    def test_by_names_and_values(self) -> None:
        assert find_groups({"seed0": detections()}) == (Group("boxes", "scores", "labels"),)

    def test_two_images(self) -> None:
        both = {f"{name}_{i}": array for i in (0, 1) for name, array in detections(9, i).items()}
        groups = find_groups({"seed0": both})
        assert groups == (
            Group("boxes_0", "scores_0", "labels_0"), Group("boxes_1", "scores_1", "labels_1"),
        )  # fmt: skip

    def test_without_names_only_lists_that_vary_or_are_long(self) -> None:
        plain = dict(zip(("output1", "output2", "output3"), detections(40).values(), strict=True))
        assert find_groups({"seed0": plain}) == (Group("output1", "output3", "output2"),)
        few = dict(zip(plain, detections(2).values(), strict=True))
        assert find_groups({"seed0": few}) == ()

    @pytest.mark.parametrize("fault", ["centres", "unsorted", "logits"])
    def test_what_is_no_list_of_detections_is_compared_in_place(self, fault: str) -> None:
        found = detections()
        if fault == "centres":
            found["boxes"][:, 2] = 0
        elif fault == "unsorted":
            found["scores"] = found["scores"][::-1].copy()
        else:
            found["scores"] = found["scores"] * 20
        assert find_groups({"seed0": found}) == ()


class TestVacuous:
    def test_no_boxes_on_any_input(self) -> None:
        none = changed(detections(), slice(0))
        found = find_vacuous(Reference({"seed0": none, "seed1": none}), ParityConfig())
        assert {(one.output, one.kind) for one in found} == {(name, "empty") for name in none}

    def test_scores_that_are_all_alike(self) -> None:
        """Random weights: each run keeps other boxes, and float64 others again."""
        runs = [detections(300, seed) for seed in range(3)]
        for run in runs:
            run["scores"][:] = 1 / 91
        reference = Reference({"seed0": runs[0], "seed1": runs[1]}, {"seed0": runs[2]})
        # Every box has the score at which the list was cut: each alone would be excused.
        found = find_vacuous(reference, ParityConfig())
        assert {one.kind for one in found} == {"unstable"}

    def test_the_same_boxes_on_every_input(self) -> None:
        reference = Reference({"seed0": detections(), "seed1": detections()})
        assert {one.kind for one in find_vacuous(reference, ParityConfig())} == {"constant"}

    def test_other_boxes_on_other_inputs(self) -> None:
        reference = Reference({"seed0": detections(), "seed1": detections(40, 1)}, {"seed0": detections()})
        assert find_vacuous(reference, ParityConfig()) == ()


@pytest.mark.parametrize("width", [0.0, 0.01])
def test_slivers_at_the_border_are_paired_by_their_corners(width: float) -> None:
    """Rounding moves them by more than their width."""
    one = {"boxes": np.array([[319.99, 10, 320, 90]]), "scores": np.ones(1), "labels": np.ones(1, int)}
    other = {**one, "boxes": np.array([[319.98 - width, 10, 319.98, 90]])}
    found = match(one, other, Group("boxes", "scores", "labels"), score_tolerance=1e-4)
    assert len(found.pairs) == 1
    assert found.unmatched == 0
    moved = {**one, "boxes": one["boxes"] - [0.1, 0, 0.1, 0]}
    assert not len(match(one, moved, Group("boxes", "scores", "labels"), score_tolerance=1e-4).pairs)
