"""Layout: Transpose merged and moved, Reshape merged and moved towards the end."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.graph.rewrites.context import Context

#: Operators that compute every element alone, from one input.
UNARY: Final = (
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Clip", "Erf", "Gelu", "Exp", "Log", "Sqrt",
    "Abs", "Neg", "Reciprocal", "Softplus", "Softsign", "Elu", "Selu", "Celu", "Mish", "Floor", "Ceil", "Round",
    "Sin", "Cos", "Sign", "Identity", "Cast", "Not",
)  # fmt: skip
#: Operators that compute every element from two inputs that are broadcast.
BINARY: Final = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Greater", "Less", "Equal", "And", "Or")
#: Of an image: batch, channels, height, width.
IMAGE_RANK: Final = 4
#: How many operators are looked through for the Transpose that another one moves to.
FARTHEST: Final = 4


def _to_reshape_check(node: ir.Node, context: Context) -> Declined | None:
    sizes = context.static_shape(node.outputs[0])
    return forms.NO_SIZES if sizes is None else None


def _to_reshape(node: ir.Node, context: Context) -> list[ir.Value]:
    return [forms.reshape(context, forms.given(node, 0), forms.sizes_of(context, node.outputs[0]))]


def _is_reshape(value: ir.Value | None, context: Context) -> ir.Node | None:
    """The node that only gives a value other sizes, all known."""
    node = forms.producer(value, "Reshape", "Flatten", "Squeeze", "Unsqueeze")
    if node is None or context.static_shape(value) is None or context.static_shape(node.inputs[0]) is None:
        return None
    return node


def _sink_check(node: ir.Node, context: Context) -> Declined | None:
    """A Reshape of [N, C, 1, 1] to [N, C] before something that works element by element."""
    first = _is_reshape(node.inputs[0], context)
    if first is None or context.static_shape(node.outputs[0]) is None:
        return NOT_NEEDED
    before, after = forms.sizes_of(context, first.inputs[0]), forms.sizes_of(context, node.inputs[0])
    if len(before) != IMAGE_RANK or len(after) != 2 or before != (*after, 1, 1):
        return NOT_NEEDED
    if node.op_type in BINARY and _other(node, context, after) is None:
        return Declined("its second operand does not go back through the Reshape")
    return None


def _other(node: ir.Node, context: Context, after: tuple[int, ...]) -> ir.Value | str | None:
    """The second operand before the Reshape: a value, the same Reshape's, or "constant" of one number a channel."""
    other = node.inputs[1]
    if other is node.inputs[0]:
        return "same"
    second = _is_reshape(other, context)
    if second is not None and context.static_shape(second.inputs[0]) == (*after, 1, 1):
        return second.inputs[0]
    sizes = context.static_shape(other)
    if context.is_weight(other) and sizes is not None and len(sizes) <= 2:
        return "constant"
    return None


def _sink(node: ir.Node, context: Context) -> list[ir.Value]:
    first = _is_reshape(node.inputs[0], context)
    assert first is not None
    source, after = forms.given(first, 0), forms.sizes_of(context, node.inputs[0])
    inputs: list[ir.Value | None] = [source, *node.inputs[1:]]
    if node.op_type in BINARY:
        other = _other(node, context, after)
        if other == "same":
            inputs[1] = source
        elif isinstance(other, ir.Value):
            inputs[1] = other
        else:
            inputs[1] = _widened(forms.given(node, 1), context)
    result = context.op(node.op_type, inputs, **forms.attributes(node))
    return [forms.reshape(context, result, forms.sizes_of(context, node.outputs[0]))]


def _widened(value: ir.Value, context: Context) -> ir.Value:
    """A constant [..., C] as [..., C, 1, 1]; one of a single number as it is."""
    sizes = forms.sizes_of(context, value)
    if prod(sizes) == 1 and not sizes:
        return value
    dtype = context.dtype(value)
    assert dtype is not None
    wide = (*sizes, 1, 1)
    return context.derived([value], lambda array: array.reshape(wide), dtype, wide, value.name or "constant")


def _merge_reshape_check(node: ir.Node, context: Context) -> Declined | None:
    first = _is_reshape(node.inputs[0], context)
    if first is None or context.static_shape(node.outputs[0]) is None:
        return NOT_NEEDED
    return None


def _merge_reshape(node: ir.Node, context: Context) -> list[ir.Value]:
    first = _is_reshape(node.inputs[0], context)
    assert first is not None
    sizes = forms.sizes_of(context, node.outputs[0])
    if context.static_shape(first.inputs[0]) == sizes:
        return [context.op("Identity", [first.inputs[0]])]
    return [forms.reshape(context, forms.given(first, 0), sizes)]


def _merge_check(node: ir.Node, context: Context) -> Declined | None:
    perm = forms.permutation(node, context)
    if perm is None:
        return forms.NO_RANK
    if perm == tuple(range(len(perm))):
        return None
    first = forms.producer(node.inputs[0], "Transpose")
    return NOT_NEEDED if first is None or forms.permutation(first, context) is None else None


