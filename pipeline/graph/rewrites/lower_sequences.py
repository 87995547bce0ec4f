"""Sequences that are made and taken apart again (tensor_split, chunk, stack of a list): no sequence is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.graph.rewrites.lower_axes import input_of
from pipeline.graph.rewrites.lower_slice import sliced
from pipeline.graph.rewrites.rule import Declined, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context


def _made_by(node: ir.Node, operator: str) -> ir.Node | None:
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    return producer if producer is not None and producer.op_type == operator else None


def _ranges(split: ir.Node, context: Context) -> list[tuple[int, int]] | None:
    """Where the pieces of a SplitToSequence begin and end."""
    shape = context.shape(split.inputs[0])
    axis = context.attribute(split, "axis", 0)
    size = shape[axis] if shape is not None else None
    if not isinstance(size, int):
        return None
    given = input_of(split, 1)
    if given is None:
        return [(index, index + 1) for index in range(size)]
    known = context.constant(given)
    if known is None:
        return None
    if known.ndim == 0:
        step = int(known)
        return [(start, min(start + step, size)) for start in range(0, size, step)]
    ends = [int(end) for end in np.cumsum(known)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _check_element(node: ir.Node, context: Context) -> Declined | None:
    split, built = _made_by(node, "SplitToSequence"), _made_by(node, "SequenceConstruct")
    if context.integers(node.inputs[1]) is None:
        return Declined("its position is computed while it runs")
    if built is not None:
        return None
    if split is None:
        return Declined("its sequence is not made by a split or from a list")
    return Declined("the sizes of the pieces are not known") if _ranges(split, context) is None else None


def _element(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    (position,) = context.integers(node.inputs[1]) or (0,)
    built = _made_by(node, "SequenceConstruct")
    if built is not None:
        return [context.op("Identity", [built.inputs[position]])]
    split = _made_by(node, "SplitToSequence")
    assert split is not None
    start, end = (_ranges(split, context) or [])[position]
    rank = context.rank(split.inputs[0]) or 1
    axis = context.attribute(split, "axis", 0) % rank
    if input_of(split, 1) is None and not context.attribute(split, "keepdims", 1):
        index = context.tensor(np.array(start, np.int64), "position")
        return [context.op("Gather", [split.inputs[0], index], axis=axis)]
    assert split.inputs[0] is not None
    return [sliced(context, split.inputs[0], [start], [end], [axis])]


def _check_joined(node: ir.Node, context: Context) -> Declined | None:
    built = _made_by(node, "SequenceConstruct")
    if built is None:
        return Declined("its sequence is not made from a list")
    if context.attribute(node, "axis") < 0 and context.rank(built.inputs[0]) is None:
        return Declined("its axis is negative and the rank of the pieces is not known")
    return None


def _joined(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    built = _made_by(node, "SequenceConstruct")
    assert built is not None
    axis, new = context.attribute(node, "axis"), context.attribute(node, "new_axis", 0)
    rank = context.rank(built.inputs[0])
    if rank is not None:
        axis %= rank + (1 if new else 0)
    pieces = [context.op("Unsqueeze", [one], axes=[axis]) if new else one for one in built.inputs]
    return [context.op("Concat", pieces, axis=axis)]


RULES: Final = (
    Rule("sequence_element", "lower", ("SequenceAt",), ("Gather", "Identity", "Slice"), "exact",
         "an element of a split tensor or a list is taken from where it came", _element, _check_element,
         "a constant position and sizes", 11),
    Rule("sequence_joined", "lower", ("ConcatFromSequence",), ("Concat", "Unsqueeze"), "exact",
         "the elements of a list are concatenated", _joined, _check_joined, "a list", 11),
)  # fmt: skip
