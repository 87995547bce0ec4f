"""Which module and which source line a node comes from, out of what each exporter says. No torch."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from pipeline.exporters.places import innermost_last, users_line
from pipeline.graph.walk import nodes

if TYPE_CHECKING:
    import onnx

NAME_SCOPES: Final = "pkg.torch.onnx.name_scopes"
STACK_TRACE: Final = "pkg.torch.onnx.stack_trace"
_CONVOLUTIONS: Final = ("Conv", "ConvTranspose")


class ModulePaths:
    """Qualified module names, found from the short ones that TorchScript puts into node names.

    TorchScript calls the module "layer1.0.conv1" `conv1` and joins the names of the modules that
    are being called: `/layer1/layer1.0/conv1/Conv`. A module that nobody calls (a ModuleList) is
    left out, so every name is looked for below the module found so far.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_short: dict[str, list[str]] = {}
        for name in names:
            if name:
                self._by_short.setdefault(short_name(name), []).append(name)

    def of(self, node_name: str) -> str:
        """The module that a node's name leads to; "" is the network itself."""
        found = ""
        for atom in node_name.split("/")[1:-1]:
            below = [name for name in self._by_short.get(atom, ()) if _is_below(name, found)]
            if not below:
                # Called from a module that does not hold it: a module handed in from outside.
                below = self._by_short.get(atom, [])
            if not below:
                break
            found = min(below, key=lambda name: (name.count("."), len(name)))
        return found


def short_name(qualified: str) -> str:
    """The last part of a name that is no number, with the numbers behind it."""
    parts = qualified.split(".")
    for index in range(len(parts) - 1, -1, -1):
        if not parts[index].isnumeric():
            return ".".join(parts[index:])
    return qualified


def _is_below(name: str, module: str) -> bool:
    return not module or name.startswith(module + ".")


def from_node_names(graph: onnx.GraphProto, modules: ModulePaths) -> dict[str, str]:
    """Node and value names to module paths, for TorchScript."""
    scopes: dict[str, str] = {}
    for node in nodes(graph):
        if not node.name:
            continue
        module = modules.of(node.name)
        for name in (node.name, *node.output):
            if name:
                scopes.setdefault(name, module)
    return scopes


def from_metadata(
    graph: onnx.GraphProto, modules: Iterable[str], parameters: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Node and value names to module paths and to "file:line", for dynamo.

    Args:
        graph: its nodes still have their metadata.
        modules: qualified names of the network's modules.
        parameters: initializer to the network's own tensor that it is or was made from.
    """
    known = set(modules)
    scopes: dict[str, str] = {}
    lines: dict[str, str] = {}
    for node in nodes(graph):
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        module = _module(metadata, known)
        if node.op_type in _CONVOLUTIONS:
            # A fused BatchNorm leaves its own scope on the convolution.
            weights = [parameters[name] for name in node.input[1:2] if name in parameters]
            module = weights[0].rpartition(".")[0] if weights else module
        line = users_line(innermost_last(metadata.get(STACK_TRACE, "")))
        for name in (node.name, *node.output):
            if name and module is not None:
                scopes.setdefault(name, module)
            if name and line is not None:
                lines.setdefault(name, line)
    return scopes, lines


def _module(metadata: Mapping[str, str], known: set[str]) -> str | None:
    """The innermost module of the name scopes, which end with the name of the operation itself."""
    try:
        scopes = ast.literal_eval(metadata.get(NAME_SCOPES, ""))
    except (SyntaxError, ValueError):
        return None
    if not isinstance(scopes, list) or len(scopes) < 2:
        return None
    return next((scope for scope in reversed(scopes[:-1]) if scope in known or not scope), None)
