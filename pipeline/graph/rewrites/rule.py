"""What a rewrite rule is: what it takes, what it makes, what it needs, what it promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context

Kind = Literal["lower", "legalise"]
Promise = Literal["exact", "float noise", "approximation"]
#: Newest opset that a rule without a limit can stand in.
ANY_OPSET: Final = (1, 1000)


@dataclass(frozen=True)
class Declined:
    """Why a rule leaves a node alone.

    Attributes:
        reason: the end of a sentence that begins with the node: "its axes are not constant".
        needed: False: the node is already what the rule would make of it, and nothing is amiss.
    """

    reason: str
    needed: bool = True


#: The node is already as the rule wants it.
NOT_NEEDED: Final = Declined("nothing has to be done", needed=False)


def no_reason(node: ir.Node, context: Context) -> Declined | None:
    """The check of a rule that takes every node of its operators."""
    return None


@dataclass(frozen=True)
class Rule:
    """One rewrite.

    Attributes:
        name: as in `export.rules.<name>` and `target.rules.<name>`; also in `names.RULES`.
        kind: lower: it brings an operator one opset down; legalise: it turns what a target refuses
            into what it takes.
        takes: operators that it looks at ("Conv", "com.example.Foo").
        makes: operators that it may write.
        promise: exact: the same values, bit for bit where the operators compute alike; float noise:
            equal but for the rounding of another order of the same arithmetic; approximation: another
            function that is close, and never applied unless it is asked for by name.
        summary: one line for the list of rules, without a full stop.
        needs: what must be known or hold for it to apply, in a few words; "" for nothing.
        from_opset: lower: the opset that brought the form that the rule takes. The rule makes the form
            of the opset before it; the engine applies it on the way from `from_opset` to that one.
        opsets: legalise: first and last opset of the graph in which what it makes can stand.
        check_graph, rewrite_graph: lower: for a rule on the whole graph, applied once, when the way goes
            from `from_opset` or an older one downwards; the second argument is the opset that is asked.
        check: the node's reason to be left alone, or None when the rule can rewrite it.
        rewrite: what stands for each output of the node (None where nobody takes it). The new nodes
            are made with `Context.op`, which puts them before the node; the engine moves uses and
            names, and removes what nobody takes any more.
    """

    name: str
    kind: Kind
    takes: tuple[str, ...]
    makes: tuple[str, ...]
    promise: Promise
    summary: str
    rewrite: Callable[[ir.Node, Context], Sequence[ir.Value | None]]
    check: Callable[[ir.Node, Context], Declined | None] = field(default=no_reason)
    needs: str = ""
    from_opset: int = 0
    opsets: tuple[int, int] = ANY_OPSET
    check_graph: Callable[[Context, int], Declined | None] | None = None
    rewrite_graph: Callable[[Context], None] | None = None
