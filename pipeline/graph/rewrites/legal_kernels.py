"""Kernels that a target does not take: large ones as a sum of small ones, transposed ones as plain convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.legal_dilation import Window, known, weight_part
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.graph.rewrites.context import Context

#: The largest window of a convolution that an accelerator of this kind takes (Horizon X3: 1 to 7).
LARGEST_KERNEL: Final = 7
#: More convolutions than this instead of one cost more than the place that they win.
MOST_PARTS: Final = 25
#: DepthToSpace lays channels out as PyTorch's pixel shuffle since this opset.
CRD: Final = 11


# Large kernels -----------------------------------------------------------------------------------


def _parts(size: int) -> list[tuple[int, int]]:
    """Beginnings and ends of about equal parts that are small enough."""
    number = -(-size // LARGEST_KERNEL)
    bounds = [size * index // number for index in range(number + 1)]
    return list(pairwise(bounds))


@dataclass(frozen=True)
class _Part:
    """A rectangle of a weight's window."""

    rectangle: tuple[tuple[int, int], ...]

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[(slice(None), slice(None), *(slice(begin, end) for begin, end in self.rectangle))]


def _large_check(node: ir.Node, context: Context) -> Declined | None:
    sizes = context.static_shape(node.inputs[1])
    if sizes is not None and max(sizes[2:], default=0) <= LARGEST_KERNEL:
        return NOT_NEEDED
    if (declined := known(node, context)) is not None:
        return declined
    window = Window(node, context)
    if any(one != 1 for one in window.dilations):
        return Declined("it is dilated as well")
    if _halves(node, window, context):
        return None
    number = len(_parts(window.kernel[0])) * len(_parts(window.kernel[1]))
    return None if number <= MOST_PARTS else Declined(f"{number} convolutions would have to stand for it")


def _halves(node: ir.Node, window: Window, context: Context) -> bool:
    """Whether every second place of the image can become a channel of its own."""
    even = (*window.sizes, *window.strides, *window.pads[:2])
    return all(one % 2 == 0 for one in even) and context.attribute(node, "group", 1) == 1


