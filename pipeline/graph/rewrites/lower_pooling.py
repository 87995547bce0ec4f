"""Pools whose last window reaches past the input (ceil_mode): older ones need that much padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context


def _check(node: ir.Node, context: Context) -> Declined | None:
    if not context.attribute(node, "ceil_mode", 0):
        return NOT_NEEDED
    if any(one != 1 for one in context.attribute(node, "dilations", ())):
        return Declined("its dilations came with the same opset")
    before, after = context.static_shape(node.inputs[0]), context.static_shape(node.outputs[0])
    if before is None or after is None:
        return Declined("how far its last window reaches depends on sizes that are not known")
    if context.attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return Declined("it pads by itself (auto_pad)")
    wanted, kernel = _padded(node, context)[1], context.attribute(node, "kernel_shape")
    if node.op_type == "AveragePool" and context.attribute(node, "count_include_pad", 0):
        given, _ = _padded(node, context)
        if given != wanted:
            return Declined("it counts padding, but none past the input (count_include_pad)")
    rank = len(kernel)
    if any(pad >= size for pad, size in zip(wanted, [*kernel, *kernel], strict=True)):
        return Declined("its last window lies beside the input")
    return None if rank else NOT_NEEDED


def _padded(node: ir.Node, context: Context) -> tuple[list[int], list[int]]:
    """The amounts that it has, and those with which no window reaches past them."""
    kernel = context.attribute(node, "kernel_shape")
    rank = len(kernel)
    strides = context.attribute(node, "strides", [1] * rank)
    dilations = context.attribute(node, "dilations", [1] * rank)
    pads = list(context.attribute(node, "pads", [0] * 2 * rank))
    before = (context.static_shape(node.inputs[0]) or ())[2:]
    after = (context.static_shape(node.outputs[0]) or ())[2:]
    wanted = list(pads)
    for axis in range(rank):
        reach = (after[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        wanted[axis + rank] = max(pads[axis + rank], reach - before[axis] - pads[axis])
    return pads, wanted


def _rewrite(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    return context.again(node, ceil_mode=None, pads=_padded(node, context)[1])


RULES: Final = (
    Rule("pool_to_the_end", "lower", ("AveragePool", "MaxPool"), ("AveragePool", "MaxPool"), "exact",
         "a pool whose last window reaches past the input gets padding (ceil_mode)", _rewrite, _check,
         "the sizes of input and output", 10),
)  # fmt: skip
