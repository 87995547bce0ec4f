"""Facts of a node that take more than a look: kernels and paddings, broadcasting, scales, forms of shapes."""

from __future__ import annotations

from itertools import groupby
from math import log2, prod
from typing import TYPE_CHECKING, Any, Final

from pipeline.targets.predicates import Fact, Unclear

if TYPE_CHECKING:
    from pipeline.targets.node_facts import NodeFacts

CONVOLUTION: Final = (
    "kernel_h", "kernel_w", "kernel_d", "kernels", "stride_h", "stride_w", "strides", "dilation_h",
    "dilation_w", "dilations", "pad_h", "pad_w", "pad_d", "pads_even", "output_paddings", "group", "cin",
    "cout", "weight_n", "weight_c", "spatial", "depthwise",
)  # fmt: skip
BROADCASTING: Final = (
    "same_shape", "one_input_scalar", "broadcast", "one_sided", "collapsed_rank", "collapsed_rank_apart",
)  # fmt: skip
_WEIGHTED: Final = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv")


def convolution(facts: NodeFacts) -> dict[str, Fact]:
    """Everything about a kernel that slides; what is not known is unclear."""
    cached = facts._values.get(" convolution")
    if cached is not None:
        return cached  # type: ignore[no-any-return]
    weights: Fact = Unclear("it has no weights")
    if facts.node.op_type in _WEIGHTED:
        weights = facts.dims(facts.input_name(3 if facts.node.op_type == "QLinearConv" else 1), "the weight")
    kernels = facts.attribute("kernel_shape")
    if kernels is None:
        kernels = weights if isinstance(weights, Unclear) else weights[2:]
    spatial = len(kernels) if isinstance(kernels, tuple) else None
    strides = _per_axis(facts.attribute("strides"), spatial, 1)
    dilations = _per_axis(facts.attribute("dilations"), spatial, 1)
    padding = pads(facts)
    group = facts.attribute("group")
    found: dict[str, Fact] = {
        "kernels": kernels,
        "strides": strides,
        "dilations": dilations,
        "spatial": Unclear("the kernel is not known") if spatial is None else spatial,
        "output_paddings": _per_axis(facts.attribute("output_padding"), spatial, 0),
        "group": 1 if group is None else group,
        "pads_even": padding if isinstance(padding, Unclear) else _even(padding),
    }
    for letter, place in (("h", -2), ("w", -1), ("d", -3)):
        for name, values, missing in (
            ("kernel", kernels, 1),
            ("stride", strides, 1),
            ("dilation", dilations, 1),
        ):
            found[f"{name}_{letter}"] = _at(values, place, missing)
        found[f"pad_{letter}"] = _pad_at(padding, place)
    found.update(_channels(facts, weights, found["group"]))
    facts._values[" convolution"] = found
    return found


def _channels(facts: NodeFacts, weights: Fact, group: Fact) -> dict[str, Fact]:
    if isinstance(weights, Unclear):
        keys = ("cin", "cout", "weight_n", "weight_c", "depthwise")
        return dict.fromkeys(keys, weights)
    first, second = weights[0], weights[1] if len(weights) > 1 else 1
    transposed = facts.node.op_type == "ConvTranspose"
    cin, cout = (first, second * group) if transposed else (second * group, first)
    return {
        "weight_n": first,
        "weight_c": second,
        "cin": cin,
        "cout": cout,
        "depthwise": group > 1 and group == cin,
    }


def _per_axis(values: Fact, spatial: int | None, missing: int) -> Fact:
    if values is not None and values != ():
        return values
    return Unclear("the kernel is not known") if spatial is None else (missing,) * spatial


def _at(values: Fact, place: int, missing: int) -> Fact:
    if isinstance(values, tuple):
        return values[place] if len(values) >= -place else missing
    return values


def _pad_at(padding: Fact, place: int) -> Fact:
    if not isinstance(padding, tuple):
        return padding
    half = len(padding) // 2
    if half < -place:
        return 0
    return max(padding[:half][place], padding[half:][place])


def _even(padding: tuple[int, ...]) -> bool:
    half = len(padding) // 2
    return padding[:half] == padding[half:]


