"""Linear layers: as 1x1 convolutions, or as MatMul and Add."""

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


def _linear_check(node: ir.Node, context: Context) -> Declined | None:
    weight = node.inputs[1]
    if not context.is_weight(weight) or len(context.static_shape(weight) or ()) != 2:
        return Declined("its second operand is no constant matrix")
    if (declined := forms.no_image(context, node.inputs[0])) is not None:
        return declined
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
    return forms.no_image(context, node.inputs[0])


def _channels_last(node: ir.Node, context: Context) -> list[ir.Value]:
    before = forms.producer(node.inputs[0], "Transpose")
    assert before is not None
    kernel = _kernel(context, forms.given(node, 1), transposed=False)
    return [forms.transpose(context, _pointwise(context, [before.inputs[0], kernel]), (0, 2, 3, 1))]


def _ranks_check(node: ir.Node, context: Context) -> Declined | None:
    one, other = (context.rank(value) for value in node.inputs)
    if one is None or other is None:
        return forms.NO_RANK
    if one == other or min(one, other) < 2:
        return NOT_NEEDED
    lower = node.inputs[0] if one < other else node.inputs[1]
    if not context.is_weight(lower) or context.static_shape(lower) is None:
        return Declined("the operand of the lower rank is not constant")
    return None


def _ranks(node: ir.Node, context: Context) -> list[ir.Value]:
    rank = max(forms.rank_of(context, value) for value in node.inputs)
    inputs = []
    for index, value in enumerate(node.inputs):
        if context.rank(value) == rank:
            inputs.append(forms.given(node, index))
        else:
            inputs.append(_raised(forms.given(node, index), rank, context))
    return [context.op("MatMul", inputs)]


def _raised(weight: ir.Value, rank: int, context: Context) -> ir.Value:
    """A constant with axes of size 1 before its own."""
    sizes, dtype = forms.sizes_of(context, weight), context.dtype(weight)
    assert dtype is not None
    shape = (1,) * (rank - len(sizes)) + sizes
    return context.derived(
        [weight], lambda array: array.reshape(shape), dtype, shape, f"{weight.name}_{rank}d"
    )


RULES: Final = (
    Rule("linear_to_conv", "legalise", ("Gemm", "MatMul"), ("Reshape", "Conv"), "float noise",
         "Gemm or MatMul of rows with a constant matrix becomes a 1x1 convolution", _linear, _linear_check,
         "static sizes and constant weights"),
    Rule("gemm_to_matmul", "legalise", ("Gemm",), ("MatMul", "Add"), "float noise",
         "Gemm with constants becomes MatMul and Add", _product, _product_check, "constant weights"),
    Rule("channels_last_matmul_to_conv", "legalise", ("MatMul",), ("Conv", "Transpose"), "float noise",
         "MatMul behind a Transpose to channels last becomes a 1x1 convolution before it", _channels_last,
         _channels_last_check, "constant weights"),
    Rule("matmul_ranks_alike", "legalise", ("MatMul",), ("MatMul",), "exact",
         "a constant operand of MatMul gets axes of size 1, so that both have one rank", _ranks, _ranks_check,
         "a constant operand"),
)  # fmt: skip
