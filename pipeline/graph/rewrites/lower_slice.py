"""Slice, TopK, Split by sequences and Dropout: what they take as inputs becomes attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.lower_axes import input_of
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: Since this opset a Slice takes its ranges as inputs.
SLICE_TAKES_INPUTS: Final = 10


def _ranges(node: ir.Node, context: Context) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """Starts, ends, axes and steps of a Slice whose inputs are constant."""
    starts, ends = (context.integers(input_of(node, index)) for index in (1, 2))
    if starts is None or ends is None:
        return None
    axes, steps = input_of(node, 3), input_of(node, 4)
    known_axes = tuple(range(len(starts))) if axes is None else context.integers(axes)
    known_steps = (1,) * len(starts) if steps is None else context.integers(steps)
    if known_axes is None or known_steps is None:
        return None
    rank = context.rank(node.inputs[0])
    placed = [axis % rank if rank else axis for axis in known_axes]
    return list(starts), list(ends), placed, list(known_steps)


def _check_slice(node: ir.Node, context: Context) -> Declined | None:
    found = _ranges(node, context)
    if found is None:
        return Declined("where it begins or ends is computed while it runs")
    _, _, axes, steps = found
    if any(axis < 0 for axis in axes):
        return Declined("its axis is negative and the rank of its input is not known")
    shape = context.shape(node.inputs[0])
    stepped = [axis for axis, step in zip(axes, steps, strict=True) if step != 1]
    if stepped and (shape is None or not all(isinstance(shape[axis], int) for axis in stepped)):
        return Declined("it takes steps along an axis of unknown size")
    return None


def _slice(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Steps become a Gather of the indices; what is left is a plain Slice."""
    found, shape = _ranges(node, context), context.shape(node.inputs[0])
    assert found is not None
    made = node.inputs[0]
    plain: list[tuple[int, int, int]] = []
    for start, end, axis, step in zip(*found, strict=True):
        if step == 1:
            plain.append((start, end, axis))
            continue
        size = shape[axis] if shape is not None else None
        assert isinstance(size, int)
        indices = np.array(_positions(size, start, end, step), np.int64)
        made = context.op("Gather", [made, context.tensor(indices, "positions")], axis=axis)
    if plain:
        starts, ends, axes = (list(row) for row in zip(*plain, strict=True))
        assert made is not None
        made = sliced(context, made, starts, ends, axes)
    assert made is not None
    return [made]


def sliced(
    context: Context, x: ir.Value, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]
) -> ir.Value:
    """A Slice without steps, in the form of the context's opset."""
    made: ir.Value
    if context.opset < SLICE_TAKES_INPUTS:
        made = context.op("Slice", [x], starts=list(starts), ends=list(ends), axes=list(axes))
        return made
    rows = (("starts", starts), ("ends", ends), ("axes", axes))
    made = context.op("Slice", [x, *(context.tensor(np.array(row, np.int64), hint) for hint, row in rows)])
    return made


