"""Matching by name, what cannot be compared, and the lines of run.json."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pipeline.errors import StageFailed
from pipeline.parity.compare import compare
from pipeline.parity.config import ParityConfig
from pipeline.parity.reference import Reference

CONFIG = ParityConfig()


def one(expected: Any, outcome: Any, label: str = "seed0", **others: Any) -> Any:
    reference = Reference({label: {"y": np.asarray(expected), **others}})
    lines = compare(reference, {label: {"y": np.asarray(outcome), **others}}, CONFIG)
    return next(line for line in lines if line.output == "y")


def test_outputs_go_by_their_names() -> None:
    a, b = np.array([1.0, 2.0], np.float32), np.array([3.0, 4.0], np.float32)
    reference = Reference({"seed0": {"a": a, "b": b}})
    assert all(line.passed for line in compare(reference, {"seed0": {"b": b, "a": a}}, CONFIG))
    assert not any(line.passed for line in compare(reference, {"seed0": {"a": b, "b": a}}, CONFIG))
    assert [line.output for line in compare(reference, {"seed0": {"b": b, "a": a}}, CONFIG)] == ["a", "b"]


@pytest.mark.parametrize("names", [("a",), ("a", "c"), ("a", "b", "c")])
def test_other_names(names: tuple[str, ...]) -> None:
    zero = np.zeros(2, np.float32)
    with pytest.raises(StageFailed) as caught:
        compare(Reference({"seed0": {"a": zero, "b": zero}}), {"seed0": dict.fromkeys(names, zero)}, CONFIG)
    assert str(caught.value) == (
        "PL-513: the file's outputs are not named like the network's; found "
        f"{', '.join(names)}, expected a, b. "
        "Name them with export.output_names, in the order of the network's outputs"
    )


def test_another_shape_is_no_broadcast() -> None:
    line = one(np.ones((2, 3), np.float32), np.ones((1, 3), np.float32))
    assert (line.passed, line.error, line.problem) == (
        False,
        None,
        "the file gives the shape [1, 3] instead of [2, 3]",
    )
    assert one(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)).problem_kind == "shape"


def test_another_shape_with_other_sizes_was_baked_in() -> None:
    line = one(np.ones((3, 3), np.float32), np.ones((2, 3), np.float32), "sizes:batch=3,height=9")
    assert line.problem.endswith(": the size depends on batch, height and was baked in")


def test_another_element_type() -> None:
    assert one(np.ones(2, np.float32), np.ones(2)).problem == "the file gives float64 instead of float32"
    assert not one(np.ones(2, np.int64), np.ones(2, np.int32)).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stands_at_the_same_places(value: float) -> None:
    expected = np.array([1.0, value, 3.0], np.float32)
    assert one(expected, expected).passed
    for wrong in ([1.0, 2.0, 3.0], [value, 1.0, 3.0], [value, value, 3.0]):
        line = one(expected, np.array(wrong, np.float32))
        assert not line.passed
        assert line.problem_kind == "finite"
    line = one(expected, np.array([1.1, value, 3.0], np.float32))
    assert (line.passed, line.problem) == (False, "")


def test_signs_of_infinity() -> None:
    assert not one(np.array([np.inf], np.float32), np.array([-np.inf], np.float32)).passed


def test_empty_outputs_are_equal() -> None:
    assert one(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)).passed
    assert not one(np.zeros((0, 4), np.float32), np.zeros((1, 4), np.float32)).passed


def test_scalars_and_complex_numbers() -> None:
    assert one(np.float32(2), np.float32(2 + 1e-6)).passed
    assert not one(np.float32(2), np.float32(2.1)).passed
    assert not one(np.float32(2), np.float32(np.nan)).passed
    assert one(np.array([1 + 2j]), np.array([1 + 2j])).passed
    assert not one(np.array([1 + 2j]), np.array([1 + 2.1j])).passed


def test_an_index_finds_its_scores_among_the_outputs() -> None:
    scores = np.array([[0.1, 0.9, 0.9 - 1e-6]], np.float32)
    assert one([1], [2], scores=scores).passed
    assert not one([1], [0], scores=scores).passed


def test_the_noise_of_the_first_inputs_holds_for_the_others() -> None:
    exact = np.linspace(1, 2, 100)
    outputs = {
        "seed0": {"y": (exact * (1 + 1e-4)).astype(np.float32)},
        "seed1": {"y": exact.astype(np.float32)},
    }
    reference = Reference(outputs, {"seed0": {"y": exact}})
    lines = compare(reference, {"seed1": {"y": (exact * 1.001).astype(np.float32)}}, CONFIG)
    assert lines[0].passed
    assert lines[0].noise == pytest.approx(1e-4, rel=0.01)
    assert not compare(Reference(outputs), {"seed1": {"y": (exact * 1.001).astype(np.float32)}}, CONFIG)[
        0
    ].passed


def test_inputs_with_a_noise_of_their_own() -> None:
    exact = np.linspace(1, 2, 100)
    near, far = exact.astype(np.float32), (exact * 1e3 * (1 + 1e-2)).astype(np.float32)
    outputs = {"seed0": {"y": near}, "seed2": {"y": far}}
    reference = Reference(outputs, {"seed0": {"y": exact}, "seed2": {"y": exact * 1e3}})
    (line,) = compare(reference, {"seed2": {"y": (exact * 1.02e3).astype(np.float32)}}, CONFIG)
    assert (line.passed, line.drowned) == (True, True)
    (line,) = compare(reference, {"seed0": {"y": (exact * 1.02).astype(np.float32)}}, CONFIG)
    assert (line.passed, line.drowned) == (False, False)


def test_lines_are_json_with_finite_numbers() -> None:
    good = one(np.ones(3, np.float32), np.ones(3, np.float32))
    bad = one(np.ones(3, np.float32), np.full(3, np.nan, np.float32))
    for line in (good.line(), bad.line()):
        json.dumps(line, allow_nan=False)
        assert {"output", "seed", "error", "noise", "tolerance", "margin", "metric"} <= set(line)
    assert good.line()["margin"] == 1e6
    assert (bad.line()["error"], bad.line()["margin"]) == (None, 0.0)
