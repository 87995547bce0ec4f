"""ONNX element types: names, bits an element, and what numpy calls them. No onnx, no numpy.

Numbers are those of `onnx.TensorProto.DataType`; they are fixed by the format and never reused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from pipeline.errors import InternalError


@dataclass(frozen=True)
class ElementType:
    """One element type.

    Attributes:
        number: onnx.TensorProto.DataType.
        name: numpy's name, or ml_dtypes' where numpy has none.
        bits: bits an element takes in raw data (sub-byte elements are packed); 0 for strings.
        first_ir: the IR version that brought it.
    """

    number: int
    name: str
    bits: int
    first_ir: int = 3


STRING: Final = 8

#: Every element type of onnx 1.23. An unknown number is an error, never a guess.
ELEMENT_TYPES: Final[dict[int, ElementType]] = {
    kind.number: kind
    for kind in (
        ElementType(1, "float32", 32),
        ElementType(2, "uint8", 8),
        ElementType(3, "int8", 8),
        ElementType(4, "uint16", 16),
        ElementType(5, "int16", 16),
        ElementType(6, "int32", 32),
        ElementType(7, "int64", 64),
        ElementType(STRING, "string", 0),
        ElementType(9, "bool", 8),
        ElementType(10, "float16", 16),
        ElementType(11, "float64", 64),
        ElementType(12, "uint32", 32),
        ElementType(13, "uint64", 64),
        ElementType(14, "complex64", 64),
        ElementType(15, "complex128", 128),
        ElementType(16, "bfloat16", 16, first_ir=4),
        ElementType(17, "float8_e4m3fn", 8, first_ir=9),
        ElementType(18, "float8_e4m3fnuz", 8, first_ir=9),
        ElementType(19, "float8_e5m2", 8, first_ir=9),
        ElementType(20, "float8_e5m2fnuz", 8, first_ir=9),
        ElementType(21, "uint4", 4, first_ir=10),
        ElementType(22, "int4", 4, first_ir=10),
        ElementType(23, "float4_e2m1fn", 4, first_ir=11),
        ElementType(24, "float8_e8m0fnu", 8, first_ir=12),
        ElementType(25, "uint2", 2, first_ir=13),
        ElementType(26, "int2", 2, first_ir=13),
    )
}

#: numpy's (or ml_dtypes') name to number.
NUMBERS: Final[dict[str, int]] = {kind.name: kind.number for kind in ELEMENT_TYPES.values()}

#: Elements that count or index: shapes, axes, lookup tables. Folding wants their values.
INTEGERS: Final = frozenset(NUMBERS[name] for name in (
    "uint8", "int8", "uint16", "int16", "int32", "int64", "uint32", "uint64", "bool",
))  # fmt: skip


def element_type(number: int) -> ElementType:
    """The element type of a number; InternalError when this table does not know it."""
    try:
        return ELEMENT_TYPES[number]
    except KeyError:
        raise InternalError(f"element type {number} is not in pipeline.graph.dtypes") from None


def raw_size(number: int, shape: Sequence[int]) -> int:
    """Bytes of raw data of a tensor: sub-byte elements are packed, the last byte is padded.

    Raises:
        InternalError: strings have no raw data.
    """
    bits = element_type(number).bits
    if bits == 0:
        raise InternalError("a tensor of strings has no raw data")
    return (prod(shape) * bits + 7) // 8
