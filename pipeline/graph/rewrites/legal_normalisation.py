"""Normalisation layers in the primitives that restricted targets take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import Declined, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.graph.rewrites.context import Context

#: The operators' epsilon where a node leaves it out.
EPSILON: Final = 1e-5
#: The first axes of an image are the batch and the channels.
FIRST_PLACE: Final = 2


def _layer_check(node: ir.Node, context: Context) -> Declined | None:
    if context.rank(node.inputs[0]) is None:
        return forms.NO_RANK
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return Declined("its statistics are used")
    dtype = context.dtype(node.inputs[0])
    if dtype is None or dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return Declined("it computes in another type than that of its input")
    return None


def _normalised(context: Context, value: ir.Value, axes: Sequence[int], epsilon: float) -> ir.Value:
    """(x - mean) / sqrt(variance + epsilon) along these axes."""
    dtype = forms.floats(context, value)
    mean = forms.reduce(context, "ReduceMean", value, axes)
    distance = context.op("Sub", [value, mean])
    variance = forms.reduce(context, "ReduceMean", context.op("Mul", [distance, distance]), axes)
    shifted = context.op("Add", [variance, forms.scalar(context, epsilon, dtype, "epsilon")])
    found: ir.Value = context.op("Div", [distance, context.op("Sqrt", [shifted])])
    return found


def _layer(node: ir.Node, context: Context) -> list[ir.Value]:
    value, rank = forms.given(node, 0), forms.rank_of(context, node.inputs[0])
    axis = context.attribute(node, "axis", -1) % rank
    result = _normalised(context, value, range(axis, rank), context.attribute(node, "epsilon", EPSILON))
    result = context.op("Mul", [result, node.inputs[1]])
    bias = forms.operand(node, 2)
    return [result if bias is None else context.op("Add", [result, bias])]


def _instance_check(node: ir.Node, context: Context) -> Declined | None:
    rank = context.rank(node.inputs[0])
    if rank is None:
        return forms.NO_RANK
    if forms.floating(context, node.inputs[0]) is None:
        return forms.NO_TYPE
    sizes = [context.static_shape(value) for value in node.inputs[1:]]
    return (
        None
        if all(sizes) and all(map(context.is_weight, node.inputs[1:]))
        else Declined("its parameters are not constant")
    )


def _instance(node: ir.Node, context: Context) -> list[ir.Value]:
    value, rank = forms.given(node, 0), forms.rank_of(context, node.inputs[0])
    axes = range(FIRST_PLACE, rank)
    result = _normalised(context, value, axes, context.attribute(node, "epsilon", EPSILON))
    scale, bias = (_as_channels(forms.given(node, index), rank, context) for index in (1, 2))
    return [context.op("Add", [context.op("Mul", [result, scale]), bias])]


def _as_channels(vector: ir.Value, rank: int, context: Context) -> ir.Value:
    """[C] as [1, C, 1, ...]."""
    dtype, (size,) = context.dtype(vector), forms.sizes_of(context, vector)
    assert dtype is not None
    shape = (1, size, *(1,) * (rank - FIRST_PLACE))
    return context.derived(
        [vector], lambda array: array.reshape(shape), dtype, shape, f"{vector.name}_channels"
    )


RULES: Final = (
    Rule("layer_norm_to_primitives", "legalise", ("LayerNormalization",),
         ("ReduceMean", "Sub", "Mul", "Add", "Sqrt", "Div"), "float noise",
         "LayerNormalization becomes means, differences and a root", _layer, _layer_check, "float32 or float64"),
    Rule("instance_norm_to_primitives", "legalise", ("InstanceNormalization",),
         ("ReduceMean", "Sub", "Mul", "Add", "Sqrt", "Div"), "float noise",
         "InstanceNormalization becomes means over places, differences and a root", _instance, _instance_check,
         "constant parameters"),
)  # fmt: skip
