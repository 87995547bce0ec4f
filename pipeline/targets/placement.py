"""Where a target would run each node, as far as its profile can say: always predicted, never measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pipeline.targets.predicates import Predicate, Truth, Unclear
from pipeline.targets.profile import OperatorRule, Profile, Support

if TYPE_CHECKING:
    from pipeline.targets.node_facts import NodeFacts

Place: TypeAlias = Literal["accelerator", "cpu", "unsupported", "unknown", "folded"]
PLACES: Final[tuple[Place, ...]] = ("accelerator", "cpu", "unsupported", "unknown", "folded")
FOLDED: Final = "computed from constants when it is compiled"


@dataclass(frozen=True)
class Miss:
    """A limit that a node does not keep, or that cannot be told."""

    side: Literal["accelerator", "cpu"]
    limit: str
    found: str
    mend: str | None
    unclear: bool


@dataclass(frozen=True)
class Placement:
    """One node.

    Attributes:
        node: its name; inside a body with the names of the nodes around it.
        operator: with the domain where it is not ONNX's own.
        place: where it would run.
        why: one sentence.
        macs: multiply-accumulates of one inference; None where the operator has none or a shape is
            not known.
        misses: limits that it does not keep, or that cannot be told.
    """

    node: str
    operator: str
    place: Place
    why: str
    macs: int | None = None
    misses: tuple[Miss, ...] = ()


def place(profile: Profile, facts: NodeFacts, *, folded: bool) -> Placement:
    """Where the node would run."""
    operator = f"{facts.domain}::{facts.node.op_type}" if facts.domain else facts.node.op_type
    macs = multiply_accumulates(facts)
    if folded and profile.folds_constants:
        return Placement(facts.name, operator, "folded", FOLDED, None)
    rule = profile.operators.get(operator)
    if rule is None:
        where, why = _unlisted(profile, facts, operator)
        return Placement(facts.name, operator, where, why, macs)
    accelerator, first = _side(
        "accelerator", rule.accelerator, (*_general(profile, rule), *rule.accelerator_limits), facts
    )
    if accelerator is True:
        return Placement(
            facts.name, operator, "accelerator", f"within the limits of {profile.place('accelerator')}", macs
        )
    cpu, second = _side("cpu", rule.cpu, rule.cpu_limits, facts)
    misses = (*first, *second)
    where, why = _decided(profile, rule, accelerator, cpu, misses)
    return Placement(facts.name, operator, where, why, macs, misses)


def _general(profile: Profile, rule: OperatorRule) -> Iterable[Predicate]:
    return profile.general_limits if rule.general else ()


def _unlisted(profile: Profile, facts: NodeFacts, operator: str) -> tuple[Place, str]:
    if facts.domain not in profile.domains:
        return "unsupported", f"the domain {facts.domain} is not one that the target knows"
    if profile.unlisted in ("accelerator", "cpu"):
        return profile.unlisted, f"not listed; {profile.place(profile.unlisted)} takes what is not listed"
    if profile.unlisted == "refused":
        return "unsupported", "the operator is not in the target's list"
    return "unknown", "nothing is stated about the operator"


def _side(
    side: Literal["accelerator", "cpu"], support: Support, limits: Iterable[Predicate], facts: NodeFacts
) -> tuple[bool | None, list[Miss]]:
    """Whether this side takes the node; what speaks against it, or cannot be told."""
    if support == "none":
        return False, []
    misses: list[Miss] = []
    for limit in limits:
        held = limit.holds(facts)
        if held.value is not True:
            misses.append(_miss(side, limit, held))
    if any(not miss.unclear for miss in misses):
        return False, [miss for miss in misses if not miss.unclear]
    if misses or support == "unknown":
        return None, misses
    return True, []


def _miss(side: Literal["accelerator", "cpu"], limit: Predicate, held: Truth) -> Miss:
    unclear = held.value is None
    found = ", ".join(held.why if unclear else held.found)
    return Miss(
        side, limit.says or (limit.text if limit.checkable else held.why[0]), found, limit.mend, unclear
    )


def _decided(
    profile: Profile, rule: OperatorRule, accelerator: bool | None, cpu: bool | None, misses: tuple[Miss, ...]
) -> tuple[Place, str]:
    fast, slow = profile.place("accelerator"), profile.place("cpu")
    against = "; ".join(_against(miss) for miss in misses if miss.side == "accelerator")
    if accelerator is None:
        if rule.accelerator == "unknown" and not against:
            against = "nothing is stated about it"
        otherwise = f", else {slow}" if cpu else ""
        return "unknown", f"{fast} where it can be told that: {against}{otherwise}"
    outside = f"not on {fast} ({against})" if against else f"{fast} has no form of it"
    if cpu is True:
        return "cpu", outside
    below = "; ".join(_against(miss) for miss in misses if miss.side == "cpu")
    if cpu is None:
        return (
            "unknown",
            f"{outside}; {slow} where it can be told that: {below or 'nothing is stated about it'}",
        )
    if rule.cpu == "none":
        return (
            "unsupported",
            f"{outside}, nor on any other place"
            if rule.accelerator != "none"
            else "the target has no form of it",
        )
    return "unsupported", f"{outside}, and not on {slow} ({below})"


def _against(miss: Miss) -> str:
    if miss.unclear:
        return miss.limit if miss.found == miss.limit else f"{miss.limit}: {miss.found}"
    return f"{miss.limit}; found {miss.found}" if miss.found else miss.limit


def multiply_accumulates(facts: NodeFacts) -> int | None:
    """Of one inference: convolutions, Gemm, MatMul, LSTM, GRU and RNN; None for the others.

    A body of a loop counts once.
    """
    counted = _MACS.get(facts.node.op_type) if not facts.domain else None
    return counted(facts) if counted else None


def _sizes(facts: NodeFacts, *names: str | None) -> list[tuple[int, ...]] | None:
    """Shapes of values; None where one is not known."""
    found = [facts.dims(name) for name in names]
    known = [sizes for sizes in found if not isinstance(sizes, Unclear)]
    return known if len(known) == len(found) else None


def _conv_macs(facts: NodeFacts) -> int | None:
    found = _sizes(facts, facts.output(), facts.input_name(1))
    return prod(found[0]) * prod(found[1][1:]) if found else None


def _transposed_macs(facts: NodeFacts) -> int | None:
    found = _sizes(facts, facts.input_name(0), facts.input_name(1))
    return prod(found[0]) * prod(found[1][1:]) if found else None


def _product_macs(facts: NodeFacts) -> int | None:
    found = _sizes(facts, facts.output(), facts.input_name(0))
    if not found or not found[1]:
        return None
    transposed = facts.node.op_type == "Gemm" and facts.attribute("transA")
    return prod(found[0]) * found[1][0 if transposed else -1]


def _recurrent_macs(facts: NodeFacts) -> int | None:
    found = _sizes(facts, *(facts.input_name(index) for index in range(3)))
    if not found or len(found[0]) != 3:
        return None
    return found[0][0] * found[0][1] * (prod(found[1]) + prod(found[2]))


_MACS: Final = {
    "Conv": _conv_macs, "DeformConv": _conv_macs, "ConvInteger": _conv_macs, "ConvTranspose": _transposed_macs, "Gemm": _product_macs, "MatMul": _product_macs,
    "MatMulInteger": _product_macs, "LSTM": _recurrent_macs, "GRU": _recurrent_macs, "RNN": _recurrent_macs,
}  # fmt: skip

#: Operators that multiply and accumulate: those that are counted, and those that nobody counts here.
COUNTED: Final = frozenset((*_MACS, "Einsum", "Attention", "QLinearConv", "QLinearMatMul"))
