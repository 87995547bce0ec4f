"""Comparing two graphs: what counts as the same, and what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.graph.bare import BareModel
from pipeline.graph.equivalence import TOLERANCES, NotRunnableError, compare_graphs
from tests.graph.graphs import bare, perceptron, random

FLOATS = {"float32": "float", "float64": "double", "float16": "float16"}


def passes(dtype: str, text: str = "y = Identity(x)") -> BareModel:
    kind = FLOATS.get(dtype, dtype)
    return bare(f"net ({kind}[4] x) => ({kind}[4] y) {{ {text} }}")


def plus(dtype: str, by: float, at: int = 0) -> BareModel:
    kind = FLOATS.get(dtype, dtype)
    values = ", ".join(repr(by) if index == at else "0" for index in range(4))
    return bare(f"net ({kind}[4] x) => ({kind}[4] y) <{kind}[4] d = {{{values}}}> {{ y = Add(x, d) }}")


X = np.array([1.0, -8.0, 0.5, 2.0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_tolerance_is_relative_to_the_largest_magnitude(dtype: str) -> None:
    tolerance = TOLERANCES[dtype]
    values = {"x": X.astype(dtype)}
    below = compare_graphs(passes(dtype), plus(dtype, 8 * tolerance * 0.9), values)
    assert below.difference is None
    assert below.error == pytest.approx(0.9 * tolerance, rel=0.2)
    above = compare_graphs(passes(dtype), plus(dtype, 8 * tolerance * 1.2), values)
    assert above.difference is not None
    assert above.difference.startswith("output y: it differs by ")


def test_half_precision_has_a_tolerance_of_its_own() -> None:
    values = {"x": X.astype(np.float16)}
    one, other = (
        bare(f"net (float16[4] x) => (float16[4] y) {{ d = Cast<to=1>(x) e = {op}(d) y = Cast<to=10>(e) }}")
        for op in ("Identity", "Abs")
    )
    assert compare_graphs(one, one, values).difference is None
    assert compare_graphs(one, other, values).difference is not None


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_integers_are_exact(dtype: str) -> None:
    values = {"x": np.array([1, 100, 3, 4], dtype)}
    found = compare_graphs(passes(dtype), plus(dtype, 1, at=1), values)
    assert found.difference == "output y: 1 of 4 elements differ"
    assert compare_graphs(passes(dtype), plus(dtype, 0), values).difference is None


def test_booleans_are_exact() -> None:
    one = bare("net (bool[2] x) => (bool[2] y) { y = Identity(x) }")
    other = bare("net (bool[2] x) => (bool[2] y) { y = Not(x) }")
    found = compare_graphs(one, other, {"x": np.array([True, False])})
    assert found.difference == "output y: 2 of 2 elements differ"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_must_stand_at_the_same_places(value: float) -> None:
    x = np.array([1, value, 3, 4], np.float32)
    assert compare_graphs(passes("float32"), plus("float32", 0), {"x": x}).difference is None
    one = bare("net (float[4] x) => (float[4] y) { y = Div(x, x) }")
    other = bare("net (float[4] x) => (float[4] y) <float[1] z = {0}> { a = Mul(x, z) y = Exp(a) }")
    found = compare_graphs(one, other, {"x": np.array([1, 0, 3, 4], np.float32)})
    assert found.difference == "output y: not-a-number or infinity stand at other places"
    negated = bare("net (float[4] x) => (float[4] y) { y = Neg(x) }")
    assert compare_graphs(passes("float32"), negated, {"x": x}).difference is not None


def test_an_output_of_zeros_must_stay_zero() -> None:
    x = {"x": np.zeros(4, np.float32)}
    assert compare_graphs(passes("float32"), plus("float32", 0), x).difference is None
    assert compare_graphs(passes("float32"), plus("float32", 1e-30), x).difference is not None


def test_another_shape_or_dtype() -> None:
    one = passes("float32")
    flat = bare("net (float[4] x) => (float[1,4] y) <int64[1] a = {0}> { y = Unsqueeze(x, a) }")
    found = compare_graphs(one, flat, {"x": X.astype(np.float32)})
    assert found.difference == "output y: float32[1, 4] instead of float32[4]"
    wide = bare("net (float[4] x) => (double[4] y) { y = Cast<to=11>(x) }")
    found = compare_graphs(one, wide, {"x": X.astype(np.float32)})
    assert found.difference == "output y: float64[4] instead of float32[4]"


def test_empty_outputs_are_equal() -> None:
    one = bare("net (float[0] x) => (float[0] y) { y = Relu(x) }")
    assert compare_graphs(one, one, {"x": np.zeros(0, np.float32)}).difference is None


def test_weights_of_both_graphs_are_used() -> None:
    model, other = perceptron(), perceptron()
    found = compare_graphs(model, other, {"x": random(2, 32)})
    assert (found.error, found.difference) == (0.0, None)


def test_an_input_without_samples_gets_values() -> None:
    model = bare("net (float[2,32] x, float[32,4] w) => (float[2,4] y) { y = MatMul(x, w) }")
    other = bare("net (float[2,32] x, float[32,4] w) => (float[2,4] y) { z = MatMul(x, w) y = Abs(z) }")
    assert compare_graphs(model, model, {"x": random(2, 32)}).difference is None
    assert compare_graphs(model, other, {"x": random(2, 32)}).difference is not None


def test_a_graph_that_does_not_run_is_said_so() -> None:
    model = bare("net (float[4] x) => (float[4] y) { y = mine.Foo(x) }", imports=', "mine" : 1')
    with pytest.raises(NotRunnableError, match="Foo"):
        compare_graphs(model, passes("float32"), {"x": X.astype(np.float32)})


@pytest.mark.parametrize("number", [16, 17])
def test_weights_that_numpy_has_no_type_for(number: int) -> None:
    """bfloat16 and float8: handed over as their bits."""
    from dataclasses import replace

    from pipeline.graph.bare import HeldTensor
    from tests.graph.graphs import Fixed

    model = bare("net (float[4] x) => (float[4] y) { w = Identity(x) y = Add(x, w) }")
    proto = model.parsed()
    proto.graph.node[0].CopyFrom(type(proto.graph.node[0])(op_type="Cast", input=["h"], output=["w"]))
    proto.graph.node[0].attribute.add(name="to", type=2, i=1)
    value = proto.graph.input.add(name="h")
    value.type.tensor_type.elem_type = number
    value.type.tensor_type.shape.dim.add(dim_value=4)
    proto.opset_import[0].version = 19
    bits: Any = np.full(4, 0x3F80, np.uint16) if number == 16 else np.full(4, 0x38, np.uint8)
    model = replace(
        model,
        proto=proto.SerializeToString(),
        held={"h": HeldTensor("h", number, (4,), Fixed(bits), origin="h")},
    )
    model.check_invariant()
    assert compare_graphs(model, model, {"x": X.astype(np.float32)}).difference is None
