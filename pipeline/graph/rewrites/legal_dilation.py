"""Dilated convolutions: taps that only ever see padding, and dilations that a target does not take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.graph.rewrites.context import Context

#: Of an image: batch, channels, height, width.
IMAGE_RANK: Final = 4


class Window:
    """A convolution's settings with their defaults, and the sizes that it works on."""

    def __init__(self, node: ir.Node, context: Context) -> None:
        self.sizes = forms.sizes_of(context, node.inputs[0])[2:]
        self.results = forms.sizes_of(context, node.outputs[0])[2:]
        self.kernel = list(forms.sizes_of(context, node.inputs[1])[2:])
        number = len(self.kernel)
        self.dilations = list(context.attribute(node, "dilations", [1] * number))
        self.strides = list(context.attribute(node, "strides", [1] * number))
        self.pads = list(context.attribute(node, "pads", [0] * (2 * number)))

    def taps(self, axis: int) -> tuple[int, int]:
        """First and last tap along an axis that sees the image at some place."""
        reach = range(self.results[axis])
        seen = [
            tap
            for tap in range(self.kernel[axis])
            if any(
                0
                <= place * self.strides[axis] + tap * self.dilations[axis] - self.pads[axis]
                < self.sizes[axis]
                for place in reach
            )
        ]
        return (seen[0], seen[-1]) if seen else (0, self.kernel[axis] - 1)


def known(node: ir.Node, context: Context) -> Declined | None:
    """Why the sizes or the weight of a convolution of an image are not known."""
    values = (node.inputs[0], node.inputs[1], node.outputs[0])
    if any(context.static_shape(value) is None for value in values):
        return forms.NO_SIZES
    if not context.is_weight(node.inputs[1]):
        return Declined("its weight is not constant")
    if context.attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        return Declined("its padding is left to auto_pad")
    if context.rank(node.inputs[0]) != IMAGE_RANK:
        return NOT_NEEDED
    return None if forms.floating(context, node.inputs[0]) else forms.NO_TYPE


def _dilated(node: ir.Node, context: Context) -> bool:
    return any(one != 1 for one in context.attribute(node, "dilations", [1]))


def _padding_check(node: ir.Node, context: Context) -> Declined | None:
    if not _dilated(node, context):
        return NOT_NEEDED
    if (declined := known(node, context)) is not None:
        return declined
    window = Window(node, context)
    whole = [window.taps(axis) == (0, size - 1) for axis, size in enumerate(window.kernel)]
    return NOT_NEEDED if all(whole) else None


def _padding(node: ir.Node, context: Context) -> list[ir.Value]:
    window, weight = Window(node, context), forms.given(node, 1)
    number = len(window.kernel)
    taps = [window.taps(axis) for axis in range(number)]
    pads = list(window.pads)
    for axis, (first, last) in enumerate(taps):
        pads[axis] -= first * window.dilations[axis]
        pads[number + axis] -= (window.kernel[axis] - 1 - last) * window.dilations[axis]
    kernel = [last - first + 1 for first, last in taps]
    shape = (*forms.sizes_of(context, weight)[:2], *kernel)
    part = (slice(None), slice(None), *(slice(first, last + 1) for first, last in taps))
    smaller = weight_part(context, weight, lambda array: array[part], shape)
    value = forms.given(node, 0)
    if min(pads) < 0:  # what the last tap alone reached is cut off
        for axis in range(number):
            begin, end = min(pads[axis], 0), min(pads[number + axis], 0)
            if begin or end:
                value = forms.cut(context, value, 2 + axis, -begin, window.sizes[axis] + end)
        pads = [max(one, 0) for one in pads]
    changed = {
        "pads": pads,
        "kernel_shape": kernel,
        "dilations": [1 if size == 1 else one for size, one in zip(kernel, window.dilations, strict=True)],
    }
    inputs = [value, smaller, *node.inputs[2:]]
    return [context.op("Conv", inputs, **(forms.attributes(node) | changed))]


def weight_part(
    context: Context, weight: ir.Value, part: Callable[[NDArray[Any]], NDArray[Any]], shape: tuple[int, ...]
) -> ir.Value:
    """A part of a weight."""
    dtype = context.dtype(weight)
    assert dtype is not None
    return context.derived([weight], part, dtype, shape, f"{weight.name}_part")


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


@dataclass(frozen=True)
class _Tap:
    """The part of a weight that one place of its window has."""

    taps: tuple[int, ...]

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[(slice(None), slice(None), *(slice(tap, tap + 1) for tap in self.taps))]


def _shifted_check(node: ir.Node, context: Context) -> Declined | None:
    if all(_is_power_of_two(one) for one in context.attribute(node, "dilations", [1])):
        return NOT_NEEDED
    return known(node, context)


def _shifted(node: ir.Node, context: Context) -> list[ir.Value]:
    window, weight, dtype = (
        Window(node, context),
        forms.given(node, 1),
        forms.floats(context, node.inputs[0]),
    )
    number = len(window.kernel)
    value = forms.given(node, 0)
    if any(window.pads):
        begin, end = window.pads[:number], window.pads[number:]
        value = forms.pad(context, value, [0, 0, *begin, 0, 0, *end], 0.0, dtype)
    shape = (*forms.sizes_of(context, weight)[:2], 1, 1)
    changed = {"pads": [0] * (2 * number), "kernel_shape": [1] * number, "dilations": [1] * number}
    total: ir.Value | None = None
    for taps in product(*(range(size) for size in window.kernel)):
        shifted = value
        for axis, tap in enumerate(taps):
            start = tap * window.dilations[axis]
            end_of = start + (window.results[axis] - 1) * window.strides[axis] + 1
            shifted = forms.cut(context, shifted, 2 + axis, start, end_of)
        part = weight_part(context, weight, _Tap(taps), shape)
        inputs = [shifted, part, *(node.inputs[2:] if total is None else ())]
        one = context.op("Conv", inputs, **(forms.attributes(node) | changed))
        total = one if total is None else context.op("Add", [total, one])
    return [forms.there(total)]


RULES: Final = (
    Rule("conv_taps_in_padding", "legalise", ("Conv",), ("Slice", "Conv"), "exact",
         "taps of a dilated convolution that see nothing but padding are left out", _padding, _padding_check,
         "static sizes and constant weights"),
    Rule("dilated_conv_to_sum", "legalise", ("Conv",), ("Pad", "Slice", "Conv", "Add"), "float noise",
         "a convolution whose dilation is no power of 2 becomes a sum of 1x1 convolutions of shifted images",
         _shifted, _shifted_check, "static sizes and constant weights"),
)  # fmt: skip
