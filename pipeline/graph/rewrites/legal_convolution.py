"""Convolutions: of one axis as of two, linear layers as 1x1, constants and BatchNormalization as or in convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.graph.rewrites.context import Context

#: Of an image: batch, channels, height, width.
IMAGE_RANK: Final = 4
#: BatchNormalization's epsilon where a node leaves it out.
EPSILON: Final = 1e-5
#: How many operators away a convolution is still beside a node.
FARTHEST: Final = 4
_ON_IMAGES: Final = (
    "Conv", "ConvTranspose", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize",
)  # fmt: skip
_ELEMENTWISE: Final = (
    "Add", "Mul", "Sub", "Div", "Clip", "Relu", "Sigmoid", "Tanh", "Exp", "LeakyRelu", "PRelu", "Concat", "HardSigmoid",
)  # fmt: skip
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
    return None if forms.no_image(context, value) else shape[1]


def _per_channel(value: ir.Value | None, channels: int, context: Context) -> bool:
    """Whether a constant is one number, or one for every channel of an image."""
    if not context.is_weight(value):
        return False
    sizes = context.static_shape(value)
    known = context.constant(value)
    # An infinite factor would meet weights that are zero, not only values that are.
    if sizes is None or len(sizes) > IMAGE_RANK or (known is not None and not np.isfinite(known).all()):
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
    if _affine(node, context) is None:
        return NOT_NEEDED
    if not _beside_convolution(node):
        return Declined(
            "no convolution or pooling stands beside it, and a device would switch to it and back"
        )
    # A Mul before an Add becomes part of the Add's convolution.
    return NOT_NEEDED if node.op_type == "Mul" and _add_behind(node, context) else None


def _add_behind(node: ir.Node, context: Context) -> bool:
    value = node.outputs[0]
    if not forms.only_use(value):
        return False
    taker = next(iter(value.uses())).node
    found = _affine(taker, context) if taker.op_type == "Add" else None
    return found is not None and found[0] is value


def _beside_convolution(node: ir.Node) -> bool:
    """Whether what works element by element around a node leads to a convolution, a pooling or a Resize."""
    seen, ahead = {node}, [node]
    for _ in range(FARTHEST):
        beside: list[ir.Node] = []
        for one in ahead:
            makers = [value.producer() for value in one.inputs if value is not None]
            takers = [use.node for value in one.outputs for use in value.uses()]
            for other in (*makers, *takers):
                if other is None or other in seen:
                    continue
                if other.op_type in _ON_IMAGES:
                    return True
                seen.add(other)
                if other.op_type in _ELEMENTWISE:
                    beside.append(other)
        ahead = beside
    return False


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
    shape = (channels, 1, 1, 1)
    if node.op_type == "Mul":
        return [_depthwise(context, image, _vector(context, constant, channels, shape), None, channels)]
    before = forms.producer(image, "Mul")
    factor = _affine(before, context) if before is not None and forms.only_use(image) else None
    if factor is not None:
        image, weight = factor[0], _vector(context, factor[1], channels, shape)
    else:
        weight = context.tensor(np.ones(shape, dtype), "ones")
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
         "Mul, Add or both of a constant for every channel of an image become a depthwise 1x1 convolution",
         _affine_to_conv, _affine_check, "an image of known channels"),
)  # fmt: skip
