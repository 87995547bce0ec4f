"""Element type of the weights in a .mnn file: the few fields of its FlatBuffer that say so.

The layout of FlatBuffers: https://flatbuffers.dev/internals; numbers of fields: MNN's schema/default
(MNN.fbs: Net, Op; CaffeOp.fbs: Convolution2D, IDSTQuan).
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Final

from pipeline.targets.backend import BackendError

_NET_OPS: Final = 3
_OP_MAIN_KIND: Final = 1
_OP_MAIN: Final = 2
_KIND_CONVOLUTION: Final = 9  # OpParameter.Convolution2D
_CONVOLUTION_WEIGHT: Final = 1
_CONVOLUTION_QUANTIZED: Final = 3
_QUANTIZED_TYPE: Final = 2
_TYPE_HALF: Final = 3  # IDSTQuan.type: weights in half precision
#: A file has at least a root offset and a table.
_SMALLEST: Final = 16


def weights_of(path: Path) -> dict[str, int]:
    """Element type of weights to the number of convolutions and products that have them.

    Raises:
        BackendError: it is no .mnn file.
    """
    data = path.read_bytes()
    if len(data) < _SMALLEST:
        raise BackendError(f"{path.name} has {len(data)} bytes: it is no model of MNN")
    found: Counter[str] = Counter()
    try:
        root = _at(data, 0)
        place = _field(data, root, _NET_OPS) if root else 0
        if not place:
            raise BackendError(f"{path.name} is no model of MNN: it has no operators")
        operators = _at(data, place)
        for index in range(_number("<I", data, operators)):
            kind = _weights(data, _at(data, operators + 4 + 4 * index))
            if kind is not None:
                found[kind] += 1
    except (struct.error, IndexError) as error:
        raise BackendError(f"{path.name} is damaged, or no model of MNN") from error
    return dict(found.most_common())


def _weights(data: bytes, operator: int) -> str | None:
    kind = _field(data, operator, _OP_MAIN_KIND)
    if not kind or data[kind] != _KIND_CONVOLUTION:
        return None
    convolution = _at(data, _field(data, operator, _OP_MAIN))
    quantized = _field(data, convolution, _CONVOLUTION_QUANTIZED)
    if quantized:
        kind = _field(data, _at(data, quantized), _QUANTIZED_TYPE)
        return "float16" if kind and _number("<i", data, kind) == _TYPE_HALF else "int8"
    return "float32" if _field(data, convolution, _CONVOLUTION_WEIGHT) else None


def _number(form: str, data: bytes, place: int) -> int:
    number: int = struct.unpack_from(form, data, place)[0]
    return number


def _field(data: bytes, table: int, number: int) -> int:
    """Place of a field of a table; 0 where it is left out."""
    names = table - _number("<i", data, table)
    slot = 4 + 2 * number
    offset = _number("<H", data, names + slot) if slot < _number("<H", data, names) else 0
    return table + offset if offset else 0


def _at(data: bytes, place: int) -> int:
    """What the offset at `place` points to."""
    return place + _number("<I", data, place)
