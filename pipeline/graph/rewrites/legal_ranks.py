"""Ranks above 4 brought down to 4: axes that stay together are one."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.legal_layout import BINARY, UNARY
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.graph.rewrites.context import Context

#: The highest rank that most restricted targets take.
HIGHEST_RANK: Final = 4


def _rank_check(node: ir.Node, context: Context) -> Declined | None:
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    ranks = [context.rank(value) for value in values if not context.is_weight(value)]
    if max((rank or 0 for rank in ranks), default=0) <= HIGHEST_RANK:
        return NOT_NEEDED
    if any(context.static_shape(value) is None for value in values):
        return forms.NO_SIZES
    return None


def _merged(sizes: Sequence[int], perm: Sequence[int]) -> tuple[list[int], list[int]]:
    """Sizes and permutation with axes of size 1 dropped, and axes that stay together as one."""
    kept = [axis for axis in perm if sizes[axis] != 1]
    groups: list[list[int]] = []
    inside = sorted(kept)
    for axis in kept:
        follows = groups and inside.index(axis) == inside.index(groups[-1][-1]) + 1
        if follows:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    ordered = sorted(groups)
    return [prod(sizes[axis] for axis in group) for group in ordered], [
        ordered.index(group) for group in groups
    ]


def _low_transpose(node: ir.Node, context: Context) -> list[ir.Value]:
    """A permutation as moves of one block of axes before others; each has rank 4 at most."""
    source, perm = forms.given(node, 0), forms.permutation(node, context)
    assert perm is not None
    sizes, order = _merged(forms.sizes_of(context, source), perm)
    target = forms.sizes_of(context, node.outputs[0])
    value = source
    if len(sizes) <= HIGHEST_RANK:
        if order != sorted(order):
            value = forms.transpose(context, forms.reshape(context, value, sizes), order)
        return [forms.reshape(context, value, target)]
    axes = list(range(len(sizes)))
    for place, axis in enumerate(order):
        here = axes.index(axis)
        if here == place:
            continue
        # [before, between, axis, after] -> [before, axis, between, after]
        blocks = [axes[:place], axes[place:here], [axis], axes[here + 1 :]]
        block_sizes = [prod(sizes[one] for one in block) for block in blocks]
        value = forms.transpose(context, forms.reshape(context, value, block_sizes), [0, 2, 1, 3])
        axes = [*blocks[0], *blocks[2], *blocks[1], *blocks[3]]
    return [forms.reshape(context, value, target)]


def _groups(shapes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Neighbouring axes along which the operands are broadcast alike."""
    rank = len(shapes[0])
    output = [max(shape[axis] for shape in shapes) for axis in range(rank)]
    kinds: list[tuple[bool, ...] | None] = [
        None if output[axis] == 1 else tuple(shape[axis] == 1 for shape in shapes) for axis in range(rank)
    ]
    groups: list[list[int]] = []
    last: tuple[bool, ...] | None = None
    for axis, kind in enumerate(kinds):
        if groups and (kind is None or kind == last):
            groups[-1].append(axis)
        elif kind is None:
            groups.append([axis])
        elif groups and last is None:
            groups[-1].append(axis)
        else:
            groups.append([axis])
        last = kind if kind is not None else last
    return groups


def _low_binary_check(node: ir.Node, context: Context) -> Declined | None:
    declined = _rank_check(node, context)
    if declined is not None:
        return declined
    if len(node.inputs) != 2:
        return Declined("it has not two operands")
    if len(_groups(_wide_shapes(node, context))) > HIGHEST_RANK:
        return Declined("its operands are broadcast along axes that do not join to four")
    return None


def _wide_shapes(node: ir.Node, context: Context) -> list[tuple[int, ...]]:
    rank = forms.rank_of(context, node.outputs[0])
    shapes = [forms.sizes_of(context, value) for value in node.inputs]
    return [(1,) * (rank - len(shape)) + shape for shape in shapes]


def _low_binary(node: ir.Node, context: Context) -> list[ir.Value]:
    shapes = _wide_shapes(node, context)
    groups = _groups(shapes)
    inputs = []
    for index, shape in enumerate(shapes):
        sizes = tuple(prod(shape[axis] for axis in group) for group in groups)
        inputs.append(_resized(forms.given(node, index), sizes, context))
    result = context.op(node.op_type, inputs, **forms.attributes(node))
    return [forms.reshape(context, result, forms.sizes_of(context, node.outputs[0]))]


