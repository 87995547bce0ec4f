"""Gather, Split, Slice and Pad in fewer forms: even steps, one axis, constant padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.graph.rewrites.context import Context

#: The highest rank that most restricted targets take.
HIGHEST_RANK: Final = 4
NOT_CONSTANT: Final = Declined("its indices are not constant")


def _indices(node: ir.Node, context: Context) -> tuple[list[int], int, int] | None:
    """The indices of a Gather counted from the front, its axis, the axis's size."""
    shape, found = context.shape(node.inputs[0]), context.integers(node.inputs[1])
    if shape is None or found is None:
        return None
    axis = context.attribute(node, "axis", 0) % len(shape)
    size = shape[axis]
    if not isinstance(size, int):
        return None
    return [index + size if index < 0 else index for index in found], axis, size


def _gather_check(node: ir.Node, context: Context) -> Declined | None:
    rank = context.rank(node.inputs[1])
    if rank is None or context.integers(node.inputs[1]) is None:
        return NOT_CONSTANT
    if context.is_weight(node.inputs[0]):
        return NOT_NEEDED
    found = _indices(node, context)
    if found is None:
        return forms.NO_SIZES
    if not found[0]:
        return Declined("it takes nothing")
    if rank > 1 and context.static_shape(node.outputs[0]) is None:
        return forms.NO_SIZES
    steps = {after - before for before, after in zip(found[0], found[0][1:], strict=False)}
    if len(steps) > 1 or min(steps, default=1) < 1:
        return Declined("its indices are not evenly spaced")
    if rank == 0 and context.static_shape(node.outputs[0]) is None and context.rank(node.outputs[0]) is None:
        return forms.NO_SIZES
    if max(steps, default=1) > 1 and context.opset < forms.SLICE_INPUTS:
        return Declined("a Slice before opset 10 has no steps")
    return None


def _image_gather_check(node: ir.Node, context: Context) -> Declined | None:
    """As `gather_to_slice`, for an image that stays one: elsewhere a Gather on the host does as well."""
    if context.rank(node.inputs[0]) != HIGHEST_RANK or context.rank(node.inputs[1]) != 1:
        return NOT_NEEDED
    return _gather_check(node, context)


def _gather(node: ir.Node, context: Context) -> list[ir.Value]:
    found = _indices(node, context)
    assert found is not None
    indices, axis, size = found
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    value, rank = forms.given(node, 0), context.rank(node.inputs[1])
    if rank == 1 or len(indices) < size:
        value = forms.cut(context, value, axis, indices[0], indices[-1] + 1, step)
    if rank == 1:
        return [value]
    sizes = context.static_shape(node.outputs[0])
    if sizes is None:
        return [forms.squeeze(context, value, [axis])]
    return [forms.reshape(context, value, sizes)]


def _pick_check(node: ir.Node, context: Context) -> Declined | None:
    """Gather of one place behind a Transpose of rank 5 or more: queries, keys and values of attention."""
    before = forms.producer(node.inputs[0], "Transpose")
    rank = context.rank(node.inputs[0])
    if before is None or rank is None or rank <= HIGHEST_RANK or context.rank(node.inputs[1]) != 0:
        return NOT_NEEDED
    return None if context.integers(node.inputs[1]) is not None else Declined("its index is not constant")


def _pick(node: ir.Node, context: Context) -> list[ir.Value]:
    before = forms.producer(node.inputs[0], "Transpose")
    assert before is not None
    perm = forms.permutation(before, context)
    assert perm is not None
    axis = context.attribute(node, "axis", 0) % len(perm)
    picked = context.op("Gather", [before.inputs[0], node.inputs[1]], axis=perm[axis])
    rest = [one for one in perm if one != perm[axis]]
    return [forms.transpose(context, picked, [one - (one > perm[axis]) for one in rest])]


