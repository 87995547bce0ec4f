"""Gathers and scatters by element or by coordinates, from Gather on a flattened tensor."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.lower_normalization import reduce
from pipeline.graph.rewrites.lower_shapes import LARGEST_TABLE
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

UNKNOWN: Final = "the sizes of its data or indices are not known"
COMPUTED: Final = "its indices are computed while it runs"
#: reduction -> the operator that combines what is there with what comes.
_COMBINE: Final = {"add": "Add", "mul": "Mul", "max": "Max", "min": "Min"}


def _strides(sizes: Sequence[int]) -> list[int]:
    return [prod(sizes[index + 1 :]) for index in range(len(sizes))]


def _int64(context: Context, value: ir.Value | None) -> ir.Value:
    assert value is not None
    if context.dtype(value) == ir.DataType.INT64:
        return value
    made: ir.Value = context.op("Cast", [value], to=int(ir.DataType.INT64))
    return made


def _counted(context: Context, indices: ir.Value, sizes: Sequence[int] | int) -> ir.Value:
    """Indices that count from the end count from the front."""
    known = context.constant(indices)
    if known is not None:
        if np.all(known >= 0):
            return indices
        return context.tensor(np.where(known < 0, known + np.array(sizes), known).astype(np.int64), "indices")
    zero = context.tensor(np.array(0, np.int64), "zero")
    shifted = context.op("Add", [indices, context.tensor(np.array(sizes, np.int64), "sizes")])
    made: ir.Value = context.op("Where", [context.op("Less", [indices, zero]), shifted, indices])
    return made


def _check_elements(node: ir.Node, context: Context) -> Declined | None:
    sizes = [context.static_shape(value) for value in node.inputs[:2]]
    return Declined(UNKNOWN) if None in sizes else None


def _elements(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Position in the flattened data: the index times the stride of its axis, and a constant for the rest."""
    shape, wanted = (context.static_shape(value) or () for value in node.inputs[:2])
    axis = context.attribute(node, "axis", 0) % len(shape)
    strides = _strides(shape)
    grid = np.indices(wanted)
    rest = sum((grid[other] * strides[other] for other in range(len(shape)) if other != axis),
               np.zeros(wanted, np.int64))  # fmt: skip
    indices = _counted(context, _int64(context, node.inputs[1]), shape[axis])
    scaled = context.op("Mul", [indices, context.tensor(np.array(strides[axis], np.int64), "stride")])
    places = context.op("Add", [scaled, context.tensor(rest.astype(np.int64), "rest")])
    flat = context.op("Reshape", [node.inputs[0], context.tensor(np.array([-1], np.int64), "flat")])
    return [context.op("Gather", [flat, places], axis=0)]


def _check_batched_coordinates(node: ir.Node, context: Context) -> Declined | None:
    return _check_coordinates(node, context) if context.attribute(node, "batch_dims", 0) else NOT_NEEDED


def _check_coordinates(node: ir.Node, context: Context) -> Declined | None:
    shape, indices = context.static_shape(node.inputs[0]), context.shape(node.inputs[1])
    if shape is None or indices is None or not isinstance(indices[-1], int):
        return Declined(UNKNOWN)
    if context.attribute(node, "batch_dims", 0) and context.static_shape(node.inputs[1]) is None:
        return Declined(UNKNOWN)
    return None


