"""Axes and sizes that newer opsets take as inputs become attributes; negative axes become positive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context

NOT_CONSTANT: Final = "its axes are computed while it runs"
#: Over no axes at all these give their input back; the others would still square it, or take its magnitude.
_PLAIN_REDUCTIONS: Final = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
_REDUCTIONS: Final = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSumSquare",
)  # fmt: skip


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """An input, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def data_of(node: ir.Node) -> ir.Value:
    """The first input, which is never left out."""
    value = node.inputs[0]
    assert value is not None
    return value


def _check_reduction(node: ir.Node, context: Context) -> Declined | None:
    axes = input_of(node, 1)
    if axes is not None and context.integers(axes) is None:
        return Declined(NOT_CONSTANT)
    if not (axes is not None and context.integers(axes)) and context.attribute(
        node, "noop_with_empty_axes", 0
    ):
        if node.op_type not in _PLAIN_REDUCTIONS:
            return Declined("without axes it still works on every element (noop_with_empty_axes)")
        return None
    return NOT_NEEDED if len(node.inputs) < 2 else None


def _reduction(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    axes = context.integers(input_of(node, 1)) or None
    if axes is None and context.attribute(node, "noop_with_empty_axes", 0):
        return [context.op("Identity", [node.inputs[0]])]
    return context.again(node, [node.inputs[0]], axes=axes, noop_with_empty_axes=None)


def _check_squeeze(node: ir.Node, context: Context) -> Declined | None:
    axes = input_of(node, 1)
    if axes is None:
        return NOT_NEEDED
    return Declined(NOT_CONSTANT) if context.integers(axes) is None else None


def _squeeze(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    axes = context.integers(input_of(node, 1)) or None
    if axes is None:  # over no axes at all
        return [context.op("Identity", [node.inputs[0]])]
    return context.again(node, [node.inputs[0]], axes=axes)


def _check_split(node: ir.Node, context: Context) -> Declined | None:
    sizes = input_of(node, 1)
    if sizes is None:
        return NOT_NEEDED
    return Declined("its sizes are computed while it runs") if context.integers(sizes) is None else None


def _split(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    return context.again(node, [node.inputs[0]], split=context.integers(input_of(node, 1)))


def _check_parts(node: ir.Node, context: Context) -> Declined | None:
    if "num_outputs" not in node.attributes:
        return NOT_NEEDED
    size = _split_size(node, context)
    if size is None:
        return Declined("the size of the axis that it splits is not known")
    return None


def _split_size(node: ir.Node, context: Context) -> int | None:
    shape = context.shape(node.inputs[0])
    size = None if shape is None else shape[context.attribute(node, "axis", 0)]
    return size if isinstance(size, int) else None


def _parts(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    size, count = _split_size(node, context), context.attribute(node, "num_outputs")
    assert size is not None
    part = -(-size // count)
    sizes = [max(0, min(part, size - index * part)) for index in range(count)]
    return context.again(
        node, [node.inputs[0], context.tensor(np.array(sizes, np.int64), "split")], num_outputs=None
    )


#: Operators whose axis may be negative only since opset 11: operator to the name of the attribute.
_AXIS: Final = {
    "ArgMax": "axis", "ArgMin": "axis", "Compress": "axis", "Concat": "axis", "Flatten": "axis",
    "Gather": "axis", "Hardmax": "axis", "LogSoftmax": "axis", "OneHot": "axis", "ReduceL1": "axes",
    "ReduceL2": "axes", "ReduceLogSum": "axes", "ReduceLogSumExp": "axes", "ReduceMax": "axes",
    "ReduceMean": "axes", "ReduceMin": "axes", "ReduceProd": "axes", "ReduceSum": "axes",
    "ReduceSumSquare": "axes", "Softmax": "axis", "Split": "axis", "Squeeze": "axes", "Unsqueeze": "axes",
}  # fmt: skip


def _given_axes(node: ir.Node, context: Context) -> tuple[int, ...]:
    found = context.attribute(node, _AXIS[node.op_type])
    if found is None:
        return (-1,) if node.op_type == "OneHot" else ()
    return (found,) if isinstance(found, int) else tuple(found)


def _axes_rank(node: ir.Node, context: Context) -> int | None:
    """The rank that the axes count in."""
    if node.op_type == "OneHot":
        rank = context.rank(node.inputs[0])
        return None if rank is None else rank + 1
    rank = context.rank(node.inputs[0])
    if node.op_type == "Unsqueeze" and rank is not None:
        return rank + len(_given_axes(node, context))
    return rank


def _check_negative(node: ir.Node, context: Context) -> Declined | None:
    if all(axis >= 0 for axis in _given_axes(node, context)):
        return NOT_NEEDED
    if node.op_type == "OneHot" and context.attribute(node, "axis", -1) == -1:
        return NOT_NEEDED  # -1 stands in the older schema by name
    if _axes_rank(node, context) is None:
        return Declined("its axis is negative and the rank of its input is not known")
    # A rule for the indices comes before this one, and takes the axis along.
    indices = _check_negative_indices(node, context) if node.op_type == "Gather" else NOT_NEEDED
    return None if indices is NOT_NEEDED else indices or Declined("its indices count from the end")


def _negative(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    rank = _axes_rank(node, context)
    assert rank is not None
    axes = [axis % rank for axis in _given_axes(node, context)]
    name = _AXIS[node.op_type]
    if name == "axes":
        return context.again(node, axes=axes)
    return context.again(node, axis=axes[0])


def _check_negative_indices(node: ir.Node, context: Context) -> Declined | None:
    indices = context.constant(node.inputs[1])
    if indices is None:
        return NOT_NEEDED  # computed indices are counted from the front by every exporter
    if np.all(indices >= 0):
        return NOT_NEEDED
    shape = context.shape(node.inputs[0])
    size = None if shape is None else shape[context.attribute(node, "axis", 0)]
    return None if isinstance(size, int) else Declined("it counts from the end of an axis of unknown size")


def _negative_indices(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    indices, shape = context.constant(node.inputs[1]), context.shape(node.inputs[0])
    assert indices is not None
    assert shape is not None
    axis = context.attribute(node, "axis", 0) % len(shape)
    counted = np.where(indices < 0, indices + shape[axis], indices).astype(indices.dtype)
    return context.again(node, [node.inputs[0], context.tensor(counted, "indices")], axis=axis)


RULES: Final = (
    Rule("split_parts", "lower", ("Split",), ("Split",), "exact",
         "a Split into a number of outputs gets their sizes", _parts, _check_parts,
         "the size of the split axis", 18),
    Rule("reduction_axes", "lower", _REDUCTIONS, (*_REDUCTIONS, "Identity"), "exact",
         "the axes of a reduction become an attribute; over no axes it becomes an Identity", _reduction,
         _check_reduction, "constant axes", 18),
    Rule("reduce_sum_axes", "lower", ("ReduceSum",), ("ReduceSum", "Identity"), "exact",
         "the axes of a sum become an attribute", _reduction, _check_reduction, "constant axes", 13),
    Rule("squeeze_axes", "lower", ("Squeeze", "Unsqueeze"), ("Squeeze", "Unsqueeze", "Identity"), "exact",
         "the axes of Squeeze and Unsqueeze become an attribute", _squeeze, _check_squeeze,
         "constant axes", 13),
    Rule("split_sizes", "lower", ("Split",), ("Split",), "exact",
         "the sizes of a Split become an attribute", _split, _check_split, "constant sizes", 13),
    Rule("negative_indices", "lower", ("Gather",), ("Gather",), "exact",
         "constant indices that count from the end count from the front", _negative_indices,
         _check_negative_indices, "the size of the axis", 11),
    Rule("negative_axes", "lower", tuple(_AXIS), tuple(_AXIS), "exact",
         "an axis that is counted from the end is counted from the front", _negative, _check_negative,
         "the rank of the input", 11),
)  # fmt: skip
