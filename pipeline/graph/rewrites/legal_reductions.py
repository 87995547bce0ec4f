"""Reductions: global means as GlobalAveragePool, norms as sums, one axis at a time, means as MatMul."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: Reduction to the pooling operator over all places of an image.
GLOBAL_POOLS: Final = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}
#: The first axes are the batch and the channels.
FIRST_PLACE: Final = 2
#: Of an image; [N, L, C] of a transformer has its channels elsewhere and no places.
IMAGE_RANK: Final = 4
NOT_CONSTANT: Final = Declined("its axes are not constant")


def _pool_check(node: ir.Node, context: Context) -> Declined | None:
    rank, axes = context.rank(node.inputs[0]), forms.axes_of(node, context)
    if rank is None:
        return forms.NO_RANK
    if axes is None:
        return NOT_CONSTANT
    if rank < IMAGE_RANK or axes != tuple(range(FIRST_PLACE, rank)):
        return NOT_NEEDED
    return forms.no_image(context, node.inputs[0])


def _keeps(node: ir.Node, context: Context) -> bool:
    return bool(context.attribute(node, "keepdims", 1))


def _pool(node: ir.Node, context: Context) -> list[ir.Value]:
    pooled = context.op(GLOBAL_POOLS[node.op_type], [node.inputs[0]])
    return [_as_kept(node, context, pooled)]


def _as_kept(node: ir.Node, context: Context, value: ir.Value) -> ir.Value:
    """A result that kept its axes, in the sizes of the node's."""
    axes = forms.axes_of(node, context)
    assert axes is not None
    if _keeps(node, context):
        return value
    sizes = context.static_shape(node.outputs[0])
    return forms.squeeze(context, value, axes) if sizes is None else forms.reshape(context, value, sizes)


def _keepdims_check(node: ir.Node, context: Context) -> Declined | None:
    if _keeps(node, context):
        return NOT_NEEDED
    return NOT_CONSTANT if forms.axes_of(node, context) is None else None


def _keepdims(node: ir.Node, context: Context) -> list[ir.Value]:
    axes = forms.axes_of(node, context)
    assert axes is not None
    if not axes:
        return [context.op("Identity", [node.inputs[0]])]
    return [_as_kept(node, context, forms.reduce(context, node.op_type, forms.given(node, 0), axes))]


def _single_check(node: ir.Node, context: Context) -> Declined | None:
    axes = forms.axes_of(node, context)
    if axes is None:
        return NOT_CONSTANT
    return NOT_NEEDED if len(axes) < 2 else None


def _single(node: ir.Node, context: Context) -> list[ir.Value]:
    axes, value = forms.axes_of(node, context), forms.given(node, 0)
    assert axes is not None
    for axis in reversed(axes):
        value = forms.reduce(context, node.op_type, value, [axis])
    return [_as_kept(node, context, value)]


def _norm_check(node: ir.Node, context: Context) -> Declined | None:
    if forms.axes_of(node, context) is None:
        return NOT_CONSTANT
    return None if forms.floating(context, node.inputs[0]) else forms.NO_TYPE


def _norm(node: ir.Node, context: Context) -> list[ir.Value]:
    axes, value = forms.axes_of(node, context), forms.given(node, 0)
    assert axes is not None
    if node.op_type == "ReduceL1":
        part = context.op("Abs", [value])
    else:
        part = context.op("Mul", [value, value])
    if axes:
        part = forms.reduce(context, "ReduceSum", part, axes, keepdims=_keeps(node, context))
    if node.op_type == "ReduceL2":
        part = context.op("Sqrt", [part])
    return [part]


def _lp_check(node: ir.Node, context: Context) -> Declined | None:
    if context.rank(node.inputs[0]) is None:
        return forms.NO_RANK
    if context.attribute(node, "p", 2) not in (1, 2):
        return Declined("it is no norm of 1 or 2")
    return forms.no_clip(context, node.inputs[0])


def _lp(node: ir.Node, context: Context) -> list[ir.Value]:
    value, axis = forms.given(node, 0), context.attribute(node, "axis", -1)
    axis %= forms.rank_of(context, value)
    if context.attribute(node, "p", 2) == 1:
        norm = forms.reduce(context, "ReduceSum", context.op("Abs", [value]), [axis])
    else:
        square = context.op("Mul", [value, value])
        norm = context.op("Sqrt", [forms.reduce(context, "ReduceSum", square, [axis])])
    # A vector of zeros stays one: 0 / 0 would be no number.
    dtype = forms.floats(context, value)
    return [context.op("Div", [value, forms.clip(context, norm, float(np.finfo(dtype).tiny), None, dtype)])]