def _coordinates(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    shape, sizes = context.static_shape(node.inputs[0]) or (), context.shape(node.inputs[1]) or ()
    batch, depth = context.attribute(node, "batch_dims", 0), int(sizes[-1])  # type: ignore[arg-type]
    outer, inner = shape[: batch + depth], shape[batch + depth :]
    strides = _strides(outer)
    indices = _counted(context, _int64(context, node.inputs[1]), outer[batch:])
    scaled = context.op("Mul", [indices, context.tensor(np.array(strides[batch:], np.int64), "strides")])
    places = reduce(context, "ReduceSum", scaled, [len(sizes) - 1], keepdims=0)
    if batch:
        grid = np.indices(outer[:batch])
        first = sum(grid[axis] * strides[axis] for axis in range(batch))
        first = np.asarray(first, np.int64).reshape(*outer[:batch], *[1] * (len(sizes) - 1 - batch))
        places = context.op("Add", [places, context.tensor(first, "batches")])
    rows = context.tensor(np.array([prod(outer), *inner], np.int64), "rows")
    return [context.op("Gather", [context.op("Reshape", [node.inputs[0], rows]), places], axis=0)]


def _check_reduction(*later: str) -> object:
    def check(node: ir.Node, context: Context) -> Declined | None:
        how = context.attribute(node, "reduction", "none")
        if how not in later:
            return NOT_NEEDED
        indices = context.constant(node.inputs[1])
        if indices is None:
            return Declined(f"{COMPUTED} and may meet (reduction {how})")
        if node.op_type == "ScatterND":
            single = indices.reshape(-1, indices.shape[-1])
        else:
            axis = context.attribute(node, "axis", 0) % indices.ndim
            grid = np.indices(indices.shape)
            grid[axis] = indices
            single = grid.reshape(indices.ndim, -1).T
        if len(np.unique(single, axis=0)) != len(single):
            return Declined(f"several of its updates meet (reduction {how})")
        return None

    return check


def _combined(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Where updates do not meet, what is there can be combined with them before."""
    operator = "GatherND" if node.op_type == "ScatterND" else "GatherElements"
    axis = context.attribute(node, "axis") if operator == "GatherElements" else None
    there = context.op(operator, list(node.inputs[:2]), axis=axis)
    combined = context.op(_COMBINE[context.attribute(node, "reduction")], [there, node.inputs[2]])
    return context.again(node, [*node.inputs[:2], combined], reduction=None)


def _scatter(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """The same operator under its older name."""
    axis, rank = context.attribute(node, "axis", 0), context.rank(node.inputs[0])
    axis = axis % rank if rank else axis
    return [context.op("Scatter", list(node.inputs), axis=axis)]


def _check_scatter(node: ir.Node, context: Context) -> Declined | None:
    if context.attribute(node, "axis", 0) < 0 and context.rank(node.inputs[0]) is None:
        return Declined("its axis is negative and the rank of its input is not known")
    return None


def _check_scattered(node: ir.Node, context: Context) -> Declined | None:
    if context.constant(node.inputs[1]) is None:
        return Declined(COMPUTED)
    shape = context.static_shape(node.inputs[0])
    if shape is None:
        return Declined(UNKNOWN)
    indices = context.constant(node.inputs[1])
    if indices is not None and prod(shape[: indices.shape[-1]]) > LARGEST_TABLE:
        return Declined("its table would be too large")
    return None


def _scattered(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Data and updates behind one another, and from there each row that counts."""
    shape, indices = context.static_shape(node.inputs[0]) or (), context.constant(node.inputs[1])
    assert indices is not None
    depth = indices.shape[-1]
    outer, inner = shape[:depth], shape[depth:]
    rows = indices.reshape(-1, depth)
    places = (np.where(rows < 0, rows + np.array(outer), rows) * np.array(_strides(outer))).sum(axis=1)
    source = np.arange(prod(outer), dtype=np.int64)
    source[places.astype(np.int64)] = prod(outer) + np.arange(len(rows))
    known = [context.constant(value) for value in (node.inputs[0], node.inputs[2])]
    if all(value is not None for value in known):
        flat = [value.reshape(-1, *inner) for value in known if value is not None]
        return [
            context.op("Identity", [context.tensor(np.concatenate(flat)[source].reshape(shape), "scattered")])
        ]
    flat_shape = context.tensor(np.array([-1, *inner], np.int64), "rows")
    parts = [context.op("Reshape", [value, flat_shape]) for value in (node.inputs[0], node.inputs[2])]
    if len(np.unique(places)) == prod(outer):  # nothing of the data is left
        joined, source = parts[1], source - prod(outer)
    else:
        joined = context.op("Concat", parts, axis=0)
    taken = context.op("Gather", [joined, context.tensor(source, "sources")], axis=0)
    return [context.op("Reshape", [taken, context.tensor(np.array(shape, np.int64), "sizes")])]


_SCATTERS: Final = ("ScatterElements", "ScatterND")
RULES: Final = (
    Rule("scatter_extremes", "lower", _SCATTERS, ("GatherElements", "GatherND", "Max", "Min", *_SCATTERS), "exact",
         "a scatter that keeps the larger or smaller combines before", _combined,
         _check_reduction("max", "min"), "constant indices that do not meet", 18),  # type: ignore[arg-type]
    Rule("scatter_sums", "lower", _SCATTERS, ("Add", "GatherElements", "GatherND", "Mul", *_SCATTERS), "exact",
         "a scatter that adds or multiplies combines before", _combined,
         _check_reduction("add", "mul"), "constant indices that do not meet", 16),  # type: ignore[arg-type]
    Rule("gather_batches", "lower", ("GatherND",),
         ("Add", "Cast", "Gather", "Less", "Mul", "ReduceSum", "Reshape", "Where"), "exact",
         "GatherND in batches becomes a Gather of rows", _coordinates, _check_batched_coordinates,
         "the sizes", 12),
    Rule("gather_elements", "lower", ("GatherElements",),
         ("Add", "Cast", "Gather", "Less", "Mul", "Reshape", "Where"), "exact",
         "GatherElements becomes a Gather from the flattened data", _elements, _check_elements,
         "the sizes", 11),
    Rule("gather_coordinates", "lower", ("GatherND",),
         ("Add", "Cast", "Gather", "Less", "Mul", "ReduceSum", "Reshape", "Where"), "exact",
         "GatherND becomes a Gather of rows", _coordinates, _check_coordinates, "the sizes of the data", 11),
    Rule("scatter_elements", "lower", ("ScatterElements",), ("Scatter",), "exact",
         "ScatterElements becomes Scatter", _scatter, _check_scatter,
         "the rank where the axis counts from the end", 11),
    Rule("scatter_coordinates", "lower", ("ScatterND",), ("Concat", "Gather", "Identity", "Reshape"), "exact",
         "ScatterND becomes a Gather from data and updates", _scattered, _check_scattered,
         "constant indices and the sizes of the data", 11),
)  # fmt: skip
