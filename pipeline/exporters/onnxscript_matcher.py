"""onnxscript's optimizer without its search through the whole graph, and without its memory. Imports onnxscript.

Every rule is tried at every node, and nearly always the node is another operator than the one that
the rule's pattern ends in. onnxscript's matcher notices it late: for a pattern with several outputs
it sorts all nodes of the graph by operator first (time that grows with the square of the graph: a
fifth of exporting vit_b_16), for others it sets up a match and takes it down again (a tenth). While
this is active, it looks at the operator first. Nothing else can come of it: where the node does not
fit, no combination with others does.

The matchers belong to rules that live as long as the process, and each keeps the last node that it
looked at: with it the graph and all weights (330 MiB of vit_b_16). Afterwards they are as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    fits: dict[Any, Callable[[str], bool]] = {}
    nothing = _basics.MatchResult().fail("No match found.")

    def match(self: Any, model: Any, graph_or_function: Any, node: Any, **more: Any) -> Any:
        if self not in fits:
            fits[self] = _operator(self)
            states[self] = dict(vars(self))
        if not fits[self](node.op_type) and more.get("tracer") is None:
            return nothing
        return real(self, model, graph_or_function, node, **more)

    setattr(owner, _METHOD, match)
    try:
        yield True
    finally:
        setattr(owner, _METHOD, real)
        for matcher, state in states.items():
            vars(matcher).clear()
            vars(matcher).update(state)


def _operator(matcher: Any) -> Callable[[str], bool]:
    """Whether an operator may be the one that the pattern's first output comes from; yes when in doubt."""
    outputs = getattr(getattr(matcher, "pattern", None), "output_nodes", None)
    operator = getattr(outputs[0], "op", None) if outputs else None
    return getattr(operator, "matches", None) or _every


def _every(operator: str) -> bool:
    return True
