"""From what an exporter left to a bare model: the same steps for every exporter and every road.

Names, order, metadata and the choice of what is held aside depend on the graph alone, so that two
roads to the same graph give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import InternalError, StageFailed
from pipeline.exporters.attempts import FrozenPlace
from pipeline.exporters.boundary import Boundary, rename, settle
from pipeline.exporters.weights import CONSTANT, Origins, Weight, from_held
from pipeline.graph.bare import BareModel, HeldTensor, stays_in_proto
from pipeline.graph.dtypes import STRING
from pipeline.graph.ir_version import FREE_INITIALIZERS_IR, brought_by
from pipeline.graph.split import hold_values, typed_input
from pipeline.graph.walk import graphs, model_nodes, nodes

if TYPE_CHECKING:
    import onnx

    from pipeline.exporters.config import ExportConfig

#: What both exporters call the graph.
GRAPH_NAME: Final = "main_graph"
PRODUCER: Final = "pytorch"
STANDARD_DOMAINS: Final = ("", "ai.onnx")


@dataclass
class Exported:
    """What an exporter left.

    Attributes:
        model: the graph; its initializers stand in `weights` instead.
        weights: initializer to value.
        names: initializer to what the network calls it, where the exporter was told another name.
        scopes: node or value name to module path.
        lines: node or value name to "file:line".
        specialised_is_wrong: see `boundary.settle`.
        frozen: values that became constants.
    """

    model: onnx.ModelProto
    weights: dict[str, Weight]
    names: Mapping[str, str] = field(default_factory=dict)
    scopes: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)
    specialised_is_wrong: bool = False
    frozen: tuple[FrozenPlace, ...] = ()


@dataclass(frozen=True)
class Held:
    """A bare model, and what else came out.

    Attributes:
        model: the graph with its tensors held aside.
        parameters: export.export_params=false: what became an input of the file, with its value.
        frozen: values that became constants.
    """

    model: BareModel
    parameters: Mapping[str, HeldTensor]
    frozen: tuple[FrozenPlace, ...]


def hold(
    exported: Exported,
    boundary: Boundary,
    origins: Origins,
    config: ExportConfig,
    *,
    producer_version: str,
) -> Held:
    """The bare model of what an exporter left; `exported` is used up.

    Args:
        exported: graph and weights.
        boundary: inputs and outputs that were asked.
        origins: of the network's tensors.
        config: decides which parameters are shown as inputs, and whether they stand in the file.
        producer_version: public version of torch.

    Raises:
        StageFailed: PL-321, PL-322, the graph's inputs or outputs are not what was asked; PL-323, an
            operator set was asked for that no node uses.
    """
    graph = exported.model.graph
    _lift_constants(graph, exported.weights)
    baked, moved = settle(graph, boundary, specialised_is_wrong=exported.specialised_is_wrong)
    weights = {moved.get(name, name): weight for name, weight in exported.weights.items()}
    names = {moved.get(name, name): own for name, own in exported.names.items()}
    scopes = {moved.get(name, name): module for name, module in exported.scopes.items()}
    lines = {moved.get(name, name): line for name, line in exported.lines.items()}

    users = _users(graph)
    order = [name for name in users if name in weights]
    table = {name: _held(name, weights[name], names, origins, users[name]) for name in order}
    table, told_apart = _tell_apart(graph, table, origins)
    order = list(table)
    scopes = {told_apart.get(name, name): module for name, module in scopes.items()}
    lines = {told_apart.get(name, name): line for name, line in lines.items()}
    parameters = [name for name in order if table[name].derived_by != CONSTANT]
    fed = parameters if not config.export_params else []
    shown = parameters if config.keep_initializers_as_inputs and not fed else []
    parameter_order = _declared_order(parameters, table, origins)
    fed, shown = (
        [n for n in parameter_order if n in set(fed)],
        [n for n in parameter_order if n in set(shown)],
    )

    held: dict[str, HeldTensor] = {}
    stay: dict[str, str] = {}  # initializer that stays in the proto to its origin
    for name in order:
        tensor = table[name]
        if name in fed:
            continue
        if stays_in_proto(tensor.dtype, tensor.shape) and name not in shown:
            graph.initializer.append(_tensor_proto(tensor))
            if tensor.origin is not None:
                stay[name] = tensor.origin
        else:
            held[name] = tensor
    graph.input.extend(typed_input(table[name]) for name in fed)
    graph.input.extend(typed_input(tensor) for tensor in held.values())

    _tidy(exported.model, config.custom_opsets, producer_version)
    present = _names(graph)
    model = BareModel(
        proto=exported.model.SerializeToString(deterministic=True),
        held=held,
        inputs=(*(leaf.name for leaf in boundary.leaves), *fed),
        outputs=boundary.signature.names,
        scopes={name: module for name, module in sorted(scopes.items()) if name in present},
        lines={name: line for name, line in sorted(lines.items()) if name in present},
        shown_parameters=tuple(shown),
        origins=stay,
    )
    return Held(model, {name: table[name] for name in fed}, (*exported.frozen, *baked))


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ai.onnx that a model imports.

    Raises:
        InternalError: it imports none.
    """
    for entry in model.opset_import:
        if entry.domain in STANDARD_DOMAINS:
            return int(entry.version)
    raise InternalError("an exported model imports no version of ai.onnx")


