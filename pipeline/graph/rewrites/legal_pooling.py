"""Pooling: windows that are too large in two steps, padding apart, one place without pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.graph.rewrites.context import Context

#: Sides of a window that need no splitting: the smallest limits of a vendor's table (horizon_x3: 7 for
#: AveragePool, 64 for MaxPool).
LARGEST_WINDOW: Final = {"AveragePool": 7, "MaxPool": 64}
#: Places that a global average may have (horizon_x3: H*W <= 8192).
LARGEST_GLOBAL: Final = 8192
#: Of an image: batch, channels, height, width.
IMAGE_RANK: Final = 4


def _window(node: ir.Node, context: Context) -> tuple[list[int], list[int], list[int]]:
    """Kernel, strides and pads with their defaults."""
    kernel = list(context.attribute(node, "kernel_shape"))
    strides = list(context.attribute(node, "strides", [1] * len(kernel)))
    pads = list(context.attribute(node, "pads", [0] * (2 * len(kernel))))
    return kernel, strides, pads


def _plain(node: ir.Node, context: Context) -> Declined | None:
    if context.attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        return Declined("its padding is left to auto_pad")
    if any(step != 1 for step in context.attribute(node, "dilations", [1])):
        return Declined("it is dilated")
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return Declined("its indices are used")
    return None


def _split_check(node: ir.Node, context: Context) -> Declined | None:
    kernel, strides, pads = _window(node, context)
    largest = LARGEST_WINDOW[node.op_type]
    if max(kernel) <= largest:
        return NOT_NEEDED
    if (declined := _plain(node, context)) is not None:
        return declined
    if len(kernel) != IMAGE_RANK - 2 or context.static_shape(node.inputs[0]) is None:
        return forms.NO_SIZES
    if context.attribute(node, "ceil_mode", 0):
        return Declined("its last windows may lie over the edge")
    if any(pads):
        return Declined("a window of several steps has no padding")
    if node.op_type == "MaxPool":
        return None
    if all(_factor(size, step, largest) for size, step in zip(kernel, strides, strict=True)):
        return None
    return Declined("a side of its window has no factor that its stride has too")


def _factor(size: int, step: int, largest: int) -> int:
    """The largest factor of a window that divides its stride; 1 where it is small enough; 0: there is none."""
    if size <= largest:
        return 1
    found = [one for one in range(2, min(size, largest) + 1) if size % one == 0 and step % one == 0]
    return max(found, default=0)


def _split(node: ir.Node, context: Context) -> list[ir.Value]:
    kernel, strides, _ = _window(node, context)
    largest, value = LARGEST_WINDOW[node.op_type], forms.given(node, 0)
    if node.op_type == "MaxPool":
        # The maximum over k places is that over k - a + 1 of the maxima over a.
        first = [size if size <= largest else largest for size in kernel]
        second = [size - one + 1 for size, one in zip(kernel, first, strict=True)]
        steps = [1, 1]
        rest = strides
    else:
        # One more place than the windows reach would be a window of the first step that nobody asks for.
        first = [_factor(size, step, largest) for size, step in zip(kernel, strides, strict=True)]
        second = [size // one for size, one in zip(kernel, first, strict=True)]
        steps = first
        rest = [step // one for step, one in zip(strides, first, strict=True)]
    inner = context.op(node.op_type, [value], kernel_shape=first, strides=steps, pads=[0] * 4)
    return [context.op(node.op_type, [inner], kernel_shape=second, strides=rest, pads=[0] * 4)]


def _global_check(node: ir.Node, context: Context) -> Declined | None:
    sizes = context.static_shape(node.inputs[0])
    if sizes is None:
        return forms.NO_SIZES
    if len(sizes) != IMAGE_RANK or sizes[2] * sizes[3] <= LARGEST_GLOBAL:
        return NOT_NEEDED
    if max(_divisors(sizes[2:])) == 1:
        return Declined("neither of its sides has a factor of at most 7")
    return None


def _divisors(sizes: Sequence[int]) -> list[int]:
    largest = LARGEST_WINDOW["AveragePool"]
    return [max(one for one in range(1, largest + 1) if size % one == 0) for size in sizes]


def _global(node: ir.Node, context: Context) -> list[ir.Value]:
    window = _divisors(forms.sizes_of(context, node.inputs[0])[2:])
    inner = context.op("AveragePool", [node.inputs[0]], kernel_shape=window, strides=window, pads=[0] * 4)
    return [context.op("GlobalAveragePool", [inner])]


def _whole_check(node: ir.Node, context: Context) -> Declined | None:
    sizes = context.static_shape(node.inputs[0])
    if sizes is None or len(sizes) != IMAGE_RANK:
        return NOT_NEEDED
    kernel, _, pads = _window(node, context)
    if tuple(kernel) != sizes[2:] or any(pads):
        return NOT_NEEDED
    return _plain(node, context)


def _whole(node: ir.Node, context: Context) -> list[ir.Value]:
    return [
        context.op(
            node.op_type.replace("Average", "GlobalAverage").replace("Max", "GlobalMax"), [node.inputs[0]]
        )
    ]


def _counted_check(node: ir.Node, context: Context) -> Declined | None:
    _, _, pads = _window(node, context)
    if not context.attribute(node, "count_include_pad", 0) or not any(pads):
        return NOT_NEEDED
    if (declined := _plain(node, context)) is not None:
        return declined
    if context.attribute(node, "ceil_mode", 0):
        return Declined("its last windows may lie over the edge")
    return None if forms.floating(context, node.inputs[0]) else forms.NO_TYPE


def _counted(node: ir.Node, context: Context) -> list[ir.Value]:
    kernel, strides, pads = _window(node, context)
    half = len(pads) // 2
    whole = [0, 0, *pads[:half], 0, 0, *pads[half:]]
    padded = forms.pad(context, forms.given(node, 0), whole, 0.0, forms.floats(context, node.inputs[0]))
    return [context.op("AveragePool", [padded], kernel_shape=kernel, strides=strides, pads=[0] * len(pads))]


def _single_check(node: ir.Node, context: Context) -> Declined | None:
    shape = context.shape(node.inputs[0])
    return (
        None if shape is not None and len(shape) > 2 and all(size == 1 for size in shape[2:]) else NOT_NEEDED
    )


def _single(node: ir.Node, context: Context) -> list[ir.Value]:
    return [context.op("Identity", [node.inputs[0]])]


RULES: Final = (
    Rule("global_pool_of_one_place", "legalise", ("GlobalAveragePool", "GlobalMaxPool"), ("Identity",), "exact",
         "a global pooling over one place is left out", _single, _single_check),
    Rule("whole_window_to_global_pool", "legalise", ("AveragePool", "MaxPool"),
         ("GlobalAveragePool", "GlobalMaxPool"), "float noise",
         "a pooling whose window is the whole image becomes a global pooling", _whole, _whole_check, "static sizes"),
    Rule("split_large_pool", "legalise", ("AveragePool", "MaxPool"), ("AveragePool", "MaxPool"), "float noise",
         "a pooling with a large window is done in two steps", _split, _split_check,
         "no padding; for a mean a factor that window and stride share"),
    Rule("split_global_average_pool", "legalise", ("GlobalAveragePool",), ("AveragePool", "GlobalAveragePool"),
         "float noise", "a global average over more than 8192 places is done in two steps", _global, _global_check,
         "static sizes with a factor"),
    Rule("average_pool_pads_apart", "legalise", ("AveragePool",), ("Pad", "AveragePool"), "exact",
         "an AveragePool that counts its padding gets a Pad before it", _counted, _counted_check),
)  # fmt: skip
