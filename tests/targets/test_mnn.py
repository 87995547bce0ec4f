"""MNN's backend against the contract of all backends, and the ways in which its converter lies."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StageFailed
from pipeline.targets import mnn
from pipeline.targets.backend import BackendError, Job, TensorSpec
from pipeline.targets.captured import captured
from pipeline.targets.contract_tests import TWO, BackendContract, Trial
from pipeline.targets.mnn import BACKEND, FILE
from pipeline.targets.mnn_files import weights_of

ANTIALIAS = """
<ir_version: 8, opset_import: ["" : 18]>
smaller (float[1,3,8,8] image) => (float[1,3,4,4] small)
{
    scales = Constant <value = float[4] {1.0, 1.0, 0.5, 0.5}> ()
    small = Resize <mode = "linear", antialias = 1> (image, , scales)
}
"""
BICUBIC = """
<ir_version: 8, opset_import: ["" : 17]>
warped (float[1,3,8,8] image, float[1,4,4,2] grid) => (float[1,3,4,4] picked)
{
    picked = GridSample <mode = "bicubic"> (image, grid)
}
"""
GELU = """
<ir_version: 8, opset_import: ["" : 17]>
gelu (float[1,3,8,8] image) => (float[1,4,8,8] active)
{
    features = Conv <pads = [1, 1, 1, 1]> (image, weight)
    root = Constant <value = float {1.4142135623730951}> ()
    one = Constant <value = float {1.0}> ()
    half = Constant <value = float {0.5}> ()
    scaled = Div (features, root)
    error = Erf (scaled)
    moved = Add (error, one)
    product = Mul (features, moved)
    active = Mul (product, half)
}
"""
IDS = """
<ir_version: 8, opset_import: ["" : 17]>
rows (int64[1,5] ids) => (float[1,5,4] rows, int64[1,5] next)
{
    table = Constant <value = float[3,4] {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0}> ()
    one = Constant <value = int64 {1}> ()
    rows = Gather (table, ids)
    next = Add (ids, one)
}
"""


class TestMnn(BackendContract):
    backend = BACKEND


class TestItsOwn:
    @pytest.mark.parametrize("text", [ANTIALIAS, BICUBIC])
    def test_what_it_computes_wrongly_is_refused(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(StageFailed, match="and computes something else"):
            Trial(TestMnn(), tmp_path, text).compile()

    def test_gelu_is_exact(self, tmp_path: Path) -> None:
        """MNN's default replaces the error function: three digits go in a transformer."""
        trial = Trial(TestMnn(), tmp_path, GELU)
        trial.expect_right(trial.run(trial.compile(), trial.samples()), tolerance=5e-6)

    def test_int64_inputs(self, tmp_path: Path) -> None:
        trial = Trial(TestMnn(), tmp_path, IDS)
        ids = np.array([[0, 2, 1, 1, 0]], np.int64)
        found = trial.run(trial.compile(), {"seed0": {"ids": ids}})
        assert found.outputs["seed0"]["next"].tolist() == (ids + 1).tolist()
        assert found.outputs["seed0"]["rows"][0, :, 0].tolist() == [0, 8, 4, 4, 0]

    def test_an_int64_that_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        trial = Trial(TestMnn(), tmp_path, IDS)
        made = trial.compile()
        with pytest.raises(StageFailed, match="do not fit into 32 bits"):
            trial.run(made, {"seed0": {"ids": np.full((1, 5), 2**40, np.int64)}})

    def test_arithmetic_and_weights_are_said(self, tmp_path: Path) -> None:
        trial = Trial(TestMnn(), tmp_path, TWO)
        found = trial.run(trial.compile(), trial.samples())
        assert found.proof.endswith("model.mnn: 1 float32; MNN said that it uses high precision")


class TestTheConverter:
    def test_a_failure_that_returns_true_leaves_no_earlier_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It says True and leaves yesterday's file: that one is gone before, and success must be printed."""
        import sys
        import types

        job = _job(tmp_path)
        (job.folder / FILE).write_bytes(b"yesterday's")
        tool = types.ModuleType("_tools")
        tool.mnnconvert = lambda _: print("Converted Failed!") or True  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "_tools", tool)
        with pytest.raises(BackendError, match="did not convert"):
            mnn._convert(job)
        assert not (job.folder / FILE).exists()

    def test_success_without_a_file_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys
        import types

        tool = types.ModuleType("_tools")
        tool.mnnconvert = lambda _: print("Converted Success!") or True  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "_tools", tool)
        with pytest.raises(BackendError, match="did not convert"):
            mnn._convert(_job(tmp_path))

    def test_its_console_script_is_never_imported(self) -> None:
        """Importing MNN.tools installs packages and opens a connection."""
        for file in ("mnn.py", "mnn_files.py"):
            text = Path(mnn.__file__).with_name(file).read_text(encoding="utf-8")
            assert not re.search(r"(import|from)\s+MNN\.tools|subprocess|os\.system", text)

    def test_what_native_code_prints_is_captured(self) -> None:
        import os

        with captured() as said:
            os.write(1, b"one\n")
            os.write(2, b"two\n")
        assert said == ["one\ntwo\n"]


class TestFiles:
    @pytest.mark.parametrize("data", [b"", b"no model at all, only text" * 3, b"\xff" * 64, b"\0" * 64])
    def test_what_is_no_model(self, tmp_path: Path, data: bytes) -> None:
        file = tmp_path / FILE
        file.write_bytes(data)
        with pytest.raises(BackendError, match=FILE):
            weights_of(file)


def _job(tmp_path: Path) -> Job:
    model = tmp_path / "model.onnx"
    folder = tmp_path / "folder"
    folder.mkdir()
    import onnx.parser

    model.write_bytes(onnx.parser.parse_model(TWO).SerializeToString())
    spec = (TensorSpec("image", "float32", (1, 3, 8, 8), (1, 3, 8, 8)),)
    return Job(model, folder, tmp_path, spec, ())
