"""Activations that newer opsets brought, from operators that were there before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.graph.rewrites.rule import Declined, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context

UNKNOWN_TYPE: Final = "the element type of its input is not known"


def typed_input(node: ir.Node, context: Context) -> Declined | None:
    """The check of a rule that makes constants of the input's type."""
    return Declined(UNKNOWN_TYPE) if context.dtype(node.inputs[0]) is None else None


def scalar(context: Context, like: ir.Value | None, value: float, hint: str) -> ir.Value:
    """A constant of the element type of another value."""
    dtype = context.dtype(like)
    assert dtype is not None
    return context.tensor(np.asarray(value, dtype.numpy()), hint)


def _gelu(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x = node.inputs[0]

    def number(value: float, hint: str) -> ir.Value:
        return scalar(context, x, value, hint)

    if context.attribute(node, "approximate", "none") == "tanh":
        cube = context.op("Mul", [context.op("Mul", [x, x]), x])
        inner = context.op("Add", [x, context.op("Mul", [cube, number(0.044715, "gelu_cubic")])])
        bent = context.op(
            "Tanh", [context.op("Mul", [inner, number(math.sqrt(2 / math.pi), "sqrt_2_over_pi")])]
        )
    else:
        bent = context.op("Erf", [context.op("Mul", [x, number(math.sqrt(0.5), "sqrt_half")])])
    half = context.op("Mul", [x, number(0.5, "half")])
    return [context.op("Mul", [half, context.op("Add", [bent, number(1, "one")])])]


def _swish(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x = node.inputs[0]
    alpha = context.attribute(node, "alpha", 1.0)
    scaled = x if alpha == 1 else context.op("Mul", [x, scalar(context, x, alpha, "alpha")])
    return [context.op("Mul", [x, context.op("Sigmoid", [scaled])])]


def _mish(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x = node.inputs[0]
    return [context.op("Mul", [x, context.op("Tanh", [context.op("Softplus", [x])])])]


def _hard_swish(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x = node.inputs[0]
    return [context.op("Mul", [x, context.op("HardSigmoid", [x], alpha=1 / 6, beta=0.5)])]


def _celu(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x, alpha = node.inputs[0], context.attribute(node, "alpha", 1.0)
    scaled = context.op("Div", [x, scalar(context, x, alpha, "alpha")])
    bent = context.op("Elu", [scaled], alpha=1.0)
    return [context.op("Mul", [bent, scalar(context, x, alpha, "alpha")])]


def _thresholded_relu(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    x = node.inputs[0]
    above = context.op("Greater", [x, scalar(context, x, context.attribute(node, "alpha", 1.0), "alpha")])
    return [context.op("Where", [above, x, scalar(context, x, 0, "zero")])]


def _rule(name: str, takes: str, makes: tuple[str, ...], text: str, rewrite: Any, opset: int) -> Rule:
    return Rule(
        name, "lower", (takes,), makes, "float noise", text, rewrite, typed_input, "the element type", opset
    )


RULES: Final = (
    _rule("swish", "Swish", ("Mul", "Sigmoid"), "Swish becomes x * sigmoid(alpha * x)", _swish, 24),
    _rule("gelu", "Gelu", ("Add", "Erf", "Mul", "Tanh"), "Gelu becomes its formula with erf or tanh", _gelu, 20),
    _rule("mish", "Mish", ("Mul", "Softplus", "Tanh"), "Mish becomes x * tanh(softplus(x))", _mish, 18),
    _rule("hard_swish", "HardSwish", ("HardSigmoid", "Mul"), "HardSwish becomes x * hardsigmoid(x)",
          _hard_swish, 14),
    _rule("celu", "Celu", ("Div", "Elu", "Mul"), "Celu becomes alpha * elu(x / alpha)", _celu, 12),
    _rule("thresholded_relu", "ThresholdedRelu", ("Greater", "Where"),
          "ThresholdedRelu becomes a Where", _thresholded_relu, 10),
)  # fmt: skip
