"""Activations in the forms that restricted targets take: HardSigmoid, HardSwish, Clip, PRelu, Gelu, Softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: HardSigmoid's attributes where a node leaves them out.
HARD_SIGMOID: Final = (0.2, 0.5)
#: HardSwish is x * HardSigmoid(x) with these.
HARD_SWISH: Final = (1 / 6, 0.5)
#: Attributes are float32: two that differ by less than this are the same number.
SAME_ATTRIBUTE: Final = 1e-6
#: Gelu's square root of 2, as exporters write it, differs by at most this.
SAME_CONSTANT: Final = 1e-4
#: Gelu with tanh: sqrt(2 / pi) and the cubic term (Hendrycks and Gimpel, arXiv:1606.08415, section 2).
TANH_SCALE: Final = math.sqrt(2 / math.pi)
TANH_CUBIC: Final = 0.044715
#: Gelu as x * sigmoid(1.702 x) (the same page).
SIGMOID_SCALE: Final = 1.702


def _floating(node: ir.Node, context: Context) -> Declined | None:
    return None if forms.floating(context, node.inputs[0]) else forms.NO_TYPE


def _clippable(node: ir.Node, context: Context) -> Declined | None:
    return forms.no_clip(context, node.inputs[0])


def _hard_sigmoid(node: ir.Node, context: Context) -> list[ir.Value]:
    alpha = context.attribute(node, "alpha", HARD_SIGMOID[0])
    beta = context.attribute(node, "beta", HARD_SIGMOID[1])
    value, dtype = forms.given(node, 0), forms.floats(context, node.inputs[0])
    if alpha != 1:
        value = context.op("Mul", [value, forms.scalar(context, alpha, dtype, "alpha")])
    if beta != 0:
        value = context.op("Add", [value, forms.scalar(context, beta, dtype, "beta")])
    return [forms.clip(context, value, 0.0, 1.0, dtype)]


def _hard_swish_input(node: ir.Node, context: Context) -> ir.Value | None:
    """X of HardSwish(x), however it is written."""
    if node.op_type == "HardSwish":
        return node.inputs[0]
    for one, other in (node.inputs, tuple(reversed(node.inputs))):
        gate = forms.producer(other, "HardSigmoid")
        if gate is None or gate.inputs[0] is not one:
            continue
        alpha = context.attribute(gate, "alpha", HARD_SIGMOID[0])
        beta = context.attribute(gate, "beta", HARD_SIGMOID[1])
        if abs(alpha - HARD_SWISH[0]) < SAME_ATTRIBUTE and abs(beta - HARD_SWISH[1]) < SAME_ATTRIBUTE:
            return one
    return None


def _hard_swish_check(node: ir.Node, context: Context) -> Declined | None:
    value = _hard_swish_input(node, context)
    if value is None:
        return NOT_NEEDED
    return forms.no_clip(context, value)


def _hard_swish(node: ir.Node, context: Context) -> list[ir.Value]:
    value = _hard_swish_input(node, context)
    assert value is not None
    dtype = forms.floats(context, value)
    shifted = context.op("Add", [value, forms.scalar(context, 3.0, dtype, "three")])
    gate = forms.clip(context, shifted, 0.0, 6.0, dtype)
    product = context.op("Mul", [value, gate])
    return [context.op("Mul", [product, forms.scalar(context, 1 / 6, dtype, "sixth")])]


def _clip_to_relu_check(node: ir.Node, context: Context) -> Declined | None:
    bounds = forms.bounds_of(node, context)
    if bounds is None:
        return Declined("its bounds are not constant")
    low, high = bounds
    if low != 0 or high not in (None, math.inf):
        return NOT_NEEDED
    return _floating(node, context)


def _clip_to_zero_check(node: ir.Node, context: Context) -> Declined | None:
    bounds = forms.bounds_of(node, context)
    if bounds is None:
        return Declined("its bounds are not constant")
    low, high = bounds
    if low == 0 or (low is None and high is None):
        return NOT_NEEDED
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high) or low > high:
        return Declined("it has not two finite bounds in order")
    return _clippable(node, context)


def _clip_to_zero(node: ir.Node, context: Context) -> list[ir.Value]:
    bounds = forms.bounds_of(node, context)
    assert bounds is not None
    low, high = bounds[0] or 0.0, bounds[1] or 0.0
    dtype = forms.floats(context, node.inputs[0])
    shifted = context.op("Add", [node.inputs[0], forms.scalar(context, -low, dtype, "shift")])
    clipped = forms.clip(context, shifted, 0.0, high - low, dtype)
    return [context.op("Add", [clipped, forms.scalar(context, low, dtype, "shift_back")])]


def _minimum_check(node: ir.Node, context: Context) -> Declined | None:
    if len(node.inputs) != 2 or _minimum(node, context) is None:
        return NOT_NEEDED
    return forms.no_clip(context, node.outputs[0])


def _minimum(node: ir.Node, context: Context) -> tuple[ir.Value, float] | None:
    """X and the bound of Min(Relu(x), bound)."""
    for one, other in (node.inputs, tuple(reversed(node.inputs))):
        relu, bound = forms.producer(one, "Relu"), forms.single(context, other)
        wider = (context.rank(other) or 0) > (context.rank(one) or 0)
        # A bound below zero would make Clip's bounds cross.
        if relu is not None and bound is not None and bound >= 0 and not wider:
            return forms.given(relu, 0), bound
    return None


def _minimum_to_clip(node: ir.Node, context: Context) -> list[ir.Value]:
    found = _minimum(node, context)
    assert found is not None
    return [forms.clip(context, found[0], 0.0, found[1], forms.floats(context, node.outputs[0]))]


def _slope_check(node: ir.Node, context: Context) -> Declined | None:
    if not context.is_weight(node.inputs[1]):
        return Declined("its slope is not constant")
    return _floating(node, context)


def _leaky_check(node: ir.Node, context: Context) -> Declined | None:
    if forms.uniform(context, node.inputs[1]) is None:
        return Declined("its slope is not one constant number")
    return _floating(node, context)


def _leaky(node: ir.Node, context: Context) -> list[ir.Value]:
    return [context.op("LeakyRelu", [node.inputs[0]], alpha=forms.uniform(context, node.inputs[1]))]


def _prelu(node: ir.Node, context: Context) -> list[ir.Value]:
    value, slope = node.inputs[0], forms.given(node, 1)
    dtype = forms.floats(context, value)
    negated = context.derived(
        [slope], lambda array: -array, ir.DataType.from_numpy(dtype), forms.sizes_of(context, slope), "slope"
    )
    below = context.op("Relu", [context.op("Mul", [value, forms.scalar(context, -1.0, dtype, "minus_one")])])
    return [context.op("Add", [context.op("Relu", [value]), context.op("Mul", [below, negated])])]


def _relu_after(node: ir.Node, context: Context) -> Declined | None:
    """Relu behind a convolution or what is fused with one is every vendor's own fusion."""
    if forms.producer(node.inputs[0], "Conv", "ConvTranspose", "BatchNormalization", "Add", "Gemm"):
        return NOT_NEEDED
    return _clippable(node, context)


