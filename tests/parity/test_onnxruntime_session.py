"""Running a written file: what is fed, what is refused, and that nothing stays open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest

from pipeline.errors import StageFailed
from pipeline.parity.onnxruntime_session import FileSession, run_onnxruntime

Write = Callable[..., Path]
ADD = "g (float[N, 2] x, float[N, 2] unused) => (float[N, 2] y) { y = Add(x, x) }"
ONES = np.ones((1, 2), np.float32)
BOTH = {"x": ONES, "unused": ONES}


def weights(path: Path, size: int = 4096) -> np.ndarray:
    """Give the graph at `path` a weight that is large enough to stay in the file."""
    model = onnx.load(str(path))
    array = np.arange(size, dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, "w"))
    onnx.save(model, str(path))
    return array


class TestRuns:
    def test_every_input_of_the_file_is_fed(self, graph_file: Write) -> None:
        outputs = run_onnxruntime(graph_file(ADD), {"a": BOTH, "b": {"x": ONES * 3, "unused": ONES}})
        assert outputs["a"]["y"].tolist() == [[2, 2]]
        assert outputs["b"]["y"].tolist() == [[6, 6]]

    @pytest.mark.parametrize("mode", ["as written", "optimised"])
    def test_weights_come_from_the_file(self, graph_file: Write, mode: str) -> None:
        path = graph_file("g (float[1] x) => (float[4096] y) { y = Mul(x, w) }")
        array = weights(path)
        values = {"x": np.array([2], np.float32)}
        outputs = run_onnxruntime(path, {"a": values}, mode=mode)  # type: ignore[arg-type]
        assert np.array_equal(outputs["a"]["y"], array * 2)
        data = bytearray(path.read_bytes())
        at = data.index(array[100:104].tobytes())
        data[at : at + 4] = np.float32(-1).tobytes()
        path.write_bytes(bytes(data))
        outputs = run_onnxruntime(path, {"a": values}, mode=mode)  # type: ignore[arg-type]
        assert outputs["a"]["y"][100] == -2

    def test_external_data_lies_beside_the_file(self, graph_file: Write) -> None:
        path = graph_file("g (float[1] x) => (float[4096] y) { y = Mul(x, w) }")
        array = weights(path)
        onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="model.onnx.data")
        outputs = run_onnxruntime(path, {"a": {"x": np.ones(1, np.float32)}})
        assert np.array_equal(outputs["a"]["y"], array)

    def test_values_that_are_no_samples(self, graph_file: Write) -> None:
        outputs = run_onnxruntime(graph_file(ADD), {"a": {"x": ONES}}, extra={"unused": ONES})
        assert outputs["a"]["y"].tolist() == [[2, 2]]

    def test_nothing_stays_mapped(self, graph_file: Write) -> None:
        path = graph_file("g (float[1] x) => (float[65536] y) { y = Mul(x, w) }")
        weights(path, 65536)
        values = {"x": np.ones(1, np.float32)}
        with FileSession(path) as session:
            outputs = session.run(values, "a")
            assert str(path) in Path("/proc/self/maps").read_text()
        assert str(path) not in Path("/proc/self/maps").read_text()
        assert outputs["y"][3] == 3

    def test_how_the_file_is_opened(self, graph_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[tuple[Any, Any]] = []

        class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
            def __init__(self, source: Any, options: Any, **others: Any) -> None:
                opened.append((source, options))
                super().__init__(source, options, **others)

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        path = graph_file("g (float[1] x) => (float[4096] y) { y = Mul(x, w) }")
        weights(path)
        for mode in ("as written", "optimised"):
            run_onnxruntime(path, {}, mode=mode)  # type: ignore[arg-type]
        (view, written), (source, optimised) = opened
        levels = onnxruntime.GraphOptimizationLevel
        assert written.graph_optimization_level == levels.ORT_DISABLE_ALL
        assert written.get_session_config_entry("session.disable_prepacking") == "1"
        assert len(view) < 1024 < path.stat().st_size
        assert optimised.graph_optimization_level == levels.ORT_ENABLE_ALL
        assert source == str(path)
        for options in (written, optimised):
            assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"

    def test_progress(self, graph_file: Write) -> None:
        done: list[int] = []
        run_onnxruntime(graph_file(ADD), {"a": BOTH, "b": BOTH}, after_run=lambda: done.append(1))
        assert len(done) == 2


class TestRefusals:
    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        for content in (b"", b"no protobuf at all", bytes(100)):
            path.write_bytes(content)
            with pytest.raises(StageFailed, match=r"PL-510: model\.onnx: the file is no ONNX model"):
                run_onnxruntime(path, {})

    def test_a_graph_that_does_not_load(self, graph_file: Write) -> None:
        path = graph_file("g (float[1] x) => (float[1] y) { y = NoSuchOperator(x) }")
        with pytest.raises(StageFailed) as caught:
            run_onnxruntime(path, {})
        assert caught.value.reason.code == "PL-510"
        assert "NoSuchOperator" in caught.value.reason.message
        assert "ONNXRuntimeError" not in caught.value.reason.message

    def test_a_graph_that_does_not_run(self, graph_file: Write) -> None:
        text = "g (float[N] x, int64[1] shape) => (float[M] y) { y = Reshape(x, shape) }"
        values = {"x": np.ones(4, np.float32), "shape": np.array([3])}
        with pytest.raises(StageFailed) as caught:
            run_onnxruntime(graph_file(text), {"seed1": values})
        assert str(caught.value) == (
            "PL-511: inputs seed1, node Reshape: ONNX Runtime fails while it runs the file: "
            "The input tensor cannot be reshaped to the requested shape. Input shape:{4}, requested shape:{3}. "
            "Type export.exporter=dynamo or torchscript to try the other exporter, or mend the file where it came from"
        )

    @pytest.mark.parametrize(
        ("values", "sentence"),
        [
            ({"x": ONES}, "the file asks for an input unused; found x, unused, expected x"),
            ({**BOTH, "z": ONES}, "the file has no input z; found x, unused, expected x, unused, z"),
            (
                {**BOTH, "x": ONES.astype(np.float64)},
                "x: an input has another element type in the file; found float32, expected float64",
            ),
            (
                {**BOTH, "x": np.ones((1, 3), np.float32)},
                "x: an input has another shape in the file; found [N, 2], expected [1, 3]",
            ),
            (
                {**BOTH, "x": np.ones(2, np.float32)},
                "x: an input has another shape in the file; found [N, 2], expected [2]",
            ),
        ],
    )
    def test_inputs_that_do_not_fit(
        self, graph_file: Write, values: dict[str, np.ndarray], sentence: str
    ) -> None:
        with pytest.raises(StageFailed) as caught:
            run_onnxruntime(graph_file(ADD), {"a": values})
        assert str(caught.value) == f"PL-512: {sentence}"
