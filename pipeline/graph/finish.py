"""What a bare graph still needs before its tensors are attached: names, metadata, versions.

Everything that depends on the machine, the wheel or the exporter's mood is cleared here, so that
the same network gives the same bytes: doc strings, stack traces, producers, operator sets that no
node uses. The module that a node comes from stays: in its name, and as metadata where the IR
version knows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pipeline.graph.bare import BareModel
from pipeline.graph.branches import open_branches
from pipeline.graph.ir_version import NODE_METADATA_IR, chosen
from pipeline.graph.places import Place, places
from pipeline.graph.walk import graphs, model_nodes, nodes
from pipeline.version import __version__

if TYPE_CHECKING:
    import onnx

PRODUCER: Final = "onnx-export-pipeline"
#: Key of a node's metadata whose value is the path of the module that it comes from.
MODULE_KEY: Final = "module"
#: What a graph without a name is called: the format wants one.
GRAPH_NAME: Final = "main_graph"


def finish(model: BareModel, *, metadata: Mapping[str, str], ir_version: int | None) -> onnx.ModelProto:
    """The model as it will stand in the file, without the held tensors.

    Args:
        model: the graph.
        metadata: all that stands in the model's metadata_props afterwards.
        ir_version: the IR version to write; None: the one that the opset brought.

    Raises:
        StageFailed: PL-402, the graph needs a newer IR version than was asked.
    """
    proto = model.parsed()
    _clear(proto)
    open_branches(proto.graph)
    named = node_names(proto.graph, model)
    for node, (name, _) in zip(nodes(proto.graph), named, strict=True):
        node.name = name

    _keep_inputs(proto.graph, (*model.inputs, *model.shown_parameters))
    _keep_value_info(proto.graph)
    _keep_opsets(proto)
    proto.graph.name = proto.graph.name or GRAPH_NAME
    proto.producer_name, proto.producer_version = PRODUCER, __version__
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=value)

    proto.ir_version = chosen(proto, ir_version, {tensor.dtype for tensor in model.held.values()})
    if proto.ir_version >= NODE_METADATA_IR:
        for node, (_, place) in zip(nodes(proto.graph), named, strict=True):
            if place is not None:
                node.metadata_props.add(key=MODULE_KEY, value=place.module)
    return proto


def node_names(graph: onnx.GraphProto, model: BareModel) -> list[tuple[str, Place | None]]:
    """Every node's final name and its place, in the order of `walk.nodes`.

    Names are unique in all scopes. A node whose name does not show its module is called after it.
    """
    taken = Counter(node.name for node in nodes(graph))
    used: set[str] = set()
    named = []
    for node, place in zip(nodes(graph), places(graph, model), strict=True):
        name = node.name
        if not name or taken[name] > 1 or (place is not None and not _shows(name, place.module)):
            path = f"/{place.module}/" if place is not None and place.module else "/"
            name = _free(path + node.op_type, used, taken)
        used.add(name)
        named.append((name, place))
    return named


def _shows(name: str, module: str) -> bool:
    """Whether a path like "/features/features.0/Conv" leads to the module "features.0"."""
    last = module.rpartition(".")[2]
    folders = name.split("/")[:-1]
    return bool(folders) and (not last or any(f == last or f.endswith(f".{last}") for f in folders))


def _free(wanted: str, used: set[str], taken: Mapping[str, int]) -> str:
    name, number = wanted, 0
    while name in used or taken.get(name, 0):
        number += 1
        name = f"{wanted}_{number}"
    return name


def _clear(proto: onnx.ModelProto) -> None:
    """Doc strings, metadata and producers: what says how the file came about, not what it computes."""
    for name in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        proto.ClearField(name)
    _clear_texts(proto.metadata_props)
    for graph in graphs(proto.graph):
        _clear_message(graph)
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            _clear_message(value)
    for node in model_nodes(proto):
        _clear_message(node)
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            for tensor in (*((attribute.t,) if attribute.HasField("t") else ()), *attribute.tensors):
                _clear_message(tensor)
    for function in proto.functions:
        _clear_message(function)
        for value in function.value_info:
            _clear_message(value)


def _clear_message(message: Any) -> None:
    message.ClearField("doc_string")
    _clear_texts(message.metadata_props)


def _clear_texts(entries: Any) -> None:
    del entries[:]


def _keep_inputs(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    inputs = {value.name: value for value in graph.input}
    kept = [inputs[name] for name in names]
    del graph.input[:]
    graph.input.extend(kept)


def _keep_value_info(graph: onnx.GraphProto) -> None:
    """Types of values that nodes make, each once; an initializer carries its own type."""
    outputs = {value.name for value in graph.output}
    made = {name for node in graph.node for name in node.output} - outputs
    kept = {value.name: value for value in graph.value_info if value.name in made}
    del graph.value_info[:]
    graph.value_info.extend(kept.values())


def _keep_opsets(proto: onnx.ModelProto) -> None:
    """One entry for every domain that some node uses; ai.onnx always, and first."""
    used = {""} | {_domain(node.domain) for node in model_nodes(proto)}
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        versions.setdefault(_domain(entry.domain), entry.version)
    del proto.opset_import[:]
    for domain in sorted(versions):
        if domain in used:
            proto.opset_import.add(domain=domain, version=versions[domain])


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
