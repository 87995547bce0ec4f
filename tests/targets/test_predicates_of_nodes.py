"""The values of names for real nodes, against values worked out by hand, numpy or onnx itself."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.targets.limit_parser import parse_limit
from pipeline.targets.node_values import FUNCTIONS_OF, VARIABLES_OF
from pipeline.targets.onnx_operators import names_of
from pipeline.targets.predicates import Truth, Unclear
from pipeline.targets.vocabulary import DTYPES, FUNCTIONS, VARIABLES
from tests.targets.judging import facts_of, held, model, one_node

IMAGE = (1, 8, 10, 12)


def value(name: str, operator: str, *inputs: Any, **given: Any) -> Any:
    return facts_of(one_node(operator, *inputs, **given), held(given.get("weights"))).variable(name)


def holds(text: str, operator: str, *inputs: Any, **given: Any) -> Truth:
    facts = facts_of(one_node(operator, *inputs, **given), held(given.get("weights")))
    return parse_limit(text, names_of(operator)).holds(facts)


def test_every_name_of_the_vocabulary_has_a_value() -> None:
    assert set(VARIABLES_OF) == set(VARIABLES)
    assert set(FUNCTIONS_OF) == set(FUNCTIONS)


def test_the_element_types_are_those_of_onnx() -> None:
    names = {"FLOAT": "float32", "DOUBLE": "float64"}
    of_onnx = {names.get(name, name.lower()) for name in onnx.TensorProto.DataType.keys()}  # noqa: SIM118
    assert DTYPES == of_onnx - {"undefined"}


CONV = {"weights": {1: (16, 8, 3, 5)}, "attributes": "strides = [2, 1], pads = [1, 2, 0, 2]"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kernel_h", 3), ("kernel_w", 5), ("kernel_d", 1), ("kernels", (3, 5)), ("strides", (2, 1)),
        ("stride_h", 2), ("stride_w", 1), ("dilations", (1, 1)), ("pads", (1, 2, 0, 2)), ("pad_h", 1),
        ("pad_w", 2), ("pad_d", 0), ("pads_even", False), ("group", 1), ("cin", 8), ("cout", 16),
        ("weight_n", 16), ("weight_c", 8), ("spatial", 2), ("depthwise", False), ("N", 1), ("C", 8),
        ("H", 10), ("W", 12), ("D", 1), ("C_out", 16), ("H_out", 5), ("W_out", 12), ("rank", 4),
        ("elements", 960), ("dims_out", (1, 16, 5, 12)), ("inputs", 2), ("activations", 1), ("constants", 1),
        ("dtype", "float32"), ("opset", 11), ("auto_pad", "NOTSET"), ("residual", False), ("is_input", True),
        ("is_output", True), ("requested", False),
    ],
)  # fmt: skip
def test_a_convolution(name: str, expected: Any) -> None:
    assert value(name, "Conv", IMAGE, **CONV) == expected


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (2, 2, 1), (3, 2, 2), (4, 3, 1)]
)
def test_padding_by_auto_pad_gives_the_output_that_onnx_infers(
    auto_pad: str, kernel: int, stride: int, dilation: int
) -> None:
    attributes = (
        f'auto_pad = "{auto_pad}", kernel_shape = [{kernel}, {kernel}], strides = [{stride}, {stride}], '
        f"dilations = [{dilation}, {dilation}]"
    )
    facts = facts_of(
        one_node("Conv", IMAGE, weights={1: (4, 8, kernel, kernel)}, attributes=attributes), held({1: 1})
    )
    pads = facts.variable("pads")
    for axis, size in enumerate(IMAGE[2:]):
        whole = size + pads[axis] + pads[axis + 2]
        assert (whole - dilation * (kernel - 1) - 1) // stride + 1 == facts.variable("dims_out")[axis + 2]
    if auto_pad == "SAME_UPPER":
        assert pads[2] >= pads[0]
    if auto_pad == "SAME_LOWER":
        assert pads[0] >= pads[2]


def test_a_transposed_and_a_depthwise_convolution() -> None:
    given = {"weights": {1: (8, 3, 4, 4)}, "attributes": "group = 2, strides = [2, 2]"}
    assert value("cin", "ConvTranspose", IMAGE, **given) == 8
    assert value("cout", "ConvTranspose", IMAGE, **given) == 6
    assert value("output_paddings", "ConvTranspose", IMAGE, **given) == (0, 0)
    depthwise = {"weights": {1: (8, 1, 3, 3)}, "attributes": "group = 8"}
    assert value("depthwise", "Conv", IMAGE, **depthwise) is True
    assert value("cin", "Conv", IMAGE, **depthwise) == 8
    line = {"weights": {1: (4, 8, 3)}}
    assert value("kernel_w", "Conv", (1, 8, 12), **line) == 3
    assert value("kernel_h", "Conv", (1, 8, 12), **line) == 1
    assert value("H", "Conv", (1, 8, 12), **line) == 1
    volume = {"weights": {1: (4, 8, 2, 3, 5)}, "attributes": "pads = [1, 2, 3, 4, 5, 6]"}
    assert [value(f"kernel_{axis}", "Conv", (1, 8, 9, 9, 9), **volume) for axis in "dhw"] == [2, 3, 5]
    assert [value(f"pad_{axis}", "Conv", (1, 8, 9, 9, 9), **volume) for axis in "dhw"] == [4, 5, 6]


def test_axes_from_attributes_and_inputs() -> None:
    old = {"attributes": "axes = [-1, 1]", "opset": 11}
    assert value("axes", "ReduceMean", IMAGE, **old) == (1, 3)
    assert value("axes_from_end", "ReduceMean", IMAGE, **old) == (-3, -1)
    assert value("reduced", "ReduceMean", IMAGE, **old) == (8, 12)
    assert value("keepdims", "ReduceMean", IMAGE, **old) == 1
    new = {"constants": {1: "int64[2] = {-1, 1}"}, "opset": 18}
    assert value("axes", "ReduceMean", IMAGE, **new) == (1, 3)
    assert value("axes_given", "ReduceMean", IMAGE, **new) is True
    assert value("axes", "ReduceMean", IMAGE) == (0, 1, 2, 3)
    assert value("axes_given", "ReduceMean", IMAGE) is False
    assert value("axis", "Softmax", IMAGE, opset=11) == 1
    assert value("axis", "Softmax", IMAGE, opset=13) == 3
    assert value("axis_from_end", "Softmax", IMAGE, attributes="axis = 2") == -2
    assert value("axis_size", "Softmax", IMAGE, attributes="axis = 2") == 10


def test_pads_slices_splits_and_resizes() -> None:
    assert value("padded_axes", "Pad", IMAGE, constants={1: "int64[8] = {0, 0, 1, 0, 0, 0, 0, 2}"}) == (2, 3)
    assert value("padded_axes", "Pad", IMAGE, attributes="pads = [0, 1, 0, 0, 0, 0, 0, 0]", opset=10) == (1,)
    assert isinstance(value("pads", "Pad", IMAGE, (8,), dtypes={1: "int64"}), Unclear)
    some = {1: "int64[2] = {0, 0}", 2: "int64[2] = {4, 4}", 3: "int64[2] = {-1, 1}", 4: "int64[2] = {2, 1}"}
    assert value("sliced_axes", "Slice", IMAGE, constants=some) == (3, 1)
    assert value("steps", "Slice", IMAGE, constants=some) == (2, 1)
    assert value("steps", "Slice", IMAGE, constants={1: "int64[1] = {0}", 2: "int64[1] = {4}"}) == 1
    assert value("parts", "Split", IMAGE, attributes="axis = 1, split = [2, 6]", outputs=2) == (2, 6)
    assert holds("equal(parts)", "Split", IMAGE, attributes="axis = 1", outputs=2).value is True
    assert (
        holds("equal(parts)", "Split", IMAGE, attributes="axis = 1, split = [2, 6]", outputs=2).value is False
    )
    scales = {"constants": {1: "float[0] = {}", 2: "float[4] = {1, 1, 2, 0.5}"}}
    assert value("scales", "Resize", IMAGE, **scales) == (1, 1, 2, 0.5)
    assert value("scale_h", "Resize", IMAGE, **scales) == 2
    assert value("antialias", "Resize", IMAGE, **scales) == 0
    assert (
        value(
            "coordinate_transformation_mode",
            "Resize",
            IMAGE,
            opset=10,
            constants={1: "float[4] = {1, 1, 2, 2}"},
        )
        == "asymmetric"
    )
    assert value("coordinate_transformation_mode", "Resize", IMAGE, **scales) == "half_pixel"
    assert holds("power_of_two(scales) and not whole(scales)", "Resize", IMAGE, **scales).value is True


def test_inputs_constants_and_elements() -> None:
    clip = {"constants": {1: "float = {0}", 2: "float = {6}"}}
    assert value("clip_min", "Clip", IMAGE, **clip) == 0
    assert value("clip_max", "Clip", IMAGE, **clip) == 6
    assert value("clip_max", "Clip", IMAGE, attributes="max = 3.0", opset=10) == 3
    assert value("clip_max", "Clip", IMAGE) is None
    assert holds("value(1) == 2", "Pow", IMAGE, constants={1: "float = {2}"}).value is True
    assert holds("value(1) == 2", "Pow", IMAGE, IMAGE).value is None
    assert holds("constant(1) and size(1) == 1", "Pow", IMAGE, constants={1: "float = {2}"}).value is True
    assert (
        value(
            "inputs", "LSTM", (5, 1, 4), weights={1: (1, 12, 4), 2: (1, 12, 3)}, attributes="hidden_size = 3"
        )
        == 3
    )
    assert holds(
        "not given(3)",
        "LSTM",
        (5, 1, 4),
        weights={1: (1, 12, 4), 2: (1, 12, 3)},
        attributes="hidden_size = 3",
    ).value
    assert holds("attributes_only(hidden_size)", "LSTM", (5, 1, 4), weights={1: (1, 12, 4), 2: (1, 12, 3)},
                 attributes='hidden_size = 3, direction = "reverse"').value is False  # fmt: skip
    assert value("dtype", "Relu", IMAGE, dtypes={0: "float64"}) == "float64"
    assert value("to", "Cast", IMAGE, attributes="to = 7") == "int64"
    assert (
        value(
            "indices_within",
            "GatherElements",
            IMAGE,
            (1, 8, 10, 99),
            dtypes={1: "int64"},
            attributes="axis = 3",
        )
        is True
    )
    assert (
        value(
            "indices_within",
            "GatherElements",
            IMAGE,
            (1, 9, 10, 99),
            dtypes={1: "int64"},
            attributes="axis = 3",
        )
        is False
    )


def test_neighbours() -> None:
    made = model(
        "f (float[1,4,8,8] x, float[4,4,3,3] w) => (float[1,4,6,6] y) "
        "{ c = Conv (x, w) r = Relu (c) y = Add (c, r) }"
    )
    facts = [facts_of(made, frozenset({"w"}), index) for index in range(3)]
    assert facts[0].variable("residual") is True
    assert facts[0].function("feeds", ("Add",)) is True
    assert facts[0].function("feeds", ("Mul",)) is False
    assert facts[1].function("produced_by", ("Conv",)) is True
    assert facts[1].function("produced_by", ("Relu",)) is False
    assert (facts[0].variable("is_output"), facts[2].variable("is_output")) == (False, True)


def test_the_plane_before_a_gemm() -> None:
    text = (
        "f (float[2,8,3,5] x, float[120,4] w) => (float[2,4] y) {{ f = {} y = Gemm (f, w) }}"
    )  # fmt: skip
    for maker in ("Flatten (x)", "Reshape (x, s)"):
        source = text.format(maker)
        if "s)" in maker:
            source = source.replace("{ f", "<int64[2] s = {2, 120}> { f", 1)
        gemm = facts_of(model(source), frozenset({"w"}), 1)
        assert [gemm.variable(f"source_{axis}") for axis in "chw"] == [8, 3, 5]
    alone = facts_of(one_node("Gemm", (2, 120), weights={1: (120, 4)}), held({1: 1}))
    assert [alone.variable(f"source_{axis}") for axis in "chw"] == [120, 1, 1]


def test_what_is_dynamic_or_without_a_shape_is_unclear() -> None:
    for name in ("N", "elements", "dims", "same_shape"):
        assert isinstance(value(name, "Add", ("n", 3), ("n", 3)), Unclear), name
    assert value("rank", "Add", ("n", 3), ("n", 3)) == 2
    assert value("C", "Add", ("n", 3), ("n", 3)) == 3
    unknown = facts_of(
        model("f (float[1,3] x, int64[2] s) => (float[a,b] y) { r = Reshape (x, s) y = Relu (r) }"), index=1
    )
    assert isinstance(unknown.variable("dims"), Unclear)


@pytest.mark.parametrize(
    ("left", "right", "forms", "expected"),
    [
        ((1, 4, 5, 6), (1, 4, 1, 1), "'NCHW+NC11'", True),
        ((1, 4, 1, 1), (1, 4, 5, 6), "'NCHW+NC11'", True),
        ((1, 4, 5, 6), (1, 3, 1, 1), "'NCHW+NC11'", False),
        ((1, 4, 5, 6), (4, 1, 1), "'NCHW+NC11'", False),
        ((2, 4, 5, 6), (2, 4, 5, 6), "'1CHW+1CHW'", False),
        ((7, 4), (4, 9), "'MK+KN'", True),
        ((7, 4), (5, 9), "'MK+KN'", False),
        ((3, 2, 7, 4), (4, 9), "'abMK+KN'", True),
        ((1, 2, 7, 4), (4, 9), "'abMK+KN'", False),
    ],
)
def test_forms_of_shapes(left: tuple[int, ...], right: tuple[int, ...], forms: str, expected: bool) -> None:
    assert holds(f"forms({forms})", "Mul", left, right).value is expected


SHAPES = st.lists(st.sampled_from([1, 2, 3]), max_size=5).map(tuple)


@given(SHAPES, SHAPES)
@settings(max_examples=150, deadline=None)
def test_broadcasting_is_that_of_numpy(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    facts = facts_of(one_node("Add", left, right))
    try:
        together: tuple[int, ...] | None = np.broadcast_shapes(left, right)
    except ValueError:
        together = None
    assert facts.variable("broadcast") is (together is not None)
    assert facts.variable("same_shape") is (left == right)
    if together is not None:
        pad = [(1,) * (len(together) - len(one)) + one for one in (left, right)]
        assert facts.variable("one_sided") is (together in pad)
        marks = [(a != t, b != t) for a, b, t in zip(*pad, together, strict=True) if t != 1]
        assert facts.variable("collapsed_rank") == len([1 for _ in groupby(marks)])


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ((5, 6, 7, 8), (5, 6, 8, 9), ("none", "none")),
        ((1, 1, 7, 8), (5, 6, 8, 9), ("all", "none")),
        ((5, 1, 7, 8), (1, 6, 8, 9), ("trailing", "mixed")),
        ((5, 6, 7, 8), (5, 1, 8, 9), ("none", "trailing")),
        ((5, 6, 4, 7, 8), (5, 1, 4, 8, 9), ("none", "mixed")),
        ((7, 8), (8, 9), ("none", "none")),
    ],
)
def test_which_leading_axes_of_a_matmul_are_broadcast(
    left: tuple[int, ...], right: tuple[int, ...], expected: tuple[str, str]
) -> None:
    found = [value(f"batch_broadcast_{side}", "MatMul", left, right) for side in ("left", "right")]
    assert tuple(found) == expected


def test_scales_from_sizes_are_what_onnx_computes() -> None:
    made = model(
        "f (float[1,2,4,6] x) => (float[1,2,8,9] y) <float[0] r = {}, float[0] s = {}, int64[4] z = {1, 2, 8, 9}> "
        '{ y = Resize <mode = "nearest"> (x, r, s, z) }'
    )
    assert facts_of(made).variable("scales") == (1, 1, 2, 1.5)
    (result,) = onnx.reference.ReferenceEvaluator(made).run(None, {"x": np.zeros((1, 2, 4, 6), np.float32)})
    assert result.shape == (1, 2, 8, 9)


@pytest.mark.parametrize(
    ("left", "right", "merged", "apart"),
    [
        ((2, 3, 4, 5, 6), (2, 3, 4, 5, 6), 1, 1),
        ((2, 3, 4), (1, 1, 4), 2, 3),  # neighbours that are broadcast alike
        ((2, 3, 4), (2, 1, 4), 3, 3),
        ((2, 1, 4), (2, 1, 4), 1, 1),  # size 1 in the output does not count
        ((1, 3, 4), (2, 3, 1), 3, 3),
    ],
)
def test_axes_that_are_left_when_neighbours_merge(
    left: tuple[int, ...], right: tuple[int, ...], merged: int, apart: int
) -> None:
    assert value("collapsed_rank", "Add", left, right) == merged
    assert value("collapsed_rank_apart", "Add", left, right) == apart
