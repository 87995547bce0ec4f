"""If: before opset 11 a size that one branch knows is taken for that of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from pipeline.errors import InternalError
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context


def _check_graph(context: Context, opset: int) -> Declined | None:
    return NOT_NEEDED if next(_misjudged(context), None) is None else None


def _hide_sizes(context: Context) -> None:
    """A Reshape to the shape that it has already: the same values, and no size that can be inferred."""
    for graph, index in list(_misjudged(context)):
        value = graph.outputs[index]
        shape = ir.Node("", "Shape", [value], name=context.unique(f"{value.name}_Shape"))
        again = ir.Node(
            "", "Reshape", [value, shape.outputs[0]], name=context.unique(f"{value.name}_Reshape")
        )
        for node in (shape, again):
            node.outputs[0].name = context.unique(f"{node.name}_output")
        rank = len(value.shape or ())
        shape.outputs[0].type, shape.outputs[0].shape = ir.TensorType(ir.DataType.INT64), ir.Shape([rank])
        again.outputs[0].type, again.outputs[0].shape = value.type, ir.Shape([None] * rank)
        graph.extend([shape, again])
        context.new += [shape, again]
        graph.outputs[index] = again.outputs[0]


def _misjudged(context: Context) -> Iterator[tuple[ir.Graph, int]]:
    """Branch and place of every output with a size that the other branch does not have for certain."""
    for node in ir.traversal.RecursiveGraphIterator(context.graph):
        if node.op_type == "If" and node.domain in ("", "ai.onnx"):
            both = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
            for graph, other in (both, both[::-1]):
                for index, pair in enumerate(zip(graph.outputs, other.outputs, strict=True)):
                    if _denies(*pair):
                        yield graph, index


def _denies(one: ir.Value, other: ir.Value) -> bool:
    """Whether a known size of one is not known to be that of the other."""
    if one.shape is None or one.type is None:
        return False
    if other.shape is None or len(one.shape) != len(other.shape):
        return True
    return any(isinstance(a, int) and a != b for a, b in zip(one.shape, other.shape, strict=True))


def _never(node: ir.Node, context: Context) -> Sequence[ir.Value | None]:
    raise InternalError("the rule works on the whole graph")


RULES: Final = (
    Rule("branch_sizes", "lower", ("If",), ("Reshape", "Shape"), "exact",
         "sizes that one branch of an If has and the other has not are hidden", _never,
         needs="branches whose sizes differ", from_opset=11,
         check_graph=_check_graph, rewrite_graph=_hide_sizes),
)  # fmt: skip