def pads(facts: NodeFacts) -> Fact:
    """All begins, then all ends: attribute, input of Pad, or what auto_pad comes to."""
    if facts.node.op_type == "Pad":
        stated = facts.stated().get("pads")
        return stated if stated is not None else facts.constant(facts.input_name(1))
    stated = facts.stated().get("pads")
    auto = facts.attribute("auto_pad")
    if auto in (None, "NOTSET"):
        if stated:
            return stated
        rank = facts.rank()
        return rank if isinstance(rank, Unclear) else (0,) * (2 * max(0, rank - 2))
    if auto == "VALID":
        rank = facts.rank()
        return rank if isinstance(rank, Unclear) else (0,) * (2 * max(0, rank - 2))
    return _same_pads(facts, upper=auto == "SAME_UPPER")


def _same_pads(facts: NodeFacts, *, upper: bool) -> Fact:
    sizes = facts.dims(facts.first())
    kernels = facts.attribute("kernel_shape")
    if isinstance(sizes, Unclear) or kernels is None:
        return sizes if isinstance(sizes, Unclear) else Unclear("the padding follows from auto_pad")
    strides = _per_axis(facts.attribute("strides"), len(kernels), 1)
    dilations = _per_axis(facts.attribute("dilations"), len(kernels), 1)
    begins, ends = [], []
    for size, kernel, stride, dilation in zip(sizes[2:], kernels, strides, dilations, strict=False):
        whole = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        small, large = whole // 2, whole - whole // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return (*begins, *ends)


def padded_axes(facts: NodeFacts) -> Fact:
    """Axes that a Pad makes longer or shorter, counted from 0."""
    padding = pads(facts)
    if isinstance(padding, Unclear) or padding is None:
        return padding if isinstance(padding, Unclear) else Unclear("the padding is not stated")
    listed = padding if isinstance(padding, tuple) else (padding,)
    half = len(listed) // 2
    axes = facts.axes() if facts.input_name(3) else tuple(range(half))
    if isinstance(axes, Unclear):
        return axes
    return tuple(axis for index, axis in enumerate(axes) if listed[index] or listed[half + index])


def perm(facts: NodeFacts) -> Fact:
    """Order of axes; a Transpose that states none turns them round."""
    stated = facts.stated().get("perm")
    if stated is not None:
        return stated
    rank = facts.rank()
    return () if isinstance(rank, Unclear) else tuple(reversed(range(rank)))


def scales(facts: NodeFacts) -> Fact:
    """Output size by input size for every axis."""
    stated = facts.stated().get("scales")
    if stated:
        return stated
    before, after = facts.dims(facts.first()), facts.dims(facts.output())
    if isinstance(before, Unclear) or isinstance(after, Unclear):
        return before if isinstance(before, Unclear) else after
    if len(before) != len(after) or 0 in before:
        return Unclear("input and output have different ranks")
    return tuple(_ratio(new, old) for new, old in zip(after, before, strict=True))


def _ratio(new: int, old: int) -> float | int:
    return new // old if new % old == 0 else new / old


def scale(facts: NodeFacts, place: int) -> Fact:
    """Of the height (-2) or the width (-1)."""
    found = scales(facts)
    if isinstance(found, Unclear):
        return found
    return found[place] if len(found) >= -place else 1


def power_of_two(value: Any) -> bool:
    """Whether it is 2 to a whole power (an eighth, 1, 2, 64)."""
    return value > 0 and log2(value).is_integer()


def steps(facts: NodeFacts) -> Fact:
    """Of a Slice; 1 where none are stated."""
    name = facts.input_name(4)
    return 1 if name is None else facts.constant(name)


def sliced_axes(facts: NodeFacts) -> Fact:
    """Axes of a Slice, counted from 0."""
    stated = facts.stated().get("axes")
    if stated is None:
        stated = facts.constant(facts.input_name(3))
    if stated is None:
        starts = facts.stated().get("starts") or facts.constant(facts.input_name(1))
        if isinstance(starts, Unclear):
            return starts
        return tuple(range(len(starts) if isinstance(starts, tuple) else 1))
    if isinstance(stated, Unclear):
        return stated
    return tuple(facts.axis(one) for one in (stated if isinstance(stated, tuple) else (stated,)))