def _positions(size: int, start: int, end: int, step: int) -> list[int]:
    """What ONNX's Slice takes along an axis: out of range is clamped, differently for either direction."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first = min(max(start + size if start < 0 else start, low, 0), high)
    last = min(max(end + size if end < 0 else end, low), size)
    return list(range(first, last, step))


def _check_slice_type(node: ir.Node, context: Context) -> Declined | None:
    found = _ranges(node, context)
    if found is None or all(step > 0 for step in found[3]):
        return NOT_NEEDED
    return _check_slice(node, context)


def _check_top(node: ir.Node, context: Context) -> Declined | None:
    axis = context.attribute(node, "axis", -1)
    if axis < -1 and context.rank(node.inputs[0]) is None:
        return Declined("its axis is negative and the rank of its input is not known")
    if context.attribute(node, "largest", 1) and _is_floating(node, context) and axis >= -1:
        return NOT_NEEDED
    dtype = context.dtype(node.inputs[0])
    if dtype is None:
        return Declined("the element type of its input is not known")
    if not dtype.is_floating_point() and dtype in (ir.DataType.INT64, ir.DataType.UINT64, ir.DataType.UINT32):
        return Declined(f"no older TopK takes {dtype.name.lower()}, and float64 does not hold all of them")
    return None


def _is_floating(node: ir.Node, context: Context) -> bool:
    dtype = context.dtype(node.inputs[0])
    return dtype is not None and dtype.is_floating_point()


def _top(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """The smallest are the largest of the negated; integers travel as float64, which holds int32."""
    x, dtype = node.inputs[0], context.dtype(node.inputs[0])
    assert dtype is not None
    smallest, narrow = not context.attribute(node, "largest", 1), not dtype.is_floating_point()
    if narrow:
        x = context.op("Cast", [x], to=int(ir.DataType.DOUBLE))
    if smallest:
        x = context.op("Neg", [x])
    axis, rank = context.attribute(node, "axis", -1), context.rank(node.inputs[0])
    if axis < -1 and rank is not None:  # -1 is the default, and the only one that counts from the end
        axis %= rank
    values, indices = context.again(node, [x, node.inputs[1]], axis=axis, largest=None, sorted=None)
    if smallest:
        values = context.op("Neg", [values])
    if narrow:
        values = context.op("Cast", [values], to=int(dtype))
    return [values, indices]


def _check_top_count(node: ir.Node, context: Context) -> Declined | None:
    return None if context.integers(input_of(node, 1)) is not None else Declined("its k is computed")


def _top_count(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    (count,) = context.integers(input_of(node, 1)) or (0,)
    return context.again(node, [node.inputs[0]], k=count)


def _check_dropout(node: ir.Node, context: Context) -> Declined | None:
    training = input_of(node, 2)
    if training is not None:
        known = context.constant(training)
        if known is None or bool(known):
            return Declined("it is in training mode")
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return Declined("its mask is taken too")
    return None


def _dropout(node: ir.Node, context: Context) -> Sequence[ir.Value | None]:
    """At inference it gives its input back."""
    return [context.op("Identity", [node.inputs[0]])]


def _check_constant(node: ir.Node, context: Context) -> Declined | None:
    name = next(iter(node.attributes), "")
    if name == "value":
        return NOT_NEEDED
    known = context.constant(node.outputs[0])
    return Declined(f"its attribute {name} is no number") if known is None else None


def _constant(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    known = context.constant(node.outputs[0])
    return [context.op("Constant", [], value=known)]


RULES: Final = (
    Rule("constant_numbers", "lower", ("Constant",), ("Constant",), "exact",
         "a Constant of numbers becomes one of a tensor", _constant, _check_constant, "", 12),
    Rule("dropout_inference", "lower", ("Dropout",), ("Identity",), "exact",
         "Dropout at inference becomes an Identity", _dropout, _check_dropout, "inference mode", 12),
    Rule("slice_backwards", "lower", ("Slice",), ("Gather", "Slice"), "exact",
         "a Slice with negative steps becomes a Gather", _slice, _check_slice_type,
         "constant ranges and the size of the axis", 11),
    Rule("top_k_smallest", "lower", ("TopK",), ("Cast", "Neg", "TopK"), "exact",
         "the k smallest are the k largest of the negated; integers travel as float64", _top, _check_top,
         "the element type, which float64 must hold", 11),
    Rule("slice_ranges", "lower", ("Slice",), ("Gather", "Slice"), "exact",
         "the ranges of a Slice become attributes, steps a Gather", _slice, _check_slice,
         "constant ranges; the size of an axis with steps", 10),
    Rule("top_k_count", "lower", ("TopK",), ("TopK",), "exact", "the k of a TopK becomes an attribute",
         _top_count, _check_top_count, "a constant k", 10),
)  # fmt: skip
