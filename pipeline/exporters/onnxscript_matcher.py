"""onnxscript's optimizer without its search through the whole graph, and without its memory. Imports onnxscript.

For a pattern with several outputs, onnxscript's matcher sorts all nodes of the graph by operator
before it looks whether the one node that it was given fits the pattern's first output at all: for
every node, time that grows with the square of the graph (a fifth of exporting vit_b_16). While this
is active, it looks at that node first. Nothing else can come of it: where the node does not fit, no
combination with others does.

The matchers belong to rules that live as long as the process, and each keeps the last node that it
looked at: with it the graph and all weights (330 MiB of vit_b_16). Afterwards they are as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from onnxscript.rewriter import _basics, _matcher

_CLASS: Final = "SimplePatternMatcher"
_METHOD: Final = "match"


@contextmanager
def first_node_first() -> Iterator[bool]:
    """Yields whether the short way is taken: not where onnxscript is built otherwise than expected."""
    owner = getattr(_matcher, _CLASS, None)
    real = vars(owner).get(_METHOD) if owner is not None else None
    if owner is None or not callable(real) or not hasattr(_basics, "MatchResult"):
        yield False
        return

    states: dict[Any, dict[str, Any]] = {}

    def match(self: Any, model: Any, graph_or_function: Any, node: Any, **more: Any) -> Any:
        if self not in states:
            states[self] = dict(vars(self))
        if more.get("tracer") is None and _cannot_fit(self, node):
            return _basics.MatchResult().fail("No match found.")
        return real(self, model, graph_or_function, node, **more)

    setattr(owner, _METHOD, match)
    try:
        yield True
    finally:
        setattr(owner, _METHOD, real)
        for matcher, state in states.items():
            vars(matcher).clear()
            vars(matcher).update(state)


def _cannot_fit(matcher: Any, node: Any) -> bool:
    """Whether a pattern with several outputs has a first one that is another operator; no when in doubt."""
    pattern = getattr(matcher, "pattern", None)
    if getattr(pattern, "has_single_output_node", True):
        return False
    outputs = getattr(pattern, "output_nodes", None)
    operator = getattr(outputs[0], "op", None) if outputs else None
    matches = getattr(operator, "matches", None)
    return matches is not None and not matches(node.op_type)