def changed_dims(facts: NodeFacts) -> Fact:
    """Axes whose size differs between first input and first output; missing leading axes are 1."""
    before, after = facts.dims(facts.first()), facts.dims(facts.output())
    if isinstance(before, Unclear) or isinstance(after, Unclear):
        return before if isinstance(before, Unclear) else after
    width = max(len(before), len(after))
    pairs = zip(_filled(before, width), _filled(after, width), strict=True)
    return sum(one != other for one, other in pairs)


def _filled(sizes: Any, width: int) -> tuple[int, ...]:
    return (1,) * (width - len(sizes)) + tuple(sizes)


def broadcasting(facts: NodeFacts) -> dict[str, Fact]:
    """How the inputs' shapes fit each other."""
    cached = facts._values.get(" broadcasting")
    if cached is not None:
        return cached  # type: ignore[no-any-return]
    shapes = [facts.dims(name) for name in facts.inputs]
    unclear = next((one for one in shapes if isinstance(one, Unclear)), None)
    found: dict[str, Fact] = dict.fromkeys(BROADCASTING, unclear) if unclear else _fit(shapes)
    facts._values[" broadcasting"] = found
    return found


def _fit(shapes: list[Any]) -> dict[str, Fact]:
    width = max((len(shape) for shape in shapes), default=0)
    filled = [_filled(shape, width) for shape in shapes]
    columns = [tuple(shape[index] for shape in filled) for index in range(width)]
    output = tuple(max(column, default=1) if 0 not in column else 0 for column in columns)
    return {
        "same_shape": len({tuple(shape) for shape in shapes}) <= 1,
        "one_input_scalar": any(prod(shape) == 1 for shape in shapes),
        "broadcast": all(
            size in (1, full) for column, full in zip(columns, output, strict=True) for size in column
        ),
        "one_sided": any(tuple(shape) == output for shape in filled),
        "collapsed_rank": _collapsed(columns, output, merge_broadcast=True),
        "collapsed_rank_apart": _collapsed(columns, output, merge_broadcast=False),
    }


def _collapsed(columns: list[tuple[int, ...]], output: tuple[int, ...], *, merge_broadcast: bool) -> int:
    """Axes that are left: size 1 dropped, neighbours that are broadcast by the same inputs merged."""
    labels = [
        tuple(size != full for size in column)
        for column, full in zip(columns, output, strict=True)
        if full != 1
    ]
    if merge_broadcast:
        return len(list(groupby(labels)))
    return sum(sum(1 for _ in run) if any(label) else 1 for label, run in groupby(labels))


def forms(facts: NodeFacts, texts: tuple[str, ...], *, ordered: bool) -> Fact:
    """Whether the first two inputs' shapes have one of the forms, such as 'NCHW+NC11'."""
    names = [facts.input_name(0), facts.input_name(1)]
    shapes = [facts.dims(name) for name in names]
    for shape in shapes:
        if isinstance(shape, Unclear):
            return shape
    orders = [shapes] if ordered else [shapes, shapes[::-1]]
    return any(_has_form(one, text.split("+")) for one in orders for text in texts)


def _has_form(shapes: list[Any], parts: list[str]) -> bool:
    bound: dict[str, int] = {}
    if len(shapes) != len(parts):
        return False
    for shape, part in zip(shapes, parts, strict=True):
        if len(shape) != len(part):
            return False
        for size, mark in zip(shape, part, strict=True):
            if mark.isdigit():
                if size != int(mark):
                    return False
            elif bound.setdefault(mark, size) != size or (mark.islower() and size <= 1):
                return False
    return True


def batch_broadcast(facts: NodeFacts) -> tuple[Fact, Fact]:
    """Of a MatMul's inputs, which of their leading axes are broadcast: none, all, trailing or mixed."""
    shapes = [facts.dims(facts.input_name(index)) for index in range(2)]
    for shape in shapes:
        if isinstance(shape, Unclear):
            return shape, shape
    left, right = (shape[:-2] for shape in shapes)  # type: ignore[index]
    width = max(len(left), len(right))
    pairs = list(zip(_filled(left, width), _filled(right, width), strict=True))
    return (
        _stretched([one == 1 for one, other in pairs if (one, other) != (1, 1)]),
        _stretched([other == 1 for one, other in pairs if (one, other) != (1, 1)]),
    )


def _stretched(marks: list[bool]) -> str:
    if not any(marks):
        return "none"
    if all(marks):
        return "all"
    return "trailing" if marks == sorted(marks) else "mixed"
