"""Operators that the standard itself defines by others: what older opsets lack is spelt out so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import onnx
import onnx.defs
import onnx.numpy_helper
import onnx_ir as ir

from pipeline.graph.rewrites.lower_pad import whole_amounts
from pipeline.graph.rewrites.rule import Declined, Rule
from pipeline.graph.rewrites.schemas import misfit, schema_of

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: A value of the definition up to this size that is known becomes a constant: sizes, masks, frequencies.
LARGEST_KNOWN: Final = 64 * 1024
#: What stands in the definition of another and is spelt out with it.
_NESTED: Final = ("NegativeLogLikelihoodLoss",)
#: Since this opset Pad takes axes.
_PAD_AXES: Final = 18


def _definition(node: ir.Node, context: Context) -> onnx.FunctionProto | None:
    """What the standard says the operator is, for the types and attributes of this node."""
    # onnx's own stubs leave these methods out.
    schema: Any = schema_of(node.op_type, context.opset + 1)
    if schema is None:
        return None
    text: Any
    if schema.has_function:
        versions = [one for one in schema.function_opset_versions if one <= context.opset + 1]
        text = schema.get_function_with_opset_version(max(versions)) if versions else None
    elif schema.has_context_dependent_function:
        types = [_type(value) for value in node.inputs]
        versions = [
            one for one in schema.context_dependent_function_opset_versions if one <= context.opset + 1
        ]
        proto = ir.serde.serialize_node(node).SerializeToString()
        text = (
            schema.get_context_dependent_function_with_opset_version(max(versions), proto, types)
            if versions
            else None
        )
    else:
        return None
    if not text:
        return None
    return text if isinstance(text, onnx.FunctionProto) else onnx.FunctionProto.FromString(text)


def _type(value: ir.Value | None) -> bytes:
    if value is None or value.type is None:
        return b""
    written: bytes = ir.serde.serialize_value(value).type.SerializeToString()
    return written


def _check(node: ir.Node, context: Context) -> Declined | None:
    if any(value is not None and value.dtype is None for value in node.inputs):
        return Declined("the element type of an input is not known")
    if (
        node.op_type == "CenterCropPad"
        and "axes" in node.attributes
        and (context.static_shape(node.inputs[0]) is None or context.integers(node.inputs[1]) is None)
    ):
        return Declined("it pads some of its axes, and the sizes before or after are not known")
    body = _definition(node, context)
    if body is None:
        return Declined("the standard does not define it by others for these types")
    written = next((one.version for one in body.opset_import if one.domain in ("", "ai.onnx")), 0)
    for inner in [one for one in body.node if one.op_type not in _NESTED]:
        if inner.domain not in ("", "ai.onnx") or any(
            a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in inner.attribute
        ):
            return Declined(f"its definition needs {inner.op_type} with a graph of its own")
        if written > context.opset:
            attributes = [ir.serde.deserialize_attribute(a) for a in inner.attribute if not a.ref_attr_name]
            bare = ir.Node("", inner.op_type, [], attributes, num_outputs=len(inner.output))
            reason = misfit(bare, written, context.opset)
            if reason is not None and not reason.startswith("it takes 0 inputs"):
                return Declined(f"its definition needs {inner.op_type}: {reason}")
    return None


def _inline(node: ir.Node, context: Context) -> Sequence[ir.Value | None]:
    body = _definition(node, context)
    assert body is not None
    values: dict[str, ir.Value | None] = {"": None}
    given = [*node.inputs, *[None] * len(body.input)]
    values.update(zip(body.input, given, strict=False))
    for inner in body.node:
        if not _optional_is_there(inner, values):
            continue
        outputs = list(inner.output)
        made = _made(inner, node, body, values, context)
        for name, value in zip(outputs, made, strict=True):
            values[name] = _known(value, context)
    return [values.get(name) for name in body.output[: len(node.outputs)]]


def _optional_is_there(inner: onnx.NodeProto, values: dict[str, ir.Value | None]) -> bool:
    """Whether what a node of the definition works on was given."""
    return all(name in values for name in inner.input)


def _made(
    inner: onnx.NodeProto,
    node: ir.Node,
    body: onnx.FunctionProto,
    values: dict[str, ir.Value | None],
    context: Context,
) -> tuple[ir.Value, ...]:
    attributes: dict[str, Any] = {}
    defaults = {one.name: one for one in body.attribute_proto}
    for proto in inner.attribute:
        if not proto.ref_attr_name:
            attributes[proto.name] = ir.serde.deserialize_attribute(proto)
            continue
        name = proto.ref_attr_name
        found = node.attributes.get(name)
        if found is None and name in defaults:
            found = ir.serde.deserialize_attribute(defaults[name])
        if found is None:
            schema = schema_of(node.op_type, context.opset + 1)
            default = schema.attributes[name].default_value if schema is not None else onnx.AttributeProto()
            found = ir.serde.deserialize_attribute(default) if default.type else None
        if found is not None:
            attributes[proto.name] = ir.Attr(proto.name, found.type, found.value)
    if inner.op_type == "Constant":
        return (context.tensor(_constant(attributes), inner.output[0]),)
    inputs = [values[name] for name in inner.input]
    if inner.op_type in _NESTED:
        nested = ir.Node("", inner.op_type, inputs, list(attributes.values()), num_outputs=len(inner.output))
        return tuple(value for value in _inline(nested, context) if value is not None)
    if inner.op_type == "Pad" and len(inputs) > 3 and context.opset < _PAD_AXES:
        inputs = [inputs[0], whole_amounts(inputs, context), inputs[2]]
    made = context.op(inner.op_type, inputs, outputs=len(inner.output), **attributes)
    return made if isinstance(made, tuple) else (made,)


def _constant(attributes: dict[str, ir.Attr]) -> Any:
    import numpy as np

    (attribute,) = attributes.values()
    if attribute.name == "value":
        return attribute.as_tensor().numpy()
    kind = np.int64 if "int" in attribute.name else np.float32
    return np.asarray(attribute.value, kind)


def _known(value: ir.Value, context: Context) -> ir.Value:
    """A constant for a value that is known: sizes that the definition computes."""
    found = context.constant(value)
    if found is None or value.producer() is None or found.nbytes > LARGEST_KNOWN:
        return value
    return context.tensor(found, "known")


def _rule(name: str, takes: tuple[str, ...], text: str, opset: int) -> Rule:
    return Rule(
        name, "lower", takes, ("operators of the standard's definition",), "float noise", text, _inline, _check,
        "the element types", opset,
    )  # fmt: skip


RULES: Final = (
    _rule("attention", ("Attention",), "Attention becomes its products and its softmax", 23),
    _rule("rotary_embedding", ("RotaryEmbedding",), "RotaryEmbedding becomes products and sums", 23),
    _rule("center_crop_pad", ("CenterCropPad",), "CenterCropPad becomes slices and paddings", 18),
    _rule("losses", ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), "a loss becomes its formula", 12),
)  # fmt: skip
