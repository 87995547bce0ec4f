"""DFT, STFT and windows of known length: products with tables of sines and cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.lower_activation import UNKNOWN_TYPE
from pipeline.graph.rewrites.lower_axes import input_of
from pipeline.graph.rewrites.lower_shapes import LARGEST_TABLE
from pipeline.graph.rewrites.rule import Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: a0 and a1 (and a2) of a0 - a1 cos(t) + a2 cos(2t), as the standard has them.
_WINDOWS: Final = {
    "HannWindow": (0.5, 0.5, 0.0),
    "HammingWindow": (25 / 46, 1 - 25 / 46, 0.0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}


def _check_axis(node: ir.Node, context: Context) -> Declined | None:
    """Until opset 19 the axis is an attribute, and its default another one."""
    given = input_of(node, 2)
    if given is not None and context.integers(given) is None:
        return Declined("its axis is computed while it runs")
    axis = -2 if given is None else (context.integers(given) or (0,))[0]
    if axis < 0 and context.rank(node.inputs[0]) is None:
        return Declined("its axis is negative and the rank of its input is not known")
    if context.attribute(node, "inverse", 0) and context.attribute(node, "onesided", 0):
        return Declined("it is one-sided and inverse")
    return None


def _axis(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    given, rank = input_of(node, 2), context.rank(node.inputs[0])
    axis = -2 if given is None else (context.integers(given) or (0,))[0]
    return context.again(node, list(node.inputs[:2]), axis=axis % rank if rank else axis)


def _check_transform(node: ir.Node, context: Context) -> Declined | None:
    shape = context.shape(node.inputs[0])
    if context.dtype(node.inputs[0]) is None:
        return Declined(UNKNOWN_TYPE)
    axis = context.attribute(node, "axis", 1)
    if shape is None or not isinstance(shape[axis], int) or shape[-1] not in (1, 2):
        return Declined("the length of its signal is not known")
    length = input_of(node, 1)
    if length is not None and context.integers(length) is None:
        return Declined("its length is computed while it runs")
    if context.attribute(node, "inverse", 0) and context.attribute(node, "onesided", 0):
        return Declined("it is one-sided and inverse")
    if shape[axis] * _length(node, context) > LARGEST_TABLE:
        return Declined("its table would be too large")
    return None


def _length(node: ir.Node, context: Context) -> int:
    found = context.integers(input_of(node, 1))
    shape = context.shape(node.inputs[0]) or ()
    size = shape[context.attribute(node, "axis", 1)]
    assert isinstance(size, int)
    return found[0] if found else size


def tables(samples: int, length: int, onesided: bool, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and signed sines [samples, bins]: real x cos, and real x sin for the imaginary part.

    Args:
        samples: of the signal; those past `length` count for nothing.
        length: of the transform.
        onesided: only the bins up to half.
        inverse: divide by `length`, and turn the other way.
    """
    bins = length // 2 + 1 if onesided else length
    turns = np.outer(np.arange(samples), np.arange(bins)) % length
    angle = 2 * np.pi * turns / length
    cosines, sines = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
    if inverse:
        cosines, sines = cosines / length, sines / length
    cosines[length:], sines[length:] = 0, 0
    return cosines, sines


def _part(x: ir.Value | None, which: int, axis: int, context: Context) -> ir.Value:
    """Real (0) or imaginary (1) parts, without the axis that holds both."""
    made: ir.Value = context.op("Gather", [x, context.tensor(np.array(which, np.int64), "part")], axis=axis)
    return made


def _joined(real: ir.Value, imaginary: ir.Value, axis: int, context: Context) -> ir.Value:
    """Both parts along a new last axis."""
    parts = [context.op("Unsqueeze", [one], axes=[axis]) if context.opset < 13 else
             context.op("Unsqueeze", [one, context.tensor(np.array([axis], np.int64), "last")])
             for one in (real, imaginary)]  # fmt: skip
    made: ir.Value = context.op("Concat", parts, axis=axis)
    return made


def _spectrum(
    real: ir.Value, imaginary: ir.Value | None, pair: tuple[np.ndarray, np.ndarray], context: Context
) -> tuple[ir.Value, ir.Value]:
    """The transform of signals along their last axis."""
    dtype = context.dtype(real)
    assert dtype is not None
    cosines, sines = (context.tensor(one.astype(dtype.numpy()), hint)
                      for one, hint in zip(pair, ("cosines", "sines"), strict=True))  # fmt: skip
    re, im = context.op("MatMul", [real, cosines]), context.op("MatMul", [real, sines])
    if imaginary is not None:
        re = context.op("Sub", [re, context.op("MatMul", [imaginary, sines])])
        im = context.op("Add", [im, context.op("MatMul", [imaginary, cosines])])
    return re, im


