"""A bare model opened for rewriting, and closed again: types known, names, origins and tensors kept track of."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from pipeline.errors import InternalError
from pipeline.graph.bare import BareModel
from pipeline.graph.ir_version import FREE_INITIALIZERS_IR, brought_by
from pipeline.graph.rewrites.context import STANDARD_DOMAINS, Context, step_name
from pipeline.graph.rewrites.rewriting import Applied
from pipeline.graph.rewrites.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence


class OpenedModel:
    """The graph of a bare model as onnx-ir has it.

    Attributes:
        graph: the main graph; types are inferred.
        context: what rules get.
        applied: what was done so far.
    """

    def __init__(self, model: BareModel, fixed: Collection[str] = ()) -> None:
        proto = model.parsed()
        self._had_types = bool(proto.graph.value_info)
        self._model = model
        self._ir = ir.from_proto(_typed(proto))
        if self._ir.functions:
            # Rules look at operators; what a function of the model's own is made of is opened for them.
            InlinePass()(self._ir)
            used = {node.domain for node in ir.traversal.RecursiveGraphIterator(self._ir.graph)}
            for domain in set(self._ir.graph.opset_imports) - used - {*STANDARD_DOMAINS}:
                del self._ir.graph.opset_imports[domain]
        self.graph = self._ir.graph
        self.context = Context(self.graph, self.opset, model.held, (*model.shown_parameters, *fixed))
        self.applied: list[Applied] = []
        self._scopes, self._lines = dict(model.scopes), dict(model.lines)
        self._made_by = dict(model.made_by)
        self._name_nodes()

    @property
    def opset(self) -> int:
        """Of ai.onnx."""
        imports = self.graph.opset_imports
        return imports[""] if "" in imports else imports["ai.onnx"]

    def nodes(self) -> Iterator[ir.Node]:
        """Every node, those of inner graphs too; the graph must not change meanwhile."""
        yield from ir.traversal.RecursiveGraphIterator(self.graph)

    def scope(self, node: ir.Node) -> str | None:
        """The module that a node comes from."""
        return self._origin(self._scopes, node)

    def line(self, node: ir.Node) -> str | None:
        """The source line that a node comes from."""
        return self._origin(self._lines, node)

    def replace(self, rule: Rule, node: ir.Node) -> None:
        """Let a rule replace a node that it does not decline."""
        context = self.context
        scope, line = self.scope(node), self.line(node)
        applied = Applied(rule.name, node.name or "", node.op_type, tuple(_names(node)), scope)
        context.begin(rule, node)
        values = list(rule.rewrite(node, context))
        if len(values) < len(node.outputs):
            values += [None] * (len(node.outputs) - len(values))
        made = self._move_uses(node, values)
        self._drop(node)
        for one in reversed(context.new):
            if one.graph is not None and not _used(one):
                self._drop(one)
        self._adopt([one for one in context.new if one.graph is not None], made, applied, scope, line)
        self.applied.append(applied)
        context.changed()

    def rewrite_graph(self, rule: Rule) -> None:
        """Let a rule change the whole graph."""
        assert rule.rewrite_graph is not None
        self.context.begin(rule, None)
        rule.rewrite_graph(self.context)
        for node in self.context.new:
            if node.name:
                self._made_by[node.name] = step_name(rule.name)
            self._origin_of_neighbours(node)
        self.applied.append(Applied(rule.name, "", "the whole graph", ()))
        self.context.changed()

    def stamp(self, opset: int) -> None:
        """The graph is of this opset from here on."""
        for domain in STANDARD_DOMAINS:
            self.graph.opset_imports.pop(domain, None)
        self.graph.opset_imports[""] = opset
        self.context.opset = opset

    def closed(self) -> BareModel:
        """The bare model of what the graph is now."""
        self._prune()
        proto = ir.to_proto(self._ir)
        if not self._had_types:
            for graph in _graphs(proto.graph):
                del graph.value_info[:]
        proto.ir_version = max(FREE_INITIALIZERS_IR, brought_by(self.opset))
        held = {name: tensor for name, tensor in self.context.held.items() if name in self._input_names()}
        inside = {tensor.name for tensor in proto.graph.initializer}
        names = {name for node in self.nodes() for name in (node.name, *_names(node)) if name}
        derived = {name: step for name, step in self._model.derived.items() if name in inside}
        derived.update(
            {name: made.step for name, made in sorted(self.context.made.items()) if name in inside}
        )
        closed = replace(
            self._model,
            proto=proto.SerializeToString(deterministic=True),
            held=held,
            scopes={name: scope for name, scope in sorted(self._scopes.items()) if name in names},
            lines={name: line for name, line in sorted(self._lines.items()) if name in names},
            origins={name: origin for name, origin in self._model.origins.items() if name in inside},
            derived=derived,
            made_by={name: step for name, step in sorted(self._made_by.items()) if name in names},
        )
        closed.check_invariant()
        return closed

    def _move_uses(self, node: ir.Node, values: Sequence[ir.Value | None]) -> set[str]:
        """Give the outputs' uses and names to what stands for them; the names that moved."""
        moved: set[str] = set()
        for old, given in zip(node.outputs, values, strict=True):
            if given is None:
                if old.uses() or old.is_graph_output():
                    raise InternalError(f"nothing stands for {old.name}, which is used")
                continue
            new, name = given, old.name
            fresh = new.producer() in self.context.new and new.name not in moved
            crosses = any(use.node.graph is not node.graph for use in old.uses())
            if not fresh and (old.is_graph_output() or crosses):
                new, fresh = self.context.op("Identity", [given]), True
            if fresh:
                if old.shape is not None and (old.is_graph_output() or not _is_static(new)):
                    new.shape = old.shape
                if new.type is None or (old.is_graph_output() and old.type is not None):
                    new.type = old.type
                if new.type is None:
                    new.shape = None  # a shape alone cannot be written
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            if fresh and name:
                old.name = None
                new.name = name
                moved.add(name)
        return moved

    def _adopt(
        self, new: Sequence[ir.Node], moved: set[str], applied: Applied, scope: str | None, line: str | None
    ) -> None:
        """Origin, maker and name of the new nodes; the one that bears the old output takes the old name."""
        for node in new:
            if applied.node and moved.intersection(applied.outputs[:1]).intersection(_names(node)):
                node.name = applied.node
            for name in (node.name, *_names(node)):
                if name and scope is not None:
                    self._scopes[name] = scope
                if name and line is not None:
                    self._lines[name] = line
            if node.name:
                self._made_by[node.name] = step_name(applied.rule)

    def _origin_of_neighbours(self, node: ir.Node) -> None:
        """A new node of a rule on the whole graph comes from where what it takes, or what takes it, comes from."""
        near = [value.producer() for value in node.inputs if value is not None]
        near += [use.node for value in node.outputs for use in value.uses()]
        for table in (self._scopes, self._lines):
            found = (self._origin(table, one) for one in near if one is not None)
            origin = next((one for one in found if one is not None), None)
            for name in (node.name, *_names(node)):
                if name and origin is not None:
                    table.setdefault(name, origin)

    def _drop(self, node: ir.Node) -> None:
        """Remove a node that nobody takes, and what only it took."""
        sources = [value.producer() for value in node.inputs if value is not None]
        for attribute in node.attributes.values():
            for inner in _inner_graphs(attribute):
                for deep in ir.traversal.RecursiveGraphIterator(inner):
                    for index, value in enumerate(deep.inputs):
                        if value is not None and value.graph is not deep.graph:
                            sources.append(value.producer())
                            deep.replace_input_with(index, None)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
        for source in sources:
            if source is not None and source.graph is not None and not _used(source):
                self._drop(source)

    def _prune(self) -> None:
        """Constants and held tensors that nothing takes any more, where rules left them so."""
        shown = set(self._model.shown_parameters)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]
        gone = {
            value.name
            for value in self.graph.inputs
            if value.name in self.context.held and value.name not in shown
            and not value.uses() and not value.is_graph_output()
        }  # fmt: skip
        kept = [value for value in self.graph.inputs if value.name not in gone]
        if len(kept) != len(self.graph.inputs):
            self.graph.inputs[:] = kept

    def _input_names(self) -> set[str]:
        return {value.name for value in self.graph.inputs if value.name}

    def _origin(self, table: dict[str, str], node: ir.Node) -> str | None:
        for name in (node.name, *_names(node)):
            if name and name in table:
                return table[name]
        return None

    def _name_nodes(self) -> None:
        """Nodes without a name get one, so that records can name them."""
        for node in list(self.nodes()):
            if not node.name:
                base = next((name for name in _names(node)), "node")
                node.name = self.context.unique(f"{base}_{node.op_type}")


