"""ONNX Runtime's backend against the contract of all backends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnxruntime
import pytest

from pipeline.errors import StageFailed
from pipeline.targets.compiled import CompiledFiles
from pipeline.targets.contract_tests import TWO, BackendContract, Trial
from pipeline.targets.onnxruntime import BACKEND


class TestOnnxRuntime(BackendContract):
    backend = BACKEND


class TestItsOwn:
    def test_both_formats_are_saved_and_the_ort_alone_is_needed(self, tmp_path: Path) -> None:
        trial = Trial(TestOnnxRuntime(), tmp_path, TWO)
        made = trial.compile()
        assert (made.compiled.files, made.compiled.others) == (("model.ort",), ("model.optimised.onnx",))
        assert made.size == len(made.data["model.ort"])
        session = onnxruntime.InferenceSession(bytes(made.data["model.optimised.onnx"]))
        assert [one.name for one in session.get_inputs()] == ["image", "mask"]
        only = CompiledFiles(
            {"model.ort": made.data["model.ort"]}, made.compiled, made.inputs, made.outputs
        )  # fmt: skip
        found = trial.run(only, trial.samples())
        trial.expect_right(found)
        assert found.proof.startswith("profile of a run of model.ort: ")
        assert found.proof.endswith("providers ['CPUExecutionProvider']")

    def test_float16_says_what_computes(self, tmp_path: Path) -> None:
        """ONNX Runtime's CPU kernels are float32's: weights are halved, arithmetic is not."""
        trial = Trial(TestOnnxRuntime(), tmp_path, TWO, precision="float16")
        found = trial.run(trial.compile(), trial.samples())
        assert found.precision == "float16 weights, float32 arithmetic"

    def test_the_level_is_an_option(self, tmp_path: Path) -> None:
        trial = Trial(TestOnnxRuntime(), tmp_path, TWO)
        trial.request = replace(trial.request, options={"level": "disable"})
        plain = trial.compile()
        trial.request = replace(trial.request, options={"level": "extended"})
        fused = trial.compile()
        nodes = [
            len(onnx.load_from_string(bytes(one.data["model.optimised.onnx"])).graph.node)
            for one in (plain, fused)
        ]
        assert nodes == [5, 4]  # Conv and Relu are one
        trial.request = replace(trial.request, options={"level": "fast"})
        with pytest.raises(StageFailed, match=r"target.options.level=disable\|basic"):
            trial.compile()

    def test_moving_values_in_float16_is_no_arithmetic_in_float16(self, tmp_path: Path) -> None:
        """Transposes outnumber the one convolution, and have kernels in float16."""
        text = """
        <ir_version: 8, opset_import: ["" : 17]>
        moved (float[1,3,8,8] image) => (float[1,4,6,6] t1, float[2,72] flat, float[1,72,2] other)
        {
            t0 = Conv (image, weight)
            t1 = Transpose <perm = [0, 1, 3, 2]> (t0)
            flat = Reshape (t0, one)
            other = Reshape (t0, two)
        }
        """
        trial = Trial(TestOnnxRuntime(), tmp_path, TWO, precision="float16")
        trial.proto = onnx.parser.parse_model(text)
        random = np.random.default_rng(7)
        for name, array in (
            ("weight", random.standard_normal((4, 3, 3, 3)).astype(np.float32)),
            ("one", np.array([2, 72])),
            ("two", np.array([1, 72, 2])),
        ):
            trial.proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        onnx.save(trial.proto, trial.model)
        found = trial.run(trial.compile(), trial.samples())
        assert found.precision == "float16 weights, float32 arithmetic", found.proof
        trial.expect_right(found, tolerance=5e-3)
