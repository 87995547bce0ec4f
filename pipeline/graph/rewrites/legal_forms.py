"""How legalisation rules read and write operators whose form changes with the opset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.rule import Declined

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: Opset since which an operator takes its axes as an input; every reduction that is not listed: 18.
AXES_AS_INPUT: Final = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}
REDUCTION_AXES_AS_INPUT: Final = 18
#: Opset since which Slice, Clip and Pad take their settings as inputs.
SLICE_INPUTS: Final = 10
CLIP_INPUTS: Final = 11
PAD_INPUTS: Final = 11
#: Since this opset Softmax works along one axis; before it flattens what follows its axis.
SOFTMAX_ALONG_AXIS: Final = 13

#: Element types that rules do arithmetic in; ONNX Runtime computes little in bfloat16 on a CPU.
_FLOATING: Final = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)

#: Before this opset Clip knows no type but float32 (ONNX Runtime: Clip of 6 and 11).
CLIP_OF_ALL: Final = 12

NO_TYPE: Final = Declined("it does not compute in a floating-point type that is known")
NO_SIZES: Final = Declined("its sizes are not known")
NO_RANK: Final = Declined("its rank is not known")


def floating(context: Context, value: ir.Value | None) -> np.dtype[Any] | None:
    """The numpy type of a floating-point value, or None."""
    dtype = context.dtype(value)
    return np.dtype(dtype.numpy()) if dtype in _FLOATING and dtype is not None else None


def no_image(context: Context, value: ir.Value | None) -> Declined | None:
    """Why a value cannot be convolved or pooled: ONNX Runtime's kernels on a CPU take float32 alone."""
    dtype = floating(context, value)
    if dtype is None:
        return NO_TYPE
    return None if dtype == np.float32 else Declined(f"convolutions and poolings of {dtype} cannot be proved")


def no_clip(context: Context, value: ir.Value | None) -> Declined | None:
    """Why a value cannot be clipped at the graph's opset."""
    dtype = floating(context, value)
    if dtype is None:
        return NO_TYPE
    if context.opset < CLIP_OF_ALL and dtype != np.float32:
        return Declined(f"before opset {CLIP_OF_ALL} Clip takes float32 alone")
    return None


def floats(context: Context, value: ir.Value | None) -> np.dtype[Any]:
    """As `floating`, for values that a check has found to be so."""
    found = floating(context, value)
    assert found is not None
    return found


def rank_of(context: Context, value: ir.Value | None) -> int:
    """The rank that a check has found to be known."""
    found = context.rank(value)
    assert found is not None
    return found


def sizes_of(context: Context, value: ir.Value | None) -> tuple[int, ...]:
    """The sizes that a check has found to be known."""
    found = context.static_shape(value)
    assert found is not None
    return found


def attributes(node: ir.Node) -> dict[str, Any]:
    """All attributes of a node, for one that is like it."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """An input, or None when it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def there(value: ir.Value | None) -> ir.Value:
    """A value that a check has found to be there."""
    assert value is not None
    return value


def given(node: ir.Node, index: int) -> ir.Value:
    """An input that is there."""
    return there(node.inputs[index])


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that makes a value, when it is one of these operators of ai.onnx."""
    node = None if value is None else value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in op_types:
        return None
    return node


def only_use(value: ir.Value | None) -> bool:
    """Whether one node alone takes a value and nobody outside sees it."""
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def uniform(context: Context, value: ir.Value | None) -> float | None:
    """The number that every element of a constant equals, or None."""
    found = context.constant(value)
    if found is None or found.size == 0 or found.dtype.kind not in "fiu":
        return None
    first = found.reshape(-1)[0]
    return float(first) if bool((found == first).all()) else None


def single(context: Context, value: ir.Value | None) -> float | None:
    """The number of a constant that holds one alone, or None."""
    found = context.constant(value)
    return uniform(context, value) if found is not None and found.size == 1 else None


def scalar(context: Context, number: float, dtype: np.dtype[Any], hint: str = "constant") -> ir.Value:
    """A constant of rank 0."""
    return context.tensor(np.asarray(number, dtype), hint)


def integers(context: Context, numbers: Sequence[int], hint: str) -> ir.Value:
    """A constant vector of int64: axes, sizes, starts."""
    return context.tensor(np.asarray(list(numbers), np.int64), hint)


def axes_of(node: ir.Node, context: Context) -> tuple[int, ...] | None:
    """The axes of a reduction, Squeeze or Unsqueeze, counted from the front and sorted; None: not known.

    A reduction without axes works along all of them, unless `noop_with_empty_axes` says none.
    """
    rank = context.rank(node.inputs[0])
    if rank is None:
        return None
    if node.op_type == "Unsqueeze":
        rank = rank_of(context, node.outputs[0]) if context.rank(node.outputs[0]) is not None else -1
    as_input = AXES_AS_INPUT.get(node.op_type, REDUCTION_AXES_AS_INPUT) <= context.opset
    axes: Sequence[int] | None
    if as_input and operand(node, 1) is not None:
        axes = context.integers(operand(node, 1))
        if axes is None:
            return None
    else:
        axes = context.attribute(node, "axes", ())
    if not axes and node.op_type.startswith("Reduce"):
        return () if context.attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis + rank if axis < 0 else axis for axis in axes or ()))


def reduce(
    context: Context, op_type: str, value: ir.Value, axes: Sequence[int], *, keepdims: bool = True
) -> ir.Value:
    """A reduction along these axes."""
    kept = int(keepdims)
    found: ir.Value
    if AXES_AS_INPUT.get(op_type, REDUCTION_AXES_AS_INPUT) <= context.opset:
        found = context.op(op_type, [value, integers(context, axes, "axes")], keepdims=kept)
    else:
        found = context.op(op_type, [value], axes=list(axes), keepdims=kept)
    return found


def reshape(context: Context, value: ir.Value, sizes: Sequence[int]) -> ir.Value:
    """A Reshape to static sizes; one of them may be -1."""
    found: ir.Value = context.op("Reshape", [value, integers(context, sizes, "sizes")])
    return found


def squeeze(context: Context, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Without these axes of size 1."""
    return _with_axes(context, "Squeeze", value, axes)