def _parts(node: ir.Node, context: Context) -> tuple[list[int], int] | None:
    """The sizes of a Split's parts, and its axis."""
    shape = context.shape(node.inputs[0])
    if shape is None:
        return None
    axis = context.attribute(node, "axis", 0) % len(shape)
    sizes = []
    for value in node.outputs:
        part = context.shape(value)
        if part is None or not isinstance(part[axis], int):
            return None
        sizes.append(part[axis])
    return [int(size) for size in sizes if size is not None], axis


def _split_check(node: ir.Node, context: Context) -> Declined | None:
    found = _parts(node, context)
    if found is None:
        return forms.NO_SIZES
    return NOT_NEEDED if len(set(found[0])) == 1 else None


def _split(node: ir.Node, context: Context) -> list[ir.Value | None]:
    found = _parts(node, context)
    assert found is not None
    sizes, axis = found
    values: list[ir.Value | None] = []
    start = 0
    for size, output in zip(sizes, node.outputs, strict=True):
        used = output.uses() or output.is_graph_output()
        values.append(forms.cut(context, forms.given(node, 0), axis, start, start + size) if used else None)
        start += size
    return values


def _strided(node: ir.Node, context: Context) -> list[tuple[int, int, int, int]] | None:
    found = forms.slices_of(node, context)
    return found if found is not None and any(step != 1 for *_, step in found) else None


def _strided_check(node: ir.Node, context: Context) -> Declined | None:
    sizes = context.static_shape(node.inputs[0])
    if forms.slices_of(node, context) is None:
        return Declined("its bounds are not constant") if sizes is not None else forms.NO_SIZES
    found = _strided(node, context)
    if found is None:
        return NOT_NEEDED
    if sizes is None or context.static_shape(node.outputs[0]) is None:
        return forms.NO_SIZES
    if any(step < 1 for *_, step in found):
        return Declined("it runs backwards")
    if 0 in forms.sizes_of(context, node.outputs[0]):
        return Declined("it takes nothing")
    for axis, start, end, step in found:
        if step != 1 and _groups(start, end, step) * step > sizes[axis]:
            return Declined("the last step does not fit into the axis")
    return None


