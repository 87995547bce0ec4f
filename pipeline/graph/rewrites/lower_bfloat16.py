"""bfloat16 becomes float32: before opset 22 no convolution or pool takes it, before 13 nothing does.

The whole graph changes at once. Weights keep their numbers (every bfloat16 is a float32); what is
computed between them is rounded less. Inputs and outputs keep their type, by a Cast where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from pipeline.errors import InternalError
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.graph.rewrites.context import Context

#: Cast takes and gives bfloat16 since this opset.
CAST_TAKES_IT: Final = 13
#: Attributes that name an element type.
_TYPES: Final = ("to", "dtype", "output_datatype", "output_dtype", "stash_type", "softmax_precision")


def _is_narrow(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.BFLOAT16


def _graphs(context: Context) -> Iterator[ir.Graph]:
    yield context.graph
    yield from context.graph.subgraphs()


def _check_graph(context: Context, opset: int) -> Declined | None:
    """Whether there is any, and whether the interface allows it."""
    every = (value for graph in _graphs(context) for node in graph for value in (*node.inputs, *node.outputs))
    if not any(map(_is_narrow, every)):
        return NOT_NEEDED
    real = [value for value in context.graph.inputs if value.name not in context.held]
    if opset < CAST_TAKES_IT:
        for values, what in ((real, "input"), (context.graph.outputs, "output")):
            narrow = next((value.name for value in values if _is_narrow(value)), None)
            if narrow is not None:
                return Declined(f"the {what} {narrow} is bfloat16, which opset {opset} does not know")
    return None


def _widen_graph(context: Context) -> None:
    for value in list(context.graph.inputs):
        if _is_narrow(value):
            _widen_input(value, context)
    for graph in _graphs(context):
        for value in list(graph.initializers.values()):
            if _is_narrow(value) and value.const_value is not None:
                wide = value.const_value.numpy().astype(np.float32)
                value.const_value = ir.Tensor(wide, name=value.name)
                value.type = ir.TensorType(ir.DataType.FLOAT)
                context.note(value.name or "")
        for value in graph.inputs:
            if _is_narrow(value) and graph is not context.graph:
                value.type = ir.TensorType(ir.DataType.FLOAT)
    outputs = [value for value in context.graph.outputs if _is_narrow(value)]
    for graph in _graphs(context):
        for node in list(graph):
            _widen_node(node)
    for value in dict.fromkeys(outputs):
        _narrow_output(value, context)


def _widen_input(value: ir.Value, context: Context) -> None:
    """A weight is derived, an input of the network is cast before its first use."""
    if not value.uses():
        return
    if value.name in context.held:
        wide = context.derived(
            [value], _widened, ir.DataType.FLOAT, context.static_shape(value) or (), f"{value.name}_float32"
        )
        value.replace_all_uses_with(wide)
        return
    first = next(iter(context.graph))
    context.place(first)
    cast = context.op("Identity", [value])
    node = cast.producer()
    uses = [use for use in value.uses() if use.node is not node]
    node.op_type = "Cast"
    node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
    cast.type, cast.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    for use in uses:
        use.node.replace_input_with(use.idx, cast)


def _widened(weight: NDArray[Any]) -> NDArray[Any]:
    return weight.astype(np.float32)


def _widen_node(node: ir.Node) -> None:
    for name in _TYPES:
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.value == int(ir.DataType.BFLOAT16):
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == ir.DataType.BFLOAT16:
            wide = attribute.value.numpy().astype(np.float32)
            node.attributes[name] = ir.AttrTensor(name, ir.Tensor(wide))
    for value in node.outputs:
        if _is_narrow(value):
            value.type = ir.TensorType(ir.DataType.FLOAT)


def _narrow_output(value: ir.Value, context: Context) -> None:
    """The output keeps name and type; what computes it gets another name."""
    node = value.producer()
    assert node is not None
    name = value.name
    value.name = context.unique(f"{name}_float32")
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(ir.DataType.BFLOAT16))],
                   name=context.unique(f"{name}_Cast"), num_outputs=1)  # fmt: skip
    cast.outputs[0].name = name
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(ir.DataType.BFLOAT16), value.shape
    context.graph.append(cast)
    for index, output in enumerate(context.graph.outputs):
        if output is value:
            context.graph.outputs[index] = cast.outputs[0]
    context.new.append(cast)


def _never(node: ir.Node, context: Context) -> Sequence[ir.Value | None]:
    raise InternalError("the rule works on the whole graph")


RULES: Final = (
    Rule("bfloat16_to_float32", "lower", ("every operator on bfloat16",), ("Cast",), "float noise",
         "bfloat16 becomes float32 throughout; inputs and outputs keep their type", _never,
         needs="below opset 13 inputs and outputs of other types", from_opset=22,
         check_graph=_check_graph, rewrite_graph=_widen_graph),
)  # fmt: skip
