"""Softmax, LogSoftmax and Hardmax: until opset 12 they work on all axes from `axis` on, not on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context

_OPERATORS: Final = ("Softmax", "LogSoftmax", "Hardmax")


def _check(node: ir.Node, context: Context) -> Declined | None:
    axis, rank = context.attribute(node, "axis", -1), context.rank(node.inputs[0])
    if rank is None:
        return None if axis == -1 else Declined("the rank of its input is not known")
    return NOT_NEEDED if rank == 0 else None


def _rewrite(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    axis, shape = context.attribute(node, "axis", -1), context.shape(node.inputs[0])
    if shape is None:
        return context.again(node, axis=-1)
    rank = len(shape)
    axis %= rank
    if all(size == 1 for size in shape[axis + 1 :]):
        return context.again(node, axis=axis)
    order = [index for index in range(rank) if index != axis] + [axis]
    turned = context.op("Transpose", [node.inputs[0]], perm=order)
    (made,) = context.again(node, [turned], axis=rank - 1)
    back = [order.index(index) for index in range(rank)]
    return [context.op("Transpose", [made], perm=back)]


RULES: Final = (
    Rule("softmax_axis", "lower", _OPERATORS, (*_OPERATORS, "Transpose"), "exact",
         "the one axis of a softmax becomes the last one", _rewrite, _check,
         "the rank of the input, or the last axis", 13),
)  # fmt: skip
