"""Comparisons, extremes and arithmetic for the types and with the operators that were there before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.lower_activation import UNKNOWN_TYPE, scalar, typed_input
from pipeline.graph.rewrites.lower_axes import data_of, input_of
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

_SMALL_INTEGERS: Final = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
#: A power of an integer up to this becomes products.
LARGEST_POWER: Final = 16


def _floating(context: Context, value: ir.Value | None) -> bool | None:
    dtype = context.dtype(value)
    return None if dtype is None else dtype.is_floating_point()


def _integers_only(node: ir.Node, context: Context) -> Declined | None:
    floating = _floating(context, node.inputs[0])
    if floating is None:
        return Declined(UNKNOWN_TYPE)
    return NOT_NEEDED if floating else None


def _relu(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x = node.inputs[0]
    zero = scalar(context, x, 0, "zero")
    return [context.op("Where", [context.op("Less", [x, zero]), zero, x])]


def _extreme(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    comparison = "Less" if node.op_type == "Min" else "Greater"
    made = node.inputs[0]
    for other in node.inputs[1:]:
        made = context.op("Where", [context.op(comparison, [other, made]), other, made])
    assert made is not None
    return [made] if made is not node.inputs[0] else [context.op("Identity", [made])]


def _small_integers(node: ir.Node, context: Context) -> Declined | None:
    dtype = context.dtype(node.inputs[0])
    if dtype is None:
        return Declined(UNKNOWN_TYPE)
    return None if dtype in _SMALL_INTEGERS else NOT_NEEDED


def _widened(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """The same in int32, brought back: what passes the small type's range wraps around in both."""
    dtype = context.dtype(node.inputs[0])
    wide = [context.op("Cast", [value], to=int(ir.DataType.INT32)) for value in node.inputs]
    (made,) = context.again(node, wide)
    return [context.op("Cast", [made], to=int(dtype))]  # type: ignore[arg-type]


def _check_reduced_truth(node: ir.Node, context: Context) -> Declined | None:
    return NOT_NEEDED if context.dtype(node.inputs[0]) != ir.DataType.BOOL else None


def _check_reduced_small(node: ir.Node, context: Context) -> Declined | None:
    return None if context.dtype(node.inputs[0]) in (ir.DataType.INT8, ir.DataType.UINT8) else NOT_NEEDED


