"""The graph in float16: what becomes of weights, borders, operators that stay and what cannot be done."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnxruntime
import pytest

from pipeline.targets.float16 import Float16Error, Halved, to_float16

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def half(
    folder: Path, text: str, weights: dict[str, Any] | None = None, *, head: str = HEAD
) -> tuple[onnx.ModelProto, Halved, Path]:
    model = onnx.parser.parse_model(f"{head}\n{text}")
    for name, array in (weights or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    source, target = folder / "model.onnx", folder / "half.onnx"
    onnx.save(model, source)
    done = to_float16(source, target)
    found = onnx.load(target)
    onnx.checker.check_model(found, full_check=True)
    return found, done, target


def run(path: Path, **inputs: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def dtype_of(model: onnx.ModelProto, name: str) -> int:
    return next(one.data_type for one in model.graph.initializer if one.name == name)


def test_weights_are_halved_and_borders_stay_float32(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    text = "m (float[N,3] x) => (float[N,4] y) { h = Gemm <transB = 1> (x, w)\n y = Relu (h) }"
    model, done, path = half(tmp_path, text, {"w": weight})
    kinds = [one.type.tensor_type.elem_type for one in (*model.graph.input, *model.graph.output)]
    assert kinds == [onnx.TensorProto.FLOAT] * 2
    assert [one.name for one in (*model.graph.input, *model.graph.output)] == ["x", "y"]
    assert [one.data_type for one in model.graph.initializer] == [onnx.TensorProto.FLOAT16]
    assert operators(model) == {"Cast": 2, "Gemm": 1, "Relu": 1}
    assert (done.nodes, done.casts, done.weights, done.clamped, done.vanished) == (2, 2, 1, 0, 0)
    x = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    (y,) = run(path, x=x)
    right = np.maximum(x @ weight.T, 0)
    assert y.dtype == np.float32
    assert 1e-6 < np.abs(y - right).max() / np.abs(right).max() < 5e-3


def test_operators_that_stay_are_between_casts(tmp_path: Path) -> None:
    text = """m (float[2,6] x) => (float[2,3] v, int64[2,3] i)
    { h = Relu (x)
      k = Constant <value = int64[1] {3}> ()
      t, i = TopK (h, k)
      v = Neg (t) }"""
    model, done, path = half(tmp_path, text)
    assert done.kept == 1
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 4  # x to half, h back, t to half, v back
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    v, i = run(path, x=x)
    np.testing.assert_array_equal(v, [[-5, -4, -3], [-11, -10, -9]])
    np.testing.assert_array_equal(i, [[5, 4, 3]] * 2)


def test_scales_of_a_resize_stay_float32(tmp_path: Path) -> None:
    text = """m (float[1,1,2,2] x) => (float[1,1,4,4] y)
    { y = Resize <mode = "nearest"> (x, , scales) }"""
    scales = np.array([1, 1, 2, 2], np.float32)
    model, _, path = half(tmp_path, text, {"scales": scales})
    assert dtype_of(model, "scales") == onnx.TensorProto.FLOAT
    (y,) = run(path, x=np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2))
    assert y.shape == (1, 1, 4, 4)


def test_one_weight_may_serve_both(tmp_path: Path) -> None:
    """Relu takes it in half, Max in float32: the file holds both."""
    text = "m (float[3] x) => (float[3] y) { a = Add (x, w)\n y = Max (a, w) }"
    model, _, path = half(tmp_path, text, {"w": np.array([1, 2, 3], np.float32)})
    kinds = sorted(one.data_type for one in model.graph.initializer)
    assert kinds == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16]
    np.testing.assert_array_equal(run(path, x=np.array([-5, 0, 5], np.float32))[0], [1, 2, 8])


def test_values_beyond_its_range_are_counted(tmp_path: Path) -> None:
    text = "m (float[4] x) => (float[4] y) { y = Mul (x, w) }"
    weight = np.array([1e6, -1e6, 1e-9, 0], np.float32)
    _, done, path = half(tmp_path, text, {"w": weight})
    assert (done.clamped, done.vanished) == (2, 1)
    (y,) = run(path, x=np.ones(4, np.float32))
    np.testing.assert_array_equal(y, [65504, -65504, 0, 0])


def test_casts_and_constants_of_the_graph_follow(tmp_path: Path) -> None:
    text = """m (int64[3] n, float[3] x) => (float[3] y)
    { f = Cast <to = 1> (n)
      s = Shape (x)
      c = ConstantOfShape <value = float[1] {0.5}> (s)
      d = Constant <value = float[3] {1.0, 2.0, 3.0}> ()
      a = Add (f, c)
      b = Mul (a, d)
      y = Add (b, x) }"""
    model, _, path = half(tmp_path, text)
    given = {node.op_type: node for node in model.graph.node}
    assert given["ConstantOfShape"].attribute[0].t.data_type == onnx.TensorProto.FLOAT16
    (y,) = run(path, n=np.array([1, 2, 3]), x=np.array([1, 1, 1], np.float32))
    np.testing.assert_array_equal(y, [2.5, 6.0, 11.5])


def test_an_input_or_weight_that_is_an_output_stays(tmp_path: Path) -> None:
    text = "m (float[3] x) => (float[3] y, float[3] h, float[3] z) { h = Relu (x)\n y = Neg (h)\n z = Identity (w) }"
    model, _, path = half(tmp_path, text, {"w": np.array([1, 2, 3], np.float32)})
    y, h, z = run(path, x=np.array([-1, 0, 2], np.float32))
    np.testing.assert_array_equal(h, [0, 0, 2])
    np.testing.assert_array_equal(y, [0, 0, -2])
    np.testing.assert_array_equal(z, [1, 2, 3])
    assert {one.type.tensor_type.elem_type for one in model.graph.output} == {onnx.TensorProto.FLOAT}


def test_integers_and_double_are_left_alone(tmp_path: Path) -> None:
    text = "m (double[3] x, int64[3] n) => (double[3] y, int64[3] m) { y = Neg (x)\n m = Add (n, n) }"
    model, done, _ = half(tmp_path, text)
    assert done == Halved(0, 0, 0, 0, 0, 0)
    assert operators(model) == {"Neg": 1, "Add": 1}


def test_a_graph_inside_a_node_is_refused_by_name(tmp_path: Path) -> None:
    text = """m (float[3] x, bool c) => (float[3] y)
    { y = If (c) <then_branch = g1 () => (float[3] a) { a = Relu (x) },
                  else_branch = g2 () => (float[3] b) { b = Neg (x) }> }"""
    with pytest.raises(Float16Error, match=r"If .* holds a graph of its own") as refused:
        half(tmp_path, text)
    assert refused.value.operator == "If"


def test_names_that_are_taken_are_not_taken_again(tmp_path: Path) -> None:
    text = "m (float[3] x) => (float[3] y) { x_float16 = Neg (x)\n y_float16 = Relu (x_float16)\n y = Neg (y_float16) }"
    _, _, path = half(tmp_path, text)
    np.testing.assert_array_equal(run(path, x=np.array([-1, 0, 2], np.float32))[0], [-1, 0, 0])


def test_values_without_a_stated_type_are_inferred(tmp_path: Path) -> None:
    """TopK stays in float32, and what it takes has no type in the file."""
    text = """m (float[4] x) => (float[2] v)
    { a = Relu (x)
      b = Neg (a)
      k = Constant <value = int64[1] {2}> ()
      v, i = TopK (b, k) }"""
    _, _, path = half(tmp_path, text)
    np.testing.assert_array_equal(run(path, x=np.array([1, 3, 2, 4], np.float32))[0], [-1, -2])


def test_a_window_that_is_float32_by_an_attribute_stays(tmp_path: Path) -> None:
    text = """m (float[4] x) => (float[4] y)
    { n = Constant <value = int64 {4}> ()
      w = HannWindow (n)
      y = Mul (x, w) }"""
    _, done, path = half(tmp_path, text)
    assert done.nodes == 1
    np.testing.assert_allclose(run(path, x=np.ones(4, np.float32))[0], [0, 0.5, 1, 0.5], atol=1e-3)


def test_statistics_of_a_layer_normalization_stay(tmp_path: Path) -> None:
    text = """m (float[2,4] x) => (float[2,4] y, float[2,1] m)
    { y, m, s = LayerNormalization (x, w) }"""
    _, _, path = half(tmp_path, text, {"w": np.ones(4, np.float32)})
    _, mean = run(path, x=np.arange(8, dtype=np.float32).reshape(2, 4))
    np.testing.assert_allclose(mean, [[1.5], [5.5]])


def test_sequences_are_refused(tmp_path: Path) -> None:
    text = """m (float[2] x) => (float[2] y)
    { s = SequenceConstruct (x)
      i = Constant <value = int64 {0}> ()
      y = SequenceAt (s, i) }"""
    with pytest.raises(Float16Error, match="SequenceConstruct"):
        half(tmp_path, text)