def _matmul_check(node: ir.Node, context: Context) -> Declined | None:
    axes, rank = forms.axes_of(node, context), context.rank(node.inputs[0])
    if rank is None:
        return forms.NO_RANK
    if axes is None:
        return NOT_CONSTANT
    if rank < 2 or axes != (rank - 1,):
        return NOT_NEEDED
    shape = context.shape(node.inputs[0])
    if shape is None or not isinstance(shape[-1], int) or shape[-1] < 1:
        return forms.NO_SIZES
    if not _keeps(node, context) and context.static_shape(node.outputs[0]) is None:
        return forms.NO_SIZES
    return None if forms.floating(context, node.inputs[0]) else forms.NO_TYPE


def _matmul(node: ir.Node, context: Context) -> list[ir.Value]:
    shape, dtype = context.shape(node.inputs[0]), forms.floats(context, node.inputs[0])
    assert shape is not None
    length = shape[-1]
    assert isinstance(length, int)
    factor = 1 / length if node.op_type == "ReduceMean" else 1.0
    column = context.tensor(np.full((length, 1), factor, dtype), "mean_of_the_last_axis")
    return [_as_kept(node, context, context.op("MatMul", [node.inputs[0], column]))]


def _last_check(node: ir.Node, context: Context) -> Declined | None:
    declined = _matmul_check(node, context) or forms.no_image(context, node.inputs[0])
    if declined is not None:
        return declined
    return None if context.static_shape(node.inputs[0]) is not None else forms.NO_SIZES


def _last(node: ir.Node, context: Context) -> list[ir.Value]:
    """[..., M, K] as [1, ..., M, K] of rank 3: the mean over K is a pooling over the places of M channels."""
    value, sizes = forms.given(node, 0), forms.sizes_of(context, node.inputs[0])
    if len(sizes) != IMAGE_RANK - 1:
        value = forms.reshape(context, value, (1, prod(sizes[:-1]), sizes[-1]))
    pooled = context.op("GlobalAveragePool", [value])
    if len(sizes) == IMAGE_RANK - 1 and _keeps(node, context):
        return [pooled]
    return [forms.reshape(context, pooled, forms.sizes_of(context, node.outputs[0]))]


_CHAINED: Final = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")

RULES: Final = (
    Rule("reduce_to_global_pool", "legalise", ("ReduceMean", "ReduceMax"),
         ("GlobalAveragePool", "GlobalMaxPool", "Reshape", "Squeeze"), "float noise",
         "ReduceMean and ReduceMax over all places of an image become a global pooling", _pool, _pool_check,
         "constant axes"),
    Rule("reduce_l2_to_sqrt", "legalise", ("ReduceL2", "ReduceSumSquare", "ReduceL1"),
         ("Mul", "Abs", "ReduceSum", "Sqrt"), "float noise",
         "ReduceL2, ReduceSumSquare and ReduceL1 become Mul or Abs, ReduceSum and Sqrt", _norm, _norm_check,
         "constant axes"),
    Rule("lp_normalization_to_div", "legalise", ("LpNormalization",), ("Mul", "Abs", "ReduceSum", "Sqrt", "Clip", "Div"),
         "float noise", "LpNormalization becomes a Div by the norm", _lp, _lp_check, "p of 1 or 2"),
    Rule("reduce_keepdims", "legalise", _CHAINED, (*_CHAINED, "Reshape", "Squeeze", "Identity"), "exact",
         "a reduction that drops its axes keeps them, and a Reshape drops them", _keepdims, _keepdims_check,
         "constant axes"),
    Rule("reduce_one_axis_at_a_time", "legalise", _CHAINED, (*_CHAINED, "Reshape", "Squeeze"), "float noise",
         "a reduction over several axes becomes a chain", _single, _single_check, "constant axes"),
    Rule("reduce_last_axis_to_global_pool", "legalise", ("ReduceMean",), ("Reshape", "GlobalAveragePool"),
         "float noise", "ReduceMean along the last axis becomes a global pooling of rank 3", _last, _last_check,
         "static sizes"),
    Rule("reduce_last_axis_to_matmul", "legalise", ("ReduceMean", "ReduceSum"), ("MatMul", "Reshape"), "float noise",
         "ReduceMean and ReduceSum along the last axis become MatMul with a constant column", _matmul,
         _matmul_check, "a last axis of known size"),
)  # fmt: skip
