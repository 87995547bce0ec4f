"""OpenVINO's backend against the contract of all backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StageFailed
from pipeline.targets.contract_tests import TWO, BackendContract, Trial
from pipeline.targets.openvino import BACKEND


class TestOpenVino(BackendContract):
    backend = BACKEND


DET = """
<ir_version: 8, opset_import: ["" : 17]>
determinant (float[2,3,3] image) => (float[2] d) { d = Det (image) }
"""
ANTIALIAS = """
<ir_version: 8, opset_import: ["" : 18]>
smaller (float[1,3,8,8] image) => (float[1,3,4,4] small)
{
    scales = Constant <value = float[4] {1.0, 1.0, 0.5, 0.5}> ()
    small = Resize <mode = "linear", antialias = 1> (image, , scales)
}
"""


class TestItsOwn:
    def test_float32_is_in_force_whatever_the_processor_would_like(self, tmp_path: Path) -> None:
        trial = Trial(TestOpenVino(), tmp_path, TWO)
        found = trial.run(trial.compile(), trial.samples())
        assert found.precision == "float32"
        assert found.proof.startswith("INFERENCE_PRECISION_HINT reads f32; kernels of the compiled model: ")

    def test_float16_halves_the_weights_and_says_what_computes(self, tmp_path: Path) -> None:
        full = Trial(TestOpenVino(), tmp_path / "a", TWO).compile()
        trial = Trial(TestOpenVino(), tmp_path / "b", TWO, precision="float16")
        half = trial.compile()
        assert half.compiled.facts["weights"] == {"float16": 1}
        assert full.compiled.facts["weights"] == {"float32": 1}
        assert trial.run(half, trial.samples()).precision == "float16 weights, float32 arithmetic"

    def test_an_operator_of_onnx_that_it_lacks_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StageFailed) as failed:
            Trial(TestOpenVino(), tmp_path, DET).compile()
        assert "Det" in str(failed.value.reason.where)

    def test_what_it_computes_wrongly_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StageFailed, match="antialias"):
            Trial(TestOpenVino(), tmp_path, ANTIALIAS).compile()
