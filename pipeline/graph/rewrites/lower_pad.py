"""Pad and Clip: limits and amounts that newer opsets take as inputs, and the types they came to take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.lower_axes import data_of, input_of
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: Pad took these alone until opset 10.
_OLD_PAD_TYPES: Final = (ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _check_pad_axes(node: ir.Node, context: Context) -> Declined | None:
    if input_of(node, 3) is None:
        return NOT_NEEDED
    if context.integers(input_of(node, 3)) is None or context.integers(input_of(node, 1)) is None:
        return Declined("its axes or amounts are computed while it runs")
    return Declined("the rank of its input is not known") if context.rank(node.inputs[0]) is None else None


def _pad_axes(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    inputs = [input_of(node, index) for index in range(4)]
    return context.again(node, [inputs[0], whole_amounts(inputs, context), inputs[2]])


def whole_amounts(inputs: Sequence[ir.Value | None], context: Context) -> ir.Value:
    """The amounts of a Pad for every axis; its inputs are data, amounts, value and axes, and it has the axes."""
    rank, amounts = context.rank(inputs[0]), context.integers(inputs[1])
    axes = context.integers(inputs[3])
    assert rank is not None
    assert amounts is not None
    assert axes is not None
    full = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        full[axis % rank], full[axis % rank + rank] = amounts[index], amounts[index + len(axes)]
    return context.tensor(np.array(full, np.int64), "pads")


def _check_wrap(node: ir.Node, context: Context) -> Declined | None:
    if context.attribute(node, "mode", "constant") != "wrap":
        return NOT_NEEDED
    amounts, shape = context.integers(input_of(node, 1)), context.static_shape(node.inputs[0])
    if amounts is None or shape is None or input_of(node, 3) is not None:
        return Declined("it pads around (mode wrap) by amounts or over sizes that are not known")
    return None


def _wrap(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """The positions that a padded axis takes its elements from are known: a Gather along each."""
    amounts, shape = context.integers(input_of(node, 1)), context.static_shape(node.inputs[0])
    assert amounts is not None
    assert shape is not None
    made = data_of(node)
    for axis, size in enumerate(shape):
        before, after = amounts[axis], amounts[axis + len(shape)]
        if before or after:
            positions = np.arange(-before, size + after, dtype=np.int64) % size
            made = context.op("Gather", [made, context.tensor(positions, "positions")], axis=axis)
    return [made] if made is not node.inputs[0] else [context.op("Identity", [made])]


def _check_pad_bool(node: ir.Node, context: Context) -> Declined | None:
    return NOT_NEEDED if context.dtype(node.inputs[0]) != ir.DataType.BOOL else None


def _pad_bool(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Truth values travel as int32."""
    wide = context.op("Cast", [node.inputs[0]], to=int(ir.DataType.INT32))
    fill = input_of(node, 2)
    if fill is not None:
        fill = context.op("Cast", [fill], to=int(ir.DataType.INT32))
    (made,) = context.again(node, [wide, input_of(node, 1), fill])
    return [context.op("Cast", [made], to=int(ir.DataType.BOOL))]


def _check_pad(node: ir.Node, context: Context) -> Declined | None:
    if context.integers(input_of(node, 1)) is None:
        return Declined("its amounts are computed while it runs")
    if input_of(node, 2) is not None and context.constant(input_of(node, 2)) is None:
        return Declined("the value that it pads with is computed while it runs")
    dtype = context.dtype(node.inputs[0])
    if dtype in _OLD_PAD_TYPES:
        return None
    if dtype is None:
        return Declined("the element type of its input is not known")
    if context.attribute(node, "mode", "constant") != "constant":
        return Declined(f"no older Pad takes {dtype.name.lower()}")
    if context.static_shape(node.inputs[0]) is None or min(context.integers(input_of(node, 1)) or (0,)) < 0:
        return Declined(f"no older Pad takes {dtype.name.lower()}, and its sizes are not known")
    return None


