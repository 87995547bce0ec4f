"""A graph for a lowering rule to rewrite, and one to leave alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """A graph to rewrite, and one to leave alone with a part of the reason.

    `declined` is None for a rule that takes every node of its operators; `reason` is empty where the node
    is already what the rule would make of it.
    """

    rewritten: str
    declined: str | None = None
    reason: str = ""
