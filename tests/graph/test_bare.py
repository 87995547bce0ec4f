"""Holding weights aside, and keeping a bare graph in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.numpy_helper
import onnx.parser
import pytest

from pipeline.errors import InternalError, StageFailed
from pipeline.graph.bare import SMALL_BYTES, SMALL_VECTOR_BYTES, BareModel, stays_in_proto
from pipeline.graph.dtypes import NUMBERS
from pipeline.graph.split import EXPORT_CONSTANT, raw_bytes
from tests.graph.graphs import bare, perceptron, random


def full(**weights: Any) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[2,32] x) => (float[2,64] y) { a = MatMul(x, w) b = Add(a, bias) y = Reshape(b, shape) }"""
    )
    arrays = {
        "w": random(32, 64),
        "bias": random(64),
        "shape": np.array([2, 64], np.int64),
        "unused": random(40, 40),
        **weights,
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()
    )
    return model


def test_large_tensors_are_held_and_small_ones_stay() -> None:
    model = BareModel.from_proto(full(), origins={"w": "fc.weight", "bias": "fc.bias"})
    assert list(model.held) == ["w", "unused"]
    assert model.inputs == ("x",)
    model.check_invariant()
    assert (model.held["w"].origin, model.held["w"].derived_by) == ("fc.weight", None)
    assert (model.held["unused"].origin, model.held["unused"].derived_by) == (None, EXPORT_CONSTANT)
    assert model.origins == {"bias": "fc.bias"}
    np.testing.assert_array_equal(model.held["w"].data().view(np.float32).reshape(32, 64), random(32, 64))


def test_a_full_model_is_not_changed() -> None:
    model = full()
    before = model.SerializeToString()
    BareModel.from_proto(model)
    assert model.SerializeToString() == before


def test_a_parameter_among_the_inputs_is_shown_and_held_whatever_its_size() -> None:
    proto = full()
    proto.graph.input.add(name="bias").type.tensor_type.elem_type = 1
    model = BareModel.from_proto(proto)
    assert model.shown_parameters == ("bias",)
    assert set(model.held) == {"w", "bias", "unused"}
    model.check_invariant()


@pytest.mark.parametrize(
    ("dtype", "shape", "stays"),
    [
        ("float32", (SMALL_BYTES // 8, 2), True),
        ("float32", (SMALL_BYTES // 8 + 1, 2), False),
        ("float32", (SMALL_VECTOR_BYTES // 4,), True),
        ("float32", (1, SMALL_VECTOR_BYTES // 4, 1), True),
        ("float32", (SMALL_VECTOR_BYTES // 4 + 1,), False),
        ("int64", (8192,), True),
        ("int64", (8192, 2), False),
        ("float32", (1000, 0, 1000), True),
        ("float32", (), True),
    ],
)
def test_which_tensors_stay(dtype: str, shape: tuple[int, ...], stays: bool) -> None:
    assert stays_in_proto(NUMBERS[dtype], shape) is stays


def test_a_folder_keeps_everything(tmp_path: Path) -> None:
    model = bare(
        "net (float[2,32] x, float[32,64] w, float[1,300] v) => (float[2,64] y) <float[1] s = {2}> "
        "{ a = MatMul(x, w) y = Mul(a, s) }",
        {"w": random(32, 64), "v": random(1, 300)},
        scopes={"a": "fc"},
        lines={"a": "net.py:3"},
        shown_parameters=("w",),
        origins={"s": "scale"},
        derived={"t": "simplify"},
        made_by={"n": "simplify"},
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model.store(tmp_path / "a")
    loaded = BareModel.load(tmp_path / "a")
    for name in BareModel.__dataclass_fields__:
        if name != "held":
            assert getattr(loaded, name) == getattr(model, name), name
    assert list(loaded.held) == list(model.held)
    for name, tensor in model.held.items():
        assert replace(loaded.held[name], data=tensor.data) == tensor
        assert bytes(loaded.held[name].data()) == bytes(tensor.data())
    loaded.store(tmp_path / "b")
    for file in ("graph.onnx", "tensors.bin", "tables.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_folder_without_tensors(tmp_path: Path) -> None:
    bare("net (float[2] x) => (float[2] y) { y = Relu(x) }").store(tmp_path)
    assert BareModel.load(tmp_path).held == {}


@pytest.mark.parametrize("broken", ["order", "shape", "both", "outputs", "shown"])
def test_a_broken_invariant_is_noticed(broken: str) -> None:
    model = perceptron()
    changes: dict[str, Any] = {
        "order": {"held": dict(reversed(model.held.items()))},
        "shape": {"held": {**model.held, "fc1.weight": replace(model.held["fc1.weight"], shape=(64, 32))}},
        "outputs": {"outputs": ("z",)},
        "shown": {"shown_parameters": ("nobody",)},
    }
    if broken == "both":
        proto = model.parsed()
        proto.graph.initializer.add(name="fc1.weight", data_type=1, dims=[0])
        changes["both"] = {"proto": proto.SerializeToString()}
    with pytest.raises(InternalError):
        replace(model, **changes[broken]).check_invariant()


# external data


def saved(tmp_path: Path) -> onnx.ModelProto:
    onnx.save(full(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=1000)
    return onnx.load(tmp_path / "m.onnx", load_external_data=False)


def test_external_data_is_mapped(tmp_path: Path) -> None:
    model = BareModel.from_proto(saved(tmp_path), folder=tmp_path)
    assert bytes(model.held["w"].data()) == random(32, 64).tobytes()


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"location": "../m.data"}, "the location '../m.data'"),
        ({"location": "nobody"}, "no file 'nobody'"),
        ({"length": "12"}, "a length of 12 bytes"),
        ({"offset": "1000000"}, "offset 1000000"),
    ],
)
def test_external_data_that_cannot_be_read(tmp_path: Path, entry: dict[str, str], found: str) -> None:
    proto = saved(tmp_path)
    tensor = next(t for t in proto.graph.initializer if t.name == "w")
    for row in tensor.external_data:
        row.value = entry.get(row.key, row.value)
    with pytest.raises(StageFailed) as caught:
        BareModel.from_proto(proto, folder=tmp_path)
    assert (caught.value.reason.code, caught.value.reason.where) == ("PL-400", "w")
    assert found in str(caught.value.reason.found)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool", "uint8", "float64"])
def test_raw_bytes_whatever_field_the_values_stand_in(dtype: str) -> None:
    array = np.array([1, 0, 2], dtype)
    raw = onnx.numpy_helper.from_array(array, "a")
    assert raw_bytes(raw) == array.tobytes()
    text = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    if dtype != "float16":
        typed = onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : 17]> g () => () <{text}[3] a = {{1, 0, 2}}> {{ }}'
        ).graph.initializer[0]
        assert not typed.raw_data
        expected = array if dtype != "bool" else np.array([1, 0, 1], bool)
        assert np.frombuffer(raw_bytes(typed), dtype).astype(bool).tolist() == expected.astype(bool).tolist()
