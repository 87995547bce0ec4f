"""The language of limits: what it says, and what it answers to a text that is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.targets.limit_parser import parse_limit
from pipeline.targets.onnx_operators import names_of
from pipeline.targets.predicates import LimitError, Truth, Unclear
from pipeline.targets.vocabulary import FUNCTIONS, VARIABLES


class Given:
    """Facts that are given by name."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def variable(self, name: str) -> Any:
        return self.values.get(name, Unclear(f"{name} is not known"))

    def function(self, name: str, arguments: tuple[Any, ...]) -> Any:
        reckon = {"count": len, "min": lambda *items: min(items), "max": lambda *items: max(items)}
        return reckon[name](*arguments) if name in reckon else self.values[name][arguments]

    def shown(self, name: str, text: str, value: Any) -> tuple[str, Any]:
        return text, value


def ask(text: str, operator: str = "Conv", **values: Any) -> Truth:
    return parse_limit(text, names_of(operator)).holds(Given(**values))


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("rank == 4", {"rank": 4}, True),
        ("rank == 4", {"rank": 3}, False),
        ("kernel_h in 1..7", {"kernel_h": 7}, True),
        ("kernel_h in 1..7", {"kernel_h": 8}, False),
        ("kernel_h not in 1..7", {"kernel_h": 8}, True),
        ("strides in 1..4", {"strides": (1, 4)}, True),
        ("strides in 1..4", {"strides": (1, 5)}, False),
        ("strides not in {2, 3}", {"strides": (1, 3)}, False),
        ("strides == 1", {"strides": ()}, True),
        ("1 <= C <= 3", {"C": 4}, False),
        ("2 * C + 1 == 7", {"C": 3}, True),
        ("C - 1 - 1 == 1", {"C": 3}, True),
        ("8 / 2 / 2 == 2", {}, True),
        ("C // 2 == 1 and C % 2 == 1", {"C": 3}, True),
        ("-C in {-3, -2}", {"C": 3}, True),
        ("(C + 1) * 2 == 8", {"C": 3}, True),
        ("(C == 3)", {"C": 3}, True),
        ("not (C == 3 or H == 1)", {"C": 3}, False),
        ("if group == 1: C <= 8", {"group": 1, "C": 9}, False),
        ("if group == 1: C <= 8", {"group": 2, "C": 9}, True),
        ("auto_pad == NOTSET", {"auto_pad": "NOTSET"}, True),
        ("auto_pad in {VALID, 'SAME_UPPER'}", {"auto_pad": "SAME_UPPER"}, True),
        ("dtype in {float32, int8}", {"dtype": "float64"}, False),
        ("axes == [2, 3]", {"axes": (2, 3)}, True),
        ("axes == [2, 3]", {"axes": (2,)}, False),
        ("axes in {[1], [2, 3]}", {"axes": (2, 3)}, True),
        ("count(axes) == 2", {"axes": (2, 3)}, True),
        ("min(C, 7, H) == 2 and max(C) == 9", {"C": 9, "H": 2}, True),
        ("depthwise", {"depthwise": True}, True),
        ("not depthwise", {"depthwise": True}, False),
        ("feeds(Add)", {"feeds": {("Add",): True}}, True),
        ("true", {}, True),
    ],
)  # fmt: skip
def test_what_a_limit_says(text: str, values: dict[str, Any], expected: bool) -> None:
    assert ask(text, **values).value is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unknown('nobody knows')", None),
        ("C == 3 or unknown('x')", True),
        ("C == 4 or unknown('x')", None),
        ("C == 4 and unknown('x')", False),
        ("C == 3 and unknown('x')", None),
        ("not unknown('x')", None),
        ("if unknown('x'): C == 3", True),
        ("if unknown('x'): C == 4", None),
        ("if C == 4: unknown('x')", True),
        ("if C == 3: unknown('x')", None),
        ("H == 1", None),
        ("C + H == 1", None),
        ("C in {3, H}", None),
        ("C % (C - 3) == 1", None),
    ],
)
def test_what_is_not_known_is_never_yes(text: str, expected: bool | None) -> None:
    """`H` is not known here."""
    assert ask(text, C=3).value is expected