def _groups(start: int, end: int, step: int) -> int:
    """How many elements a slice takes along its axis."""
    return -(-(end - start) // step)


def _strides(node: ir.Node, context: Context) -> list[ir.Value]:
    found, value = _strided(node, context), forms.given(node, 0)
    assert found is not None
    sizes = list(forms.sizes_of(context, value))
    for axis, start, end, step in found:
        if step == 1:
            if (start, end) != (0, sizes[axis]):
                value = forms.cut(context, value, axis, start, end)
                sizes[axis] = end - start
            continue
        number = _groups(start, end, step)
        # The window of whole steps that holds the slice; the place inside a step that is taken.
        first = min(start, sizes[axis] - number * step)
        if (first, first + number * step) != (0, sizes[axis]):
            value = forms.cut(context, value, axis, first, first + number * step)
        behind = int(np.prod(sizes[axis + 1 :], dtype=np.int64))
        before = [size for size in sizes[:axis] if size != 1]
        lead = [1] * (axis - len(before)) + before
        folded = _fold_front(lead, number, step, behind)
        value = forms.reshape(context, value, folded)
        place = len(folded) - 2
        value = forms.cut(context, value, place, start - first, start - first + 1)
        sizes[axis] = number
        value = forms.reshape(context, value, sizes)
    return [value]


def _fold_front(lead: Sequence[int], number: int, step: int, behind: int) -> list[int]:
    """[batch, before, step, behind]: what lies before the axis and its groups are one, the batch stays."""
    if not lead:
        return [1, number, step, behind]
    batch, rest = lead[0], [*lead[1:], number]
    return [batch, int(np.prod(rest, dtype=np.int64)), step, behind]


def _pad_mode(node: ir.Node, context: Context) -> str:
    mode = context.attribute(node, "mode", "constant")
    return mode.decode() if isinstance(mode, bytes) else str(mode)


def _pad_check(node: ir.Node, context: Context) -> Declined | None:
    mode = _pad_mode(node, context)
    if mode == "constant":
        return NOT_NEEDED
    found, sizes = forms.pads_of(node, context), context.static_shape(node.inputs[0])
    if found is None:
        return Declined("its pads are not constant")
    if sizes is None:
        return forms.NO_SIZES
    pads, rank = found[0], len(sizes)
    for axis, size in enumerate(sizes):
        begin, end = pads[axis], pads[rank + axis]
        if min(begin, end) < 0:
            return Declined("it takes away and adds")
        if (
            size < 1
            or (mode == "reflect" and max(begin, end) >= size)
            or (mode == "wrap" and max(begin, end) > size)
        ):
            return Declined("it adds more than the axis has")
    return None


def _pad(node: ir.Node, context: Context) -> list[ir.Value]:
    found, value, mode = forms.pads_of(node, context), forms.given(node, 0), _pad_mode(node, context)
    assert found is not None
    pads, sizes = found[0], forms.sizes_of(context, value)
    for axis, size in enumerate(sizes):
        begin, end = pads[axis], pads[len(sizes) + axis]
        if not begin and not end:
            continue
        places = [_source(place, size, mode) for place in (*range(-begin, 0), *range(size, size + end))]
        pieces = [_single(context, value, axis, place) for place in places]
        if mode == "wrap":  # whole runs
            pieces = [forms.cut(context, value, axis, size - begin, size)] if begin else []
            pieces += [forms.cut(context, value, axis, 0, end)] if end else []
            begin = min(begin, 1)
        value = context.op("Concat", [*pieces[:begin], value, *pieces[begin:]], axis=axis)
    return [value]


def _source(place: int, size: int, mode: str) -> int:
    """The place that a padded one repeats."""
    if mode == "edge":
        return min(max(place, 0), size - 1)
    return -place if place < 0 else 2 * (size - 1) - place


def _single(context: Context, value: ir.Value, axis: int, place: int) -> ir.Value:
    return forms.cut(context, value, axis, place, place + 1)


def _negative_check(node: ir.Node, context: Context) -> Declined | None:
    found, sizes = forms.pads_of(node, context), context.static_shape(node.inputs[0])
    if found is None:
        return Declined("its pads are not constant")
    if min(found[0], default=0) >= 0:
        return NOT_NEEDED
    if sizes is None or _pad_mode(node, context) != "constant":
        return forms.NO_SIZES if sizes is None else Declined("it repeats what it takes away")
    rank = len(sizes)
    left = [size + min(found[0][axis], 0) + min(found[0][rank + axis], 0) for axis, size in enumerate(sizes)]
    if min(left, default=1) < 1:
        return Declined("it takes away all")
    return None if forms.floating(context, node.inputs[0]) else forms.NO_TYPE


def _negative(node: ir.Node, context: Context) -> list[ir.Value]:
    found, value = forms.pads_of(node, context), forms.given(node, 0)
    assert found is not None
    pads, sizes = found[0], forms.sizes_of(context, value)
    rank = len(sizes)
    for axis, size in enumerate(sizes):
        begin, end = min(pads[axis], 0), min(pads[rank + axis], 0)
        if begin or end:
            value = forms.cut(context, value, axis, -begin, size + end)
    rest = [max(one, 0) for one in pads]
    if any(rest):
        value = forms.pad(context, value, rest, found[1], forms.floats(context, node.inputs[0]))
    return [value]


def _into_check(node: ir.Node, context: Context) -> Declined | None:
    """A Pad with zeros of height and width before a convolution or a MaxPool-free window."""
    before = forms.producer(node.inputs[0], "Pad")
    if before is None or not forms.only_use(node.inputs[0]) or _pad_mode(before, context) != "constant":
        return NOT_NEEDED
    found, rank = forms.pads_of(before, context), context.rank(node.inputs[0])
    if found is None or rank is None:
        return Declined("the pads before it are not constant")
    pads, fill = found
    if fill != 0 or any(pads[:2]) or any(pads[rank : rank + 2]) or min(pads) < 0:
        return Declined("the Pad before it does not add zeros to places alone")
    if pads[2:rank] != pads[rank + 2 :]:
        return Declined("the Pad before it adds more on one side, which few targets take in a convolution")
    if context.attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        return Declined("its padding is left to auto_pad")
    return None


def _into(node: ir.Node, context: Context) -> list[ir.Value]:
    before = forms.producer(node.inputs[0], "Pad")
    assert before is not None
    found, rank = forms.pads_of(before, context), forms.rank_of(context, node.inputs[0])
    assert found is not None
    attributes = forms.attributes(node)
    own = attributes.get("pads", [0] * (2 * (rank - 2)))
    outer = [*found[0][2:rank], *found[0][rank + 2 :]]
    attributes["pads"] = [one + other for one, other in zip(own, outer, strict=True)]
    return [context.op(node.op_type, [before.inputs[0], *node.inputs[1:]], **attributes)]


def _uneven_check(node: ir.Node, context: Context) -> Declined | None:
    pads = list(context.attribute(node, "pads", []))
    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return NOT_NEEDED
    return None if forms.floating(context, node.inputs[0]) else forms.NO_TYPE


def _uneven(node: ir.Node, context: Context) -> list[ir.Value]:
    attributes = forms.attributes(node)
    pads = attributes["pads"]
    half = len(pads) // 2
    common = [min(one, other) for one, other in zip(pads[:half], pads[half:], strict=True)]
    begin = [one - other for one, other in zip(pads[:half], common, strict=True)]
    end = [one - other for one, other in zip(pads[half:], common, strict=True)]
    dtype = forms.floats(context, node.inputs[0])
    padded = forms.pad(context, forms.given(node, 0), [0, 0, *begin, 0, 0, *end], 0.0, dtype)
    attributes["pads"] = [*common, *common]
    return [context.op(node.op_type, [padded, *node.inputs[1:]], **attributes)]


RULES: Final = (
    Rule("gather_before_transpose", "legalise", ("Gather",), ("Gather", "Transpose"), "exact",
         "Gather of one place behind a Transpose of rank 5 or more is done before it", _pick, _pick_check,
         "a constant index"),
    Rule(
        "image_gather_to_slice",
        "legalise",
        ("Gather",),
        ("Slice",),
        "exact",
        "Gather of constant, evenly spaced places, rows or channels of an image becomes Slice",
        _gather,
        _image_gather_check,
        "constant indices in even steps, a known size of the axis",
    ),
    Rule("gather_to_slice", "legalise", ("Gather",), ("Slice", "Reshape", "Squeeze"), "exact",
         "Gather of constant, evenly spaced indices becomes Slice", _gather, _gather_check,
         "constant indices in even steps, a known size of the axis"),
    Rule("uneven_split_to_slices", "legalise", ("Split",), ("Slice",), "exact",
         "Split into unequal parts becomes one Slice a part", _split, _split_check, "known sizes of the parts"),
    Rule("strided_slice_to_reshape", "legalise", ("Slice",), ("Slice", "Reshape"), "exact",
         "Slice with steps (patch merging) becomes Reshape, Slice without steps and Reshape", _strides,
         _strided_check, "static sizes into which the steps fit"),
    Rule("pad_to_concat", "legalise", ("Pad",), ("Slice", "Concat"), "exact",
         "Pad by reflection, edge or wrap becomes Slice and Concat", _pad, _pad_check, "constant pads, static sizes"),
    Rule("negative_pad_to_slice", "legalise", ("Pad",), ("Slice", "Pad"), "exact",
         "Pad with negative pads becomes Slice", _negative, _negative_check, "constant pads, static sizes"),
    Rule("pad_into_conv", "legalise", ("Conv",), ("Conv",), "exact",
         "a Pad with zeros before a convolution becomes its padding", _into, _into_check, "constant pads"),
    Rule("uneven_conv_pads_apart", "legalise", ("Conv",), ("Pad", "Conv"), "exact",
         "what a convolution pads on one side alone is padded before it", _uneven, _uneven_check),
)  # fmt: skip
