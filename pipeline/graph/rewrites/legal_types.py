"""Types and sizes of the whole graph: 64-bit indices and floats narrowed, a dynamic batch frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from pipeline.graph.bare import BareModel, HeldTensor
from pipeline.graph.dtypes import NUMBERS
from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.context import held_array, step_name
from pipeline.graph.rewrites.rewriting import Applied, DeclinedNode, Rewriting
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule
from pipeline.graph.split import typed_input
from pipeline.graph.walk import graphs

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

DOUBLE: Final = NUMBERS["float64"]
FLOAT: Final = NUMBERS["float32"]
LARGEST_INT32: Final = 2**31 - 1
#: The batch that a symbolic first size becomes.
FROZEN: Final = 1


def _indices_check(node: ir.Node, context: Context) -> Declined | None:
    indices = node.inputs[1]
    dtype = context.dtype(indices)
    if dtype is None:
        return Declined("the type of its indices is not known")
    if dtype != ir.DataType.INT64 or context.is_weight(node.inputs[0]):
        return NOT_NEEDED
    known = context.constant(indices, held=True)
    if known is not None and known.size and int(np.abs(known).max()) > LARGEST_INT32:
        return Declined("an index does not fit into 32 bits")
    return None


def _indices(node: ir.Node, context: Context) -> list[ir.Value]:
    indices = node.inputs[1]
    known = context.constant(indices, held=True)
    if known is not None:
        narrow = context.tensor(known.astype(np.int32), "indices")
    else:
        narrow = context.op("Cast", [indices], to=int(ir.DataType.INT32))
    attributes = forms.attributes(node)
    return [context.op(node.op_type, [node.inputs[0], narrow, *node.inputs[2:]], **attributes)]


def _nowhere(node: ir.Node, context: Context) -> Declined | None:
    """The check of a rule that works on the whole graph."""
    return NOT_NEEDED


def _nothing(node: ir.Node, context: Context) -> list[ir.Value]:
    return []


RULES: Final = (
    Rule("narrow_int64_indices", "legalise", ("Gather", "GatherElements", "ScatterElements"),
         ("Gather", "GatherElements", "ScatterElements", "Cast"), "exact",
         "indices of 64 bits become indices of 32", _indices, _indices_check, "indices that fit"),
    Rule("narrow_float64", "legalise", (), ("Cast",), "float noise",
         "the whole graph computes in float32 instead of float64", _nothing, _nowhere,
         "outputs that are no float64"),
    Rule("freeze_batch", "legalise", (), (), "exact",
         "a symbolic first size of inputs becomes 1", _nothing, _nowhere, "no sizes that are computed from it elsewhere"),
)  # fmt: skip


def narrow_float64(model: BareModel) -> tuple[BareModel, Rewriting]:
    """Every float64 inside becomes float32; inputs keep their type and are cast."""
    proto = model.parsed()
    step = step_name("narrow_float64")
    if any(value.type.tensor_type.elem_type == DOUBLE for value in proto.graph.output):
        return model, _declined("narrow_float64", "an output is float64, and float32 has not its digits")
    if any(model.held[name].dtype == DOUBLE for name in model.shown_parameters):
        return model, _declined("narrow_float64", "a parameter that is an input of the file is float64")
    changed = 0
    held = {
        name: _narrowed(tensor, step) if tensor.dtype == DOUBLE else tensor
        for name, tensor in model.held.items()
    }
    changed += sum(one is not model.held[name] for name, one in held.items())
    derived = dict(model.derived)
    origins = dict(model.origins)
    for graph in graphs(proto.graph):
        for tensor in graph.initializer:
            if tensor.data_type == DOUBLE:
                _narrow(tensor)
                derived[tensor.name] = step
                origins.pop(tensor.name, None)
                changed += 1
        for node in graph.node:
            changed += _narrow_attributes(node)
        del graph.value_info[:]
    inputs = proto.graph.input
    casts = [
        value.name for value in inputs[: len(model.inputs)] if value.type.tensor_type.elem_type == DOUBLE
    ]
    for index in range(len(model.inputs), len(inputs)):
        inputs[index].CopyFrom(typed_input(held[inputs[index].name]))
    made_by = dict(model.made_by)
    for name in casts:
        node = _cast_input(proto, name)
        made_by[node] = step
    if not changed and not casts:
        return model, Rewriting()
    done = replace(
        model,
        proto=proto.SerializeToString(deterministic=True),
        held=held,
        derived=derived,
        origins=origins,
        made_by=made_by,
    )
    return done, Rewriting((Applied("narrow_float64", "", "", ()),))


@dataclass(frozen=True)
class _Narrow:
    tensor: HeldTensor

    def __call__(self) -> Any:
        return np.ascontiguousarray(held_array(self.tensor), np.float32).reshape(-1).view(np.uint8)


def _narrowed(tensor: HeldTensor, step: str) -> HeldTensor:
    return replace(tensor, dtype=FLOAT, data=_Narrow(tensor), origin=None, derived_by=step)


def _narrow(tensor: onnx.TensorProto) -> None:
    array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _narrow_attributes(node: onnx.NodeProto) -> int:
    changed = 0
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == DOUBLE:
            attribute.i = FLOAT
            changed += 1
        elif attribute.HasField("t") and attribute.t.data_type == DOUBLE:
            _narrow(attribute.t)
            changed += 1
    return changed


def _cast_input(proto: onnx.ModelProto, name: str) -> str:
    """A Cast behind an input, whose result the whole graph takes; the name of the node."""
    taken = {
        one for graph in graphs(proto.graph) for node in graph.node for one in (*node.input, *node.output)
    }
    narrow = f"{name}_float32"
    while narrow in taken:
        narrow += "_"
    for graph in graphs(proto.graph):
        for node in graph.node:
            for index, one in enumerate(node.input):
                if one == name:
                    node.input[index] = narrow
    cast = onnx.NodeProto(op_type="Cast", name=f"{narrow}_Cast", input=[name], output=[narrow])
    cast.attribute.add(name="to", type=onnx.AttributeProto.INT, i=FLOAT)
    proto.graph.node.insert(0, cast)
    return cast.name


def freeze_batch(model: BareModel) -> tuple[BareModel, Rewriting]:
    """Symbolic first sizes of the inputs become 1, and the same symbols wherever they stand."""
    proto = model.parsed()
    symbols = {
        value.type.tensor_type.shape.dim[0].dim_param
        for value in proto.graph.input[: len(model.inputs)]
        if value.type.tensor_type.shape.dim and value.type.tensor_type.shape.dim[0].dim_param
    }
    if not symbols:
        return model, Rewriting()
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = FROZEN
    for graph in graphs(proto.graph):
        del graph.value_info[:]
    frozen = replace(model, proto=proto.SerializeToString(deterministic=True))
    return frozen, Rewriting((Applied("freeze_batch", "", "", ()),))


def frozen_values(model: BareModel, values: Mapping[str, Any]) -> dict[str, Any]:
    """Samples for a frozen batch: the first row of those inputs whose first size was symbolic."""
    inputs = {value.name: value for value in model.parsed().graph.input[: len(model.inputs)]}
    found = dict(values)
    for name, array in values.items():
        sizes = inputs[name].type.tensor_type.shape.dim if name in inputs else ()
        if sizes and sizes[0].dim_param:
            found[name] = array[:FROZEN]
    return found


def _declined(rule: str, reason: str) -> Rewriting:
    return Rewriting((), (DeclinedNode(rule, "", "", reason),))


#: Rules that work on the whole graph, before those that work on nodes.
OF_THE_WHOLE: Final[Mapping[str, Callable[[BareModel], tuple[BareModel, Rewriting]]]] = {
    "freeze_batch": freeze_batch,
    "narrow_float64": narrow_float64,
}
