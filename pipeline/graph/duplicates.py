"""Merge held tensors that are equal, where that makes nodes equal.

An exporter that fuses a module's tensors anew at each call leaves equal weights under two names.
Simplifiers merge them when they see the values; with the values held aside we look ourselves, and
only where two nodes would become one: comparing every tensor with every other costs too much.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pipeline.graph.bare import BareModel, HeldTensor
from pipeline.graph.walk import graphs, subgraphs

if TYPE_CHECKING:
    import onnx

#: Operators whose two calls differ although everything that they are given is the same.
RANDOM_OPERATORS: Final = frozenset(
    ("Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)  # fmt: skip


def merge_equal_tensors(model: BareModel, keep: Collection[str] = ()) -> BareModel:
    """`model` with one held tensor for several equal ones that feed otherwise equal nodes.

    Args:
        model: the graph; it is not changed.
        keep: held tensors that must stay under their own names.
    """
    proto = model.parsed()
    mergeable = set(model.held) - set(keep) - set(model.shown_parameters) - _defined_inside(proto.graph)
    stands_for = _equal(proto.graph, {name: model.held[name] for name in mergeable})
    if not stands_for:
        return model
    for graph in graphs(proto.graph):
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in stands_for:
                    node.input[index] = stands_for[name]
    return without_held(model, proto, stands_for)


def without_held(model: BareModel, proto: onnx.ModelProto, gone: Collection[str]) -> BareModel:
    """`model` with this proto and without the held tensors `gone`."""
    kept = [value for value in proto.graph.input if value.name not in gone]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return replace(
        model,
        proto=proto.SerializeToString(deterministic=True),
        held={name: tensor for name, tensor in model.held.items() if name not in gone},
    )


def _equal(graph: onnx.GraphProto, held: Mapping[str, HeldTensor]) -> dict[str, str]:
    """Held tensor to the equal one that is used earlier.

    Values are numbered: two nodes with the same operator, attributes and inputs give the same
    value. Where only held tensors of one kind differ, their bytes decide.
    """
    stands_for: dict[str, str] = {}
    value_of: dict[str, str] = {}
    seen: dict[Any, list[onnx.NodeProto]] = {}
    compared: dict[tuple[str, str], bool] = {}

    def final(name: str) -> str:
        return stands_for.get(name, value_of.get(name, name))

    def same(one: str, other: str) -> bool:
        if one == other:
            return True
        if (one, other) not in compared:
            compared[one, other] = _same_bytes(held[one], held[other])
        return compared[one, other]

    for node in graph.node:
        if node.op_type in RANDOM_OPERATORS or any(True for _ in subgraphs(node)):
            continue
        inputs = tuple(map(final, node.input))
        described = tuple((held[name].dtype, held[name].shape) if name in held else name for name in inputs)
        attributes = tuple(
            sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        )
        bucket = seen.setdefault((node.domain, node.op_type, attributes, described, len(node.output)), [])
        for twin in bucket:
            pairs = [(final(a), b) for a, b in zip(twin.input, inputs, strict=True)]
            if all(same(a, b) for a, b in pairs):
                stands_for.update({b: a for a, b in pairs if a != b})
                value_of.update(
                    {b: final(a) for a, b in zip(twin.output, node.output, strict=True) if a and b}
                )
                break
        else:
            bucket.append(node)
    return {name: _end(name, stands_for) for name in stands_for}


def _end(name: str, stands_for: Mapping[str, str]) -> str:
    while name in stands_for:
        name = stands_for[name]
    return name


def _same_bytes(one: HeldTensor, other: HeldTensor) -> bool:
    import numpy as np

    for piece, twin in zip(one.pieces(), other.pieces(), strict=True):
        if not np.array_equal(np.frombuffer(piece, np.uint8), np.frombuffer(twin, np.uint8)):
            return False
    return True


def _defined_inside(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph inside another defines: renaming an outer value to one would change its meaning."""
    inner = list(graphs(graph))[1:]
    return {
        name
        for inside in inner
        for name in (
            *(value.name for value in inside.input),
            *(tensor.name for tensor in inside.initializer),
            *(name for node in inside.node for name in node.output),
        )
    }
