"""Where a node comes from: the module and the line that its computation stands in.

Exporters say so for the nodes that they made (`BareModel.scopes`, `BareModel.lines`). Simplifiers
drop a node's metadata and make nodes of their own, so a final node is looked up by its name, then
by the names of its outputs, then by a parameter that it alone uses, and last by its neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pipeline.graph.bare import BareModel
from pipeline.graph.walk import subgraphs

if TYPE_CHECKING:
    import onnx

FoundBy = Literal["name", "output", "parameter", "neighbours", "around"]

#: How far a node looks for a neighbour whose module is known. Simplifiers put at most a few nodes
#: between two that came from the network; farther ones say little.
FARTHEST: Final = 8


@dataclass(frozen=True)
class Place:
    """Where a node comes from.

    Attributes:
        module: path of the module ("features.0"); "" is the network itself.
        line: "file:line", or None where nobody knows it.
        found_by: the evidence: the node's own name, an output's name, a parameter that only this
            node uses, modules of neighbours, or the node that the subgraph belongs to.
    """

    module: str
    line: str | None
    found_by: FoundBy


def places(graph: onnx.GraphProto, model: BareModel) -> list[Place | None]:
    """The place of every node, in the order of `walk.nodes`; None where nothing is known.

    Args:
        graph: a graph whose names are (mostly) those of `model`.
        model: scopes, lines and origins of parameters.
    """
    origins = {name: tensor.origin for name, tensor in model.held.items() if tensor.origin}
    origins.update(model.origins)
    found: list[Place | None] = []
    _collect(graph, model.scopes, model.lines, _single_use(graph, origins), None, found)
    return found


def _collect(
    graph: onnx.GraphProto,
    scopes: Mapping[str, str],
    lines: Mapping[str, str],
    parameters: Mapping[str, str],
    around: Place | None,
    found: list[Place | None],
) -> None:
    known = [_own(node, scopes, lines, parameters) for node in graph.node]
    for node, place in zip(graph.node, _filled(graph, known), strict=True):
        if place is None and around is not None:
            place = Place(around.module, around.line, "around")  # noqa: PLW2901
        found.append(place)
        for inner in subgraphs(node):
            _collect(inner, scopes, lines, parameters, place, found)


def _own(
    node: onnx.NodeProto,
    scopes: Mapping[str, str],
    lines: Mapping[str, str],
    parameters: Mapping[str, str],
) -> Place | None:
    outputs = [name for name in node.output if name]
    line = next((lines[name] for name in (node.name, *outputs) if name in lines), None)
    if node.name and node.name in scopes:
        return Place(scopes[node.name], line, "name")
    for name in outputs:
        if name in scopes:
            return Place(scopes[name], line, "output")
    modules = {parameters[name] for name in node.input if name in parameters}
    return Place(modules.pop(), line, "parameter") if len(modules) == 1 else None


def _single_use(graph: onnx.GraphProto, origins: Mapping[str, str]) -> dict[str, str]:
    """Parameters that one node uses, to the module that they belong to.

    One that several nodes use may be several equal parameters in one, and says nothing.
    """
    from pipeline.graph.walk import nodes

    uses = Counter(name for node in nodes(graph) for name in node.input)
    return {name: origin.rpartition(".")[0] for name, origin in origins.items() if uses[name] == 1}


def _filled(graph: onnx.GraphProto, known: list[Place | None]) -> list[Place | None]:
    """Places of the nodes that have none, from the nearest producers and consumers that have one."""
    if all(known) or not any(known):
        return known
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before: list[list[int]] = [
        sorted({makers[name] for name in node.input if name in makers}) for node in graph.node
    ]
    after: list[list[int]] = [[] for _ in graph.node]
    for index, producers in enumerate(before):
        for producer in producers:
            after[producer].append(index)
    filled = list(known)
    for index, place in enumerate(known):
        if place is None:
            upstream = _nearest(index, before, known)
            downstream = _nearest(index, after, known)
            filled[index] = _agreed(upstream, downstream)
    return filled


def _nearest(start: int, edges: list[list[int]], known: list[Place | None]) -> list[Place]:
    """The first known places along the edges, level by level."""
    level, seen = [start], {start}
    for _ in range(FARTHEST):
        level = [to for index in level for to in edges[index] if to not in seen]
        seen.update(level)
        if found := [place for index in level if (place := known[index]) is not None]:
            return found
    return []


def _agreed(upstream: list[Place], downstream: list[Place]) -> Place | None:
    """What both sides, or the only side, agree on; else the module that holds them all."""
    above, below = {p.module for p in upstream}, {p.module for p in downstream}
    if len(both := above & below) == 1:
        module = both.pop()
    elif len(below) == 1 and not above:
        module = below.pop()
    elif len(above) == 1 and not below:
        module = above.pop()
    elif not (above or below):
        return None
    else:
        module = _common(above | below)
    lines = {place.line for place in (*upstream, *downstream) if place.module == module}
    return Place(module, lines.pop() if len(lines) == 1 else None, "neighbours")


def _common(modules: Iterable[str]) -> str:
    """The deepest module that holds all of them; "" is the network itself."""
    paths = [module.split(".") if module else [] for module in modules]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