def _relu_to_clip(node: ir.Node, context: Context) -> list[ir.Value]:
    return [forms.clip(context, forms.given(node, 0), 0.0, None, forms.floats(context, node.inputs[0]))]


def _gelu_input(node: ir.Node, context: Context) -> ir.Value | None:
    """X of the exact Gelu(x), as one operator or as 0.5 * x * (1 + erf(x / sqrt(2))) in any order."""
    if node.op_type == "Gelu":
        approximate = context.attribute(node, "approximate", "none")
        return node.inputs[0] if approximate in ("none", b"none") else None
    factors, constant = _factors(node, context, top=True)
    if len(factors) != 2 or abs(constant - 0.5) > SAME_CONSTANT:
        return None
    for value, gate in (factors, factors[::-1]):
        add = forms.producer(gate, "Add")
        if add is None:
            continue
        for one, other in (add.inputs, tuple(reversed(add.inputs))):
            erf = forms.producer(one, "Erf")
            if erf is None or forms.uniform(context, other) != 1:
                continue
            inner, scale = _scaled(erf.inputs[0], context)
            if inner is value and abs(scale - math.sqrt(0.5)) < SAME_CONSTANT:
                return value
    return None


def _factors(node: ir.Node, context: Context, *, top: bool) -> tuple[list[ir.Value], float]:
    """What a tree of Mul multiplies, and the product of its constants."""
    values: list[ir.Value] = []
    constant = 1.0
    for value in node.inputs:
        number = forms.uniform(context, value)
        inner = forms.producer(value, "Mul")
        if number is not None:
            constant *= number
        elif inner is not None and forms.only_use(value):
            deep, times = _factors(inner, context, top=False)
            values += deep
            constant *= times
        elif value is not None:
            values.append(value)
    return values, constant


