"""Shape, Reshape, Range, Trilu and CumSum: sizes and masks that are known become constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.lower_activation import UNKNOWN_TYPE
from pipeline.graph.rewrites.lower_axes import input_of
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: A mask or a table that a rule writes into the file may be this large.
LARGEST_TABLE: Final = 16 * 1024 * 1024


def _check_shape(node: ir.Node, context: Context) -> Declined | None:
    start, end = context.attribute(node, "start", 0), context.attribute(node, "end")
    return NOT_NEEDED if start == 0 and end is None else None


def _shape(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    start, end = context.attribute(node, "start", 0), context.attribute(node, "end")
    rank = context.rank(node.inputs[0])
    if rank is not None:  # out of range is clamped here, and by no Slice of a shape in the same way
        start = min(max(start + rank if start < 0 else start, 0), rank)
        end = rank if end is None else min(max(end + rank if end < 0 else end, 0), rank)
    whole = context.op("Shape", [node.inputs[0]])
    last = np.iinfo(np.int64).max if end is None else max(end, start) if rank is not None else end
    return [
        context.op(
            "Slice",
            [whole, *(context.tensor(np.array([one], np.int64), hint) for one, hint in
                      ((start, "start"), (last, "end"), (0, "axis")))],
        )
    ]  # fmt: skip


def _check_reshape(node: ir.Node, context: Context) -> Declined | None:
    if not context.attribute(node, "allowzero", 0):
        return NOT_NEEDED
    shape = context.integers(node.inputs[1])
    if shape is None:
        return Declined("the shape that it makes is computed and may have a size of zero (allowzero)")
    return None if 0 not in shape else Declined("it makes a tensor without elements (allowzero)")


def _reshape(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    return context.again(node, allowzero=None)


def _check_range(node: ir.Node, context: Context) -> Declined | None:
    dtype = context.dtype(node.inputs[0])
    if dtype is None:
        return Declined(UNKNOWN_TYPE)
    if all(context.constant(value) is not None for value in node.inputs):
        return None
    if dtype.is_floating_point():
        return Declined("the number of its elements is computed from floating numbers")
    if dtype != ir.DataType.INT64:
        return Declined("only 64-bit integers can be counted while it runs")
    delta = context.constant(node.inputs[2])
    if delta is None or int(delta) != 1:
        return Declined("its step is not one")
    return None


def _range(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Known: a constant. Computed limits: the positions of the elements of as many ones."""
    known = [context.constant(value) for value in node.inputs]
    if all(value is not None for value in known):
        start, limit, delta = (value.reshape(()) for value in known if value is not None)
        count = max(0, int(np.ceil((limit - start) / delta)))
        values = (start + np.arange(count, dtype=start.dtype) * delta).astype(start.dtype)
        return [context.op("Identity", [context.tensor(values, "range")])]
    start_value, limit_value, _ = node.inputs
    zero_axis = context.tensor(np.array([1], np.int64), "one_size")
    count = context.op("Sub", [limit_value, start_value])
    zero = context.tensor(np.array(0, np.int64), "zero")
    positive = context.op("Where", [context.op("Less", [count, zero]), zero, count])
    size = context.op("Reshape", [positive, zero_axis])
    ones = context.op("ConstantOfShape", [size], value=np.ones(1, np.int64))
    places = context.op(
        "Reshape", [context.op("NonZero", [ones]), context.tensor(np.array([-1], np.int64), "flat")]
    )
    return [context.op("Add", [places, start_value])]


