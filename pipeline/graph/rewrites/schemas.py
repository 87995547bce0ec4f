"""What the operators' schemas say: what changed with an opset, and whether a node fits an older one."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import onnx
import onnx.defs
import onnx_ir as ir

from pipeline.graph.rewrites.context import STANDARD_DOMAINS

#: Attributes without a default that say the same as none: name -> what every element is then.
_NEUTRAL: Final = {"dilations": 1, "pads": 0, "strides": 1}
#: Attributes of newer opsets that constrain nothing at inference: a seed, whether equal keys are sorted,
#: whether a cast to a float8 saturates (checked by type), the precision of inner sums of a function.
_WITHOUT_EFFECT: Final = {"seed", "sorted", "saturate", "momentum", "spatial"}


@cache
def schema_of(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """The schema in force, or None when there is no such operator at that opset (or no longer)."""
    try:
        found = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    return None if found.deprecated else found


@cache
def changed_with(op_type: str, opset: int) -> bool:
    """Whether an opset brought another version of an operator, or brought the operator."""
    found = schema_of(op_type, opset)
    return found is not None and found.since_version == opset


@cache
def first_opset(op_type: str) -> int | None:
    """The opset that brought an operator; None: onnx knows no such operator."""
    versions = [
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == op_type and schema.domain in STANDARD_DOMAINS
    ]
    return min(versions, default=None)


def misfit(node: ir.Node, newer: int, older: int) -> str | None:
    """Why a node of opset `newer` is none of opset `older`, or None when it is.

    Attributes that the older schema does not know and that say what it does anyway are taken away;
    defaults that differ between the two are written out.

    Args:
        node: may be changed so.
        newer: the opset that the node is written for.
        older: one that may not know it.
    """
    before, after = schema_of(node.op_type, newer), schema_of(node.op_type, older)
    if after is None or before is None:
        first = first_opset(node.op_type)
        return f"there is no {node.op_type} before opset {first}" if first else "onnx does not know it"
    if after.since_version == before.since_version:
        return None
    drop_neutral(node, newer, older)
    return (
        _attributes(node, before, after)
        or _arity(node, after)
        or _types(node, after)
    )  # fmt: skip


def drop_neutral(node: ir.Node, newer: int, older: int) -> None:
    """Take attributes away that an older opset does not know and that say what it does anyway."""
    before, after = schema_of(node.op_type, newer), schema_of(node.op_type, older)
    if before is None or after is None or after.since_version == before.since_version:
        return
    for name, attribute in list(node.attributes.items()):
        known = before.attributes.get(name)
        if name in after.attributes or known is None:
            continue
        if _is_default(attribute, known) or name in _WITHOUT_EFFECT:
            del node.attributes[name]


def _attributes(node: ir.Node, before: onnx.defs.OpSchema, after: onnx.defs.OpSchema) -> str | None:
    for name in node.attributes:
        if name not in after.attributes:
            return f"its attribute {name} came with opset {before.since_version}"
    for name, wanted in after.attributes.items():
        if name in node.attributes:
            continue
        newer = before.attributes.get(name)
        if newer is not None and _default(newer) is not None and _default(newer) != _default(wanted):
            node.attributes[name] = ir.serde.deserialize_attribute(newer.default_value)
        elif wanted.required:
            return f"opset {after.since_version} wants its attribute {name}"
    return None


def _arity(node: ir.Node, after: onnx.defs.OpSchema) -> str | None:
    given = [index for index, value in enumerate(node.inputs) if value is not None]
    used = given[-1] + 1 if given else 0
    if used > after.max_input:
        return f"it takes {used} inputs, opset {after.since_version} at most {after.max_input}"
    if used < after.min_input:
        return f"it takes {used} inputs, opset {after.since_version} at least {after.min_input}"
    if used < len(node.inputs):
        node.resize_inputs(used)
    outputs = [index for index, value in enumerate(node.outputs) if value.name]
    if outputs and outputs[-1] + 1 > after.max_output:
        return f"it gives {outputs[-1] + 1} outputs, opset {after.since_version} at most {after.max_output}"
    return None


def _types(node: ir.Node, after: onnx.defs.OpSchema) -> str | None:
    for values, formals, what in (
        (node.inputs, after.inputs, "input"),
        (node.outputs, after.outputs, "output"),
    ):
        for index, value in enumerate(values):
            if value is None or not formals:
                continue
            formal = formals[min(index, len(formals) - 1)]
            text = type_text(value)
            if text is not None and text not in _allowed(after.name, after.since_version, formal.type_str):
                return f"opset {after.since_version} takes no {text} as its {what} {formal.name}"
    return None


@cache
def _allowed(op_type: str, version: int, type_text: str) -> frozenset[str]:
    schema = schema_of(op_type, version)
    assert schema is not None
    for constraint in schema.type_constraints:
        if constraint.type_param_str == type_text:
            return frozenset(constraint.allowed_type_strs)
    return frozenset((type_text,))


def type_text(value: ir.Value) -> str | None:
    """A value's type as schemas write it ("tensor(float)"), or None when it is not known."""
    if value.type is None:
        return None
    return _type_name(value.type)


def _type_name(kind: Any) -> str | None:
    if isinstance(kind, ir.TensorType):
        return f"tensor({_ELEMENTS.get(kind.dtype, kind.dtype.name.lower())})"
    if isinstance(kind, ir.SequenceType):
        return f"seq({_type_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({_type_name(kind.elem_type)})"
    return None


_ELEMENTS: Final = {
    ir.DataType.COMPLEX64: "complex64",
    ir.DataType.COMPLEX128: "complex128",
}


def _is_default(attribute: ir.Attr, known: Any) -> bool:
    default = _default(known)
    if default is not None:
        return bool(_plain(attribute.value) == default)
    neutral = _NEUTRAL.get(attribute.name)
    return neutral is not None and all(one == neutral for one in attribute.as_ints())


def _default(known: Any) -> Any:
    proto = known.default_value
    if proto.type == onnx.AttributeProto.UNDEFINED:
        return None
    return _plain(onnx.helper.get_attribute_value(proto))  # noqa: TID251 - reads, edits nothing


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if isinstance(value, (tuple, list)) else value
