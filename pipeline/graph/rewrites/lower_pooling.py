"""Pools whose last window reaches past the input (ceil_mode): older ones need that much padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context

UNKNOWN: Final = "how far its last window reaches depends on sizes that are not known"
#: Since this opset MaxPool knows dilations.
DILATIONS: Final = 10


def _check(node: ir.Node, context: Context) -> Declined | None:
    if not context.attribute(node, "ceil_mode", 0):
        return NOT_NEEDED
    if any(one != 1 for one in context.attribute(node, "dilations", ())) and context.opset < DILATIONS:
        return Declined("its dilations came with the same opset")
    if None in _sizes(node, context):
        return Declined(UNKNOWN)
    if context.attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return Declined("it pads by itself (auto_pad)")
    windows = _windows(node, context)
    counts = node.op_type == "AveragePool" and context.attribute(node, "count_include_pad", 0)
    if counts and windows.given != windows.wanted:
        return Declined("it counts padding, but none past the input (count_include_pad)")
    kernel = context.attribute(node, "kernel_shape")
    if any(pad >= size for pad, size in zip(windows.wanted, [*kernel, *kernel], strict=True)):
        return Declined("its last window lies beside the input")
    return None


def _check_beside(node: ir.Node, context: Context) -> Declined | None:
    """Only where onnx, until opset 21, counts a window that lies in the padding alone."""
    if not context.attribute(node, "ceil_mode", 0) or not _windows(node, context).dropped:
        return NOT_NEEDED
    return _check(node, context)


def _sizes(node: ir.Node, context: Context) -> tuple[int | None, ...]:
    """Of the axes that are pooled; None for one that is not known."""
    kernel = context.attribute(node, "kernel_shape")
    shape = context.shape(node.inputs[0]) or (None,) * (len(kernel) + 2)
    return tuple(size if isinstance(size, int) else None for size in shape[2:])


@dataclass(frozen=True)
class _Windows:
    """The amounts of padding that a pool has, and those with which no window reaches past them.

    Attributes:
        given, wanted: before each axis, then behind each.
        dropped: a last window would lie in the padding alone, and is left out.
    """

    given: list[int]
    wanted: list[int]
    dropped: bool


def _windows(node: ir.Node, context: Context) -> _Windows:
    kernel = context.attribute(node, "kernel_shape")
    rank = len(kernel)
    strides = context.attribute(node, "strides", [1] * rank)
    dilations = context.attribute(node, "dilations", [1] * rank)
    given = list(context.attribute(node, "pads", [0] * 2 * rank))
    wanted, dropped = list(given), False
    for axis, size in enumerate(_sizes(node, context)):
        if size is None:
            continue
        width = (kernel[axis] - 1) * dilations[axis] + 1
        padded = size + given[axis]
        count = -(-(padded + given[axis + rank] - width) // strides[axis]) + 1
        beside = (count - 1) * strides[axis] >= padded
        count -= beside
        reach = (count - 1) * strides[axis] + width - padded
        wanted[axis + rank] = max(reach, 0 if beside else given[axis + rank])
        dropped = dropped or beside
    return _Windows(given, wanted, dropped)


def _rewrite(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    return context.again(node, ceil_mode=None, pads=_windows(node, context).wanted)


RULES: Final = (
    Rule("pool_beside", "lower", ("AveragePool", "MaxPool"), ("AveragePool", "MaxPool"), "exact",
         "a pool whose last window would lie in the padding alone gets less of it (ceil_mode)", _rewrite,
         _check_beside, "the sizes of the input", 22),
    Rule("pool_to_the_end", "lower", ("AveragePool", "MaxPool"), ("AveragePool", "MaxPool"), "exact",
         "a pool whose last window reaches past the input gets padding (ceil_mode)", _rewrite, _check,
         "the sizes of the input", 10),
)  # fmt: skip
