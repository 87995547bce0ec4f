"""QuantizeLinear and DequantizeLinear as arithmetic, for each channel too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.lower_axes import input_of
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

_OLD_TYPES: Final = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32)


def _scale_shape(node: ir.Node, context: Context) -> tuple[int, ...] | None:
    """The shape that spreads a scale over the input, or None when it cannot be said."""
    scale, rank = context.static_shape(node.inputs[1]), context.rank(node.inputs[0])
    if scale is None:
        return None
    if scale in ((), (1,)):
        return ()
    if rank is None or len(scale) != 1:
        return None
    axis = context.attribute(node, "axis", 1) % rank
    return tuple(scale[0] if index == axis else 1 for index in range(rank))


def _check(node: ir.Node, context: Context) -> Declined | None:
    shape = _scale_shape(node, context)
    if shape is None:
        return Declined("its scale is in blocks, or its sizes are not known")
    if context.opset >= 10 and shape == ():
        return NOT_NEEDED
    kinds = [context.dtype(value) for value in (node.inputs[0], input_of(node, 2), node.outputs[0])]
    wide = [kind for kind in kinds if kind is not None and kind.is_integer() and kind not in _OLD_TYPES]
    return Declined(f"its type is {wide[0].name.lower()}") if wide else None


def _spread(value: ir.Value, shape: tuple[int, ...], context: Context) -> ir.Value:
    if not shape:
        return value
    made: ir.Value = context.op("Reshape", [value, context.tensor(np.array(shape, np.int64), "channels")])
    return made


def _dequantize(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x, scale, zero = node.inputs[0], node.inputs[1], input_of(node, 2)
    shape, floating = _scale_shape(node, context), int(ir.DataType.FLOAT)
    assert shape is not None
    assert scale is not None
    made = context.op("Cast", [x], to=floating)
    if zero is not None:
        made = context.op("Sub", [made, _spread(context.op("Cast", [zero], to=floating), shape, context)])
    return [context.op("Mul", [made, _spread(scale, shape, context)])]


def _quantize(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x, scale, zero = node.inputs[0], node.inputs[1], input_of(node, 2)
    shape, dtype = _scale_shape(node, context), context.dtype(zero) or ir.DataType.UINT8
    assert shape is not None
    assert scale is not None
    limits = np.iinfo(dtype.numpy())
    if context.dtype(x) != ir.DataType.FLOAT:
        x = context.op("Cast", [x], to=int(ir.DataType.FLOAT))
    made = _rounded(context.op("Div", [x, _spread(scale, shape, context)]), context)
    if zero is not None:
        wide = context.op("Cast", [zero], to=int(ir.DataType.FLOAT))
        made = context.op("Add", [made, _spread(wide, shape, context)])
    low, high = (context.tensor(np.float32(limit), "limit") for limit in (limits.min, limits.max))
    made = context.op("Min", [context.op("Max", [made, low]), high])
    return [context.op("Cast", [made], to=int(dtype))]


def _rounded(x: ir.Value, context: Context) -> ir.Value:
    """To the nearest, halves to the even one; before opset 11 there is no Round."""
    made: ir.Value
    if context.opset >= 11:
        made = context.op("Round", [x])
        return made
    half, one, two = (context.tensor(np.float32(value), "number") for value in (0.5, 1, 2))
    down = context.op("Floor", [x])
    rest = context.op("Sub", [x, down])
    halved = context.op("Div", [down, two])
    odd = context.op("Greater", [halved, context.op("Floor", [halved])])
    above = context.op("Greater", [rest, half])
    tie = context.op("Not", [context.op("Or", [above, context.op("Less", [rest, half])])])
    up = context.op("Or", [above, context.op("And", [tie, odd])])
    made = context.op("Where", [up, context.op("Add", [down, one]), down])
    return made


def _measured(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Scale and zero point come from the smallest and largest element, which always enclose zero."""
    x = node.inputs[0]
    assert x is not None

    def number(value: float) -> ir.Value:
        return context.tensor(np.float32(value), "number")

    low = context.op("Min", [context.op("ReduceMin", [x], keepdims=0), number(0)])
    high = context.op("Max", [context.op("ReduceMax", [x], keepdims=0), number(0)])
    scale = context.op("Div", [context.op("Sub", [high, low]), number(LARGEST)])
    start = context.op("Neg", [context.op("Div", [low, scale])])
    zero = _rounded(context.op("Clip", [start], min=0.0, max=LARGEST), context)
    moved = context.op("Add", [_rounded(context.op("Div", [x, scale]), context), zero])
    bounded = context.op("Clip", [moved], min=0.0, max=LARGEST)
    number_type = int(ir.DataType.UINT8)
    return [context.op("Cast", [bounded], to=number_type), scale, context.op("Cast", [zero], to=number_type)]


#: Of uint8.
LARGEST: Final = 255.0
_MADE: Final = ("Add", "And", "Cast", "Div", "Floor", "Greater", "Less", "Max", "Min", "Mul", "Not", "Or", "Reshape",
                "Round", "Sub", "Where")  # fmt: skip
RULES: Final = (
    Rule("dequantize_channels", "lower", ("DequantizeLinear",), ("Cast", "Mul", "Reshape", "Sub"), "float noise",
         "DequantizeLinear with a scale a channel becomes arithmetic", _dequantize, _check,
         "the size of the scale and the rank", 13),
    Rule("quantize_channels", "lower", ("QuantizeLinear",), _MADE, "exact",
         "QuantizeLinear with a scale a channel becomes arithmetic", _quantize, _check,
         "the size of the scale and the rank", 13),
    Rule("dynamic_quantize", "lower", ("DynamicQuantizeLinear",), (*_MADE, "Clip", "Neg", "ReduceMax", "ReduceMin"),
         "exact", "DynamicQuantizeLinear becomes its formula", _measured, from_opset=11),
    Rule("dequantize", "lower", ("DequantizeLinear",), ("Cast", "Mul", "Reshape", "Sub"), "float noise",
         "DequantizeLinear becomes arithmetic", _dequantize, _check, "int8, uint8 or int32", 10),
    Rule("quantize", "lower", ("QuantizeLinear",), _MADE, "exact", "QuantizeLinear becomes arithmetic", _quantize,
         _check, "int8 or uint8", 10),
)  # fmt: skip