def test_why_and_found_are_said() -> None:
    assert ask("unknown('nobody knows')").why == ("nobody knows",)
    assert ask("C <= 4 and H <= 4", C=3, H=9).found == ("H = 9",)
    assert ask("kernel_h * kernel_w <= 8", kernel_h=3, kernel_w=4).found == ("kernel_h = 3", "kernel_w = 4")
    assert ask("H <= 4", C=3).why == ("H is not known",)


def test_an_attribute_that_is_not_stated_is_compared_as_such() -> None:
    assert ask("auto_pad == VALID", auto_pad=None).value is False
    assert ask("auto_pad != VALID", auto_pad=None).value is True
    assert ask("group <= 4", group=None).value is False


@pytest.mark.parametrize(
    ("text", "position", "expected", "found"),
    [
        ("kernle_h <= 7", 1, "kernel_h", "'kernle_h'"),
        ("rank ==", 8, "a name, a number or a list", "the end"),
        ("rank", 1, "a comparison", "'rank'"),
        ("rank = 4", 6, "a name, a number or a sign", "'='"),
        ("rank == 4 5", 11, "the end, and, or", "'5'"),
        ("rank == four", 9, "a name that there is", "'four'"),
        ("C in 1..", 9, "a name, a number or a list", "the end"),
        ("C in {1, 2", 11, "'}'", "the end"),
        ("C in 4", 7, "'..'", "the end"),
        ("if C == 1 C == 2", 11, "':'", "'C'"),
        ("dtype == float33", 10, "an element type (did you mean float32", "'float33'"),
        ("feeds(Con)", 7, "an operator", "'Con'"),
        ("feeds(Conv", 11, "')'", "the end"),
        ("nosuch(1) == 2", 1, "a function that there is", "'nosuch'"),
        ("count(4 == 4)", 9, "')'", "'=='"),
        ("auto_pad < VALID", 10, "== or != beside a text", "'<'"),
        ("auto_pad == group", 13, None, None),
        ("unknown(words)", 9, "a text in quotes", "'words'"),
        ("attribute_set(mode)", 15, "an attribute of the operator", "'mode'"),
        ("depthwise + 1 == 2", 1, "a number", "'depthwise'"),
        ("dim(1) == 2", 6, "','", "')'"),
        ("rank(1, 2) == 2", 7, "')'", "','"),
        ("axes == depthwise", 9, "a numbers", "'depthwise'"),
        ("C == 1 and", 11, "a name, a number or a list", "the end"),
        ("", 1, "a name, a number or a list", "the end"),
        ("C @ 1", 3, "a name, a number or a sign", "'@'"),
    ],
)
def test_a_text_that_is_no_limit(text: str, position: int, expected: str | None, found: str | None) -> None:
    if expected is None:
        assert ask(text, auto_pad="group").value is True  # a word is a word where a text is expected
        return
    with pytest.raises(LimitError) as error:
        parse_limit(text, names_of("Conv"))
    assert error.value.position + 1 == position
    assert expected in error.value.expected
    assert error.value.found == found


@given(st.text(alphabet="rankCH=<>!1234567890 ()[]{}.,:+-*/%'\"notandifin_", max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_text_raises_anything_else(text: str) -> None:
    position = 0
    try:
        parse_limit(text, names_of("Conv"))
    except LimitError as error:
        position = error.position
    assert 0 <= position <= len(text)


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9))
@settings(deadline=None)
def test_sums_are_those_of_arithmetic(a: int, b: int, c: int) -> None:
    assert ask(f"C + H * {c} - W // {c} == {a + b * c - b // c}", C=a, H=b, W=b).value is True
    assert ask("C <= H < W", C=a, H=b, W=c).value is (a <= b < c)


def test_a_deep_text_is_refused_and_does_not_overflow() -> None:
    with pytest.raises(LimitError):
        parse_limit("(" * 5000 + "C == 1" + ")" * 5000, names_of("Conv"))
    with pytest.raises(LimitError):
        parse_limit("not " * 5000 + "depthwise", names_of("Conv"))


def test_every_name_says_what_it_is() -> None:
    for name, (kind, about) in VARIABLES.items():
        assert kind and about, name
    for name, (arguments, kind, about) in FUNCTIONS.items():
        assert arguments and kind and about, name