def _triangle(node: ir.Node, context: Context) -> tuple[int, int, int] | None:
    """Rows, columns and diagonal, where they are known."""
    shape = context.shape(node.inputs[0])
    given = input_of(node, 1)
    diagonal = np.zeros((), np.int64) if given is None else context.constant(given)
    if shape is None or len(shape) < 2 or diagonal is None:
        return None
    rows, columns = shape[-2:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    return rows, columns, int(diagonal.reshape(()))


def _check_triangle(node: ir.Node, context: Context) -> Declined | None:
    if context.dtype(node.inputs[0]) is None:
        return Declined(UNKNOWN_TYPE)
    found = _triangle(node, context)
    if found is None:
        return Declined("its sizes or its diagonal are not known")
    if found[0] * found[1] > LARGEST_TABLE:
        return Declined(f"its mask would have {found[0]}x{found[1]} elements")
    return None


def _trilu(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    found, dtype = _triangle(node, context), context.dtype(node.inputs[0])
    assert found is not None
    assert dtype is not None
    rows, columns, diagonal = found
    upper = context.attribute(node, "upper", 1)
    square = np.ones((rows, columns), bool)
    mask = np.triu(square, diagonal) if upper else np.tril(square, diagonal)
    kept = context.tensor(mask, "triangle")
    if dtype == ir.DataType.BOOL:
        return [context.op("And", [node.inputs[0], kept])]
    zero = context.tensor(np.zeros((), dtype.numpy()), "zero")
    return [context.op("Where", [kept, node.inputs[0], zero])]


def _check_running_sum(node: ir.Node, context: Context) -> Declined | None:
    dtype, axis, shape = (
        context.dtype(node.inputs[0]),
        context.integers(node.inputs[1]),
        context.shape(node.inputs[0]),
    )
    if dtype is None:
        return Declined(UNKNOWN_TYPE)
    if axis is None or shape is None or not isinstance(shape[axis[0]], int):
        return Declined("its axis or the size of it is not known")
    return None


def _running_sum(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """A product with a triangle of ones; integers are multiplied and summed in their own type."""
    x, axis = node.inputs[0], (context.integers(node.inputs[1]) or (0,))[0]
    shape, dtype = context.shape(x), context.dtype(x)
    assert shape is not None
    assert dtype is not None
    assert x is not None
    rank = len(shape)
    axis %= rank
    size = shape[axis]
    assert isinstance(size, int)
    exclusive = context.attribute(node, "exclusive", 0)
    ones = np.ones((size, size), dtype.numpy())
    triangle = np.triu(ones, 1 if exclusive else 0)
    if context.attribute(node, "reverse", 0):
        triangle = triangle.T
    order = [index for index in range(rank) if index != axis] + [axis]
    moved = order != list(range(rank))
    turned = context.op("Transpose", [x], perm=order) if moved else x
    made = context.op("MatMul", [turned, context.tensor(np.ascontiguousarray(triangle), "triangle")])
    if moved:
        made = context.op("Transpose", [made], perm=[order.index(index) for index in range(rank)])
    return [made]


def _check_depth(node: ir.Node, context: Context) -> Declined | None:
    if context.attribute(node, "mode", "DCR") != "CRD":
        return NOT_NEEDED
    if context.static_shape(node.inputs[0]) is None:
        return Declined("the sizes of its input are not known")
    return None


def _depth(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    batch, channels, height, width = context.static_shape(node.inputs[0]) or (0, 0, 0, 0)
    block = context.attribute(node, "blocksize")
    kept = channels // block**2
    apart = context.op("Reshape", [node.inputs[0], context.tensor(
        np.array([batch, kept, block, block, height, width], np.int64), "apart")])  # fmt: skip
    woven = context.op("Transpose", [apart], perm=[0, 1, 4, 2, 5, 3])
    together = np.array([batch, kept, height * block, width * block], np.int64)
    return [context.op("Reshape", [woven, context.tensor(together, "together")])]


RULES: Final = (
    Rule("shape_part", "lower", ("Shape",), ("Shape", "Slice"), "exact",
         "a part of a shape is sliced from it", _shape, _check_shape, "", 15),
    Rule("reshape_zero", "lower", ("Reshape",), ("Reshape",), "exact",
         "a Reshape that copies no size needs no allowzero", _reshape, _check_reshape,
         "a constant shape without zeros", 14),
    Rule("triangle", "lower", ("Trilu",), ("And", "Where"), "exact", "Trilu becomes a constant mask",
         _trilu, _check_triangle, "the sizes and the diagonal", 14),
    Rule("running_sum", "lower", ("CumSum",), ("MatMul", "Transpose"), "float noise",
         "CumSum becomes a product with a triangle of ones", _running_sum, _check_running_sum,
         "the axis and its size", 11),
    Rule("range", "lower", ("Range",), ("Add", "ConstantOfShape", "Identity", "Less", "NonZero", "Reshape",
                                        "Sub", "Where"),
         "exact", "Range becomes a constant, or the positions of as many ones", _range, _check_range,
         "constant limits, or int64 and a step of one", 11),
    Rule("depth_to_space", "lower", ("DepthToSpace",), ("Reshape", "Transpose"), "exact",
         "DepthToSpace of columns first becomes a Reshape", _depth, _check_depth, "the sizes", 11),
)  # fmt: skip
