"""Normalization layers, from means and products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.lower_activation import UNKNOWN_TYPE, scalar
from pipeline.graph.rewrites.lower_axes import data_of, input_of
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: Since this opset a reduction takes its axes as an input.
_AXES_ARE_INPUTS: Final = 18


def reduce(context: Context, op_type: str, x: ir.Value, axes: Sequence[int], keepdims: int = 1) -> ir.Value:
    """A reduction in the form of the context's opset."""
    first = 13 if op_type == "ReduceSum" else _AXES_ARE_INPUTS
    if context.opset >= first:
        made: ir.Value = context.op(
            op_type, [x, context.tensor(np.array(axes, np.int64), "axes")], keepdims=keepdims
        )
        return made
    made = context.op(op_type, [x], axes=list(axes), keepdims=keepdims)
    return made


def _inner_type(node: ir.Node, context: Context) -> ir.DataType | None:
    """The type that the statistics are computed in, where it is not that of the input."""
    dtype = context.dtype(node.inputs[0])
    stash = ir.DataType(context.attribute(node, "stash_type", int(ir.DataType.FLOAT)))
    return stash if dtype != stash and dtype != ir.DataType.DOUBLE else None


def _check_trailing(node: ir.Node, context: Context) -> Declined | None:
    if context.dtype(node.inputs[0]) is None:
        return Declined(UNKNOWN_TYPE)
    if context.rank(node.inputs[0]) is None and context.attribute(node, "axis", -1) >= 0:
        return Declined("the rank of its input is not known")
    if any(value.name and (value.uses() or value.is_graph_output()) for value in node.outputs[1:]):
        return Declined("its statistics are taken too")
    return None


def _trailing_axes(node: ir.Node, context: Context) -> list[int]:
    axis, rank = context.attribute(node, "axis", -1), context.rank(node.inputs[0])
    if rank is None:
        return list(range(axis, 0))
    return list(range(axis % rank, rank))


def _layer(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    axes, inner = _trailing_axes(node, context), _inner_type(node, context)
    x = data_of(node) if inner is None else context.op("Cast", [data_of(node)], to=int(inner))
    centred = context.op("Sub", [x, reduce(context, "ReduceMean", x, axes)])
    variance = reduce(context, "ReduceMean", context.op("Mul", [centred, centred]), axes)
    return [_scaled(node, context, centred, variance, inner)]


def _root_mean_square(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    axes, inner = _trailing_axes(node, context), _inner_type(node, context)
    x = data_of(node) if inner is None else context.op("Cast", [data_of(node)], to=int(inner))
    mean = reduce(context, "ReduceMean", context.op("Mul", [x, x]), axes)
    return [_scaled(node, context, x, mean, inner)]


def _scaled(
    node: ir.Node, context: Context, x: ir.Value, mean: ir.Value, inner: ir.DataType | None
) -> ir.Value:
    """X / sqrt(mean + epsilon) * scale + bias."""
    epsilon = scalar(context, x, context.attribute(node, "epsilon", 1e-5), "epsilon")
    root = context.op("Sqrt", [context.op("Add", [mean, epsilon])])
    normal = context.op("Div", [x, root])
    if inner is not None:
        normal = context.op("Cast", [normal], to=int(node.inputs[0].dtype))  # type: ignore[union-attr,arg-type]
    made: ir.Value = context.op("Mul", [normal, node.inputs[1]])
    if (bias := input_of(node, 2)) is not None:
        made = context.op("Add", [made, bias])
    return made


def _check_group(node: ir.Node, context: Context) -> Declined | None:
    if context.dtype(node.inputs[0]) is None:
        return Declined(UNKNOWN_TYPE)
    shape = context.shape(node.inputs[0])
    if shape is None or not isinstance(shape[1], int):
        return Declined("the number of channels of its input is not known")
    return None


def _group(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Groups become channels of an InstanceNormalization; the scale is one a channel, or one a group."""
    x, groups = node.inputs[0], context.attribute(node, "num_groups")
    shape, dtype = context.shape(x), context.dtype(x)
    assert x is not None
    assert shape is not None
    assert dtype is not None
    inner = _inner_type(node, context) if context.opset + 1 >= 21 else None
    wide = x if inner is None else context.op("Cast", [x], to=int(inner))
    by_group = context.op("Reshape", [wide, context.tensor(np.array([0, groups, -1], np.int64), "groups")])
    wide_type = (inner or dtype).numpy()
    per_group = context.opset + 1 < 21
    scale, bias = node.inputs[1], node.inputs[2]
    ones = context.tensor(np.ones(groups, wide_type), "ones")
    zeros = context.tensor(np.zeros(groups, wide_type), "zeros")
    normal = context.op(
        "InstanceNormalization",
        [by_group, *((scale, bias) if per_group else (ones, zeros))],
        epsilon=context.attribute(node, "epsilon", 1e-5),
    )
    made = context.op("Reshape", [normal, _own_sizes(context, x)])
    if inner is not None:
        made = context.op("Cast", [made], to=int(dtype))
    if per_group:
        return [made]
    column = context.tensor(np.array([-1] + [1] * (len(shape) - 2), np.int64), "column")
    made = context.op("Mul", [made, context.op("Reshape", [scale, column])])
    return [context.op("Add", [made, context.op("Reshape", [bias, column])])]


def _own_sizes(context: Context, x: ir.Value) -> ir.Value:
    """The sizes of a value: a constant where all but one are known."""
    shape = context.shape(x)
    assert shape is not None
    unknown = [index for index, size in enumerate(shape) if not isinstance(size, int)]
    if len(unknown) > 1:
        made: ir.Value = context.op("Shape", [x])
        return made
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return context.tensor(np.array(sizes, np.int64), "sizes")


def _check_batch(node: ir.Node, context: Context) -> Declined | None:
    if not context.attribute(node, "training_mode", 0):
        if any(value.name and (value.uses() or value.is_graph_output()) for value in node.outputs[1:]):
            return Declined("its statistics are taken too")
        return NOT_NEEDED if len([v for v in node.outputs if v.name]) < 2 else None
    return Declined("it is in training mode")


def _batch(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    return context.again(node, outputs=1, training_mode=None)


RULES: Final = (
    Rule("rms_normalization", "lower", ("RMSNormalization",),
         ("Add", "Cast", "Div", "Mul", "ReduceMean", "Sqrt"), "float noise",
         "RMSNormalization becomes a mean of squares", _root_mean_square, _check_trailing,
         "the element type; the rank where the axis counts from the front", 23),
    Rule("group_normalization", "lower", ("GroupNormalization",),
         ("Add", "Cast", "InstanceNormalization", "Mul", "Reshape", "Shape"), "float noise",
         "GroupNormalization becomes an InstanceNormalization of groups and a scale a channel", _group,
         _check_group, "the element type and the number of channels", 21),
    Rule("group_normalization_18", "lower", ("GroupNormalization",),
         ("InstanceNormalization", "Reshape", "Shape"), "float noise",
         "GroupNormalization with a scale a group becomes an InstanceNormalization", _group,
         _check_group, "the element type and the number of channels", 18),
    Rule("layer_normalization", "lower", ("LayerNormalization",),
         ("Add", "Cast", "Div", "Mul", "ReduceMean", "Sqrt", "Sub"), "float noise",
         "LayerNormalization becomes means and products", _layer, _check_trailing,
         "the element type; the rank where the axis counts from the front", 17),
    Rule("batch_normalization", "lower", ("BatchNormalization",), ("BatchNormalization",), "exact",
         "BatchNormalization at inference gives one output", _batch, _check_batch, "inference mode", 14),
)  # fmt: skip
