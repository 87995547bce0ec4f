"""Fold what depends on held tensors alone.

onnxsim folds what it sees the values of; a Transpose of a weight that is held aside it cannot.
Here such nodes are computed once, by ONNX Runtime, and their results are held in turn.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Final

from pipeline.graph.bare import BareModel, stays_in_proto
from pipeline.graph.dtypes import STRING, raw_size
from pipeline.graph.duplicates import RANDOM_OPERATORS, without_held
from pipeline.graph.session import held_value, run_bare
from pipeline.graph.split import hold_values, typed_input
from pipeline.graph.walk import nodes, subgraphs, used_names

if TYPE_CHECKING:
    import onnx

DERIVED_BY: Final = "simplify: constant folding"
#: Folding these would undo a quantization, or cannot be done once for all.
NEVER_FOLDED: Final = RANDOM_OPERATORS | {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


@dataclass(frozen=True)
class _Foldable:
    """Nodes that depend on constants alone, and the values of theirs that other nodes take.

    Attributes:
        nodes: in the graph's order.
        wanted: value to the held tensors that it depends on.
    """

    nodes: tuple[onnx.NodeProto, ...]
    wanted: dict[str, frozenset[str]]


def fold_held(model: BareModel, keep: Collection[str] = (), *, largest_folded: int) -> BareModel:
    """`model` with nodes that depend on held tensors alone computed; itself when there are none.

    A result is folded when the file does not grow by it: it is at most as large as the tensors
    that it came from, or small.

    Args:
        model: the graph; it is not changed.
        keep: held tensors that must stay what they are; shown parameters always do.
        largest_folded: bytes of a small result at most.
    """
    import onnx
    import onnx.numpy_helper
    import onnx.shape_inference

    proto = model.parsed()
    found = _foldable(proto.graph, model, {*keep, *model.shown_parameters})
    sizes = _sizes(onnx.shape_inference.infer_shapes(proto, data_prop=True).graph) if found.wanted else {}
    large = {
        name
        for name, sources in found.wanted.items()
        if name not in sizes
        or sizes[name] > max(largest_folded, sum(model.held[source].size for source in sources))
    }
    wanted, kept = _without_clashes(proto.graph, found.nodes, set(found.wanted) - large)
    if not wanted:
        return model
    values = _computed(proto, found.nodes, sorted(wanted), model)
    held, derived = dict(model.held), dict(model.derived)
    for name, array in values.items():
        tensor = onnx.numpy_helper.from_array(array, name)
        if stays_in_proto(tensor.data_type, tuple(tensor.dims)):
            proto.graph.initializer.append(tensor)
            derived[name] = DERIVED_BY
        else:
            held[name] = hold_values(tensor, origin=None, derived_by=DERIVED_BY)
            proto.graph.input.append(typed_input(held[name]))
    _keep_nodes(proto.graph, kept)
    folded = replace(model, held=held, derived=derived)
    return without_held(folded, proto, unused_held(folded, proto.graph, keep))


def unused_held(model: BareModel, graph: onnx.GraphProto, keep: Collection[str] = ()) -> set[str]:
    """Held tensors that nothing refers to any more."""
    used = used_names(graph)
    return {name for name in model.held if name not in used} - {*keep, *model.shown_parameters}


def _foldable(graph: onnx.GraphProto, model: BareModel, kept: Collection[str]) -> _Foldable:
    sources: dict[str, frozenset[str]] = {tensor.name: frozenset() for tensor in graph.initializer}
    sources.update({name: frozenset((name,)) for name in model.held if name not in kept})
    foldable = []
    for node in graph.node:
        if (
            node.domain in ("", "ai.onnx")
            and node.op_type not in NEVER_FOLDED
            and not any(True for _ in subgraphs(node))
            and all(name in sources for name in node.input if name)
        ):
            depends = frozenset().union(*(sources[name] for name in node.input if name))
            sources.update({name: depends for name in node.output if name})
            foldable.append(node)
    inside = {id(node) for node in foldable}
    outputs = {value.name for value in graph.output}
    taken = {name for node in nodes(graph) if id(node) not in inside for name in node.input}
    taken |= {value.name for node in graph.node for inner in subgraphs(node) for value in inner.output}
    wanted = {
        name: sources[name]
        for node in foldable
        for name in node.output
        # A constant output stays with the node that names it; what no held tensor takes part in
        # was left by onnxsim for a reason.
        if name in taken and name not in outputs and sources[name]
    }
    return _Foldable(tuple(foldable), wanted)


def _sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Bytes of every value whose type and sizes are known."""
    found = {}
    for value in graph.value_info:
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        if tensor.HasField("shape") and min(dims, default=0) >= 0 and tensor.elem_type not in (0, STRING):
            found[value.name] = raw_size(tensor.elem_type, dims) if prod(dims) else 0
    return found


def _computed(
    proto: onnx.ModelProto, steps: tuple[onnx.NodeProto, ...], names: list[str], model: BareModel
) -> dict[str, Any]:
    """The values, computed by the nodes that lead to them."""
    import onnx

    needed, lead = set(names), []
    for node in reversed(steps):
        if needed.intersection(node.output):
            needed.update(node.input)
            lead.append(node)
    part = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    part.graph.name = "folded"
    part.graph.node.extend(reversed(lead))
    part.graph.initializer.extend(t for t in proto.graph.initializer if t.name in needed)
    part.graph.input.extend(v for v in proto.graph.input if v.name in needed)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    feeds = {value.name: held_value(model.held[value.name]) for value in part.graph.input}
    # One thread: the bytes go into the file and must not depend on the machine's processors.
    found = run_bare(part.SerializeToString(), feeds, threads=1)
    return dict(zip(names, found, strict=True))


def _without_clashes(
    graph: onnx.GraphProto, steps: tuple[onnx.NodeProto, ...], wanted: set[str]
) -> tuple[set[str], list[onnx.NodeProto]]:
    """What can be folded, and the nodes that are left then.

    A node that stays because of one output must not lose another to a constant: both would define it.
    """
    while True:
        kept = _left(graph, steps, wanted)
        clashes = wanted.intersection(name for node in kept for name in node.output)
        if not clashes:
            return wanted, kept
        wanted = wanted - clashes


def _left(
    graph: onnx.GraphProto, steps: tuple[onnx.NodeProto, ...], folded: set[str]
) -> list[onnx.NodeProto]:
    """The nodes without those of `steps` whose outputs nobody takes any more."""
    candidates = {id(node) for node in steps}
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if id(node) in candidates and not (used - folded).intersection(node.output):
            continue
        kept.append(node)
        used.update(node.input)
        for inner in subgraphs(node):
            used.update(used_names(inner))
    kept.reverse()
    return kept


def _keep_nodes(graph: onnx.GraphProto, kept: list[onnx.NodeProto]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)