def take_initializers(model: onnx.ModelProto) -> dict[str, Weight]:
    """Take the main graph's initializers out of a model; their values."""
    weights = {
        tensor.name: from_held(hold_values(tensor, origin=None, derived_by=None))
        for tensor in model.graph.initializer
        if tensor.data_type != STRING
    }
    strings = [tensor for tensor in model.graph.initializer if tensor.data_type == STRING]
    del model.graph.initializer[:]
    model.graph.initializer.extend(strings)
    return weights


def _lift_constants(graph: onnx.GraphProto, weights: dict[str, Weight]) -> None:
    """Turn Constant nodes too large for the proto into initializers (buffers outside of the state)."""
    kept = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value" and a.HasField("t")), None)
        large = node.op_type == "Constant" and value is not None and value.data_type != STRING
        if large and value is not None and not stays_in_proto(value.data_type, tuple(value.dims)):
            weights[node.output[0]] = from_held(hold_values(value, origin=None, derived_by=None))
        else:
            kept.append(node)
    if len(kept) != len(graph.node):
        kept = [_copy(node) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = type(node)()
    copied.CopyFrom(node)
    return copied


def _users(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Value to the operators that it goes into, values in the order of their first use."""
    users: dict[str, list[str]] = {}
    for node in nodes(graph):
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    for inner in graphs(graph):
        for value in inner.output:
            users.setdefault(value.name, [])
    return users


def _held(
    name: str, weight: Weight, names: Mapping[str, str], origins: Origins, users: Sequence[str]
) -> HeldTensor:
    origin = origins.of(names.get(name, name), weight)
    return weight.held(name, origin, None if origin else origins.derived_by(weight, users))


def _tell_apart(
    graph: onnx.GraphProto, table: Mapping[str, HeldTensor], origins: Origins
) -> tuple[dict[str, HeldTensor], dict[str, str]]:
    """Give a folded weight that still bears the name of the network's tensor a name of its own.

    Dynamo's optimiser folds BatchNorm into `conv.weight` and keeps the name; whoever feeds the
    network's `conv.weight` by that name would compute something else.
    """
    folded = {
        name: f"{name}_folded"
        for name, tensor in table.items()
        if tensor.origin is None and name in origins.weights
    }
    moved = rename(graph, folded)
    renamed = {
        moved.get(name, name): replace(tensor, name=moved.get(name, name)) for name, tensor in table.items()
    }
    return renamed, moved


def _declared_order(
    parameters: Sequence[str], table: Mapping[str, HeldTensor], origins: Origins
) -> list[str]:
    """Parameters in the order of the network, derived ones after them in the order of their use."""
    position = {name: index for index, name in enumerate(origins.weights)}
    last = len(position)
    return sorted(parameters, key=lambda name: position.get(table[name].origin or "", last))


def _tensor_proto(tensor: HeldTensor) -> onnx.TensorProto:
    import onnx

    proto = onnx.TensorProto(dims=tensor.shape, data_type=tensor.dtype, name=tensor.name)
    proto.raw_data = b"".join(tensor.pieces())
    return proto


def _tidy(model: onnx.ModelProto, custom_opsets: Mapping[str, int], producer_version: str) -> None:
    """Clear what depends on the machine or the wheel, and state the operator sets."""
    graph = model.graph
    graph.name = GRAPH_NAME
    model.producer_name, model.producer_version = PRODUCER, producer_version
    for name in ("domain", "model_version", "doc_string"):
        model.ClearField(name)
    del model.metadata_props[:]
    for inner in graphs(graph):
        _clear(inner)
        del inner.value_info[:]
        for value in (*inner.input, *inner.output, *inner.initializer):
            _clear(value)
    for node in model_nodes(model):
        _clear(node)
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
    for function in model.functions:
        _clear(function)
        del function.value_info[:]
    _state_opsets(model, custom_opsets)
    # In the bare graph initializers stand that are no inputs, whatever the file may become.
    model.ir_version = max(FREE_INITIALIZERS_IR, brought_by(opset_of(model)))


def _clear(message: Any) -> None:
    message.ClearField("doc_string")
    del message.metadata_props[:]


def _state_opsets(model: onnx.ModelProto, custom_opsets: Mapping[str, int]) -> None:
    used = {_domain(node.domain) for node in model_nodes(model)}
    if unused := sorted(set(custom_opsets) - used - {""}):
        raise StageFailed(
            "PL-323",
            f"no node of the exported graph is of the operator set {unused[0]!r}",
            where=f"export.custom_opsets.{unused[0]}",
            found=", ".join(sorted(used - {""})) or "operators of ai.onnx alone",
            expected=f"an operator of {unused[0]}",
            next_step="Leave the key out, or let export.custom_symbolics write such an operator",
        )
    versions = {_domain(entry.domain): entry.version for entry in model.opset_import}
    versions.update(custom_opsets)
    del model.opset_import[:]
    for domain in sorted(versions):
        if domain in used or not domain:
            model.opset_import.add(domain=domain, version=versions[domain])


def _domain(name: str) -> str:
    return "" if name in STANDARD_DOMAINS else name


def _names(graph: onnx.GraphProto) -> set[str]:
    return {name for node in nodes(graph) for name in (node.name, *node.output) if name}