def unsqueeze(context: Context, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """With new axes of size 1 at these places of the result."""
    return _with_axes(context, "Unsqueeze", value, axes)


def _with_axes(context: Context, op_type: str, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    found: ir.Value
    if AXES_AS_INPUT[op_type] <= context.opset:
        found = context.op(op_type, [value, integers(context, axes, "axes")])
    else:
        found = context.op(op_type, [value], axes=list(axes))
    return found


def transpose(context: Context, value: ir.Value, perm: Sequence[int]) -> ir.Value:
    """A Transpose."""
    found: ir.Value = context.op("Transpose", [value], perm=list(perm))
    return found


def permutation(node: ir.Node, context: Context) -> tuple[int, ...] | None:
    """A Transpose's permutation, or None when its rank is not known."""
    perm = context.attribute(node, "perm")
    if perm is not None:
        return tuple(perm)
    rank = context.rank(node.inputs[0])
    return None if rank is None else tuple(reversed(range(rank)))


def cut(context: Context, value: ir.Value, axis: int, start: int, end: int, step: int = 1) -> ir.Value:
    """A Slice along one axis."""
    found: ir.Value
    if context.opset >= SLICE_INPUTS:
        settings = [
            integers(context, [start], "starts"),
            integers(context, [end], "ends"),
            integers(context, [axis], "axes"),
        ]
        if step != 1:
            settings.append(integers(context, [step], "steps"))
        found = context.op("Slice", [value, *settings])
    else:
        assert step == 1
        found = context.op("Slice", [value], axes=[axis], starts=[start], ends=[end])
    return found


def slices_of(node: ir.Node, context: Context) -> list[tuple[int, int, int, int]] | None:
    """(axis, start, end, step) of a Slice, within the sizes of its input; None: not known."""
    shape = context.shape(node.inputs[0])
    if shape is None:
        return None
    if context.opset >= SLICE_INPUTS:
        starts, ends = (context.integers(operand(node, index)) for index in (1, 2))
        axes, steps = (context.integers(operand(node, index)) for index in (3, 4))
        if (operand(node, 3) is not None and axes is None) or (
            operand(node, 4) is not None and steps is None
        ):
            return None
    else:
        starts, ends = context.attribute(node, "starts"), context.attribute(node, "ends")
        axes, steps = context.attribute(node, "axes"), None
    if starts is None or ends is None:
        return None
    axes = axes if axes is not None else tuple(range(len(starts)))
    steps = steps if steps is not None else (1,) * len(starts)
    found = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = axis + len(shape) if axis < 0 else axis
        size = shape[place]
        if not isinstance(size, int):
            return None
        first, last, _ = slice(start, end if step > 0 or end >= -size else None, step).indices(size)
        found.append((place, first, last, step))
    return found


def clip(
    context: Context, value: ir.Value, low: float | None, high: float | None, dtype: np.dtype[Any]
) -> ir.Value:
    """A Clip; None leaves a bound out."""
    found: ir.Value
    if context.opset >= CLIP_INPUTS:
        bounds: list[ir.Value | None] = [
            None if bound is None else scalar(context, bound, dtype, "bound") for bound in (low, high)
        ]
        while bounds and bounds[-1] is None:
            bounds.pop()
        found = context.op("Clip", [value, *bounds])
    else:
        found = context.op("Clip", [value], min=low, max=high)
    return found


def bounds_of(node: ir.Node, context: Context) -> tuple[float | None, float | None] | None:
    """The bounds of a Clip; None for a bound that is left out; None alone when they are not known."""
    if context.opset < CLIP_INPUTS:
        return context.attribute(node, "min"), context.attribute(node, "max")
    found: list[float | None] = []
    for index in (1, 2):
        value = operand(node, index)
        number = uniform(context, value)
        if value is not None and number is None:
            return None
        found.append(number)
    return found[0], found[1]


def pad(
    context: Context, value: ir.Value, pads: Sequence[int], fill: float, dtype: np.dtype[Any]
) -> ir.Value:
    """A Pad with a constant; begins of all axes, then ends."""
    found: ir.Value
    if context.opset >= PAD_INPUTS:
        inputs = [value, integers(context, pads, "pads"), scalar(context, fill, dtype, "fill")]
        found = context.op("Pad", inputs, mode="constant")
    else:
        found = context.op("Pad", [value], mode="constant", pads=list(pads), value=fill)
    return found


def pads_of(node: ir.Node, context: Context) -> tuple[list[int], float] | None:
    """The pads of all axes (begins, then ends) and the constant of a Pad; None: not known."""
    rank = context.rank(node.inputs[0])
    if rank is None:
        return None
    if context.opset < PAD_INPUTS:
        return list(context.attribute(node, "pads")), float(context.attribute(node, "value", 0.0))
    pads, axes = context.integers(operand(node, 1)), context.integers(operand(node, 3))
    fill = 0.0 if operand(node, 2) is None else uniform(context, operand(node, 2))
    if pads is None or fill is None or (operand(node, 3) is not None and axes is None):
        return None
    if axes is None:
        return list(pads), fill
    whole = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        whole[axis % rank] = pads[index]
        whole[rank + axis % rank] = pads[len(axes) + index]
    return whole, fill