def _scaled(value: ir.Value | None, context: Context) -> tuple[ir.Value | None, float]:
    """X and c of a value that is x * c or x / (1 / c)."""
    node = forms.producer(value, "Mul", "Div")
    if node is None:
        return value, 1.0
    number = forms.uniform(context, node.inputs[1])
    if number:
        return node.inputs[0], 1 / number if node.op_type == "Div" else number
    number = forms.uniform(context, node.inputs[0])
    return (node.inputs[1], number) if number and node.op_type == "Mul" else (value, 1.0)


def _gelu_check(node: ir.Node, context: Context) -> Declined | None:
    value = _gelu_input(node, context)
    if value is None:
        return NOT_NEEDED
    return None if forms.floating(context, value) else forms.NO_TYPE


def _gelu_to_tanh(node: ir.Node, context: Context) -> list[ir.Value]:
    value = _gelu_input(node, context)
    assert value is not None
    dtype = forms.floats(context, value)

    def times(one: ir.Value, number: float) -> ir.Value:
        found: ir.Value = context.op("Mul", [one, forms.scalar(context, number, dtype)])
        return found

    cube = context.op("Mul", [context.op("Mul", [value, value]), value])
    inside = times(context.op("Add", [value, times(cube, TANH_CUBIC)]), TANH_SCALE)
    gate = context.op("Add", [context.op("Tanh", [inside]), forms.scalar(context, 1.0, dtype)])
    return [context.op("Mul", [times(value, 0.5), gate])]


def _gelu_to_sigmoid(node: ir.Node, context: Context) -> list[ir.Value]:
    value = _gelu_input(node, context)
    assert value is not None
    scale = forms.scalar(context, SIGMOID_SCALE, forms.floats(context, value))
    return [context.op("Mul", [value, context.op("Sigmoid", [context.op("Mul", [value, scale])])])]


def _softmax_axis(node: ir.Node, context: Context) -> tuple[int, int] | None:
    rank = context.rank(node.inputs[0])
    if rank is None or rank == 0:
        return None
    default = -1 if context.opset >= forms.SOFTMAX_ALONG_AXIS else 1
    return int(context.attribute(node, "axis", default)) % rank, rank


def _softmax_check(node: ir.Node, context: Context) -> Declined | None:
    found = _softmax_axis(node, context)
    if found is None:
        return forms.NO_RANK
    axis, rank = found
    if axis == rank - 1:
        return NOT_NEEDED
    if context.opset < forms.SOFTMAX_ALONG_AXIS:
        return Declined("before opset 13 it works along every axis from its own on")
    return None


def _softmax(node: ir.Node, context: Context) -> list[ir.Value]:
    found = _softmax_axis(node, context)
    assert found is not None
    axis, rank = found
    swap = list(range(rank))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    moved = forms.transpose(context, forms.given(node, 0), swap)
    return [forms.transpose(context, context.op(node.op_type, [moved], axis=-1), swap)]


def _rows_check(node: ir.Node, context: Context) -> Declined | None:
    sizes, found = context.static_shape(node.inputs[0]), _softmax_axis(node, context)
    if sizes is None or found is None:
        return forms.NO_SIZES
    axis, rank = found
    if sizes[0] == 1 or rank < 2:
        return NOT_NEEDED
    return None if axis == rank - 1 else Declined("it does not work along its last axis")


