"""The notation of model.inputs: what is taken, and one sentence for everything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Refused
from pipeline.samples.make import make_samples
from pipeline.samples.notation import ITEM_SIZES
from pipeline.samples.spec import Axis, Fill, InputSpecs, parse_inputs


def test_the_least_that_is_enough() -> None:
    leaf = parse_inputs({"x": {"shape": [1, 3, 8, 8]}}).leaves[0]
    assert (leaf.name, leaf.shape, leaf.dtype, leaf.fill, dict(leaf.dynamic)) == (
        "x", (1, 3, 8, 8), "float32", Fill(), {},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fill", "dtype", "expected"),
    [
        ("normal", "float32", Fill("normal")),
        ({"uniform": [-1, 1]}, "float16", Fill("uniform", -1.0, 1.0)),
        ({"integers": [0, 10]}, "int64", Fill("integers", 0.0, 10.0)),
        ({"integers": [0, 256]}, "uint8", Fill("integers", 0.0, 256.0)),
        ({"constant": True}, "bool", Fill("constant", value=1.0)),
        ({"constant": 1}, "float32", Fill("constant", value=1.0)),
    ],
)
def test_fills(fill: Any, dtype: str, expected: Fill) -> None:
    leaf = parse_inputs({"x": {"shape": [2], "dtype": dtype, "fill": fill}}).leaves[0]
    assert leaf.fill == expected


@pytest.mark.parametrize("dtype", ITEM_SIZES)
def test_every_element_type_makes_samples(dtype: str) -> None:
    fill: Any = "normal" if dtype.startswith("float") else {"integers": [0, 2]}
    specs = parse_inputs({"x": {"shape": [3], "dtype": dtype, "fill": fill}})
    assert str(make_samples(specs, seed=0, stream="x")["x"].dtype) == dtype


def test_axes_whose_range_is_given_once() -> None:
    node = {
        "x": {"shape": [2, 3], "dynamic": {0: {"name": "n", "min": 2, "max": 8}}},
        "y": {"shape": [2], "dynamic": {"0": "n"}},
    }
    x, y = parse_inputs(node).leaves
    assert x.dynamic == y.dynamic == {0: Axis("n", 2, 8)}


def test_a_constant_that_is_not_finite() -> None:
    with pytest.raises(Refused, match=r"PL-202: model.inputs.x.fill.constant: a constant is a finite number"):
        parse_inputs({"x": {"shape": [1], "fill": {"constant": float("nan")}}})


REFUSED: list[tuple[Any, str]] = [
    (
        5,
        "PL-200: model.inputs maps each input's name to its description; found 5. Type 'model.inputs={input1: {shape: [1,3,224,224]}}'",
    ),
    (
        {},
        "PL-206: model.inputs: the network has no inputs. Type 'model.inputs={input1: {shape: [1,3,224,224]}}'",
    ),
    (
        {"shape": [1, 3, 8, 8]},
        "PL-200: model.inputs describes a tensor but does not name it. Type 'model.inputs={input1: {shape: [1,3,8,8]}}'",
    ),
    (
        {"x": [1, 3, 8, 8]},
        "PL-200: model.inputs.x: an input is described by a mapping, not by its shape alone; found [1,3,8,8]. Type 'model.inputs.x={shape: [1,3,8,8]}'",
    ),
    (
        {"x": 8},
        "PL-200: model.inputs.x: an input is described by a mapping, a list or a dict of such; found 8, expected {shape: [1,3,224,224]}. Type 'model.inputs.x={shape: [1,3,224,224]}'",
    ),
    (
        {"x": {}},
        "PL-200: model.inputs.x: an input needs its shape. Type 'model.inputs.x={shape: [1,3,224,224]}'",
    ),
    (
        {"x": []},
        "PL-200: model.inputs.x: a list argument has at least one tensor; found an empty list. Type 'model.inputs.x=[{shape: [1,3,224,224]}]'",
    ),
    (
        {"x": {"dtype": "float32"}},
        "PL-200: model.inputs.x: an input needs its shape; found only dtype. Add shape: [...] to model.inputs.x",
    ),
    (
        {"x": {"shape": "1x3x8x8"}},
        "PL-201: model.inputs.x.shape: a shape is a list of sizes; found '1x3x8x8'. Type model.inputs.x.shape=[1,3,8,8]",
    ),
    (
        {"x": {"shape": [1, -1]}},
        "PL-201: model.inputs.x.shape[1]: a size is a whole number from 1; found -1. Give the size that the export uses; a dynamic axis has its example size here and model.inputs.x.dynamic names it",
    ),
    (
        {"x": {"shape": [1, 2.0]}},
        "PL-201: model.inputs.x.shape[1]: a size is a whole number from 1; found 2.0. Give the size that the export uses; a dynamic axis has its example size here and model.inputs.x.dynamic names it",
    ),
    (
        {"x": {"shape": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]}},
        "PL-201: model.inputs.x.shape: a tensor has too many dimensions; found 17, expected at most 16",
    ),
    (
        {"x": {"shape": [100000, 100000]}},
        "PL-201: model.inputs.x: the input is too large; found 37.3 GiB, expected at most 4 GiB. Use smaller sizes for the export",
    ),
    (
        {"x": {"shape": [1], "dtyp": "int64"}},
        "PL-200: model.inputs.x: a tensor has no key dtyp, expected shape, dtype, fill, dynamic, pass. Did you mean dtype?",
    ),
    (
        {"x": {"shape": [1], "dtype": "float"}},
        "PL-202: model.inputs.x.dtype: there is no element type float, expected float32, float16, float64, int64, int32, int16, int8, uint8, uint16, uint32, uint64, bool. Did you mean float32?",
    ),
    (
        {"x": {"shape": [1], "dtype": "torch.int64"}},
        "PL-202: model.inputs.x.dtype: there is no element type torch.int64, expected float32, float16, float64, int64, int32, int16, int8, uint8, uint16, uint32, uint64, bool. Type model.inputs.x.dtype=int64",
    ),
    (
        {"x": {"shape": [1], "dtype": "bfloat16"}},
        "PL-202: model.inputs.x.dtype: there is no element type bfloat16, expected float32, float16, float64, int64, int32, int16, int8, uint8, uint16, uint32, uint64, bool. bfloat16 inputs have no numpy type: give float32 and cast inside the network",
    ),
    (
        {"x": {"shape": [1], "dtype": "int64"}},
        "PL-202: model.inputs.x.fill: an input of type int64 needs its fill, expected {integers: [lo,hi]} with hi excluded, {constant: v} or {file: x.npy}. Type 'model.inputs.x.fill={integers: [0,10]}'",
    ),
    (
        {"x": {"shape": [1], "dtype": "int64", "fill": "normal"}},
        "PL-202: model.inputs.x.fill: normal does not fit int64, expected {integers: [lo,hi]} with hi excluded, {constant: v} or {file: x.npy}. Type 'model.inputs.x.fill={integers: [0,10]}'",
    ),
    (
        {"x": {"shape": [1], "fill": "uniform"}},
        "PL-202: model.inputs.x.fill: the fill uniform needs a value, expected normal, {uniform: [0,1]}, {integers: [0,10]}, {constant: 1} or {file: x.npy}",
    ),
    (
        {"x": {"shape": [1], "fill": "nromal"}},
        "PL-202: model.inputs.x.fill: there is no fill nromal, expected normal, {uniform: [0,1]}, {integers: [0,10]}, {constant: 1} or {file: x.npy}. Did you mean normal?",
    ),
    (
        {"x": {"shape": [1], "fill": {"uniform": [1, 0]}}},
        "PL-202: model.inputs.x.fill.uniform: the lower bound lies below the upper one; found [1,0]. Type 'model.inputs.x.fill.uniform=[0,1]'",
    ),
    (
        {"x": {"shape": [1], "fill": {"uniform": 1}}},
        "PL-202: model.inputs.x.fill.uniform: uniform takes a lower and an upper bound; found 1, expected two finite numbers. Type 'model.inputs.x.fill.uniform=[0,1]'",
    ),
    (
        {"x": {"shape": [1], "fill": {"integers": [0.5, 2]}, "dtype": "int64"}},
        "PL-202: model.inputs.x.fill.integers: the bounds of integers are whole numbers; found [0.5,2]",
    ),
    (
        {"x": {"shape": [1], "fill": {"integers": [0, 300]}, "dtype": "uint8"}},
        "PL-202: model.inputs.x.fill: the fill does not fit uint8, expected values from 0 to 255",
    ),
    (
        {"x": {"shape": [1], "fill": {"constant": 1000000.0}, "dtype": "float16"}},
        "PL-202: model.inputs.x.fill: the fill does not fit float16, expected values up to 65504",
    ),
    (
        {"x": {"shape": [1], "fill": {"constant": 0.5}, "dtype": "bool"}},
        "PL-202: model.inputs.x.fill: the fill does not fit bool, expected values from 0 to 1",
    ),
    (
        {"x": {"shape": [1], "fill": {"a": 1, "b": 2}}},
        "PL-202: model.inputs.x.fill: a fill is one word or one pair; found a mapping with a, b, expected normal, {uniform: [0,1]}, {integers: [0,10]}, {constant: 1} or {file: x.npy}",
    ),
    (
        {"1x": {"shape": [1, 3, 8, 8]}},
        "PL-200: model.inputs: an input's name begins with a letter or _ and goes on with letters, digits and _ . : / -; found '1x'",
    ),
    (
        {"x y": {"shape": [1, 3, 8, 8]}},
        "PL-200: model.inputs: an input's name begins with a letter or _ and goes on with letters, digits and _ . : / -; found 'x y'",
    ),
    (
        {"x": {"shape": [1], "pass": "kw"}},
        "PL-200: model.inputs.x.pass: pass says how the argument is handed over; found 'kw', expected positional or keyword. Type model.inputs.x.pass=keyword",
    ),
    (
        {"a.b": {"shape": [1], "pass": "keyword"}},
        "PL-200: model.inputs.a.b: a keyword argument has the name of a Python parameter; found a.b. Name it as the network's forward does, or leave pass: keyword out of model.inputs.a.b",
    ),
    (
        {"x": {"shape": [1], "pass": "keyword"}, "y": {"shape": [1, 3, 8, 8]}},
        "PL-200: model.inputs.y: positional inputs come before keyword inputs; found y after x. Give model.inputs.y pass: keyword, or put it before x",
    ),
    (
        {"x": [{"shape": [1], "pass": "keyword"}, {"shape": [1, 3, 8, 8]}]},
        "PL-200: model.inputs.x: the tensors of one argument are passed together; found x_0 keyword, x_1 positional, expected the same pass for all of them",
    ),
    (
        {"x": [{"shape": [1, 3, 8, 8]}], "x_0": {"shape": [1, 3, 8, 8]}},
        "PL-204: model.inputs: two inputs have the same name in the graph; found x_0, expected different names from x and x_0. Rename x_0; tensors of a list or dict are named x_0_0, x_0_KEY",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {4: "n"}}},
        "PL-203: model.inputs.x.dynamic: there is no such axis; found 4, expected 0 to 3",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {-1: "n"}}},
        "PL-203: model.inputs.x.dynamic: there is no such axis; found -1, expected 0 to 3. Type 'model.inputs.x.dynamic={3: n}'",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": "batch"}},
        "PL-203: model.inputs.x.dynamic: dynamic maps an axis to its name; found 'batch'. Type 'model.inputs.x.dynamic={0: batch}'",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {0: 5}}},
        "PL-203: model.inputs.x.dynamic.0: a dynamic axis is a name, or a mapping with its name and range; found 5. Type 'model.inputs.x.dynamic.0=batch'",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {0: "a b"}}},
        "PL-203: model.inputs.x.dynamic.0: an axis has a name of letters, digits and _; found 'a b'",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {0: {"min": 1}}}},
        "PL-203: model.inputs.x.dynamic.0: a dynamic axis has a name. Type model.inputs.x.dynamic.0.name=batch",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {0: {"name": "n", "mini": 1}}}},
        "PL-203: model.inputs.x.dynamic.0: a dynamic axis has no key mini, expected name, min, max, multiple_of. Did you mean min?",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {0: {"name": "n", "min": 0}}}},
        "PL-203: model.inputs.x.dynamic.0.min: min is a whole number from 1; found 0",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {0: {"name": "n", "min": 2}}}},
        "PL-203: model.inputs.x.dynamic.0: the example size of axis n does not fit its range; found 1, expected 2 or more",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {2: {"name": "n", "multiple_of": 3}}}},
        "PL-203: model.inputs.x.dynamic.2: the example size of axis n does not fit its range; found 8, expected 1 or more in steps of 3",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {2: {"name": "n", "min": 8, "max": 9, "multiple_of": 4}}}},
        "PL-203: model.inputs.x.dynamic.2: the range holds fewer than two sizes, so the axis is not dynamic; found min 8, max 9, multiple_of 4",
    ),
    (
        {"x": {"shape": [1, 3, 8, 8], "dynamic": {0: "n"}}, "y": {"shape": [2], "dynamic": {0: "n"}}},
        "PL-204: model.inputs: axis n has two sizes; found 1 in x and 2 in y. Give both the same example size, or the axes different names",
    ),
    (
        {
            "x": {"shape": [1, 3, 8, 8], "dynamic": {0: {"name": "n", "max": 4}}},
            "y": {"shape": [1], "dynamic": {0: {"name": "n", "max": 5}}},
        },
        "PL-204: model.inputs: axis n has two ranges; found 1..4 and 1..5. Give the range once; elsewhere the name is enough",
    ),
    (
        {"x": {"a": {"shape": [1, 3, 8, 8]}, "b": 5}},
        "PL-200: model.inputs.x: an input needs its shape; found only a, b. Add shape: [...] to model.inputs.x",
    ),
    (
        {"x": {"shpae": [1]}},
        "PL-200: model.inputs.x: an input needs its shape; found only shpae. Add shape: [...] to model.inputs.x. Did you mean shape?",
    ),
]


@pytest.mark.parametrize(("node", "sentence"), REFUSED)
def test_refusals(node: Any, sentence: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_inputs(node)
    assert str(caught.value) == sentence


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(allow_nan=True),
    st.sampled_from(["normal", "uniform", "float32", "int64", "bool", "positional", "keyword", "n", "batch", "", "x y"]),
)  # fmt: skip
WORDS = st.sampled_from(
    ["shape", "dtype", "fill", "dynamic", "pass", "uniform", "integers", "constant", "file", "name", "min", "max",
     "multiple_of", "x", "images"]
)  # fmt: skip
NODES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(WORDS, st.integers(-2, 5)), inner, max_size=4),
        st.lists(st.integers(0, 4), max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(node=st.one_of(NODES, st.dictionaries(WORDS, NODES, max_size=3)))
def test_anything_else_is_refused_and_what_is_taken_makes_samples(node: Any) -> None:
    try:
        specs = parse_inputs(node)
    except Refused as refused:
        assert refused.reason.code.startswith("PL-20")  # noqa: PT017 - either is right
        return
    assert isinstance(specs, InputSpecs)
    if all(leaf.fill.kind != "file" for leaf in specs.leaves):
        samples = make_samples(specs, seed=0, stream="x")
        assert [array.shape for array in samples.values()] == [leaf.shape for leaf in specs.leaves]