def _halved(node: ir.Node, window: Window, context: Context) -> ir.Value:
    """The convolution of half the size on the image whose every second place is a channel."""
    weight, dtype = forms.given(node, 1), context.dtype(node.inputs[1])
    assert dtype is not None
    out, depth = forms.sizes_of(context, weight)[:2]
    kernel = [-(-size // 2) for size in window.kernel]
    strides = [one // 2 for one in window.strides]
    begin = [one // 2 for one in window.pads[:2]]
    # Where the last window reaches; what lies behind it is left out, as before.
    reach = [(count - 1) * by + size for count, by, size in zip(window.results, strides, kernel, strict=True)]
    end = [max(0, one - size // 2 - pad) for one, size, pad in zip(reach, window.sizes, begin, strict=True)]
    missing = [
        (0, 0),
        (0, 0),
        *((0, 2 * half - size) for half, size in zip(kernel, window.kernel, strict=True)),
    ]
    shape = (out, 4 * depth, *kernel)

    def by_channel(array: NDArray[Any]) -> NDArray[Any]:
        parts = np.pad(array, missing).reshape(out, depth, kernel[0], 2, kernel[1], 2)
        return np.ascontiguousarray(parts.transpose(0, 3, 5, 1, 2, 4)).reshape(shape)

    smaller = context.derived([weight], by_channel, dtype, shape, f"{weight.name}_by_channel")
    image = context.op("SpaceToDepth", [node.inputs[0]], blocksize=2)
    changed = {"kernel_shape": kernel, "strides": strides, "pads": [*begin, *end]}
    found: ir.Value = context.op(
        "Conv", [image, smaller, *node.inputs[2:]], **(forms.attributes(node) | changed)
    )
    return found


def _large(node: ir.Node, context: Context) -> list[ir.Value]:
    window, weight = Window(node, context), forms.given(node, 1)
    if _halves(node, window, context):
        return [_halved(node, window, context)]
    value, dtype = forms.given(node, 0), forms.floats(context, node.inputs[0])
    if any(window.pads):
        begin, end = window.pads[:2], window.pads[2:]
        value = forms.pad(context, value, [0, 0, *begin, 0, 0, *end], 0.0, dtype)
    sums: list[ir.Value] = []
    for rectangle in product(*(_parts(size) for size in window.kernel)):
        seen = value
        for axis, (first, last) in enumerate(rectangle):
            reach = (window.results[axis] - 1) * window.strides[axis] + last
            seen = forms.cut(context, seen, 2 + axis, first, reach)
        kernel = [end - begin for begin, end in rectangle]
        shape = (*forms.sizes_of(context, weight)[:2], *kernel)
        part = weight_part(context, weight, _Part(rectangle), shape)
        inputs = [seen, part, *(() if sums else node.inputs[2:])]
        changed = {"pads": [0, 0, 0, 0], "kernel_shape": kernel}
        sums.append(context.op("Conv", inputs, **(forms.attributes(node) | changed)))
    return [reduce(lambda one, other: context.op("Add", [one, other]), sums)]


# Transposed convolutions -------------------------------------------------------------------------


def _transposed_check(node: ir.Node, context: Context) -> Declined | None:
    if (declined := known(node, context)) is not None:
        return declined
    if any(context.attribute(node, name) for name in ("output_padding", "output_shape")):
        return Declined("its result is larger than its window reaches")
    if (declined := forms.no_image(context, node.inputs[0])) is not None:
        return declined
    window = Window(node, context)
    if all(one == 1 for one in window.strides):
        reach = [(size - 1) * by for size, by in zip(window.kernel, window.dilations, strict=True)] * 2
        wider = any(pad > size for pad, size in zip(window.pads, reach, strict=True))
        return Declined("it cuts off more than its window reaches") if wider else None
    if any(window.pads) or window.kernel != window.strides or any(one != 1 for one in window.dilations):
        return Declined("its windows overlap and it steps by more than one")
    if context.attribute(node, "group", 1) != 1:
        return Declined("it works by groups")
    if window.kernel[0] != window.kernel[1]:
        return Declined("its window is no square")
    return None if context.opset >= CRD else Declined(f"before opset {CRD} no DepthToSpace is as PyTorch's")


def _transposed(node: ir.Node, context: Context) -> list[ir.Value]:
    window, weight, bias = Window(node, context), forms.given(node, 1), forms.operand(node, 2)
    dtype = ir.DataType.from_numpy(forms.floats(context, weight))
    sizes, group = forms.sizes_of(context, weight), int(context.attribute(node, "group", 1))
    depth, out = sizes[0], sizes[1]
    if all(one == 1 for one in window.strides):
        shape = (out * group, depth // group, *sizes[2:])

        def flipped(array: NDArray[Any]) -> NDArray[Any]:
            parts = array.reshape(group, depth // group, *sizes[1:])[..., ::-1, ::-1]
            return np.ascontiguousarray(parts.swapaxes(1, 2)).reshape(shape)

        kernel = context.derived([weight], flipped, dtype, shape, f"{weight.name}_flipped")
        reach = [(size - 1) * by for size, by in zip(window.kernel, window.dilations, strict=True)] * 2
        pads = [size - pad for size, pad in zip(reach, window.pads, strict=True)]
        found = context.op(
            "Conv", [forms.given(node, 0), kernel, *node.inputs[2:]], dilations=window.dilations, group=group,
            kernel_shape=window.kernel, pads=pads, strides=[1, 1],
        )  # fmt: skip
        return [found]
    block = window.kernel[0]
    wide = (out * block * block, depth, 1, 1)
    inputs = [
        forms.given(node, 0),
        context.derived([weight], lambda array: array.reshape(depth, -1).T.reshape(wide), dtype, wide,
                        f"{weight.name}_1x1"),
    ]  # fmt: skip
    if bias is not None:
        inputs.append(
            context.derived(
                [bias], lambda array: np.repeat(array, block * block), dtype, wide[:1], "repeated"
            )
        )
    channels = context.op("Conv", inputs, dilations=[1, 1], group=1, kernel_shape=[1, 1], pads=[0, 0, 0, 0],
                          strides=[1, 1])  # fmt: skip
    return [context.op("DepthToSpace", [channels], blocksize=block, mode="CRD")]


RULES: Final = (
    Rule("split_large_kernel", "legalise", ("Conv",), ("SpaceToDepth", "Pad", "Slice", "Conv", "Add"), "float noise",
         f"a convolution of more than {LARGEST_KERNEL} taps along an axis works on fewer, with more channels, or "
         "becomes a sum of smaller ones", _large, _large_check, "static sizes and constant weights"),
    Rule("conv_transpose_to_conv", "legalise", ("ConvTranspose",), ("Conv", "DepthToSpace"), "float noise",
         "ConvTranspose that steps by one, or whose windows do not overlap, becomes a convolution", _transposed,
         _transposed_check, "static sizes and constant weights"),
)  # fmt: skip