def _resized(value: ir.Value, sizes: tuple[int, ...], context: Context) -> ir.Value:
    dtype = context.dtype(value)
    if context.is_weight(value) and dtype is not None:
        if context.static_shape(value) == ():
            return value
        return context.derived(
            [value], lambda array: array.reshape(sizes), dtype, sizes, value.name or "constant"
        )
    return forms.reshape(context, value, sizes)


def _low_unary(node: ir.Node, context: Context) -> list[ir.Value]:
    sizes = forms.sizes_of(context, node.inputs[0])
    lower = (prod(sizes[: len(sizes) - HIGHEST_RANK + 1]), *sizes[len(sizes) - HIGHEST_RANK + 1 :])
    value = forms.reshape(context, forms.given(node, 0), lower)
    result = context.op(node.op_type, [value, *node.inputs[1:]], **forms.attributes(node))
    return [forms.reshape(context, result, forms.sizes_of(context, node.outputs[0]))]


def _axis_check(node: ir.Node, context: Context) -> Declined | None:
    declined = _rank_check(node, context)
    if declined is not None:
        return declined
    if node.op_type in ("Softmax", "LogSoftmax") and context.opset < forms.SOFTMAX_ALONG_AXIS:
        rank = forms.rank_of(context, node.inputs[0])
        if context.attribute(node, "axis", 1) % rank != rank - 1:
            return Declined("before opset 13 it works along every axis from its own on")
    if node.op_type == "Slice":
        found = forms.slices_of(node, context)
        if found is None:
            return Declined("its bounds are not constant")
        if len(found) != 1:
            return Declined("it cuts along several axes")
        if found[0][3] < 1 or (found[0][3] != 1 and context.opset < forms.SLICE_INPUTS):
            return Declined("it runs backwards")
    return None


def _low_axis(node: ir.Node, context: Context) -> list[ir.Value]:
    """Softmax, Concat, Slice along one axis: what lies before and behind it are one axis each."""
    rank = forms.rank_of(context, node.inputs[0])
    target = forms.sizes_of(context, node.outputs[0])
    if node.op_type == "Slice":
        found = forms.slices_of(node, context)
        assert found is not None
        axis, start, end, step = found[0]
        value = forms.reshape(
            context, forms.given(node, 0), _around(forms.sizes_of(context, node.inputs[0]), axis)
        )
        return [forms.reshape(context, forms.cut(context, value, 1, start, end, step), target)]
    default = 1 if context.opset < forms.SOFTMAX_ALONG_AXIS else -1
    axis = context.attribute(node, "axis", default) % rank
    inputs = [
        _resized(forms.given(node, index), _around(forms.sizes_of(context, value), axis), context)
        for index, value in enumerate(node.inputs)
    ]
    if node.op_type != "Concat" and axis == rank - 1:
        inputs = [forms.reshape(context, forms.given(node, 0), _around(target, axis)[:2])]
    result = context.op(node.op_type, inputs, axis=1)
    return [forms.reshape(context, result, target)]


def _around(sizes: Sequence[int], axis: int) -> tuple[int, int, int]:
    return prod(sizes[:axis]), sizes[axis], prod(sizes[axis + 1 :])


RULES: Final = (
    Rule("transpose_to_rank_4", "legalise", ("Transpose",), ("Reshape", "Transpose"), "exact",
         "a Transpose of rank 5 or more becomes Reshape and Transpose of rank 4", _low_transpose, _rank_check,
         "static sizes"),
    Rule("elementwise_to_rank_4", "legalise", BINARY, (*BINARY, "Reshape"), "exact",
         "two operands of rank 5 or more are joined to four axes", _low_binary, _low_binary_check,
         "static sizes, and axes that are broadcast alike side by side"),
    Rule("unary_to_rank_4", "legalise", UNARY, (*UNARY, "Reshape"), "exact",
         "an operand of rank 5 or more of an operator that works element by element is joined to four axes",
         _low_unary, _rank_check, "static sizes"),
    Rule("axis_to_rank_4", "legalise", ("Softmax", "LogSoftmax", "Concat", "Slice"),
         ("Softmax", "LogSoftmax", "Concat", "Slice", "Reshape"), "exact",
         "an operator along one axis of rank 5 or more works on three", _low_axis, _axis_check, "static sizes"),
)  # fmt: skip