def _pad(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    amounts, fill = context.integers(input_of(node, 1)), context.constant(input_of(node, 2))
    assert amounts is not None
    value = fill.reshape(()) if fill is not None else np.zeros((), context.dtype(node.inputs[0]).numpy())  # type: ignore[union-attr]
    if context.dtype(node.inputs[0]) in _OLD_PAD_TYPES:
        return context.again(node, [node.inputs[0]], pads=list(amounts), value=float(value))
    return [_padded_by_pieces(node.inputs[0], amounts, value, context)]


def _padded_by_pieces(
    x: ir.Value | None, amounts: Sequence[int], fill: np.ndarray, context: Context
) -> ir.Value:
    """Constants before and behind, one axis after the other."""
    sizes = list(context.static_shape(x) or ())
    assert x is not None
    made = x
    for axis in range(len(sizes)):
        pieces: list[ir.Value] = []
        for amount, first in ((amounts[axis], True), (amounts[axis + len(sizes)], False)):
            if amount:
                block = np.full([*sizes[:axis], amount, *sizes[axis + 1 :]], fill, fill.dtype)
                pieces.insert(0 if first else len(pieces), context.tensor(block, "padding"))
            if first:
                pieces.append(made)
        if len(pieces) > 1:
            made = context.op("Concat", pieces, axis=axis)
        sizes[axis] += amounts[axis] + amounts[axis + len(sizes)]
    return made if made is not x else context.op("Identity", [x])


def _check_clip_integer(node: ir.Node, context: Context) -> Declined | None:
    dtype = context.dtype(node.inputs[0])
    if dtype is None:
        return Declined("the element type of its input is not known")
    return NOT_NEEDED if dtype.is_floating_point() else None


def _clip_integer(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Integers are compared and chosen."""
    made = data_of(node)
    for index, comparison in ((1, "Less"), (2, "Greater")):
        limit = input_of(node, index)
        if limit is not None:
            made = context.op("Where", [context.op(comparison, [made, limit]), limit, made])
    return [made] if made is not node.inputs[0] else [context.op("Identity", [made])]


def _clip(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Constant limits become attributes, computed ones a Max and a Min."""
    low, high = input_of(node, 1), input_of(node, 2)
    known = [context.constant(limit) for limit in (low, high)]
    made = node.inputs[0]
    if all(value is not None for value, limit in zip(known, (low, high), strict=True) if limit is not None):
        limits = [None if value is None else float(value.reshape(())) for value in known]
        return [context.op("Clip", [made], min=limits[0], max=limits[1])]
    if low is not None:
        made = context.op("Max", [made, low])
    if high is not None:
        made = context.op("Min", [made, high])
    assert made is not None
    return [made]


RULES: Final = (
    Rule("pad_wrap", "lower", ("Pad",), ("Gather", "Identity"), "exact",
         "padding around (mode wrap) becomes a Gather along each axis", _wrap, _check_wrap,
         "constant amounts and sizes", 19),
    Rule("pad_axes", "lower", ("Pad",), ("Pad",), "exact", "the amounts of a Pad name every axis",
         _pad_axes, _check_pad_axes, "constant axes and amounts, the rank", 18),
    Rule("pad_truth", "lower", ("Pad",), ("Cast", "Pad"), "exact", "truth values are padded as int32",
         _pad_bool, _check_pad_bool, "", 13),
    Rule("clip_integers", "lower", ("Clip",), ("Greater", "Identity", "Less", "Where"), "exact",
         "integers are clipped by comparing and choosing", _clip_integer, _check_clip_integer,
         "the element type", 12),
    Rule("clip_limits", "lower", ("Clip",), ("Clip", "Max", "Min"), "exact",
         "the limits of a Clip become attributes", _clip, needs="", from_opset=11),
    Rule("pad_amounts", "lower", ("Pad",), ("Concat", "Identity", "Pad"), "exact",
         "the amounts of a Pad become attributes; integers are padded by a Concat", _pad, _check_pad,
         "constant amounts; for integers constant sizes", 11),
)  # fmt: skip