def _reduced_as_integers(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    dtype = context.dtype(node.inputs[0])
    wide = context.op("Cast", [node.inputs[0]], to=int(ir.DataType.INT32))
    (made,) = context.again(node, [wide, *node.inputs[1:]])
    return [context.op("Cast", [made], to=int(dtype))]  # type: ignore[arg-type]


def _check_power(node: ir.Node, context: Context) -> Declined | None:
    base, exponent = (context.dtype(value) for value in node.inputs)
    if base is None or exponent is None:
        return Declined(UNKNOWN_TYPE)
    if base.is_floating_point():
        return NOT_NEEDED if base == exponent else None
    power = context.constant(node.inputs[1])
    if power is None or power.size != 1 or not 1 <= power.reshape(-1)[0] <= LARGEST_POWER:
        return Declined("the power of an integer is not a small positive constant")
    if float(power.reshape(-1)[0]) != int(power.reshape(-1)[0]):
        return Declined("the power of an integer is not whole")
    if context.rank(node.inputs[1]) not in (0, 1) or (
        context.rank(node.inputs[1]) == 1 and not context.rank(node.inputs[0])
    ):
        return Declined("the power has more axes than the base")
    return None


def _power(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    base = context.dtype(node.inputs[0])
    assert base is not None
    if base.is_floating_point():
        return [context.op("Pow", [node.inputs[0], context.op("Cast", [node.inputs[1]], to=int(base))])]
    power = context.constant(node.inputs[1])
    assert power is not None
    made = data_of(node)
    for _ in range(int(power.reshape(-1)[0]) - 1):
        made = context.op("Mul", [made, node.inputs[0]])
    return [made] if made is not node.inputs[0] else [context.op("Identity", [made])]


def _check_or_equal(node: ir.Node, context: Context) -> Declined | None:
    return None if context.dtype(node.inputs[0]) is not None else Declined(UNKNOWN_TYPE)


def _or_equal(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Of integers not the opposite; a floating number may be none, and then nothing is true of it."""
    x, y = node.inputs
    strict, opposite = ("Greater", "Less") if node.op_type == "GreaterOrEqual" else ("Less", "Greater")
    if not _floating(context, x):
        return [context.op("Not", [context.op(opposite, [x, y])])]
    return [context.op("Or", [context.op(strict, [x, y]), _equal_floats(x, y, context)])]


_OLD_EQUAL: Final = (ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64)


def _check_equal(node: ir.Node, context: Context) -> Declined | None:
    dtype = context.dtype(node.inputs[0])
    if dtype is None:
        return Declined(UNKNOWN_TYPE)
    if dtype in _OLD_EQUAL:
        return NOT_NEEDED
    if dtype == ir.DataType.STRING:
        return Declined("no older Equal takes strings")
    return None


def _equal(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x, y = node.inputs
    if context.dtype(x) in _SMALL_INTEGERS:
        wide = [context.op("Cast", [value], to=int(ir.DataType.INT32)) for value in (x, y)]
        return [context.op("Equal", wide)]
    return [_equal_floats(x, y, context)]


def _equal_floats(x: ir.Value | None, y: ir.Value | None, context: Context) -> ir.Value:
    """Neither less nor greater, and both are numbers."""
    differ = context.op("Or", [context.op("Less", [x, y]), context.op("Greater", [x, y])])
    if _floating(context, x):
        for value in (x, y):
            differ = context.op("Or", [differ, context.op("IsNaN", [value])])
    made: ir.Value = context.op("Not", [differ])
    return made


def _round(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """To the nearest, halves to the even one."""
    x = node.inputs[0]
    half, one, two = (
        scalar(context, x, value, hint) for value, hint in ((0.5, "half"), (1, "one"), (2, "two"))
    )
    down = context.op("Floor", [x])
    rest = context.op("Sub", [x, down])
    up = context.op("Add", [down, one])
    halved = context.op("Div", [down, two])
    odd = context.op("Greater", [halved, context.op("Floor", [halved])])
    # Infinity minus infinity is no number: such an element is compared with nothing and stays itself.
    nearest = context.op("Where", [context.op("Greater", [rest, half]), up, down])
    tie = context.op("Not", [context.op("Or", [context.op("Less", [rest, half]),
                                               context.op("Greater", [rest, half])])])  # fmt: skip
    finite = context.op("Not", [context.op("IsNaN", [rest])])
    up_at_tie = context.op("And", [context.op("And", [tie, odd]), finite])
    return [context.op("Where", [up_at_tie, up, nearest])]


def _check_modulo(node: ir.Node, context: Context) -> Declined | None:
    floating = _floating(context, node.inputs[0])
    if floating is None:
        return Declined(UNKNOWN_TYPE)
    if floating:
        return Declined("the remainder of floating numbers loses digits where the quotient is large")
    if context.dtype(node.inputs[0]) not in (ir.DataType.INT32, ir.DataType.INT64):
        return Declined("no older Div takes its element type")
    return None


def _modulo(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Div drops the fraction; the remainder then has the sign of the dividend, as fmod asks."""
    x, y = node.inputs
    rest = context.op("Sub", [x, context.op("Mul", [context.op("Div", [x, y]), y])])
    if context.attribute(node, "fmod", 0):
        return [rest]
    zero = scalar(context, x, 0, "zero")
    other_sign = context.op("Less", [context.op("Mul", [_sign(rest, context), _sign(y, context)]), zero])
    return [context.op("Where", [other_sign, context.op("Add", [rest, y]), rest])]


def _sign(value: ir.Value | None, context: Context) -> Any:
    return context.op("Sign", [value])


def _infinite(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Beyond the largest number of the type."""
    x, dtype = node.inputs[0], context.dtype(node.inputs[0])
    assert dtype is not None
    largest = float(np.finfo(dtype.numpy()).max)
    up = context.op("Greater", [x, scalar(context, x, largest, "largest")])
    down = context.op("Less", [x, scalar(context, x, -largest, "lowest")])
    if not context.attribute(node, "detect_positive", 1):
        return [down] if context.attribute(node, "detect_negative", 1) else [context.op("And", [up, down])]
    if not context.attribute(node, "detect_negative", 1):
        return [up]
    return [context.op("Or", [up, down])]


def _check_like(node: ir.Node, context: Context) -> Declined | None:
    return (
        Declined("the type that it casts to is not known") if context.dtype(node.inputs[1]) is None else None
    )


def _like(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    wanted = context.dtype(node.inputs[1])
    assert wanted is not None
    if context.dtype(node.inputs[0]) == wanted:
        return [context.op("Identity", [node.inputs[0]])]
    return [context.op("Cast", [node.inputs[0]], to=int(wanted))]


def _check_gemm(node: ir.Node, context: Context) -> Declined | None:
    if input_of(node, 2) is not None:
        return NOT_NEEDED
    return typed_input(node, context)


def _gemm(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    return context.again(node, [*node.inputs[:2], scalar(context, node.inputs[0], 0, "zero")])


_ARITHMETIC: Final = ("Add", "Div", "Mul", "Sub")
RULES: Final = (
    Rule("reduced_truth", "lower", ("ReduceMax", "ReduceMin"), ("Cast", "ReduceMax", "ReduceMin"), "exact",
         "truth values are reduced as int32", _reduced_as_integers, _check_reduced_truth, "", 20),
    Rule("cast_like", "lower", ("CastLike",), ("Cast", "Identity"), "exact",
         "CastLike becomes a Cast", _like, _check_like, "the type of the example", 15),
    Rule("relu_integers", "lower", ("Relu",), ("Less", "Where"), "exact",
         "Relu of integers becomes a Where", _relu, _integers_only, "the element type", 14),
    Rule("small_integers", "lower", _ARITHMETIC, ("Cast", *_ARITHMETIC), "exact",
         "arithmetic on small integers is done in int32", _widened, _small_integers, "the element type", 14),
    Rule("extremes_of_integers", "lower", ("Max", "Min"), ("Greater", "Identity", "Less", "Where"), "exact",
         "the largest and smallest of integers are compared and chosen", _extreme, _integers_only,
         "the element type", 12),
    Rule("power_types", "lower", ("Pow",), ("Cast", "Identity", "Mul", "Pow"), "exact",
         "base and exponent get one type; small powers of integers become products", _power, _check_power,
         "the element types; for integers a small constant power", 12),
    Rule("or_equal", "lower", ("GreaterOrEqual", "LessOrEqual"), ("Greater", "IsNaN", "Less", "Not", "Or"),
         "exact", "a comparison that takes equal ones becomes strict ones", _or_equal, _check_or_equal,
         "the element type", 12),
    Rule("reduced_small_integers", "lower", ("ReduceMax", "ReduceMin"), ("Cast", "ReduceMax", "ReduceMin"),
         "exact", "small integers are reduced as int32", _reduced_as_integers, _check_reduced_small, "", 12),
    Rule("equal_numbers", "lower", ("Equal",), ("Cast", "Equal", "Greater", "IsNaN", "Less", "Not", "Or"),
         "exact", "equal is neither less nor greater", _equal, _check_equal, "the element type", 11),
    Rule("round", "lower", ("Round",), ("Add", "And", "Div", "Floor", "Greater", "IsNaN", "Less", "Not", "Or",
                                        "Sub", "Where"),
         "exact", "Round becomes Floor and a choice", _round, typed_input, "the element type", 11),
    Rule("gemm_without_bias", "lower", ("Gemm",), ("Gemm",), "exact", "a Gemm without a third input gets zero",
         _gemm, _check_gemm, "the element type", 11),
    Rule("modulo", "lower", ("Mod",), ("Add", "Div", "Less", "Mul", "Sign", "Sub", "Where"), "exact",
         "the remainder of integers is computed from the quotient", _modulo, _check_modulo,
         "int32 or int64", 10),
    Rule("is_infinite", "lower", ("IsInf",), ("And", "Greater", "Less", "Or"), "exact",
         "infinite is beyond the largest number", _infinite, typed_input, "the element type", 10),
)  # fmt: skip
