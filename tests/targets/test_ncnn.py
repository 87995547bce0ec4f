"""ncnn's backend against the contract of all backends; each way in which the tools lie has a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import StageFailed
from pipeline.targets.backend import BackendError, TensorSpec
from pipeline.targets.contract_tests import TWO, BackendContract, Trial
from pipeline.targets.ncnn import BACKEND, _fitted, _other_sizes
from pipeline.targets.ncnn_files import HALF_TAG, half_tensors, layouts_of, read_param

#: A stride-2 slice: what swin_t has, and pnnx leaves in the network as it stands.
STRIDED = """
<ir_version: 8, opset_import: ["" : 17]>
strided (float[1,4,8,8] image) => (float[1,4,4,8] half)
{
    first = Constant <value = int64[1] {0}> ()
    last = Constant <value = int64[1] {8}> ()
    axis = Constant <value = int64[1] {2}> ()
    step = Constant <value = int64[1] {2}> ()
    half = Slice (image, first, last, axis, step)
}
"""
ANTIALIAS = """
<ir_version: 8, opset_import: ["" : 18]>
smaller (float[1,3,8,8] image) => (float[1,3,4,4] small)
{
    scales = Constant <value = float[4] {1.0, 1.0, 0.5, 0.5}> ()
    small = Resize <mode = "linear", antialias = 1> (image, , scales)
}
"""
PARAM = """7767517
3 4
Input                    in0                      0 1 in0
Split                    splitncnn_0              1 2 in0 1 2
Noop                     last                     2 2 1 2 out1 out0 0=1
"""


class TestNcnn(BackendContract):
    backend = BACKEND
    integer_outputs = False


class TestLies:
    """Numbered as they were found."""

    def test_1_a_mat_outlives_its_array(self, tmp_path: Path) -> None:
        """A Mat of a temporary array points into freed memory: many inputs in a row stay right."""
        trial = Trial(TestNcnn(), tmp_path, TWO)
        made = trial.compile()
        sets = {f"seed{seed}": dict(trial.samples()["seed0"]) for seed in range(6)}
        for seed, values in enumerate(sets.values()):
            for name in values:
                values[name] = (
                    np.random.default_rng(seed).standard_normal(values[name].shape).astype("float32")
                )
        trial.expect_right(trial.run(made, sets))

    def test_2_exit_code_0_with_layers_that_ncnn_does_not_have(self, tmp_path: Path) -> None:
        with pytest.raises(StageFailed, match=r"has no layer for .*slice") as failed:
            Trial(TestNcnn(), tmp_path, STRIDED).compile()
        assert "operator" in str(failed.value.reason.where)

    def test_3_and_4_half_precision_of_weights_and_of_arithmetic(self, tmp_path: Path) -> None:
        """Either alone gives errors of half precision; both are off, and both are read back."""
        trial = Trial(TestNcnn(), tmp_path, TWO)
        made = trial.compile()
        found = trial.run(made, trial.samples())
        trial.expect_right(found, tolerance=5e-6)
        assert found.precision == "float32"
        assert found.proof == (
            "0 tensors marked as half precision in model.ncnn.bin; options in force: none of "
            "use_fp16_packed, use_fp16_storage, use_fp16_arithmetic"
        )

    def test_5_blobs_are_mapped_by_their_number(self, tmp_path: Path) -> None:
        trial = Trial(TestNcnn(), tmp_path, TWO)
        names = trial.compile().compiled.names
        assert names == {"image": "in0", "mask": "in1", "mixed": "out0", "pooled": "out1"}
        assert read_param(PARAM).numbered("out") == ["out1", "out0"]

    def test_6_other_sizes_run_with_code_0(self, tmp_path: Path) -> None:
        """Our own check says it, before ncnn computes something."""
        trial = Trial(TestNcnn(), tmp_path, TWO)
        made = trial.compile()
        values = dict(trial.samples()["seed0"])
        values["image"] = np.zeros((1, 3, 8, 9), np.float32)
        with pytest.raises(StageFailed, match=r"\[1, 3, 8, 9\]"):
            trial.run(made, {"seed0": values})

    def test_an_empty_output_is_no_output(self) -> None:
        with pytest.raises(BackendError, match=r"empty output y .* with code 0"):
            _loaded(_Mat(np.zeros(0, np.float32), empty=True)).run({"x": np.zeros((1, 2), np.float32)})

    def test_an_output_of_another_size_is_refused(self) -> None:
        spec = TensorSpec("y", "float32", (1, 3), (1, 3))
        assert _fitted(spec, np.zeros(3, np.float32)).shape == (1, 3)
        with pytest.raises(BackendError, match=r"as \[4\], expected \[1, 3\]"):
            _fitted(spec, np.zeros(4, np.float32))


class TestFailures:
    def test_what_pnnx_computes_wrongly_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StageFailed, match="antialias=1 and computes something else"):
            Trial(TestNcnn(), tmp_path, ANTIALIAS).compile()

    @pytest.mark.parametrize(
        "text",
        ["", "123\n1 1\n", "7767517\n2 1\nInput in0 0 1 in0\n", "7767517\n1 1\nInput in0 zero 1 in0\n"],
    )
    def test_a_damaged_param_file(self, text: str) -> None:
        with pytest.raises(BackendError, match=r"\.param file"):
            read_param(text)


class TestFiles:
    def test_layers_and_blobs(self) -> None:
        param = read_param(PARAM)
        assert [layer.kind for layer in param.layers] == ["Input", "Split", "Noop"]
        assert param.layers[2].inputs == ("1", "2")
        assert param.layers[2].outputs == ("out1", "out0")

    def test_batch_axes_from_the_example_program(self) -> None:
        program = """
            ex.input("in0", ncnn.Mat(in0.numpy(), batch_index=0).clone())
            ex.input("in1", ncnn.Mat(in1.numpy()).clone())
            _, out0 = ex.extract("out0")
            out.append(torch.from_numpy(out0.numpy(batch_index=1)))
            _, out1 = ex.extract("out1")
            out.append(torch.from_numpy(out1.numpy()))
        """
        assert layouts_of(program) == {"in0": 0, "in1": None, "out0": 1, "out1": None}

    def test_half_precision_marks_stand_at_multiples_of_four(self, tmp_path: Path) -> None:
        file = tmp_path / "a.bin"
        file.write_bytes(HALF_TAG + b"\0\0" + HALF_TAG + b"\0\0" + HALF_TAG)
        assert half_tensors(file) == 2

    def test_other_sizes_of_dynamic_axes(self) -> None:
        assert _other_sizes(TensorSpec("x", "float32", ("n", 3, "h"), (1, 3, 8), (1, 3, 8), (4, 3, 8))) == (
            4,
            3,
            16,
        )
        assert _other_sizes(TensorSpec("x", "float32", ("n", 3), (2, 3))) == (4, 3)


class _Mat:
    def __init__(self, array: Any, *, empty: bool = False) -> None:
        self.array, self._empty = array, empty
        self.elemsize = 0 if empty else 4

    def empty(self) -> bool:
        return self._empty

    def numpy(self, batch_index: int = 0) -> Any:
        return self.array


def _loaded(mat: _Mat) -> Any:
    """A runner whose network gives this Mat and code 0."""
    from pipeline.targets.backend import Job
    from pipeline.targets.ncnn import _Loaded

    class Extractor:
        def __enter__(self) -> Extractor:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def input(self, *_: object) -> int:
            return 0

        def extract(self, _: str) -> tuple[int, _Mat]:
            return 0, mat

    class Net:
        def create_extractor(self) -> Extractor:
            return Extractor()

    job = Job(
        Path(), Path(), Path(), (TensorSpec("x", "float32", (1, 2), (1, 2)),),
        (TensorSpec("y", "float32", (1, 2), (1, 2)),),
    )  # fmt: skip
    return _Loaded(job, Net(), {"inputs": {"x": ["in0", 0]}, "outputs": {"y": ["out0", 0]}})
