"""Arithmetic in fewer operators: Sub, Div by constants, Pow, Mean, Sum, Max and Min of many, Where with masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.graph.rewrites.context import Context

#: Exponents that a product stands for without a loss; a higher one rounds more often than Pow does.
WHOLE_POWERS: Final = (2, 3)
#: Results of these lie between fixed bounds whatever finite number they get.
BOUNDED: Final = ("Sigmoid", "Tanh", "Softmax", "HardSigmoid", "Erf", "Sin", "Cos", "Sign", "Softsign")
#: Results of these are not below zero.
NOT_NEGATIVE: Final = (
    "Relu",
    "Abs",
    "Exp",
    "Sigmoid",
    "Softmax",
    "HardSigmoid",
    "Sqrt",
    "ReduceL2",
    "ReduceSumSquare",
)
#: How far a proof looks back in the graph.
DEEPEST: Final = 12


def _signed(node: ir.Node, context: Context) -> Declined | None:
    dtype = context.dtype(node.inputs[0])
    if dtype in (ir.DataType.INT64, ir.DataType.INT32) or forms.floating(context, node.inputs[0]):
        return None
    return forms.NO_TYPE


def _minus(context: Context, value: ir.Value) -> ir.Value:
    """-value: another constant where it is one, else a Mul."""
    dtype = context.dtype(value)
    assert dtype is not None
    known = context.constant(value)
    if known is not None:
        return context.tensor(-known, "negated")
    if context.is_weight(value):
        return context.derived(
            [value], lambda array: -array, dtype, forms.sizes_of(context, value), "negated"
        )
    found: ir.Value = context.op("Mul", [value, context.tensor(np.asarray(-1, dtype.numpy()), "minus_one")])
    return found


def _subtract(node: ir.Node, context: Context) -> list[ir.Value]:
    return [context.op("Add", [node.inputs[0], _minus(context, forms.given(node, 1))])]


def _divisor(node: ir.Node, context: Context) -> NDArray[Any] | None:
    return context.constant(node.inputs[1], held=True)


def _divide_check(node: ir.Node, context: Context) -> Declined | None:
    dtype = forms.floating(context, node.inputs[0])
    if dtype is None:
        return forms.NO_TYPE
    divisor = _divisor(node, context)
    if divisor is None:
        return NOT_NEEDED
    with np.errstate(all="ignore"):
        inverse = (1 / divisor.astype(np.float64)).astype(dtype)
    if divisor.size == 0 or not np.isfinite(divisor).all() or (np.abs(divisor) == 0).any():
        return Declined("a divisor is zero or no finite number")
    if not np.isfinite(inverse).all() or (np.abs(inverse) < np.finfo(dtype).tiny).any():
        return Declined("the reciprocal of a divisor is no normal number of its type")
    return None


def _divide(node: ir.Node, context: Context) -> list[ir.Value]:
    dtype = forms.floats(context, node.inputs[0])
    divisor = forms.given(node, 1)
    inverse = context.derived(
        [divisor],
        lambda array: np.asarray((1 / array.astype(np.float64)).astype(dtype)),
        ir.DataType.from_numpy(dtype),
        forms.sizes_of(context, divisor),
        "reciprocal",
    )
    return [context.op("Mul", [node.inputs[0], inverse])]


def _power_check(node: ir.Node, context: Context) -> Declined | None:
    if forms.floating(context, node.inputs[0]) is None:
        return forms.NO_TYPE
    exponent = forms.single(context, node.inputs[1])
    if exponent is None:
        return Declined("its exponent is not one constant number")
    if (context.rank(node.inputs[1]) or 0) > (context.rank(node.inputs[0]) or 0):
        return Declined("its exponent widens it")
    if exponent in WHOLE_POWERS or exponent == 1 or exponent == -1:
        return None
    if exponent in (0.5, -0.5):
        return None if not_negative(node.inputs[0], context) else Declined("what it raises may be negative")
    return Declined(f"no product stands for the power {exponent:g}")


def _power(node: ir.Node, context: Context) -> list[ir.Value]:
    value, exponent = forms.given(node, 0), forms.uniform(context, node.inputs[1])
    if exponent == 1:
        return [context.op("Identity", [value])]
    if exponent == -1:
        return [context.op("Reciprocal", [value])]
    if exponent == 0.5:
        return [context.op("Sqrt", [value])]
    if exponent == -0.5:
        return [context.op("Reciprocal", [context.op("Sqrt", [value])])]
    square = context.op("Mul", [value, value])
    return [square if exponent == 2 else context.op("Mul", [square, value])]


def not_negative(value: ir.Value | None, context: Context, depth: int = 0) -> bool:
    """Whether a value is proved to be zero or more (not-a-number aside), and not -0 before a root."""
    constant = context.constant(value)
    if constant is not None:
        return bool(np.all(constant >= 0)) and not bool(np.signbit(constant).any())
    node = None if value is None else value.producer()
    if node is None or depth > DEEPEST or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in NOT_NEGATIVE:
        return True
    if node.op_type == "Mul" and node.inputs[0] is node.inputs[1]:
        return True
    if node.op_type == "Pow":
        exponent = forms.uniform(context, node.inputs[1])
        return exponent is not None and exponent == 2
    if node.op_type in ("Add", "Mul", "Div", "Max", "Sum", "Mean", "Concat"):
        return all(not_negative(one, context, depth + 1) for one in node.inputs)
    if node.op_type in ("ReduceMean", "ReduceSum", "ReduceMax", "Reshape", "Transpose", "Squeeze", "Unsqueeze",
                        "Identity", "Slice", "GlobalAveragePool", "AveragePool", "MaxPool"):  # fmt: skip
        return not_negative(node.inputs[0], context, depth + 1)
    return False


def _mean_check(node: ir.Node, context: Context) -> Declined | None:
    return None if forms.floating(context, node.inputs[0]) else forms.NO_TYPE


def _chain(context: Context, op_type: str, values: Sequence[ir.Value | None]) -> ir.Value:
    found = values[0]
    assert found is not None
    for value in values[1:]:
        found = context.op(op_type, [found, value])
    return found


def _mean(node: ir.Node, context: Context) -> list[ir.Value]:
    total = _chain(context, "Add", node.inputs)
    share = forms.scalar(context, 1 / len(node.inputs), forms.floats(context, node.inputs[0]), "share")
    return [context.op("Mul", [total, share])]


def _several_check(node: ir.Node, context: Context) -> Declined | None:
    return None if len(node.inputs) > 2 else NOT_NEEDED


def _one_input(node: ir.Node, context: Context) -> ir.Value:
    found: ir.Value = context.op("Identity", [node.inputs[0]])
    return found


def _sum(node: ir.Node, context: Context) -> list[ir.Value]:
    return [_one_input(node, context) if len(node.inputs) == 1 else _chain(context, "Add", node.inputs)]


def _pairs(node: ir.Node, context: Context) -> list[ir.Value]:
    return [_chain(context, node.op_type, node.inputs)]


def _finite(value: ir.Value | None, context: Context) -> bool:
    """Whether a value is proved to hold no infinity, whatever numbers the graph gets."""
    constant = context.constant(value)
    if constant is not None:
        return bool(np.isfinite(constant).all())
    return forms.producer(value, *BOUNDED) is not None


def _where_check(node: ir.Node, context: Context) -> Declined | None:
    if forms.floating(context, node.outputs[0]) is None:
        return forms.NO_TYPE
    for value in node.inputs[1:]:
        if not _finite(value, context):
            return Declined("a value that is masked out may be infinite, and infinity times 0 is no number")
    return None


def _where(node: ir.Node, context: Context) -> list[ir.Value]:
    dtype = forms.floats(context, node.outputs[0])
    condition, one, other = (forms.given(node, index) for index in range(3))
    known = context.constant(condition)
    if known is not None:
        mask = context.tensor(known.astype(dtype), "mask")
        rest = context.tensor((~known).astype(dtype), "mask_of_the_rest")
    else:
        to = int(ir.DataType.from_numpy(dtype))
        mask = context.op("Cast", [condition], to=to)
        rest = context.op("Cast", [context.op("Not", [condition])], to=to)
    return [context.op("Add", [context.op("Mul", [one, mask]), context.op("Mul", [other, rest])])]


def _order_check(node: ir.Node, context: Context) -> Declined | None:
    one, other = (context.static_shape(value) for value in node.inputs[:2])
    if one is None or other is None or context.is_weight(node.inputs[1]):
        return NOT_NEEDED
    smaller = len(one) < len(other) or (
        len(one) == len(other) and one != other and all(a in (1, b) for a, b in zip(one, other, strict=True))
    )
    constant = context.is_weight(node.inputs[0]) and len(one) <= len(other)
    return None if smaller or constant else NOT_NEEDED


def _swap(node: ir.Node, context: Context) -> list[ir.Value]:
    return [context.op(node.op_type, [node.inputs[1], node.inputs[0]])]


def _sigmoid(node: ir.Node, context: Context) -> list[ir.Value]:
    value = forms.given(node, 0)
    dtype = forms.floats(context, value)
    power = context.op("Exp", [context.op("Mul", [value, forms.scalar(context, -1.0, dtype, "minus_one")])])
    return [context.op("Reciprocal", [context.op("Add", [power, forms.scalar(context, 1.0, dtype, "one")])])]


RULES: Final = (
    Rule("sub_to_add", "legalise", ("Sub",), ("Add", "Mul"), "exact",
         "Sub becomes an Add of the negated constant, or of Mul by -1", _subtract, _signed, "a type with signs"),
    Rule("div_by_constant_to_mul", "legalise", ("Div",), ("Mul",), "float noise",
         "Div by a constant becomes Mul by its reciprocal", _divide, _divide_check,
         "a constant divisor whose reciprocal is a normal number"),
    Rule("pow_to_mul", "legalise", ("Pow",), ("Mul", "Sqrt", "Reciprocal", "Identity"), "float noise",
         "Pow with 2, 3, 0.5, -0.5, 1 or -1 becomes Mul, Sqrt or Reciprocal", _power, _power_check,
         "one constant exponent; for a root a value that is proved not to be negative"),
    Rule("mean_to_add", "legalise", ("Mean",), ("Add", "Mul"), "float noise",
         "Mean of several values becomes Add and Mul by a constant", _mean, _mean_check),
    Rule("sum_to_add", "legalise", ("Sum",), ("Add", "Identity"), "exact", "Sum becomes a chain of Add", _sum),
    Rule("many_to_pairs", "legalise", ("Max", "Min"), ("Max", "Min"), "exact",
         "Max and Min of more than two values become chains", _pairs, _several_check),
    Rule("where_to_mul_add", "legalise", ("Where",), ("Mul", "Add", "Cast", "Not"), "exact",
         "Where becomes Mul with masks and Add", _where, _where_check,
         "constants, or results of bounded functions, on both sides"),
    Rule("larger_operand_first", "legalise", ("Add", "Mul"), ("Add", "Mul"), "exact",
         "Add and Mul take the operand that is not broadcast, or not constant, first", _swap, _order_check,
         "static sizes"),
    Rule("sigmoid_to_reciprocal", "legalise", ("Sigmoid",), ("Mul", "Exp", "Add", "Reciprocal"), "float noise",
         "Sigmoid becomes 1 / (1 + Exp(-x)); coarse once it is quantized", _sigmoid, _mean_check),
)  # fmt: skip
