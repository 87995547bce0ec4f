"""The small model whose weights lie in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from pipeline.graph.assemble import assemble
from pipeline.graph.bare import BareModel
from pipeline.graph.view import REFERENCED_BYTES, read_layout, view_for_runtime
from pipeline.graph.wire import MalformedError
from tests.graph.graphs import bare, perceptron, random


def session(model: bytes | str, folder: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def other_kinds() -> BareModel:
    return bare(
        """
        net (float[2,32] x, float[32,600] w, double[600,9] d, float16[300] h) => (double[2,9] y, float16[300] z)
        <float[600] bias = {1}, int64[2] axes = {0, 1}>
        {
            a = MatMul(x, w)
            c = Cast<to=11>(a)
            y = MatMul(c, d)
            z = Neg(h)
        }
        """,
        {"w": random(32, 600), "d": random(600, 9, dtype="float64"), "h": random(300, dtype="float16")},
    )


@pytest.mark.parametrize("external_data", ["never", "always"])
@pytest.mark.parametrize("make", [perceptron, other_kinds])
def test_the_view_computes_what_the_file_computes(tmp_path: Path, make: object, external_data: str) -> None:
    model = make()  # type: ignore[operator]
    path = tmp_path / "m.onnx"
    assemble(model, path, external_data=external_data)  # type: ignore[arg-type]
    view = view_for_runtime(path)
    assert len(view) < 2500
    feeds = {"x": random(2, 32, seed=3)}
    expected = session(str(path)).run(None, feeds)
    found = session(view, tmp_path).run(None, feeds)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_weights_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    file = assemble(perceptron(), path)
    view = view_for_runtime(path)
    before = session(view, tmp_path).run(None, {"x": random(2, 32)})[0]
    data = bytearray(path.read_bytes())
    place = file.tensors[1]
    data[place.offset : place.offset + place.size] = bytes(place.size)
    path.write_bytes(bytes(data))
    after = session(view, tmp_path).run(None, {"x": random(2, 32)})[0]
    assert np.abs(before).max() > 0
    assert np.abs(after).max() == 0


def test_small_tensors_stay_inside(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assemble(other_kinds(), path)
    layout = read_layout(path)
    assert {place.name for place in layout.tensors} == {"w", "d"}
    assert all(place.size >= REFERENCED_BYTES for place in layout.tensors)
    inside = {tensor.name for tensor in layout.parsed().graph.initializer if not tensor.external_data}
    assert inside == {"bias", "axes", "h"}


def test_the_rest_of_the_model_is_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assemble(perceptron(), path, metadata={"a": "b"})
    full, small = onnx.load(path), read_layout(path).parsed()
    for model in (full, small):
        for tensor in model.graph.initializer:
            for field in ("raw_data", "external_data", "data_location"):
                tensor.ClearField(field)  # type: ignore[arg-type]
    assert full == small


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"\x00", "field number 0"),
        (b"\x08", "a number that does not end"),
        (b"\x3a\xff\x01", "past its message"),
        (b"\x0f", "wire type 7"),
        (b"\x08\x08", "exactly one graph"),
        (b"\x38\x08", "is no message"),
        (b"\x3a\x02\x28\x01", "field 5 at byte 2 is no message"),
    ],
)
def test_damage_is_said_in_one_sentence(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(MalformedError, match=message):
        view_for_runtime(path)


def test_random_damage_never_ends_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assemble(perceptron(), path)
    good = path.read_bytes()
    random_ = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(int(random_.integers(1, 4))):
            data[int(random_.integers(0, min(len(data), 400)))] = int(random_.integers(0, 256))
        path.write_bytes(bytes(data[: int(random_.integers(1, len(data) + 1))]))
        try:
            read_layout(path)
        except MalformedError:
            refused += 1
    assert refused > 100