def _transform(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    shape = context.shape(node.inputs[0]) or ()
    rank, axis = len(shape), context.attribute(node, "axis", 1) % len(shape)
    size = shape[axis]
    assert isinstance(size, int)
    order = [index for index in range(rank - 1) if index != axis] + [axis]
    back = [order.index(index) for index in range(rank - 1)]
    parts: list[ir.Value | None] = []
    for which in range(int(shape[-1] or 1)):
        part = _part(node.inputs[0], which, rank - 1, context)
        parts.append(part if axis == rank - 2 else context.op("Transpose", [part], perm=order))
    pair = tables(
        size, _length(node, context), bool(context.attribute(node, "onesided", 0)),
        bool(context.attribute(node, "inverse", 0)),
    )  # fmt: skip
    real = parts[0]
    assert real is not None
    found = _spectrum(real, parts[1] if len(parts) > 1 else None, pair, context)
    if axis != rank - 2:
        real, imaginary = (context.op("Transpose", [one], perm=back) for one in found)
        found = (real, imaginary)
    return [_joined(found[0], found[1], rank - 1, context)]


def _frames(node: ir.Node, context: Context) -> tuple[int, int, int] | None:
    """Samples, step and length of the frames, where they are known."""
    shape, step = context.shape(node.inputs[0]), context.integers(input_of(node, 1))
    length, window = context.integers(input_of(node, 3)), input_of(node, 2)
    if length is None and window is not None:
        sizes = context.static_shape(window)
        length = sizes
    if shape is None or not isinstance(shape[1], int) or step is None or not length:
        return None
    return shape[1], step[0], length[0]


def _check_short(node: ir.Node, context: Context) -> Declined | None:
    if context.dtype(node.inputs[0]) is None:
        return Declined(UNKNOWN_TYPE)
    shape = context.shape(node.inputs[0])
    if _frames(node, context) is None or shape is None or len(shape) != 3 or shape[2] not in (1, 2):
        return Declined("the lengths of its signal and frames are not known")
    return None


def _short(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """Frames are gathered, weighted by the window and transformed."""
    samples, step, length = _frames(node, context) or (0, 1, 1)
    shape = context.shape(node.inputs[0]) or ()
    count = (samples - length) // step + 1
    places = np.arange(count)[:, None] * step + np.arange(length)[None, :]
    index = context.tensor(places.astype(np.int64), "frames")
    parts = []
    for which in range(int(shape[2] or 1)):
        framed = context.op("Gather", [_part(node.inputs[0], which, 2, context), index], axis=1)
        window = input_of(node, 2)
        parts.append(framed if window is None else context.op("Mul", [framed, window]))
    pair = tables(length, length, bool(context.attribute(node, "onesided", 1)), False)
    real, imaginary = _spectrum(parts[0], parts[1] if len(parts) > 1 else None, pair, context)
    return [_joined(real, imaginary, 3, context)]


def _check_window(node: ir.Node, context: Context) -> Declined | None:
    return (
        Declined("its length is computed while it runs") if context.integers(node.inputs[0]) is None else None
    )


def _window(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    (size,) = context.integers(node.inputs[0]) or (0,)
    dtype = ir.DataType(context.attribute(node, "output_datatype", int(ir.DataType.FLOAT)))
    period = size if context.attribute(node, "periodic", 1) else max(size - 1, 1)
    angle = 2 * np.pi * np.arange(size) / period
    first, second, third = _WINDOWS[node.op_type]
    values = first - second * np.cos(angle) + third * np.cos(2 * angle)
    return [context.op("Identity", [context.tensor(values.astype(dtype.numpy()), "window")])]


_MADE: Final = ("Add", "Concat", "Gather", "MatMul", "Mul", "Sub", "Transpose", "Unsqueeze")
RULES: Final = (
    Rule("fourier_axis", "lower", ("DFT",), ("DFT",), "exact", "the axis of a DFT becomes an attribute", _axis,
         _check_axis, "a constant axis", 20),
    Rule("fourier", "lower", ("DFT",), _MADE, "float noise",
         "DFT becomes products with sines and cosines", _transform, _check_transform, "the length", 17),
    Rule("short_fourier", "lower", ("STFT",), _MADE, "float noise",
         "STFT becomes gathered frames and products with sines and cosines", _short, _check_short,
         "the lengths of signal and frames", 17),
    Rule("windows", "lower", tuple(_WINDOWS), ("Identity",), "float noise", "a window becomes a constant",
         _window, _check_window, "a constant length", 17),
)  # fmt: skip