def _merge(node: ir.Node, context: Context) -> list[ir.Value]:
    perm = forms.permutation(node, context)
    assert perm is not None
    source = forms.given(node, 0)
    first = forms.producer(source, "Transpose")
    inner = forms.permutation(first, context) if first is not None else None
    if first is not None and inner is not None:
        perm, source = tuple(inner[axis] for axis in perm), forms.given(first, 0)
    if perm == tuple(range(len(perm))):
        return [context.op("Identity", [source])]
    return [forms.transpose(context, source, perm)]


def _as_reshape_check(node: ir.Node, context: Context) -> Declined | None:
    """A Transpose that moves only axes of size 1 changes no order of elements."""
    sizes, perm = context.static_shape(node.inputs[0]), forms.permutation(node, context)
    if sizes is None or perm is None:
        return forms.NO_SIZES
    moved = [axis for axis in perm if sizes[axis] != 1]
    return None if moved == sorted(moved) else NOT_NEEDED


def _past_check(node: ir.Node, context: Context) -> Declined | None:
    """A Transpose moves behind what works element by element when another Transpose follows."""
    if not _leads_to_transpose(node, context):
        return NOT_NEEDED
    return None if _common_perm(node, context) is not None else NOT_NEEDED


def _leads_to_transpose(node: ir.Node, context: Context, depth: int = 0) -> bool:
    """Whether every use of the result leads, through element by element operators, to a Transpose."""
    value = node.outputs[0]
    if value.is_graph_output() or not value.uses() or depth > FARTHEST:
        return False
    for use in value.uses():
        taker = use.node
        if taker.domain not in ("", "ai.onnx") or taker.graph is not node.graph:
            return False
        if taker.op_type == "Transpose":
            continue
        if taker.op_type not in (*UNARY, *BINARY) or not _leads_to_transpose(taker, context, depth + 1):
            return False
    return True


def _common_perm(node: ir.Node, context: Context) -> tuple[int, ...] | None:
    """The permutation of the Transpose before every operand that is not constant."""
    perms = set()
    rank = context.rank(node.outputs[0])
    operands = node.inputs if node.op_type in BINARY else node.inputs[:1]
    for value in operands:
        before = forms.producer(value, "Transpose")
        if before is not None and forms.only_use(value):
            perms.add(forms.permutation(before, context))
        elif not context.is_weight(value) or context.static_shape(value) is None:
            return None
    if len(perms) != 1:
        return None
    perm = perms.pop()
    return perm if perm is not None and len(perm) == rank else None


def _past(node: ir.Node, context: Context) -> list[ir.Value]:
    perm = _common_perm(node, context)
    assert perm is not None
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        before = forms.producer(value, "Transpose")
        if node.op_type not in BINARY and index > 0:
            inputs.append(value)
        elif before is not None:
            inputs.append(before.inputs[0])
        else:
            inputs.append(_moved_back(forms.given(node, index), perm, context))
    return [forms.transpose(context, context.op(node.op_type, inputs, **forms.attributes(node)), perm)]


def _moved_back(value: ir.Value, perm: Sequence[int], context: Context) -> ir.Value:
    """A constant operand in the order of axes before the Transpose."""
    sizes, dtype = forms.sizes_of(context, value), context.dtype(value)
    if prod(sizes) == 1 or dtype is None:
        return value
    wide = (1,) * (len(perm) - len(sizes)) + sizes
    back = [list(perm).index(axis) for axis in range(len(perm))]
    target = tuple(wide[axis] for axis in back)
    return context.derived(
        [value], lambda array: array.reshape(wide).transpose(back), dtype, target, value.name or "constant"
    )


RULES: Final = (
    Rule("flatten_to_reshape", "legalise", ("Flatten", "Squeeze", "Unsqueeze"), ("Reshape",), "exact",
         "Flatten, Squeeze and Unsqueeze become a Reshape to static sizes", _to_reshape, _to_reshape_check,
         "static sizes"),
    Rule("reshape_behind_elementwise", "legalise", (*UNARY, *BINARY), (*UNARY, *BINARY, "Reshape"), "exact",
         "what follows a Reshape of [N, C, 1, 1] to [N, C] element by element is done before it", _sink,
         _sink_check, "static sizes"),
    Rule("merge_reshapes", "legalise", ("Reshape", "Flatten", "Squeeze", "Unsqueeze"), ("Reshape", "Identity"),
         "exact", "two Reshape become one, or none", _merge_reshape, _merge_reshape_check, "static sizes"),
    Rule("merge_transposes", "legalise", ("Transpose",), ("Transpose", "Identity"), "exact",
         "two Transpose become one, or none", _merge, _merge_check),
    Rule("transpose_to_reshape", "legalise", ("Transpose",), ("Reshape",), "exact",
         "a Transpose that moves only axes of size 1 becomes a Reshape", _to_reshape, _as_reshape_check,
         "static sizes"),
    Rule("transpose_behind_elementwise", "legalise", (*UNARY, *BINARY), (*UNARY, *BINARY, "Transpose"), "exact",
         "a Transpose moves behind what works element by element, towards the next Transpose", _past, _past_check),
)  # fmt: skip
