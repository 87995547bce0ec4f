"""Integers are exact; an index may take the other side of a tie, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.parity.integers import judge_integers

ALLOWED = 1e-5


def judge(truth: object, outcome: object, values: object = None, *, noise: float | None = None) -> bool:
    floats = {} if values is None else {"values": (np.asarray(values, float), ALLOWED)}
    return judge_integers(np.asarray(truth), np.asarray(outcome), floats, noise=noise, k=16).passed


def test_exact() -> None:
    assert judge([1, 2, 3], [1, 2, 3])
    assert not judge([1, 2, 3], [1, 2, 4])
    assert judge([True, False], [True, False])
    assert not judge([True, False], [True, True])
    assert judge(7, 7)
    assert not judge(7, 8)


def test_the_place_is_named() -> None:
    measure = judge_integers(np.array([[1, 2]]), np.array([[1, 5]]), {}, noise=None, k=16)
    assert measure.place == "element [0, 1]: 5 instead of 2"
    assert measure.error == 0.5


@pytest.mark.parametrize("keep", [False, True])
def test_argmax(keep: bool) -> None:
    scores = np.array([[0.1, 0.9, 0.9 - 1e-6], [0.7, 0.2, 0.1]])
    chosen = scores.argmax(1, keepdims=keep)
    tied, other = chosen.copy(), chosen.copy()
    tied.flat[0] = 2
    other.flat[1] = 2
    assert judge(chosen, tied, scores)
    assert not judge(chosen, other, scores)
    assert not judge(chosen, tied)  # without the scores nobody knows of the tie


def test_an_argmax_that_the_values_do_not_explain_is_exact() -> None:
    scores = np.array([[0.1, 0.9, 0.9 - 1e-6]])
    assert not judge([0], [2], scores)


def test_an_index_outside() -> None:
    assert not judge([1], [9], [[0.1, 0.9, 0.9]])
    assert not judge([1], [-1], [[0.1, 0.9, 0.9]])


class TestTopK:
    values = (0.9, 0.8, 0.8 - 1e-6, 0.5)

    def test_tied_neighbours_may_change_places(self) -> None:
        assert judge([4, 7, 2, 9], [4, 2, 7, 9], self.values)
        assert not judge([4, 7, 2, 9], [7, 4, 2, 9], self.values)

    def test_an_index_that_the_reference_lacks_may_only_come_last(self) -> None:
        assert judge([4, 7, 2, 9], [4, 7, 2, 1], self.values)
        assert not judge([4, 7, 2, 9], [1, 7, 2, 9], self.values)

    def test_the_same_index_twice(self) -> None:
        assert not judge([4, 7, 2, 9], [4, 7, 7, 9], self.values)

    def test_every_line_by_itself(self) -> None:
        values = np.array([self.values, self.values])
        truth = np.array([[4, 7, 2, 9], [1, 2, 3, 4]])
        outcome = np.array([[4, 2, 7, 9], [2, 1, 3, 4]])
        measure = judge_integers(truth, outcome, {"v": (values, ALLOWED)}, noise=None, k=16)
        assert measure.error == 2 / 8


def test_the_share_that_float64_decides_otherwise() -> None:
    truth = np.zeros(10_000, np.int64)
    outcome = truth.copy()
    outcome[:5] = 1
    assert not judge(truth, outcome)
    assert judge(truth, outcome, noise=1 / 10_000)
    outcome[:200] = 1
    assert not judge(truth, outcome, noise=0.5)  # never more than one in a hundred
