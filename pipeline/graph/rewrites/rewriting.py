"""What became of a pass of rules: which were applied where, and which declined and why. Plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: How many rules a line names.
NAMED: Final = 3


@dataclass(frozen=True)
class Applied:
    """A rule that replaced a node.

    Attributes:
        rule: its name.
        node: name of the node that was replaced.
        operator: of that node.
        outputs: names of its outputs, which what replaced it still bears.
        scope: module path, where it is known.
    """

    rule: str
    node: str
    operator: str
    outputs: tuple[str, ...]
    scope: str | None = None


@dataclass(frozen=True)
class DeclinedNode:
    """A rule that left a node alone.

    Attributes:
        rule: its name.
        node: the node's name.
        operator: of the node.
        reason: the end of a sentence that begins with the node.
        scope: module path, where it is known.
    """

    rule: str
    node: str
    operator: str
    reason: str
    scope: str | None = None


@dataclass(frozen=True)
class Rewriting:
    """Everything that was applied, in order, and everything that was declined in the end."""

    applied: tuple[Applied, ...] = ()
    declined: tuple[DeclinedNode, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Rule to the number of nodes that it replaced, in the order of the names."""
        return dict(sorted(Counter(one.rule for one in self.applied).items()))

    def then(self, later: Rewriting) -> Rewriting:
        """This pass and another one after it."""
        return Rewriting(self.applied + later.applied, self.declined + later.declined)

    def to_json(self) -> dict[str, Any]:
        """For the records: counts, and every node that a rule declined."""
        declined = [
            {"rule": one.rule, "node": one.node, "operator": one.operator, "reason": one.reason}
            for one in self.declined
        ]
        return {"applied": self.counts, "declined": declined}


def names_of(counts: Mapping[str, int]) -> str:
    """The rules of `Rewriting.counts` for a short line, those that replaced most first: "a, b, c and 2 more"."""
    names = sorted(counts, key=lambda name: (-counts[name], name))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
