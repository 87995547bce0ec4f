"""Limits of operators as a small language: parsed when a profile is loaded, never Python.

    rank == 4                         C <= 2048                    kernel_h in 1..7
    mode in {nearest, linear}         if dilation_h > 1: stride_h == 1
    kernel_h * kernel_w * cin / group <= 32768                     forms('NCHW+NCHW', 'NCHW+NC11')
    not given(2) or constant(2)       unknown("what the document says and nobody can check")

A list is compared element by element: `strides in 1..4` holds when every stride is in there; compared
with a list (`perm == [0, 2, 3, 1]`) it is compared as a whole. `..` includes both ends. Words that stand
for themselves (nearest, float32, Conv) are allowed only where the other side is a text, an element type
or an operator, so a misspelt name is an error. What cannot be told is neither true nor false: and, or,
not and if follow Kleene's logic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, Literal, Protocol, TypeAlias

from pipeline.targets.vocabulary import FUNCTIONS, Kind

ORDER: Final = ("==", "!=", "<=", ">=", "<", ">")


class LimitError(Exception):
    """A limit that cannot be read: where in the text, what was found and what was expected."""

    def __init__(self, text: str, position: int, expected: str, found: str) -> None:
        super().__init__(f"{text!r}, character {position + 1}: expected {expected}, found {found}")
        self.text, self.position, self.expected, self.found = text, position, expected, found


@dataclass(frozen=True)
class Unclear:
    """A value that cannot be told, and why."""

    why: str


#: What a fact may be: a number, a text, a truth, a list of those, None where nothing is stated.
Fact: TypeAlias = Any


class Facts(Protocol):
    """Where the values of names come from."""

    def variable(self, name: str) -> Fact:
        """Of a variable or attribute; `Unclear` when it cannot be told, None when it is not stated."""

    def function(self, name: str, arguments: tuple[Fact, ...]) -> Fact:
        """Of a function about the node."""

    def shown(self, name: str, text: str, value: Fact) -> tuple[str, Fact]:
        """What people are told of a variable or function that was looked at, under which name."""


@dataclass(frozen=True)
class Truth:
    """What came out.

    Attributes:
        value: None: it cannot be told.
        found: the values that were looked at ("kernel_h = 11").
        why: what is missing where value is None.
    """

    value: bool | None
    found: tuple[str, ...] = ()
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Constant:
    value: Fact


@dataclass(frozen=True)
class Name:
    name: str


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[Node, ...]
    text: str


@dataclass(frozen=True)
class Arithmetic:
    sign: str
    left: Node
    right: Node


@dataclass(frozen=True)
class ListOf:
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Chain:
    """Comparisons in a row: `a <= b <= c`."""

    signs: tuple[str, ...]
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Member:
    """A value among others: `value in {a, b}` or `value in low..high`."""

    value: Node
    items: tuple[Node, ...]
    between: bool
    negated: bool


@dataclass(frozen=True)
class Joined:
    sign: Literal["and", "or"]
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Negation:
    part: Node


@dataclass(frozen=True)
class Condition:
    """What counts under a condition: `if condition: then`."""

    condition: Node
    then: Node


@dataclass(frozen=True)
class Unknown:
    """What the source says and nobody can check here."""

    text: str


Node: TypeAlias = (
    Constant | Name | Call | Arithmetic | ListOf | Chain | Member | Joined | Negation | Condition | Unknown
)


@dataclass(frozen=True)
class Predicate:
    """A limit, ready to be asked.

    Attributes:
        text: as it is written.
        says: the source's own words, where they differ.
        mend: the rule or change that makes a node fit.
    """

    text: str
    node: Node = field(repr=False, compare=False)
    says: str | None = None
    mend: str | None = None

    @property
    def checkable(self) -> bool:
        """False where it is nothing but an unknown."""
        return not isinstance(self.node, Unknown)

    def holds(self, facts: Facts) -> Truth:
        """Whether the node keeps to it."""
        return truth(self.node, facts)


def truth(node: Node, facts: Facts) -> Truth:
    """The truth of a boolean expression."""
    match node:
        case Unknown(text):
            return Truth(None, why=(text,))
        case Condition(condition, then):
            first = truth(condition, facts)
            if first.value is False:
                return Truth(True)
            second = truth(then, facts)
            if second.value is True:
                return second
            if first.value is None:
                return Truth(None, first.found + second.found, first.why + second.why)
            return Truth(second.value, _once(first.found + second.found), second.why)
        case Negation(part):
            inner = truth(part, facts)
            return Truth(None if inner.value is None else not inner.value, inner.found, inner.why)
        case Joined(sign, parts):
            return _joined(sign, [truth(part, facts) for part in parts])
        case Chain(signs, operands):
            return _chain(signs, operands, facts)
        case Member():
            return _member(node, facts)
        case _:
            found: dict[str, Fact] = {}
            value = evaluate(node, facts, found)
            if isinstance(value, Unclear):
                return Truth(None, why=(value.why,))
            return Truth(bool(value), _shown(found))


def _joined(sign: str, parts: list[Truth]) -> Truth:
    decides = sign == "or"
    for part in parts:
        if part.value is decides:
            return part
    unclear = [part for part in parts if part.value is None]
    found = _once(tuple(text for part in parts for text in part.found))
    if unclear:
        return Truth(None, found, _once(tuple(why for part in unclear for why in part.why)))
    return Truth(not decides, found)


def _chain(signs: tuple[str, ...], operands: tuple[Node, ...], facts: Facts) -> Truth:
    found: dict[str, Fact] = {}
    values = [evaluate(operand, facts, found) for operand in operands]
    for value in values:
        if isinstance(value, Unclear):
            return Truth(None, _shown(found), (value.why,))
    pairs = zip(signs, values, values[1:], strict=False)
    return Truth(all(_compared(sign, left, right) for sign, left, right in pairs), _shown(found))


def _member(node: Member, facts: Facts) -> Truth:
    found: dict[str, Fact] = {}
    value = evaluate(node.value, facts, found)
    items = [evaluate(item, facts, found) for item in node.items]
    for part in (value, *items):
        if isinstance(part, Unclear):
            return Truth(None, _shown(found), (part.why,))
    if value is None:
        return Truth(node.negated, _shown(found))
    whole = any(isinstance(item, tuple) for item in items)
    each = value if isinstance(value, tuple) and not whole else (value,)
    if node.between:
        inside = [_compared("<=", items[0], one) and _compared("<=", one, items[1]) for one in each]
    else:
        inside = [any(_compared("==", one, item) for item in items) for one in each]
    held = not any(inside) if node.negated else all(inside)
    return Truth(held, _shown(found))


def _compared(sign: str, left: Fact, right: Fact) -> bool:
    if isinstance(left, tuple) != isinstance(right, tuple):
        if isinstance(left, tuple):
            return all(_compared(sign, one, right) for one in left)
        return all(_compared(sign, left, one) for one in right)
    if sign == "==":
        return bool(left == right)
    if sign == "!=":
        return bool(left != right)
    if left is None or right is None or isinstance(left, tuple):
        return False
    less, equal = left < right, left == right
    return bool({"<": less, "<=": less or equal, ">": not (less or equal), ">=": not less}[sign])


def evaluate(node: Node, facts: Facts, found: dict[str, Fact]) -> Fact:
    """The value of an expression; the values of names are put into `found`."""
    match node:
        case Constant(value):
            return value
        case Name(name):
            value = facts.variable(name)
            _note(found, facts, name, name, value)
            return value
        case Call(name, arguments, text):
            inner = tuple(evaluate(argument, facts, found) for argument in arguments)
            for part in inner:
                if isinstance(part, Unclear):
                    return part
            value = facts.function(name, inner)
            if name in _ABOUT_THE_NODE:
                _note(found, facts, name, text, value)
            return value
        case ListOf(items):
            values = tuple(evaluate(item, facts, found) for item in items)
            return next((value for value in values if isinstance(value, Unclear)), values)
        case Arithmetic(sign, left, right):
            first, second = evaluate(left, facts, found), evaluate(right, facts, found)
            for part in (first, second):
                if isinstance(part, Unclear):
                    return part
                if not isinstance(part, (int, float)):
                    return Unclear("a part of the sum is not stated")
            return _arithmetic(sign, first, second)
        case _:
            held = truth(node, facts)
            return Unclear("; ".join(held.why)) if held.value is None else held.value


def _note(found: dict[str, Fact], facts: Facts, name: str, text: str, value: Fact) -> None:
    label, shown = facts.shown(name, text, value)
    found[label] = shown


#: Functions whose value is worth showing; the others only reckon with what is shown already.
_ABOUT_THE_NODE: Final = frozenset(FUNCTIONS) - {
    "count", "equal", "product", "tail", "head", "round_up", "power_of_two", "whole", "min", "max",
}  # fmt: skip


def _arithmetic(sign: str, left: float, right: float) -> Fact:
    if sign in ("/", "//", "%") and right == 0:
        return Unclear("a division by zero")
    if sign == "/":
        return left / right
    if sign == "//":
        return left // right
    if sign == "%":
        return left % right
    return left + right if sign == "+" else left - right if sign == "-" else left * right


def _shown(found: dict[str, Fact]) -> tuple[str, ...]:
    return tuple(f"{name} = {show(value)}" for name, value in found.items() if not isinstance(value, Unclear))


def show(value: Fact) -> str:
    """A value for people."""
    if isinstance(value, tuple):
        return "[" + ", ".join(show(one) for one in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return "not stated" if value is None else str(value)


def _once(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def near_names(word: str, known: tuple[str, ...]) -> str:
    """' (did you mean a, b?)' or nothing."""
    close = get_close_matches(word, known, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(close)}?)" if close else ""


__all__ = [
    "Fact",
    "Facts",
    "Kind",
    "LimitError",
    "Node",
    "Predicate",
    "Truth",
    "Unclear",
    "evaluate",
    "truth",
]
