"""The backend for Rockchip: what it makes of the toolkit's words, and (where the toolkit is) the toolkit itself.

`make rknn` sets its environment up; PIPELINE_RKNN_PYTHON names the interpreter of another one.
"""

from __future__ import annotations

import os
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import StageFailed
from pipeline.targets import rknn
from pipeline.targets.backend import BackendError, Job, TensorSpec
from pipeline.targets.contract_tests import (
    DYNAMIC,
    INTEGERS,
    NAMED,
    NAMES,
    TWO,
    UNSUPPORTED,
    BackendContract,
    Trial,
)
from pipeline.targets.rknn import BACKEND, FILE, SOURCE, reason_of

PYTHON = os.environ.get("PIPELINE_RKNN_PYTHON") or str(Path(".venv-rknn/bin/python").absolute())

UNKNOWN = """\x1b[1;31mE\x1b[0m \x1b[1;31mbuild: Traceback (most recent call last):
  File "rknn/api/session.py", line 131, in rknn.api.session.Session.sess_build
onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph: [ONNXRuntimeError] : 10 : INVALID_GRAPH : In Node, ("changed", Odd, "own", -1)
\x1b[0m
\x1b[1;31mE\x1b[0m \x1b[1;31mrknn-toolkit2 version: 2.5.0\x1b[0m
"""
OPSET = "I loading\rI Loading : 100%\n\x1b[1;31mE\x1b[0m \x1b[1;31mload_onnx: Unsupport onnx opset 25, need <= 19!\x1b[0m\n"
HARMLESS = "I rknn building ...\nE RKNN: [09:22:51.942] Unkown op target: 0\nI rknn building done.\n"


class TestWords:
    def test_the_last_line_of_a_traceback(self) -> None:
        error = rknn._failure("build", "ended with -1", UNKNOWN)
        assert (error.node, error.operator) == ("changed", "Odd")
        assert error.sentence.startswith("rknn-toolkit2 failed in build: [ONNXRuntimeError]")

    def test_an_error_line(self) -> None:
        assert reason_of(OPSET) == "Unsupport onnx opset 25, need <= 19!"

    def test_what_every_build_prints_is_no_reason(self) -> None:
        assert reason_of(HARMLESS) == ""
        assert rknn._failure("build", "ended with -1", HARMLESS).sentence.endswith("build: ended with -1")


class TestSteps:
    """With a toolkit that fails in each of its ways."""

    @pytest.mark.parametrize("step", ["config", "load_onnx", "build", "export_rknn"])
    @pytest.mark.parametrize("how", ["code", "raises"])
    def test_a_failing_step_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, how: str
    ) -> None:
        job = _job(tmp_path, monkeypatch, {step: how})
        with pytest.raises(BackendError, match=f"failed in {step}: "):
            BACKEND.compile(job)

    def test_success_without_a_file_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(BackendError, match=f"left no {FILE}"):
            BACKEND.compile(_job(tmp_path, monkeypatch, {"export_rknn": "nothing"}))

    def test_that_the_file_was_not_run_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        job = _job(tmp_path, monkeypatch, {})
        compiled = BACKEND.compile(job)
        assert compiled.files == (FILE, SOURCE)
        assert compiled.facts["reload"].startswith("not run: ")
        runner = BACKEND.load(job, compiled)
        assert "reload not run: " in runner.precision()[1]
        assert "**Reload: not run: " in BACKEND.page(job, compiled)
        compile(BACKEND.program(job, compiled), "run.py", "exec")

    def test_a_damaged_file_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        job = _job(tmp_path, monkeypatch, {})
        compiled = BACKEND.compile(job)
        (job.folder / FILE).write_bytes(b"damaged")
        with pytest.raises(BackendError, match="is damaged"):
            BACKEND.load(job, compiled)


class Rknn(BackendContract):
    backend = BACKEND


@pytest.mark.slow
@pytest.mark.skipif(not Path(PYTHON).exists(), reason="no environment with rknn-toolkit2: type make rknn")
class TestToolkit:
    @pytest.mark.parametrize(("text", "names"), [(TWO, {}), (NAMED, NAMES), (INTEGERS, {})])
    def test_built_and_simulated(self, tmp_path: Path, text: str, names: dict[str, str]) -> None:
        trial = _trial(tmp_path, text, names)
        found = trial.run(trial.compile(), trial.samples())
        trial.expect_right(found, tolerance=5e-3)
        assert found.precision == "float16"

    def test_an_unknown_operator_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StageFailed, match="NobodyKnowsThis"):
            _trial(tmp_path, UNSUPPORTED).compile()

    def test_named_axes_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StageFailed, match="takes fixed sizes"):
            _trial(tmp_path, DYNAMIC).compile()


def _trial(tmp_path: Path, text: str, names: dict[str, str] | None = None) -> Trial:
    trial = Trial(Rknn(), tmp_path, text, names, precision="float16")
    trial.request = replace(trial.request, python=PYTHON)
    return trial


def _job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: dict[str, str]) -> Job:
    """A job, and a toolkit whose steps fail as told."""

    def step(name: str) -> Any:
        def call(*arguments: Any, **_: Any) -> int:
            how = failures.get(name)
            if how == "raises":
                raise ValueError(f"Traceback\n{name} is not possible")
            if name == "export_rknn" and how is None:
                Path(arguments[0]).write_bytes(b"RKNN and more")
            return -1 if how == "code" else 0

        return call

    class Toolkit:
        def __init__(self, *, verbose: bool) -> None:
            for name in ("config", "load_onnx", "build", "export_rknn", "init_runtime"):
                setattr(self, name, step(name))

        def release(self) -> None:
            return None

    api = types.ModuleType("rknn.api")
    api.RKNN = Toolkit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rknn", types.ModuleType("rknn"))
    monkeypatch.setitem(sys.modules, "rknn.api", api)
    monkeypatch.setattr(rknn, "_version", lambda: "2.5.0")
    import onnx.parser

    model = tmp_path / "model.onnx"
    model.write_bytes(onnx.parser.parse_model(TWO).SerializeToString())
    (tmp_path / "folder").mkdir()
    image = TensorSpec("image", "float32", (1, 3, 8, 8), (1, 3, 8, 8))
    mixed = TensorSpec("mixed", "float32", (1, 4, 8, 8), (1, 4, 8, 8))
    assert np.dtype(image.dtype)
    return Job(model, tmp_path / "folder", tmp_path, (image,), (mixed,), "float16")
