"""Einsum as products of matrices: every pair of operands is laid out as [batches, rows, sum] x [batches, sum, columns]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from string import ascii_letters
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import Declined, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context


@dataclass(frozen=True)
class _Operand:
    """A value and the letter of each of its axes."""

    value: ir.Value
    letters: str


@dataclass(frozen=True)
class _Equation:
    """Operands and result with a letter an axis; `...` is spelt out in letters of its own."""

    operands: tuple[str, ...]
    result: str


def _parsed(node: ir.Node, context: Context) -> _Equation | Declined:
    text = context.attribute(node, "equation", "").replace(" ", "")
    left, arrow, result = text.partition("->")
    operands = left.split(",")
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        result = ("..." if "..." in left else "") + "".join(
            sorted(c for c in set(letters) if letters.count(c) == 1)
        )
    if "..." in text:
        found = _spelt_out(node, context, operands, result)
        if isinstance(found, Declined):
            return found
        operands, result = found
    if len(set(result)) != len(result):
        return Declined("its result repeats an index")
    return _Equation(tuple(operands), result)


def _spelt_out(
    node: ir.Node, context: Context, operands: list[str], result: str
) -> tuple[list[str], str] | Declined:
    free = [letter for letter in ascii_letters if letter not in "".join(operands) + result]
    counts = []
    for value, letters in zip(node.inputs, operands, strict=True):
        rank = context.rank(value)
        if "..." in letters and rank is None:
            return Declined("the rank of an operand with an ellipsis is not known")
        counts.append(None if "..." not in letters else (rank or 0) - len(letters) + 3)
    given = [count for count in counts if count is not None]
    longest = max(given)
    if any(count != longest for count in given):
        return Declined("the axes of its ellipses are broadcast")
    dots = "".join(free[:longest])
    return [letters.replace("...", dots) for letters in operands], result.replace("...", dots)


def _sizes(node: ir.Node, context: Context, equation: _Equation) -> dict[str, int | None] | Declined:
    sizes: dict[str, int | None] = {}
    for value, letters in zip(node.inputs, equation.operands, strict=True):
        shape = context.shape(value) or (None,) * len(letters)
        for letter, size in zip(letters, shape, strict=True):
            known = size if isinstance(size, int) else None
            if letter in sizes and known is not None and sizes[letter] not in (None, known):
                return Declined("an index has several sizes, of which one is broadcast")
            sizes[letter] = known if known is not None else sizes.get(letter)
    return sizes


def check_products(node: ir.Node, context: Context) -> Declined | None:
    """Why an Einsum is not written as products of matrices."""
    equation = _parsed(node, context)
    if isinstance(equation, Declined):
        return equation
    sizes = _sizes(node, context, equation)
    if isinstance(sizes, Declined):
        return sizes
    for letters in equation.operands:
        if unknown := [c for c in letters if letters.count(c) > 1 and sizes[c] is None]:
            return Declined(
                f"the size of the index {unknown[0]}, of which it takes the diagonal, is not known"
            )
    letters, *others = ("".join(dict.fromkeys(letters)) for letters in equation.operands)
    for index, other in enumerate(others):
        later = set("".join(others[index + 1 :]) + equation.result)
        for group in _groups(letters, other, later)[1:]:
            if len(group) > 1 and sum(sizes[letter] is None for letter in group) > 0:
                return Declined(f"the sizes of the indices {group} are not known")
        letters = "".join(_groups(letters, other, later)[index] for index in (0, 1, 3))
    return None


def _groups(one: str, other: str, later: set[str]) -> tuple[str, str, str, str]:
    """Batches, rows, what is summed over, and columns of a pair."""
    batches = "".join(c for c in one if c in other and c in later)
    rows = "".join(c for c in one if c not in other and c in later)
    summed = "".join(c for c in one if c in other and c not in later)
    columns = "".join(c for c in other if c not in one and c in later)
    return batches, rows, summed, columns


def products(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """An Einsum as products of matrices."""
    equation = _parsed(node, context)
    assert isinstance(equation, _Equation)
    sizes = _sizes(node, context, equation)
    assert not isinstance(sizes, Declined)
    operands = [
        _diagonal(_Operand(value, letters), sizes, context)
        for value, letters in zip(node.inputs, equation.operands, strict=True)
        if value is not None
    ]
    made = operands[0]
    for index, other in enumerate(operands[1:]):
        later = set("".join(one.letters for one in operands[index + 2 :]) + equation.result)
        made = _pair(made, other, later, sizes, context)
    made = _summed(made, set(equation.result), context)
    value = _turned(made, equation.result, context).value
    return [value] if value not in node.inputs else [context.op("Identity", [value])]


def _diagonal(operand: _Operand, sizes: dict[str, int | None], context: Context) -> _Operand:
    """With every index once: the diagonal of the axes that share one."""
    value, letters = operand.value, operand.letters
    while repeated := [c for c in letters if letters.count(c) > 1]:
        letter, size = repeated[0], sizes[repeated[0]]
        assert size is not None
        pair = [index for index, c in enumerate(letters) if c == letter][:2]
        rest = [index for index in range(len(letters)) if index not in pair]
        turned = forms.transpose(context, value, [*rest, *pair])
        # The other axes keep their places, so that a size that is not known is copied (0).
        target = [sizes[letters[index]] or 0 for index in rest] + [size * size]
        places = np.arange(size, dtype=np.int64) * (size + 1)
        value = context.op(
            "Gather", [forms.reshape(context, turned, target), context.tensor(places, "diagonal")],
            axis=len(rest),
        )  # fmt: skip
        letters = "".join(letters[index] for index in rest) + letter
    return _Operand(value, letters)


def _summed(operand: _Operand, kept: set[str], context: Context) -> _Operand:
    """Without the axes that nothing else has."""
    axes = [index for index, letter in enumerate(operand.letters) if letter not in kept]
    if not axes:
        return operand
    value = forms.reduce(context, "ReduceSum", operand.value, axes, keepdims=False)
    return _Operand(value, "".join(c for c in operand.letters if c in kept))


def _turned(operand: _Operand, letters: str, context: Context) -> _Operand:
    if operand.letters == letters:
        return operand
    order = [operand.letters.index(letter) for letter in letters]
    return _Operand(context.op("Transpose", [operand.value], perm=order), letters)


def _pair(
    one: _Operand, other: _Operand, later: set[str], sizes: dict[str, int | None], context: Context
) -> _Operand:
    one = _summed(one, later | set(other.letters), context)
    other = _summed(other, later | set(one.letters), context)
    batches, rows, summed, columns = _groups(one.letters, other.letters, later)
    left = _laid_out(one, batches, rows, summed, sizes, context)
    right = _laid_out(other, batches, summed, columns, sizes, context)
    product = context.op("MatMul", [left, right])
    made = _apart(product, batches, rows, columns, sizes, context)
    return _Operand(made, batches + rows + columns)


def _laid_out(
    operand: _Operand, batches: str, first: str, second: str, sizes: dict[str, int | None], context: Context
) -> ir.Value:
    """[batches, first, second] with one axis for each of the two groups."""
    value = _turned(operand, batches + first + second, context).value
    if len(first) == 1 and len(second) == 1:
        return value
    if len(first) > 1 or len(second) > 1:
        return _reshaped(value, batches, (_product(first, sizes), _product(second, sizes)), sizes, context)
    missing = [len(batches) + place for place, group in enumerate((first, second)) if not group]
    return forms.unsqueeze(context, value, missing)


def _apart(
    value: ir.Value, batches: str, rows: str, columns: str, sizes: dict[str, int | None], context: Context
) -> ir.Value:
    if len(rows) == 1 and len(columns) == 1:
        return value
    if len(rows) > 1 or len(columns) > 1:
        split = [sizes[letter] if sizes[letter] is not None else -1 for letter in rows + columns]
        return _reshaped(value, batches, tuple(split), sizes, context)
    missing = [len(batches) + place for place, group in enumerate((rows, columns)) if not group]
    return forms.squeeze(context, value, missing)


def _product(group: str, sizes: dict[str, int | None]) -> int:
    """The size of a group as a Reshape takes it."""
    known = [sizes[letter] for letter in group]
    return -1 if None in known else prod(size for size in known if size is not None)


def _reshaped(
    value: ir.Value, batches: str, rest: Sequence[int | None], sizes: dict[str, int | None], context: Context
) -> ir.Value:
    # The batches keep their places, so that a size that is not known is copied (0).
    target = [sizes[letter] if sizes[letter] is not None else 0 for letter in batches] + list(rest)
    made: ir.Value = context.op("Reshape", [value, context.tensor(np.array(target, np.int64), "sizes")])
    return made


#: What `products` writes.
MADE: Final = ("Gather", "Identity", "MatMul", "ReduceSum", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
NEEDED: Final = "the sizes of indices that share an axis of a matrix, or of which a diagonal is taken"

RULES: Final = (
    Rule("einsum", "lower", ("Einsum",), MADE, "float noise", "Einsum becomes products of matrices", products,
         check_products, NEEDED, 12),
)  # fmt: skip
