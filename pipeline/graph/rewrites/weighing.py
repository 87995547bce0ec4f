"""Which of the wanted rules a target with two places is better off without.

A rule that makes one node fit the accelerator may cost two passages between accelerator and CPU, and one
that was made for another network may move nothing at all. So rules are weighed against what the target's
profile predicts of the graph: each is taken away in turn, and stays away where that makes nothing worse.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.graph.rewrites.engine import rewrite

if TYPE_CHECKING:
    from pipeline.graph.bare import BareModel
    from pipeline.graph.rewrites.rule import Rule


class Cost(Protocol):
    """What a graph costs on a target."""

    @property
    def counted(self) -> tuple[str, ...]:
        """What is counted, most important first."""
        ...

    def of(self, model: BareModel) -> tuple[int, ...]:
        """The counts of a graph; less is better, and the first that differs decides."""
        ...

    def key(self) -> Mapping[str, Any]:
        """What the counts depend on, besides the graph: JSON data."""
        ...

    @property
    def code(self) -> tuple[str, ...]:
        """The modules that count, for the stage's key."""
        ...


@dataclass(frozen=True)
class Undone:
    """A rule that was wanted and not used.

    Attributes:
        rule: its name.
        nodes: how many it would have replaced.
        reason: a sentence without a full stop.
    """

    rule: str
    nodes: int
    reason: str


def weigh(
    model: BareModel,
    rules: Sequence[Rule],
    cost: Cost,
    *,
    asked: Collection[str] = (),
    fixed: Collection[str] = (),
) -> tuple[list[Rule], tuple[Undone, ...]]:
    """The rules that pay, in their order, and those that do not.

    Args:
        model: before the rules; it is not changed.
        rules: that are wanted.
        cost: of the target.
        asked: names of rules that the user asked for: they are used whatever they cost.
        fixed: as in `engine.rewrite`.
    """
    kept, undone = list(rules), []
    best, counts = _with(model, kept, cost, fixed)
    changed = bool(counts)
    while changed:
        changed = False
        # The last one first: what it mends may be the doing of one before it.
        for rule in [rule for rule in reversed(kept) if rule.name in counts and rule.name not in asked]:
            if rule.name not in counts:
                continue
            without = [one for one in kept if one is not rule]
            found, others = _with(model, without, cost, fixed)
            if found <= best:
                undone.append(Undone(rule.name, counts[rule.name], _reason(cost, best, found)))
                kept, best, counts, changed = without, found, others, True
    return kept, tuple(undone)


def _with(
    model: BareModel, rules: Sequence[Rule], cost: Cost, fixed: Collection[str]
) -> tuple[tuple[int, ...], dict[str, int]]:
    after, done = rewrite(model, rules, fixed=fixed)
    return cost.of(after), done.counts


def _reason(cost: Cost, with_it: tuple[int, ...], without: tuple[int, ...]) -> str:
    for name, one, other in zip(cost.counted, with_it, without, strict=True):
        if one != other:
            return f"{name}: {one} with it, {other} without"
    return "it makes no node's place better"