def _rows(node: ir.Node, context: Context) -> list[ir.Value]:
    """Along the last axis every row is alone, whichever batch it stands in."""
    sizes = forms.sizes_of(context, node.inputs[0])
    if len(sizes) > 2:
        one = (1, sizes[0] * sizes[1], *sizes[2:])
    else:
        one = (1, *sizes)
    value = forms.reshape(context, forms.given(node, 0), one)
    result = context.op(node.op_type, [value], axis=len(one) - 1)
    return [forms.reshape(context, result, sizes)]


def _negative_check(node: ir.Node, context: Context) -> Declined | None:
    if context.dtype(node.inputs[0]) in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    return _floating(node, context)


def _negative(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    dtype = context.dtype(node.inputs[0])
    assert dtype is not None
    minus = context.tensor(np.asarray(-1, dtype.numpy()), "minus_one")
    return [context.op("Mul", [node.inputs[0], minus])]


RULES: Final = (
    Rule("hard_swish_to_clip", "legalise", ("HardSwish", "Mul"), ("Add", "Clip", "Mul"), "float noise",
         "HardSwish becomes x * Clip(x + 3, 0, 6) * 1/6", _hard_swish, _hard_swish_check),
    Rule("hard_sigmoid_to_clip", "legalise", ("HardSigmoid",), ("Mul", "Add", "Clip"), "float noise",
         "HardSigmoid becomes Clip(alpha * x + beta, 0, 1)", _hard_sigmoid, _clippable),
    Rule("min_of_relu_to_clip", "legalise", ("Min",), ("Clip",), "exact",
         "Min(Relu(x), 6) becomes Clip(x, 0, 6)", _minimum_to_clip, _minimum_check, "a constant bound of 0 or more"),
    Rule("clip_to_relu", "legalise", ("Clip",), ("Relu",), "exact",
         "Clip from 0 without an upper bound becomes Relu", lambda node, context: [
             context.op("Relu", [node.inputs[0]])], _clip_to_relu_check, "constant bounds"),
    Rule("clip_from_zero", "legalise", ("Clip",), ("Add", "Clip"), "float noise",
         "Clip from another bound than 0 becomes a shift, a Clip from 0 and the shift back", _clip_to_zero,
         _clip_to_zero_check, "two constant finite bounds"),
    Rule("relu_to_clip", "legalise", ("Relu",), ("Clip",), "exact",
         "Relu that stands behind no convolution becomes Clip from 0", _relu_to_clip, _relu_after),
    Rule("prelu_to_leaky_relu", "legalise", ("PRelu",), ("LeakyRelu",), "exact",
         "PRelu with one slope becomes LeakyRelu", _leaky, _leaky_check, "a slope that is one constant number"),
    Rule("prelu_to_relus", "legalise", ("PRelu",), ("Mul", "Relu", "Add"), "exact",
         "PRelu becomes Relu(x) - slope * Relu(-x)", _prelu, _slope_check, "a constant slope"),
    Rule("neg_to_mul", "legalise", ("Neg",), ("Mul",), "exact", "Neg becomes a multiplication by -1",
         _negative, _negative_check, "a type with signs"),
    Rule("softmax_on_last_axis", "legalise", ("Softmax", "LogSoftmax"), ("Transpose", "Softmax", "LogSoftmax"),
         "exact", "Softmax along another axis than the last is put between two Transpose", _softmax,
         _softmax_check, "opset 13 or later"),
    Rule("softmax_of_one_batch", "legalise", ("Softmax", "LogSoftmax"), ("Reshape", "Softmax", "LogSoftmax"), "exact",
         "Softmax along the last axis of several batches works on one", _rows, _rows_check, "static sizes"),
    Rule("gelu_to_tanh", "legalise", ("Gelu", "Mul"), ("Mul", "Add", "Tanh"), "approximation",
         "exact Gelu becomes the approximation with Tanh", _gelu_to_tanh, _gelu_check),
    Rule("gelu_to_sigmoid", "legalise", ("Gelu", "Mul"), ("Mul", "Sigmoid"), "approximation",
         "exact Gelu becomes x * Sigmoid(1.702 x)", _gelu_to_sigmoid, _gelu_check),
)  # fmt: skip
