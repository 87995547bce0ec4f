"""From the text of a limit to a `Predicate`, with names and kinds checked; see `predicates` for the language."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pipeline.targets.predicates import (
    ORDER,
    Arithmetic,
    Call,
    Chain,
    Condition,
    Constant,
    Joined,
    LimitError,
    ListOf,
    Member,
    Name,
    Negation,
    Node,
    Predicate,
    Unknown,
    near_names,
)
from pipeline.targets.vocabulary import DTYPES, FUNCTIONS, Kind, Names

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d+\.\d+|\d+)|(?P<word>[A-Za-z_][A-Za-z_0-9]*)|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>==|!=|<=|>=|\.\.|//|[<>+\-*/%(){}\[\],:]))"
)
#: A limit with more of what nests is no limit of a table.
MOST_NESTED: Final = 60
_KEYWORDS: Final = frozenset(("if", "and", "or", "not", "in", "true", "false"))
#: Kinds whose values are words.
_WORDS: Final = ("text", "dtype", "operator")


def parse_limit(text: str, names: Names, *, says: str | None = None, mend: str | None = None) -> Predicate:
    """The predicate that `text` stands for.

    Args:
        text: one limit.
        names: what it may name.
        says: see `Predicate`.
        mend: see `Predicate`.

    Raises:
        LimitError: it is not in the language, or names what there is not.
    """
    return Predicate(text, _Parser(text, names).whole(), says, mend)


class _Parser:
    def __init__(self, text: str, names: Names) -> None:
        self.text, self.names = text, names
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while position < len(text.rstrip()):
            found = _TOKEN.match(text, position)
            if found is None:
                while text[position].isspace():
                    position += 1
                raise LimitError(text, position, "a name, a number or a sign", repr(text[position]))
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind], found.start(kind)))
            position = found.end()
        self.tokens.append(("end", "", len(text)))
        self.index = 0
        self.depth = 0

    # -- tokens

    def peek(self) -> str:
        return self.tokens[self.index][1] if self.tokens[self.index][0] != "text" else ""

    def fail(self, expected: str, index: int | None = None) -> LimitError:
        kind, found, position = self.tokens[self.index if index is None else index]
        return LimitError(self.text, position, expected, "the end" if kind == "end" else repr(found))

    def take(self, sign: str) -> None:
        if self.peek() != sign:
            raise self.fail(repr(sign))
        self.index += 1

    def accept(self, *signs: str) -> str | None:
        if self.tokens[self.index][0] in ("sign", "word") and self.peek() in signs:
            self.index += 1
            return self.tokens[self.index - 1][1]
        return None

    def deeper(self, sign: str) -> str | None:
        """Like `accept`, for what may stand inside itself."""
        found = self.accept(sign)
        self.depth += found is not None
        if self.depth > MOST_NESTED:
            raise self.fail(f"at most {MOST_NESTED} of (, not, - and if", self.index - 1)
        return found

    # -- truths

    def whole(self) -> Node:
        node = self.limit()
        if self.tokens[self.index][0] != "end":
            raise self.fail("the end, and, or")
        return node

    def limit(self) -> Node:
        if self.deeper("if"):
            condition = self.either()
            self.take(":")
            return Condition(condition, self.limit())
        return self.either()

    def either(self) -> Node:
        return self.joined("or", self.both)

    def both(self) -> Node:
        return self.joined("and", self.negation)

    def joined(self, sign: str, part: Callable[[], Node], first: Node | None = None) -> Node:
        parts = [first or part()]
        while self.accept(sign):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined("and" if sign == "and" else "or", tuple(parts))

    def negation(self) -> Node:
        if self.deeper("not"):
            return Negation(self.negation())
        start = self.index
        node, kind = self.comparison()
        if kind != "truth":
            raise self.fail("a comparison", start)
        return node

    def comparison(self) -> tuple[Node, Kind]:
        node, kind = self.sum()
        negated = self.peek() == "not" and self.tokens[self.index + 1][1] == "in"
        if negated:
            self.index += 1
        if self.accept("in"):
            return self.member(node, kind, negated), "truth"
        if negated:
            raise self.fail("in")
        if self.peek() not in ORDER or self.tokens[self.index][0] != "sign":
            return node, kind
        signs, operands = [], [node]
        while sign := self.accept(*ORDER):
            if kind in _WORDS and sign not in ("==", "!="):
                raise self.fail("== or != beside a text", self.index - 1)
            signs.append(sign)
            operands.append(self.operand(kind))
        return Chain(tuple(signs), tuple(operands)), "truth"

    def operand(self, kind: Kind) -> Node:
        """The right side of a comparison whose left side is of `kind`."""
        token, word, _ = self.tokens[self.index]
        if kind in _WORDS and token in ("word", "text"):
            if token == "word" and self.tokens[self.index + 1][1] != "(" and self.names.kind(word) != kind:
                self.index += 1
                return Constant(self.word(word, kind))
            if token == "text":
                self.index += 1
                return Constant(self.word(word[1:-1], kind))
        start = self.index
        node, found = self.sum()
        numbers = ("number", "numbers")
        if found != kind and not (found in numbers and kind in numbers):
            raise self.fail(f"a {kind}", start)
        return node

    def word(self, word: str, kind: Kind) -> str:
        start = self.index - 1
        if kind == "dtype" and word not in DTYPES:
            raise self.fail(f"an element type{near_names(word, tuple(DTYPES))}", start)
        if kind == "operator" and word not in self.names.operators:
            raise self.fail(f"an operator{near_names(word, tuple(self.names.operators))}", start)
        return word

    def member(self, value: Node, kind: Kind, negated: bool) -> Node:
        if self.accept("{"):
            items = [self.operand(kind)]
            while self.accept(","):
                items.append(self.operand(kind))
            self.take("}")
            return Member(value, tuple(items), False, negated)
        if kind in _WORDS:
            raise self.fail("{word, word}")
        low = self.operand(kind)
        self.take("..")
        return Member(value, (low, self.operand(kind)), True, negated)

    # -- numbers

    def sum(self) -> tuple[Node, Kind]:
        return self.arithmetic(("+", "-"), self.product)

    def product(self) -> tuple[Node, Kind]:
        return self.arithmetic(("*", "/", "//", "%"), self.factor)

    def arithmetic(self, signs: tuple[str, ...], part: Callable[[], tuple[Node, Kind]]) -> tuple[Node, Kind]:
        start = self.index
        node, kind = part()
        while sign := self.accept(*signs):
            right = self.index
            other, second = part()
            for found, place in ((kind, start), (second, right)):
                if found != "number":
                    raise self.fail("a number", place)
            if sign in ("/", "//", "%") and isinstance(other, Constant) and other.value == 0:
                raise self.fail("a number other than 0", right)
            node = Arithmetic(sign, node, other)
        return node, kind

    def factor(self) -> tuple[Node, Kind]:
        if self.deeper("-"):
            start = self.index
            node, kind = self.factor()
            if kind != "number":
                raise self.fail("a number", start)
            return Arithmetic("-", Constant(0), node), "number"
        return self.atom()

    def atom(self) -> tuple[Node, Kind]:
        token, word, _ = self.tokens[self.index]
        if token == "number":
            self.index += 1
            return Constant(float(word) if "." in word else int(word)), "number"
        if self.deeper("("):
            node, kind = self.inside()
            self.take(")")
            return node, kind
        if self.accept("["):
            items = [] if self.peek() == "]" else [self.operand("number")]
            while self.accept(","):
                items.append(self.operand("number"))
            self.take("]")
            return ListOf(tuple(items)), "numbers"
        if token == "word" and word in ("true", "false"):
            self.index += 1
            return Constant(word == "true"), "truth"
        if token == "word" and word not in _KEYWORDS:
            return self.called() if self.tokens[self.index + 1][1] == "(" else self.named()
        raise self.fail("a name, a number or a list")

    def inside(self) -> tuple[Node, Kind]:
        """Between parentheses: a sum, or a truth."""
        if self.peek() in ("if", "not"):
            return self.limit(), "truth"
        start = self.index
        node, kind = self.comparison()
        if self.peek() in ("and", "or"):
            if kind != "truth":
                raise self.fail("a comparison", start)
            node = self.joined("or", self.both, self.joined("and", self.negation, node))
        return node, kind

    def named(self) -> tuple[Node, Kind]:
        word = self.tokens[self.index][1]
        kind = self.names.kind(word)
        if kind is None:
            raise self.fail(f"a name that there is{near_names(word, self.names.known())}")
        self.index += 1
        return Name(word), kind

    def called(self) -> tuple[Node, Kind]:
        word, start = self.tokens[self.index][1], self.tokens[self.index][2]
        if word == "unknown":
            self.index += 2
            token, text, _ = self.tokens[self.index]
            if token != "text":
                raise self.fail("a text in quotes")
            self.index += 1
            self.take(")")
            return Unknown(text[1:-1]), "truth"
        if word not in FUNCTIONS:
            raise self.fail(f"a function that there is{near_names(word, (*FUNCTIONS, 'unknown'))}")
        kinds, result, _ = FUNCTIONS[word]
        self.index += 2
        arguments = [self.argument(kinds[0].rstrip("*"))]
        while self.accept(","):
            place = min(len(arguments), len(kinds) - 1)
            if len(arguments) >= len(kinds) and not kinds[-1].endswith("*"):
                raise self.fail("')'", self.index - 1)
            arguments.append(self.argument(kinds[place].rstrip("*")))
        if len(arguments) < len(kinds) and not kinds[len(arguments)].endswith("*"):
            raise self.fail("','")
        self.take(")")
        end = self.tokens[self.index - 1][2] + 1
        return Call(word, tuple(arguments), self.text[start:end]), result

    def argument(self, kind: str) -> Node:
        token, word, _ = self.tokens[self.index]
        if kind == "word":
            if token != "word" or word not in self.names.attributes:
                raise self.fail(
                    f"an attribute of the operator{near_names(word, tuple(self.names.attributes))}"
                )
            self.index += 1
            return Constant(word)
        if kind == "operator":
            if token != "word" or word not in self.names.operators:
                raise self.fail(f"an operator{near_names(word, tuple(self.names.operators))}")
            self.index += 1
            return Constant(word)
        if kind == "text":
            if token != "text":
                raise self.fail("a text in quotes")
            self.index += 1
            return Constant(word[1:-1])
        start = self.index
        node, found = self.sum()
        if found != kind and not (kind == "numbers" and found == "number"):
            raise self.fail(f"a {kind}", start)
        return node
