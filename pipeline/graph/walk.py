"""Walk a graph and the graphs inside it (branches of If, bodies of Loop and Scan)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that stand in a node's attributes, not those inside them."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph itself and every graph inside it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, an outer one before those inside it."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from nodes(inner)


def model_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of the graph and of the model's own functions."""
    yield from nodes(model.graph)
    for function in model.functions:
        for node in function.node:
            yield node
            for inner in subgraphs(node):
                yield from nodes(inner)


def used_names(graph: onnx.GraphProto) -> set[str]:
    """Every value that some node or some graph's output refers to, in all scopes."""
    return {
        name
        for inner in graphs(graph)
        for name in (
            *(name for node in inner.node for name in node.input if name),
            *(value.name for value in inner.output),
        )
    }
