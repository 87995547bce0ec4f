"""Bring a bare graph down to an older opset, one opset at a time, by rules.

On the way from opset v to v-1 only the operators that v changed or brought matter. Each such node is
given to the rules of v; one that no rule takes must fit the schema in force at v-1 (attributes,
number of inputs, element types), or the way ends at v.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pipeline.errors import StageFailed
from pipeline.graph.bare import BareModel
from pipeline.graph.rewrites.families import rules_of
from pipeline.graph.rewrites.opened import OpenedModel
from pipeline.graph.rewrites.rewriting import DeclinedNode, Rewriting
from pipeline.graph.rewrites.rule import Rule
from pipeline.graph.rewrites.schemas import changed_with, drop_neutral, misfit

if TYPE_CHECKING:
    import onnx_ir as ir

STANDARD_DOMAINS: Final = ("", "ai.onnx")
#: How many operators a sentence names.
NAMED: Final = 3


@dataclass(frozen=True)
class Blocker:
    """A node that cannot be brought below an opset.

    Attributes:
        operator: of the node.
        node: its name.
        reason: the end of a sentence that begins with the node.
        rule: the rule that declined, if there is one.
        scope: module path, where it is known.
        line: "file:line", where it is known.
    """

    operator: str
    node: str
    reason: str
    rule: str | None = None
    scope: str | None = None
    line: str | None = None

    @property
    def where(self) -> str:
        """The place in the network, or in the graph."""
        place = self.scope or (f"node {self.node}" if self.node else "its interface")
        return f"{place} ({self.line})" if self.line else place


class LoweringFailed(StageFailed):
    """PL-430: operators that no rule brings down.

    Attributes:
        blockers: every node that is in the way at the opset where the way ends.
        nearest: the oldest opset that can be reached.
        rewriting: what was applied up to there.
    """

    blockers: tuple[Blocker, ...] = ()
    nearest: int = 0
    rewriting: Rewriting = Rewriting()


def lower(model: BareModel, opset: int, *, off: Collection[str] = ()) -> tuple[BareModel, Rewriting]:
    """The graph at an older opset of ai.onnx.

    Args:
        model: it is not changed; operators of other domains stay as they are.
        opset: at most that of the model.
        off: names of rules that may not be used.

    Returns:
        The lowered model, its IR version with it, and what was applied.

    Raises:
        LoweringFailed: PL-430, nodes that no rule brings to that opset; all that stand in the way at the
            nearest opset that can be reached are named, and the rules of `off` that would reach further.
    """
    try:
        return _lower(model, opset, off)
    except LoweringFailed as failed:
        if off:
            _name_switched_off(failed, model, opset, off)
        raise


def _name_switched_off(failed: LoweringFailed, model: BareModel, opset: int, off: Collection[str]) -> None:
    """Say which switches are to be taken away, where that reaches an older opset."""
    reached = opset
    try:
        _, rewriting = _lower(model, opset, ())
    except LoweringFailed as again:
        reached, rewriting = again.nearest, again.rewriting
    switches = [f"export.rules.{name}=false" for name in rewriting.counts if name in off]
    if reached < failed.nearest and switches:
        step = f"Take {' and '.join(switches)} away"
        step += f", which reaches opset {reached}" if reached > opset else ""
        failed.reason = replace(failed.reason, next_step=f"{step}, or type export.opset={failed.nearest}")


def _lower(model: BareModel, opset: int, off: Collection[str]) -> tuple[BareModel, Rewriting]:
    opened = OpenedModel(model)
    source = opened.opset
    if opset >= source:
        return model, Rewriting()
    rules: dict[tuple[str, int], list[Rule]] = {}
    for rule in rules_of("lower"):
        for operator in rule.takes if rule.rewrite_graph is None else ():
            rules.setdefault((operator, rule.from_opset), []).append(rule)
    declined: list[DeclinedNode] = []
    whole = [rule for rule in rules_of("lower") if rule.rewrite_graph is not None and rule.name not in off]
    for newer in range(source, opset, -1):
        opened.context.opset = newer - 1
        for rule in [rule for rule in whole if newer <= rule.from_opset]:
            whole.remove(rule)
            if blocker := _whole_graph(opened, rule, opset):
                raise _failure([blocker], opset, newer, Rewriting(tuple(opened.applied), tuple(declined)))
        blockers = _step(opened, newer, rules, frozenset(off), declined)
        if blockers:
            opened.context.opset = newer
            raise _failure(blockers, opset, newer, Rewriting(tuple(opened.applied), tuple(declined)))
        opened.stamp(newer - 1)
    return opened.closed(), Rewriting(tuple(opened.applied), tuple(declined))


def _whole_graph(opened: OpenedModel, rule: Rule, opset: int) -> Blocker | None:
    """Apply a rule to the whole graph, where it is needed; what is in the way."""
    assert rule.check_graph is not None
    reason = rule.check_graph(opened.context, opset)
    if reason is None:
        opened.rewrite_graph(rule)
        return None
    return Blocker("the graph", "", reason.reason, rule.name) if reason.needed else None


def _step(
    opened: OpenedModel,
    newer: int,
    rules: dict[tuple[str, int], list[Rule]],
    off: frozenset[str],
    declined: list[DeclinedNode],
) -> list[Blocker]:
    """One opset down; what is in the way."""
    blockers: list[tuple[ir.Node, Blocker]] = []
    changed = [
        node
        for node in opened.nodes()
        if node.domain in STANDARD_DOMAINS
        and (changed_with(node.op_type, newer) or (node.op_type, newer) in rules)
    ]
    for node in changed:
        if node.graph is None:  # an earlier rule of this step took it along
            continue
        drop_neutral(node, newer, newer - 1)
        candidates = rules.get((node.op_type, newer), [])
        reason, by = _try(opened, node, candidates, off)
        if reason == "":
            continue
        if reason is None:
            reason = misfit(node, newer, newer - 1)
            off_here = next((rule.name for rule in candidates if rule.name in off), None)
            if reason is not None and off_here is not None:
                reason, by = f"its rule {off_here} is switched off", off_here
        if reason is not None:
            if hidden := _hidden_by(node):
                reason += f": {hidden} before it says none"
            scope, line = opened.scope(node), opened.line(node)
            blockers.append((node, Blocker(node.op_type, node.name or "", reason, by, scope, line)))
    # A later rule may have taken one along: a sequence whose elements were all that was wanted of it.
    left = [blocker for node, blocker in blockers if node.graph is not None]
    declined += [
        DeclinedNode(one.rule, one.node, one.operator, one.reason, one.scope) for one in left if one.rule
    ]
    return left


def _hidden_by(node: ir.Node) -> str | None:
    """The operator of another domain behind which types and shapes are not known."""
    seen: set[ir.Node] = set()
    waiting = [value.producer() for value in node.inputs if value is not None and value.shape is None]
    while waiting:
        source = waiting.pop()
        if source is None or source in seen:
            continue
        seen.add(source)
        if source.domain not in STANDARD_DOMAINS:
            return f"{source.domain}.{source.op_type}"
        waiting += [value.producer() for value in source.inputs if value is not None and value.shape is None]
    return None


def _try(
    opened: OpenedModel, node: ir.Node, candidates: Sequence[Rule], off: frozenset[str]
) -> tuple[str | None, str | None]:
    """Let the first rule that can replace the node; "" when one did, else why the last one did not."""
    reason = by = None
    for rule in candidates:
        if rule.name in off:
            continue
        found = rule.check(node, opened.context)
        if found is None:
            opened.replace(rule, node)
            return "", rule.name
        if found.needed:
            reason, by = found.reason, rule.name
    return reason, by


def _failure(blockers: Sequence[Blocker], opset: int, nearest: int, rewriting: Rewriting) -> LoweringFailed:
    first = blockers[0]
    operators = list(dict.fromkeys(one.operator for one in blockers))
    named = ", ".join(operators[:NAMED]) + (
        f" and {len(operators) - NAMED} more" if len(operators) > NAMED else ""
    )
    count = f"{len(blockers)} nodes" if len(blockers) > 1 else "1 node"
    failed = LoweringFailed(
        "PL-430",
        f"no rule brings {named} below opset {nearest}: {first.operator} at {first.where}, {first.reason}",
        where="export.opset",
        found=f"{count} of {named}",
        expected=f"operators that opset {nearest - 1} knows"
        + (f", on the way to opset {opset}" if nearest - 1 > opset else ""),
        next_step=f"Type export.opset={nearest}",
    )
    failed.blockers, failed.nearest, failed.rewriting = tuple(blockers), nearest, rewriting
    return failed
