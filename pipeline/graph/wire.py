"""The protobuf wire format, as far as a streamed ONNX file needs it. No onnx.

https://protobuf.dev/programming-guides/encoding/ : a message is a row of fields, each a varint tag
(number << 3 | type) and its value; a nested message or bytes is a varint length and the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
LENGTH_DELIMITED: Final = 2
FIXED32: Final = 5
#: A varint of 64 bits takes at most this many bytes.
LONGEST_VARINT: Final = 10


class MalformedError(ValueError):
    """Bytes that are no protobuf message; the text says what and at which offset."""


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes:
        number: the field's number.
        wire_type: VARINT, FIXED64, LENGTH_DELIMITED or FIXED32.
        start: offset of the tag.
        value: the integer of a varint field; else the offset of the value's first byte.
        end: offset behind the field.
    """

    number: int
    wire_type: int
    start: int
    value: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of a value that is not a varint."""
        return self.end - self.value


def varint(value: int) -> bytes:
    """An unsigned integer as varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_prefix(number: int, size: int) -> bytes:
    """Tag and length of a nested message or bytes field."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(size)


def read_varint(data: bytes | memoryview, offset: int, end: int) -> tuple[int, int]:
    """The varint at `offset` and the offset behind it; MalformedError when it does not end."""
    value = 0
    for position in range(min(LONGEST_VARINT, end - offset)):
        byte = data[offset + position]
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, offset + position + 1
    raise MalformedError(f"a number that does not end, at byte {offset}")


def fields(data: bytes | memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of the message that fills [start, end); values are not looked into.

    Raises:
        MalformedError: the bytes are no message, or a field runs over its end.
    """
    offset = start
    while offset < end:
        tag, value_at = read_varint(data, offset, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise MalformedError(f"field number 0 at byte {offset}")
        value = value_at
        if wire_type == VARINT:
            value, behind = read_varint(data, value_at, end)
        elif wire_type == LENGTH_DELIMITED:
            size, value = read_varint(data, value_at, end)
            behind = value + size
        elif wire_type in (FIXED64, FIXED32):
            behind = value_at + (8 if wire_type == FIXED64 else 4)
        else:
            raise MalformedError(f"wire type {wire_type} at byte {offset}")
        if behind > end:
            raise MalformedError(
                f"field {number} at byte {offset} ends at byte {behind}, {behind - end} past its message"
            )
        yield Field(number, wire_type, offset, value, behind)
        offset = behind
