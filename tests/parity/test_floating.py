"""The three norms, and what each sees that the others do not."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.parity.config import ParityConfig
from pipeline.parity.floating import FloatOutput, Floats, judge_fixed, median
from pipeline.parity.tolerance import EPSILON, LARGEST_MARGIN, Rule, rule_for

NOISE = 1e-6


def rule(dtype: str = "float32", **changes: float) -> Rule:
    return rule_for(dtype, ParityConfig(**changes))  # type: ignore[arg-type]


def noisy(exact: Floats, seed: int, *, size: float = NOISE) -> Floats:
    """The values as another order of float32 additions gives them."""
    errors = np.random.default_rng(seed).standard_normal(exact.shape)
    channel = np.abs(exact).max(axis=tuple(range(2, exact.ndim)), keepdims=True)
    return exact + errors * channel * size


@pytest.fixture
def exact() -> Floats:
    """A feature map of eight channels, the last a hundred thousand times smaller."""
    values = np.random.default_rng(0).standard_normal((1, 8, 16, 16))
    values[:, 7] *= 1e-5
    return values


class TestNorms:
    def test_another_rounding_passes_with_room(self, exact: Floats) -> None:
        output = FloatOutput(noisy(exact, 1), exact, rule())
        for seed in range(2, 12):
            measure = output.judge(noisy(exact, seed))
            assert measure.passed
            assert measure.margin > 5

    @pytest.mark.parametrize("factor", [1.1, 1.01, 1.001])
    def test_everything_scaled(self, exact: Floats, factor: float) -> None:
        output = FloatOutput(noisy(exact, 1), exact, rule())
        measure = output.judge(noisy(exact, 2) * factor)
        assert not measure.passed

    @pytest.mark.parametrize("axis", [1, 3])
    def test_a_small_channel_is_judged_by_its_own_size(self, exact: Floats, axis: int) -> None:
        exact = np.moveaxis(exact, 1, axis)
        small = [slice(None)] * 4
        small[axis] = slice(7, 8)
        reference = exact.copy()
        reference += np.moveaxis(noisy(np.moveaxis(exact, axis, 1), 1) - np.moveaxis(exact, axis, 1), 1, axis)
        output = FloatOutput(reference, exact, rule())
        wrong = reference.copy()
        wrong[tuple(small)] *= 1.01
        assert output.judge_scale(exact, wrong).passed  # hidden: 1e-7 of the largest value
        measure = output.judge(wrong)
        assert (measure.passed, measure.criterion) == (False, "channel")
        assert measure.place == f"channel 7 of axis {axis}"

    def test_a_small_element_is_judged_by_its_own_size(self) -> None:
        exact = np.array([[640.0, 480.0, 320.0, *np.linspace(0.1, 0.9, 40)]])
        reference = exact * (1 + 1e-7 * np.cos(np.arange(43)))
        output = FloatOutput(reference, exact, rule())
        wrong = reference.copy()
        wrong[0, 10] += 1e-4
        assert output.judge_scale(exact, wrong).passed
        measure = output.judge(wrong)
        assert (measure.passed, measure.criterion, measure.place) == (False, "element", "element [0, 10]")

    def test_channels_whose_rounding_does_not_show_are_left_to_the_others(self) -> None:
        exact = np.random.default_rng(0).standard_normal((1, 4, 100))
        exact[:, 3] = 0.0  # a dead channel: one spark in the file is no fault of its size
        reference = exact + 1e-7 * np.random.default_rng(1).standard_normal(exact.shape) * (exact != 0)
        output = FloatOutput(reference, exact, rule())
        assert list(output.channels[1][0]) == [True, True, True, False]
        outcome = reference.copy()
        outcome[0, 3, 5] = 1e-8
        assert output.judge(outcome).passed

    def test_other_inputs_are_judged_by_scale_and_never_below_the_first(self, exact: Floats) -> None:
        output = FloatOutput(noisy(exact, 1), exact, rule())
        faint = exact * 1e-3
        assert output.judge_scale(faint, faint + output.scale * NOISE).passed
        assert not output.judge_scale(faint, faint * 1.1).passed

    def test_all_zero_and_empty_outputs(self) -> None:
        zero = np.zeros((2, 3))
        output = FloatOutput(zero, zero, rule())
        assert output.judge(zero).margin == LARGEST_MARGIN
        assert not output.judge(zero + 1e-3).passed
        empty = np.zeros((0, 4))
        assert FloatOutput(empty, empty, rule()).judge(empty).passed

    def test_an_output_without_dimensions(self) -> None:
        value = np.array(2.0)
        output = FloatOutput(value + 1e-7, value, rule())
        assert output.judge(value + 2e-7).passed
        assert not output.judge(value * 1.001).passed


class TestTolerance:
    def test_without_a_float64_run_noise_is_assumed(self) -> None:
        reference = np.array([1.0, 2.0])
        measure = FloatOutput(reference, None, rule()).judge(reference + 1e-5)
        assert measure.noise is None
        assert measure.tolerance == 16 * 64 * EPSILON["float32"]
        assert measure.passed
        assert not FloatOutput(reference, None, rule()).judge(reference * 1.001).passed

    def test_a_network_in_float64_has_no_more_exact_run(self) -> None:
        reference = np.array([1.0, 2.0])
        output = FloatOutput(reference, reference, rule("float64"))
        assert output.noise is None
        assert output.judge(reference * (1 + 1e-14)).passed
        assert not output.judge(reference * (1 + 1e-9)).passed

    @pytest.mark.parametrize(
        ("dtype", "floor"), [("float32", 7.6e-6), ("float16", 3.9e-3), ("float64", 1.42e-14)]
    )
    def test_no_noise_leaves_the_floor(self, dtype: str, floor: float) -> None:
        assert rule(dtype).tolerance(0.0) == pytest.approx(floor, rel=0.02)

    def test_configured_floor_and_k(self) -> None:
        assert rule(floor=0.5).tolerance(0.0) == 0.5
        assert rule(k=2.0).tolerance(1e-4) == 2e-4

    def test_a_huge_noise_does_not_make_everything_pass(self) -> None:
        exact = np.linspace(1, 2, 50)
        reference = exact.copy()
        reference[3] *= 1.3
        output = FloatOutput(reference, exact, rule())
        assert not output.judge(exact * 1.05).passed

    def test_other_inputs_that_drown_are_not_held_against_the_file(self) -> None:
        exact = np.linspace(1, 2, 50)
        reference = exact.copy()
        reference[3] *= 1.3
        output = FloatOutput(reference, exact, rule(), measures_noise=False)
        assert output.drowned
        assert output.judge(exact * 1.05).passed


class TestFixed:
    def test_the_classic_tolerances(self) -> None:
        truth = np.array([0.0, 1.0, 100.0])
        assert judge_fixed(truth, truth + np.array([9e-6, 9e-4, 9e-2]), rtol=1e-3, atol=1e-5).passed
        measure = judge_fixed(truth, truth + np.array([2e-5, 0, 0]), rtol=1e-3, atol=1e-5)
        assert (measure.error, measure.tolerance, measure.place) == (pytest.approx(2), 1.0, "element [0]")

    def test_nothing_allowed(self) -> None:
        truth = np.array([0.0, 1.0])
        assert judge_fixed(truth, truth, rtol=0, atol=0).passed
        measure = judge_fixed(truth, truth + 1e-9, rtol=0, atol=0)
        assert not measure.passed
        assert np.isfinite(measure.error)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1000, 1001])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_median_is_numpys_to_the_bit(size: int, dtype: str) -> None:
    values = np.abs(np.random.default_rng(size).standard_normal(size)).astype(dtype)
    found, expected = median(values), np.median(values)
    assert (found, found.dtype) == (expected, expected.dtype)
