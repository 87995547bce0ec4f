"""From the finished graph back to the network: every node's module, line and maker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pipeline.graph.bare import BareModel
from pipeline.graph.finish import node_names
from pipeline.graph.walk import nodes

#: Who made a node, or a constant, that nothing else is known of.
EXPORT = "export"


def source_map(model: BareModel) -> dict[str, Any]:
    """JSON data for source_map.json.

    `nodes`: final node name to `op_type`, `module` (path in the network, "" is the network itself,
    null where nobody knows), `found_by` (see `places.Place`), `file`, `line` and `made_by`.
    `initializers`: name to `origin`, the network's own tensor that it equals bit for bit, or to
    `derived_by`, the step that made it.
    """
    graph = model.parsed().graph
    rows: dict[str, Any] = {}
    for node, (name, place) in zip(nodes(graph), node_names(graph, model), strict=True):
        file, line = _file_and_line(place.line if place else None)
        rows[name] = {
            "op_type": node.op_type,
            "module": place.module if place else None,
            "found_by": place.found_by if place else None,
            "file": file,
            "line": line,
            "made_by": model.made_by.get(node.name, EXPORT),
        }
    return {"nodes": rows, "initializers": initializer_origins(model)}


def initializer_origins(model: BareModel) -> dict[str, dict[str, str]]:
    """Every initializer of the finished file: the network's tensor that it equals, or the step that made it."""
    found: dict[str, dict[str, str]] = {}
    for tensor in model.parsed().graph.initializer:
        if tensor.name in model.origins:
            found[tensor.name] = {"origin": model.origins[tensor.name]}
        else:
            found[tensor.name] = {"derived_by": model.derived.get(tensor.name, EXPORT)}
    for name, held in model.held.items():
        if held.origin is not None:
            found[name] = {"origin": held.origin}
        else:
            found[name] = {"derived_by": held.derived_by or EXPORT}
    return found


def mapped_share(model: BareModel) -> float:
    """The share of nodes that lead to a module below the network itself or to the network; 1.0 is all."""
    graph = model.parsed().graph
    named = node_names(graph, model)
    return sum(place is not None for _, place in named) / len(named) if named else 1.0


def _file_and_line(text: str | None) -> tuple[str | None, int | None]:
    if text is None:
        return None, None
    file, _, number = text.rpartition(":")
    if not number.isdecimal():
        return _portable(text), None
    return _portable(file), int(number)


def _portable(file: str) -> str:
    """The path below the folder that Python imports from, so that it is the same in every checkout."""
    path = Path(file)
    if not path.is_absolute():
        return path.as_posix()
    roots = [Path(entry or ".").absolute() for entry in (*sys.path, "")]
    inside = [path.relative_to(root) for root in roots if path.is_relative_to(root)]
    return min(inside, key=lambda found: len(found.parts)).as_posix() if inside else path.as_posix()
