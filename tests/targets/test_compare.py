"""The target's outputs against the network's: what passes, what fails, and with which tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.errors import StageFailed
from pipeline.targets.compare import compare_target, failure, whole_tolerance


class TestComparison:
    @staticmethod
    def reference(array: Any) -> Any:
        from pipeline.parity.reference import Reference

        exact = array.astype(np.float64)
        exact += 1e-8 * np.abs(exact).max()
        return Reference({"seed0": {"y": array}}, {"seed0": {"y": exact}})

    def judge(self, array: Any, found: Any, precision: str = "float32", tolerance: float = 1e-4) -> Any:
        return compare_target(
            self.reference(array), {"seed0": {"y": found}}, precision=precision, tolerance=tolerance, k=16.0
        )[0]

    def test_one_wrong_channel_is_not_hidden_by_a_large_one(self) -> None:
        array = np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)
        array[:, 0] *= 1e4
        found = array.copy()
        found[:, 3] *= np.float32(1.05)
        assert np.abs(found - array).max() / np.abs(array).max() < 1e-4
        one = self.judge(array, found)
        assert not one.passed
        assert "channel 3 of axis 1" in one.place or "element [0, 3" in one.place

    def test_rounding_of_small_elements_is_no_fault(self) -> None:
        array = np.random.default_rng(0).standard_normal((1, 1000)).astype(np.float32)
        found = array + np.float32(5e-5) * np.abs(array).max()
        one = self.judge(array, found)
        assert one.passed and one.margin < 10

    def test_half_precision_is_judged_by_the_scale_alone(self) -> None:
        array = np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)
        found = array.astype(np.float16).astype(np.float32)
        assert self.judge(array, found, "float16", 5e-3).passed
        assert not self.judge(array, array * np.float32(1.01), "float16", 5e-3).passed

    def test_a_network_that_amplifies_rounding_may_do_so_in_half_precision(self) -> None:
        """Its float32 noise says how much: 4e-6 of the scale becomes 3 percent, 1e-8 nothing to speak of."""
        from pipeline.parity.reference import Reference

        array = np.random.default_rng(0).standard_normal((1, 100)).astype(np.float32)
        scale = np.abs(array).max()

        def judged(noise: float, label: str = "seed0", error: float = 0.012) -> Any:
            exact = {name: {"y": array.astype(np.float64) + noise * scale} for name in ("seed0", label)}
            reference = Reference({name: {"y": array} for name in ("seed0", label)}, exact)
            found = {label: {"y": array + np.float32(error) * scale}}
            return compare_target(reference, found, precision="float16", tolerance=5e-3, k=16.0)[0]

        noisy, quiet = judged(4e-6), judged(1e-8)
        assert noisy.passed and 0.03 < noisy.tolerance < 0.034
        assert not quiet.passed and quiet.tolerance == 5e-3
        assert not judged(1e-4, error=0.06).passed, "never more than 5 percent where noise is measured"
        drowned = judged(1.6e-5, "seed2", error=0.06)
        assert drowned.passed and drowned.drowned

    def test_nan_elsewhere_fails_with_the_place(self) -> None:
        array = np.ones((1, 4), np.float32) * np.arange(4, dtype=np.float32)
        found = array.copy()
        found[0, 2] = np.nan
        one = self.judge(array, found)
        assert not one.passed
        error = failure([one], "board", "float32", [one.line()])
        assert "NaN stands elsewhere" in str(error.reason.found) and "[0, 2]" in str(error.reason.found)

    def test_nan_at_the_same_place_passes(self) -> None:
        array = np.ones((1, 4), np.float32) * np.arange(4, dtype=np.float32)
        array[0, 1] = np.nan
        assert self.judge(array, array.copy()).passed

    @pytest.mark.parametrize("precision", ["float32", "float16"])
    @pytest.mark.parametrize("noise", [0.0, 1e-8, 4e-6, 1e-4])
    def test_the_tolerance_of_the_bundle_is_that_of_the_comparison(
        self, precision: str, noise: float
    ) -> None:
        from pipeline.parity.reference import Reference

        array = np.random.default_rng(0).standard_normal((1, 100)).astype(np.float32)
        exact = {"seed0": {"y": array.astype(np.float64) + noise * np.abs(array).max()}}
        reference = Reference({"seed0": {"y": array}}, exact)
        rule = {"precision": precision, "tolerance": 1e-9, "k": 16.0}
        (one,) = compare_target(reference, {"seed0": {"y": array}}, **rule)
        assert one.passed
        assert whole_tolerance(reference, **rule) == one.tolerance

    def test_integers_are_exact(self) -> None:
        from pipeline.parity.reference import Reference

        reference = Reference({"seed0": {"y": np.array([[1, 2, 3]])}})
        good, bad = (
            compare_target(
                reference, {"seed0": {"y": array}}, precision="float32", tolerance=1e-4, k=16.0
            )[0]
            for array in (np.array([[1, 2, 3]]), np.array([[1, 2, 4]]))
        )  # fmt: skip
        assert good.passed and not bad.passed

    def test_a_missing_output_is_an_error(self) -> None:
        array = np.ones((1, 4), np.float32)
        with pytest.raises(StageFailed, match="PL-513"):
            compare_target(
                self.reference(array), {"seed0": {"z": array}}, precision="float32", tolerance=1e-4, k=16.0
            )