#: Operators whose output is like their first input, and of which onnx 1.23 does not infer it.
_LIKE_THEIR_INPUT: Final = ("GroupNormalization",)


def _typed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """With the types that can be inferred; without them rules decline."""
    while True:
        try:
            typed = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        except onnx.shape_inference.InferenceError:
            return proto
        more = _alike(typed.graph)
        if not more:
            return typed
        typed.graph.value_info.extend(more)
        proto = typed


def _alike(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Types of outputs that onnx left out."""
    nodes = [node for node in graph.node if node.op_type in _LIKE_THEIR_INPUT]
    if not nodes:
        return []
    known = {value.name: value for value in (*graph.input, *graph.value_info) if value.HasField("type")}
    own = {*known, *(value.name for value in graph.output)}
    return [
        onnx.ValueInfoProto(name=node.output[0], type=known[node.input[0]].type)
        for node in nodes
        if node.input[0] in known and node.output[0] not in own
    ]


def _names(node: ir.Node) -> list[str]:
    return [value.name for value in node.outputs if value.name]


def _is_static(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.is_static()


def _used(node: ir.Node) -> bool:
    return any(value.uses() or value.is_graph_output() for value in node.outputs)


def _inner_graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    if attribute.type == ir.AttributeType.GRAPHS:
        return list(attribute.as_graphs())
    return []


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    from pipeline.graph.walk import graphs

    yield from graphs(graph)
