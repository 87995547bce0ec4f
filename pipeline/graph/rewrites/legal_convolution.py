"""Convolutions: of one axis as of two, linear layers as 1x1, constants and BatchNormalization as or in convolutions."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.graph.rewrites.context import Context

#: Of an image: batch, channels, height, width.
IMAGE_RANK: Final = 4
#: BatchNormalization's epsilon where a node leaves it out.
EPSILON: Final = 1e-5
_PER_AXIS: Final = ("kernel_shape", "strides", "dilations", "output_padding", "output_shape")


# One axis as two ---------------------------------------------------------------------------------


def _line_check(node: ir.Node, context: Context) -> Declined | None:
    rank = context.rank(node.inputs[0])
    if rank is None:
        return forms.NO_RANK
    if rank != IMAGE_RANK - 1:
        return NOT_NEEDED
    if len([value for value in node.outputs if value.uses() or value.is_graph_output()]) > 1:
        return Declined("its second output is used")
    if node.op_type.startswith("Conv") and (
        not context.is_weight(node.inputs[1]) or context.static_shape(node.inputs[1]) is None
    ):
        return Declined("its weight is not constant")
    return None


def _line(node: ir.Node, context: Context) -> list[ir.Value]:
    inputs: list[ir.Value | None] = [forms.unsqueeze(context, forms.given(node, 0), [2])]
    if node.op_type.startswith("Conv"):
        weight = forms.given(node, 1)
        sizes, dtype = forms.sizes_of(context, weight), context.dtype(weight)
        assert dtype is not None
        wide = (*sizes[:2], 1, sizes[2])
        inputs.append(
            context.derived([weight], lambda array: array.reshape(wide), dtype, wide, f"{weight.name}_2d")
        )
        inputs += node.inputs[2:]
    attributes = forms.attributes(node)
    neutral = {"output_padding": 0}
    for name in _PER_AXIS:
        if name in attributes:
            attributes[name] = [neutral.get(name, 1), *attributes[name]]
    if "pads" in attributes:
        begin, end = attributes["pads"]
        attributes["pads"] = [0, begin, 0, end]
    return [forms.squeeze(context, context.op(node.op_type, inputs, **attributes), [2])]


# Constants as convolutions -----------------------------------------------------------------------


def _channels(value: ir.Value | None, context: Context) -> int | None:
    """C of a floating [N, C, H, W]; None: it is something else, or C is not known."""
    shape = context.shape(value)
    if shape is None or len(shape) != IMAGE_RANK or not isinstance(shape[1], int):
        return None
    return shape[1] if forms.floating(context, value) else None


def _per_channel(value: ir.Value | None, channels: int, context: Context) -> bool:
    """Whether a constant is one number, or one for every channel of an image."""
    if not context.is_weight(value):
        return False
    sizes = context.static_shape(value)
    if sizes is None or len(sizes) > IMAGE_RANK:
        return False
    wide = (1,) * (IMAGE_RANK - len(sizes)) + sizes
    return wide in ((1, 1, 1, 1), (1, channels, 1, 1))


def _affine(node: ir.Node, context: Context) -> tuple[ir.Value, ir.Value] | None:
    """The image and the constant of a Mul or an Add."""
    for one, other in (node.inputs, tuple(reversed(node.inputs))):
        channels = _channels(one, context)
        if channels is not None and not context.is_weight(one) and _per_channel(other, channels, context):
            return forms.there(one), forms.there(other)
    return None


def _affine_check(node: ir.Node, context: Context) -> Declined | None:
    return NOT_NEEDED if _affine(node, context) is None else None


def _vector(context: Context, constant: ir.Value, channels: int, shape: tuple[int, ...]) -> ir.Value:
    dtype = context.dtype(constant)
    assert dtype is not None

    def compute(array: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(array.reshape(-1), (channels,)).reshape(shape)

    return context.derived([constant], compute, dtype, shape, "channels")


def _affine_to_conv(node: ir.Node, context: Context) -> list[ir.Value]:
    found = _affine(node, context)
    assert found is not None
    image, constant = found
    channels, dtype = _channels(image, context), forms.floats(context, image)
    assert channels is not None
    bias = None
    if node.op_type == "Mul":
        weight = _vector(context, constant, channels, (channels, 1, 1, 1))
    else:
        weight = context.tensor(np.ones((channels, 1, 1, 1), dtype), "ones")
        bias = _vector(context, constant, channels, (channels,))
    return [_depthwise(context, image, weight, bias, channels)]


def _depthwise(
    context: Context, image: ir.Value, weight: ir.Value, bias: ir.Value | None, channels: int
) -> ir.Value:
    inputs = [image, weight] if bias is None else [image, weight, bias]
    found: ir.Value = context.op(
        "Conv",
        inputs,
        dilations=[1, 1],
        group=channels,
        kernel_shape=[1, 1],
        pads=[0, 0, 0, 0],
        strides=[1, 1],
    )
    return found


def _normal_check(node: ir.Node, context: Context) -> Declined | None:
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return Declined("its statistics are used")
    if _channels(node.inputs[0], context) is None:
        return Declined("its input is no image of known channels")
    if not all(context.is_weight(value) for value in node.inputs[1:]):
        return Declined("its parameters are not constant")
    if len({context.dtype(value) for value in node.inputs}) != 1:
        return Declined("its parameters are of another type")
    return None


def _normal_parameters(node: ir.Node, context: Context) -> tuple[ir.Value, ir.Value]:
    """What BatchNormalization multiplies every channel by, and what it adds then."""
    epsilon = context.attribute(node, "epsilon", EPSILON)
    scale, bias, mean, variance = (forms.given(node, index) for index in range(1, 5))
    dtype, sizes = forms.floats(context, scale), forms.sizes_of(context, scale)
    number = ir.DataType.from_numpy(dtype)

    def factor(scale: NDArray[Any], variance: NDArray[Any]) -> NDArray[Any]:
        wide = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        return np.asarray(wide, dtype)

    def shift(
        scale: NDArray[Any], bias: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any]
    ) -> NDArray[Any]:
        wide = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        return np.asarray(bias - mean.astype(np.float64) * wide).astype(dtype)

    return (
        context.derived([scale, variance], factor, number, sizes, "normalization_scale"),
        context.derived([scale, bias, mean, variance], shift, number, sizes, "normalization_shift"),
    )


def _normal_to_conv(node: ir.Node, context: Context) -> list[ir.Value]:
    channels = _channels(node.inputs[0], context)
    assert channels is not None
    scale, shift = _normal_parameters(node, context)
    weight = _vector(context, scale, channels, (channels, 1, 1, 1))
    return [_depthwise(context, forms.given(node, 0), weight, shift, channels)]


# Folded into the convolution before --------------------------------------------------------------


def _conv_before(value: ir.Value | None, context: Context) -> ir.Node | None:
    """The convolution that makes a value for this use alone, with constant weights."""
    conv = forms.producer(value, "Conv")
    if conv is None or not forms.only_use(value):
        return None
    return conv if all(context.is_weight(one) for one in conv.inputs[1:] if one is not None) else None


def _fold_check(node: ir.Node, context: Context) -> Declined | None:
    if node.op_type == "BatchNormalization":
        if _conv_before(node.inputs[0], context) is None:
            return NOT_NEEDED
        return _normal_check(node, context)
    found = _affine(node, context)
    return NOT_NEEDED if found is None or _conv_before(found[0], context) is None else None


def _fold(node: ir.Node, context: Context) -> list[ir.Value]:
    scale: ir.Value | None = None
    shift: ir.Value | None = None
    if node.op_type == "BatchNormalization":
        conv = _conv_before(node.inputs[0], context)
        scale, shift = _normal_parameters(node, context)
    else:
        found = _affine(node, context)
        assert found is not None
        conv = _conv_before(found[0], context)
        if node.op_type == "Mul":
            scale = found[1]
        else:
            shift = found[1]
    assert conv is not None
    weight, bias = forms.given(conv, 1), forms.operand(conv, 2)
    sizes, dtype = forms.sizes_of(context, weight), forms.floats(context, weight)
    channels = sizes[0]
    number = ir.DataType.from_numpy(dtype)
    new_weight = weight
    if scale is not None:
        new_weight = context.derived(
            [weight, scale],
            lambda array, by: (
                array.astype(np.float64) * np.broadcast_to(by.reshape(-1), (channels,)).reshape(-1, 1, 1, 1)
            ).astype(dtype),
            number,
            sizes,
            f"{weight.name}_scaled",
        )
    parts = [value for value in (bias, scale, shift) if value is not None]
    places = [value is not None for value in (bias, scale, shift)]
    new_bias: ir.Value | None = bias
    if shift is not None or bias is not None:

        def compute(*arrays: NDArray[Any]) -> NDArray[Any]:
            rest = iter(arrays)
            wide = [
                np.broadcast_to(next(rest).reshape(-1), (channels,)).astype(np.float64) if there else neutral
                for there, neutral in zip(places, (0.0, 1.0, 0.0), strict=True)
            ]
            return np.asarray(wide[0] * wide[1] + wide[2]).astype(dtype)

        new_bias = context.derived(parts, compute, number, (channels,), f"{weight.name}_bias")
    attributes = forms.attributes(conv)
    inputs = [conv.inputs[0], new_weight] if new_bias is None else [conv.inputs[0], new_weight, new_bias]
    return [context.op("Conv", inputs, **attributes)]


# Linear layers -----------------------------------------------------------------------------------


def _linear_check(node: ir.Node, context: Context) -> Declined | None:
    weight = node.inputs[1]
    if not context.is_weight(weight) or len(context.static_shape(weight) or ()) != 2:
        return Declined("its second operand is no constant matrix")
    if forms.floating(context, node.inputs[0]) is None:
        return forms.NO_TYPE
    sizes = context.static_shape(node.inputs[0])
    if sizes is None or context.static_shape(node.outputs[0]) is None:
        return forms.NO_SIZES
    if len(sizes) != 2:
        return NOT_NEEDED
    if context.attribute(node, "transA", 0):
        return Declined("its first operand is transposed")
    if sizes[0] > 1 and _image(forms.given(node, 0), context) is None:
        return Declined("each of its rows would be an image of its own")
    bias = forms.operand(node, 2)
    width = forms.sizes_of(context, node.outputs[0])[1]
    if bias is not None and (not context.is_weight(bias) or not _is_row(context, bias, width)):
        return Declined("what it adds is no constant row")
    return None


def _is_row(context: Context, bias: ir.Value, width: int) -> bool:
    sizes = context.static_shape(bias)
    return (
        sizes is not None
        and len(sizes) <= 2
        and prod(sizes) in (1, width)
        and (len(sizes) < 2 or sizes[0] == 1)
    )


def _linear(node: ir.Node, context: Context) -> list[ir.Value]:
    value, weight, bias = forms.given(node, 0), forms.given(node, 1), forms.operand(node, 2)
    rows, width = forms.sizes_of(context, node.outputs[0])
    depth = forms.sizes_of(context, value)[1]
    alpha, beta = context.attribute(node, "alpha", 1.0), context.attribute(node, "beta", 1.0)
    transposed = bool(context.attribute(node, "transB", 0))
    image = _image(value, context) or forms.reshape(context, value, (rows, depth, 1, 1))
    inputs = [image, _kernel(context, weight, transposed=transposed, factor=alpha)]
    if bias is not None:
        dtype = forms.floats(context, bias)
        inputs.append(
            context.derived(
                [bias],
                lambda array: np.broadcast_to((array * dtype.type(beta)).reshape(-1), (width,)).astype(dtype),
                ir.DataType.from_numpy(dtype),
                (width,),
                bias.name or "bias",
            )
            if beta != 1 or forms.sizes_of(context, bias) != (width,)
            else bias
        )
    return [forms.reshape(context, _pointwise(context, inputs), (rows, width))]


def _image(value: ir.Value, context: Context) -> ir.Value | None:
    """[N, C, 1, 1] where a value is a Reshape of that to [N, C]."""
    node = forms.producer(value, "Reshape", "Flatten", "Squeeze")
    sizes = None if node is None else context.static_shape(node.inputs[0])
    if node is not None and sizes == (*forms.sizes_of(context, value), 1, 1):
        return node.inputs[0]
    return None


def _kernel(context: Context, weight: ir.Value, *, transposed: bool, factor: float = 1.0) -> ir.Value:
    """A matrix as the weight of a 1x1 convolution."""
    sizes, dtype = forms.sizes_of(context, weight), forms.floats(context, weight)
    out, depth = sizes if transposed else sizes[::-1]

    def compute(array: NDArray[Any]) -> NDArray[Any]:
        matrix = array if transposed else array.T
        return (matrix if factor == 1 else matrix * dtype.type(factor)).reshape(out, depth, 1, 1)

    return context.derived(
        [weight], compute, ir.DataType.from_numpy(dtype), (out, depth, 1, 1), f"{weight.name}_1x1"
    )


def _pointwise(context: Context, inputs: Sequence[ir.Value | None]) -> ir.Value:
    found: ir.Value = context.op(
        "Conv", inputs, dilations=[1, 1], group=1, kernel_shape=[1, 1], pads=[0, 0, 0, 0], strides=[1, 1]
    )
    return found


def _product_check(node: ir.Node, context: Context) -> Declined | None:
    if forms.floating(context, node.inputs[0]) is None:
        return forms.NO_TYPE
    if context.attribute(node, "transA", 0):
        return Declined("its first operand is transposed")
    weight, bias = node.inputs[1], forms.operand(node, 2)
    if not context.is_weight(weight) or (bias is not None and not context.is_weight(bias)):
        return Declined("its second operand is no constant matrix")
    return (
        None
        if context.static_shape(weight) and context.static_shape(bias or weight) is not None
        else forms.NO_SIZES
    )


def _product(node: ir.Node, context: Context) -> list[ir.Value]:
    weight, bias = forms.given(node, 1), forms.operand(node, 2)
    transposed = bool(context.attribute(node, "transB", 0))
    alpha, beta = context.attribute(node, "alpha", 1.0), context.attribute(node, "beta", 1.0)
    matrix = _matrix(context, weight, transposed=transposed, factor=alpha)
    result = context.op("MatMul", [node.inputs[0], matrix])
    if bias is None:
        return [result]
    return [context.op("Add", [result, _matrix(context, bias, transposed=False, factor=beta)])]


def _matrix(context: Context, weight: ir.Value, *, transposed: bool, factor: float) -> ir.Value:
    """A constant as it is, transposed or multiplied."""
    if not transposed and factor == 1:
        return weight
    sizes, dtype = forms.sizes_of(context, weight), forms.floats(context, weight)

    def compute(array: NDArray[Any]) -> NDArray[Any]:
        moved = array.T if transposed else array
        return np.asarray(moved if factor == 1 else moved * dtype.type(factor), dtype)

    shape = sizes[::-1] if transposed else sizes
    return context.derived([weight], compute, ir.DataType.from_numpy(dtype), shape, weight.name or "matrix")


def _channels_last_check(node: ir.Node, context: Context) -> Declined | None:
    """MatMul on [N, H, W, C] behind a Transpose from [N, C, H, W]."""
    before = forms.producer(node.inputs[0], "Transpose")
    if before is None or forms.permutation(before, context) != (0, 2, 3, 1):
        return NOT_NEEDED
    if not context.is_weight(node.inputs[1]) or len(context.static_shape(node.inputs[1]) or ()) != 2:
        return Declined("its second operand is no constant matrix")
    return None if forms.floating(context, node.inputs[0]) else forms.NO_TYPE


def _channels_last(node: ir.Node, context: Context) -> list[ir.Value]:
    before = forms.producer(node.inputs[0], "Transpose")
    assert before is not None
    kernel = _kernel(context, forms.given(node, 1), transposed=False)
    return [forms.transpose(context, _pointwise(context, [before.inputs[0], kernel]), (0, 2, 3, 1))]


RULES: Final = (
    Rule("line_to_image", "legalise", ("Conv", "ConvTranspose", "MaxPool", "AveragePool"),
         ("Unsqueeze", "Conv", "ConvTranspose", "MaxPool", "AveragePool", "Squeeze"), "exact",
         "a convolution or pooling along one axis works along two, one of size 1", _line, _line_check,
         "constant weights"),
    Rule("constants_into_conv", "legalise", ("Mul", "Add", "BatchNormalization"), ("Conv",), "float noise",
         "a constant for every channel, or BatchNormalization, behind a convolution is folded into its weights",
         _fold, _fold_check, "constant weights, and nobody else who takes what the convolution makes"),
    Rule("batch_norm_to_depthwise_conv", "legalise", ("BatchNormalization",), ("Conv",), "float noise",
         "BatchNormalization becomes a depthwise 1x1 convolution", _normal_to_conv, _normal_check,
         "an image of known channels"),
    Rule("constants_to_depthwise_conv", "legalise", ("Mul", "Add"), ("Conv",), "exact",
         "Mul or Add of a constant for every channel of an image becomes a depthwise 1x1 convolution",
         _affine_to_conv, _affine_check, "an image of known channels"),
    Rule("linear_to_conv", "legalise", ("Gemm", "MatMul"), ("Reshape", "Conv"), "float noise",
         "Gemm or MatMul of rows with a constant matrix becomes a 1x1 convolution", _linear, _linear_check,
         "static sizes and constant weights"),
    Rule("gemm_to_matmul", "legalise", ("Gemm",), ("MatMul", "Add"), "float noise",
         "Gemm with constants becomes MatMul and Add", _product, _product_check, "constant weights"),
    Rule("channels_last_matmul_to_conv", "legalise", ("MatMul",), ("Conv", "Transpose"), "float noise",
         "MatMul behind a Transpose to channels last becomes a 1x1 convolution before it", _channels_last,
         _channels_last_check, "constant weights"),
)  # fmt: skip
