"""Apply rules to a bare model until none applies any more. Weights are never touched."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from pipeline.graph.bare import BareModel
from pipeline.graph.rewrites.opened import OpenedModel
from pipeline.graph.rewrites.rewriting import DeclinedNode, Rewriting
from pipeline.graph.rewrites.rule import Rule

#: Rules feed one another (a Sub becomes an Add, which is merged): this many rounds at most. A rule that
#: would take its own result for ever is cut off here.
ROUNDS: Final = 16


def rewrite(
    model: BareModel, rules: Sequence[Rule], *, fixed: Collection[str] = ()
) -> tuple[BareModel, Rewriting]:
    """Apply legalisation rules, in their order, round by round.

    Args:
        model: it is not changed; when no rule applies it is given back as it is.
        rules: a rule whose range of opsets the graph's is not in is left out.
        fixed: held tensors that must stay what they are, beside the shown parameters.

    Returns:
        The rewritten model, and what was applied and declined. Declined are the nodes that a rule looked
        at in the last round and left alone for a reason that matters.
    """
    opened = OpenedModel(model, fixed)
    rules = [rule for rule in rules if rule.opsets[0] <= opened.opset <= rule.opsets[1]]
    declined: tuple[DeclinedNode, ...] = ()
    for _ in range(ROUNDS):
        before = len(opened.applied)
        declined = _round(opened, rules)
        if len(opened.applied) == before:
            break
    if not opened.applied:
        return model, Rewriting((), declined)
    return opened.closed(), Rewriting(tuple(opened.applied), declined)


def operator(domain: str, op_type: str) -> str:
    """An operator as rules name it."""
    return op_type if domain in ("", "ai.onnx") else f"{domain}.{op_type}"


def _round(opened: OpenedModel, rules: Sequence[Rule]) -> tuple[DeclinedNode, ...]:
    declined: list[DeclinedNode] = []
    for rule in rules:
        for node in list(opened.nodes()):
            if node.graph is None or operator(node.domain, node.op_type) not in rule.takes:
                continue
            reason = rule.check(node, opened.context)
            if reason is None:
                opened.replace(rule, node)
            elif reason.needed:
                declined.append(
                    DeclinedNode(rule.name, node.name or "", node.op_type, reason.reason, opened.scope(node))
                )
    return tuple(declined)
