"""GridSample and RoiAlign: sampled points become Gathers of the neighbours; the older modes of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites.lower_activation import UNKNOWN_TYPE
from pipeline.graph.rewrites.rule import Declined, Rule

if TYPE_CHECKING:
    from pipeline.graph.rewrites.context import Context

#: Names that opset 20 changed.
_OLD_MODES: Final = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}
#: Of ONNX's and torch's bicubic sampling.
CUBIC: Final = -0.75


def _check_modes(node: ir.Node, context: Context) -> Declined | None:
    rank = context.rank(node.inputs[0])
    if rank is None:
        return Declined("the rank of its input is not known")
    return Declined("it samples more than two axes") if rank != 4 else None


def _modes(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    mode = context.attribute(node, "mode", "linear")
    return context.again(node, mode=_OLD_MODES.get(mode, mode))


def _check(node: ir.Node, context: Context) -> Declined | None:
    shape = context.static_shape(node.inputs[0])
    if shape is None or context.static_shape(node.inputs[1]) is None:
        return Declined("the sizes of its input or its grid are not known")
    if len(shape) != 4:
        return Declined("it samples more than two axes")
    if context.dtype(node.inputs[0]) not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return Declined(
            "its input is neither float32 nor float64" if context.dtype(node.inputs[0]) else UNKNOWN_TYPE
        )
    return None


class _Sampler:
    """Arithmetic on values, in the type of the grid."""

    def __init__(self, node: ir.Node, context: Context) -> None:
        self.node, self.context = node, context
        self.batch, self.channels, self.height, self.width = context.static_shape(node.inputs[0]) or (
            0,
            0,
            0,
            0,
        )
        self.grid_shape = context.static_shape(node.inputs[1]) or ()
        self.align = bool(context.attribute(node, "align_corners", 0))
        self.padding = context.attribute(node, "padding_mode", "zeros")
        grid, data = context.dtype(node.inputs[1]), context.dtype(node.inputs[0])
        assert grid is not None
        assert data is not None
        self.grid_type, self.data_type = grid, data

    def number(self, value: float) -> ir.Value:
        return self.context.tensor(np.asarray(value, self.grid_type.numpy()), "number")

    def op(self, name: str, *values: Any, **attributes: Any) -> ir.Value:
        made: ir.Value = self.context.op(
            name,
            [
                value if value is None or isinstance(value, ir.Value) else self.number(value)
                for value in values
            ],
            **attributes,
        )
        return made

    def coordinate(self, which: int, size: int) -> ir.Value:
        """Where along an axis to sample, in pixels. `which`: 0 the columns, 1 the rows."""
        picked = self.context.op(
            "Gather", [self.node.inputs[1], self.context.tensor(np.array(which, np.int64), "which")], axis=3
        )
        if self.align:
            place = self.op("Mul", self.op("Add", picked, 1), (size - 1) / 2)
        else:
            place = self.op("Sub", self.op("Mul", self.op("Add", picked, 1), size / 2), 0.5)
        return place if self.is_cubic else self.bounded(place, size)

    @property
    def is_cubic(self) -> bool:
        mode: str = self.context.attribute(self.node, "mode", "bilinear")
        return mode in ("bicubic", "cubic")

    def bounded(self, place: ir.Value, size: int) -> ir.Value:
        """A place after padding with the border or by reflection."""
        if self.padding == "border":
            return self.clamped(place, 0, size - 1)
        if self.padding != "reflection":
            return place
        low, high = (0.0, size - 1.0) if self.align else (-0.5, size - 0.5)
        span = high - low
        if span <= 0:
            return self.op("Mul", place, 0)
        # A walk to and fro: away from `low` with the period of two spans.
        away = self.op("Abs", self.op("Sub", place, low))
        turns = self.op("Floor", self.op("Div", away, 2 * span))
        rest = self.op("Sub", away, self.op("Mul", turns, 2 * span))
        back = self.op("Abs", self.op("Sub", rest, span))
        return self.clamped(self.op("Sub", high, back), 0, size - 1)

    def clamped(self, place: ir.Value, low: float, high: float) -> ir.Value:
        if self.grid_type == ir.DataType.FLOAT and self.context.opset < 11:
            return self.op("Clip", place, min=float(low), max=float(high))
        return self.op("Min", self.op("Max", place, low), high)

    def neighbour(self, y: ir.Value, x: ir.Value) -> ir.Value:
        """The pixels at whole places [N,H,W,C]; outside they are zero (padding zeros) or bounded."""
        inside = None
        if self.is_cubic and self.padding != "zeros":
            y, x = self.bounded(y, self.height), self.bounded(x, self.width)
            y, x = (self.op("Floor", self.op("Add", one, 0.5)) for one in (y, x))
        if self.padding == "zeros":
            for place, size in ((y, self.height), (x, self.width)):
                outside = self.op("Or", self.op("Less", place, 0), self.op("Greater", place, size - 1))
                inside = outside if inside is None else self.op("Or", inside, outside)
        whole = [self.op("Cast", self.clamped(place, 0, size - 1), to=int(ir.DataType.INT64))
                 for place, size in ((y, self.height), (x, self.width))]  # fmt: skip
        width = self.context.tensor(np.array(self.width, np.int64), "width")
        first = np.arange(self.batch, dtype=np.int64).reshape(-1, 1, 1) * (self.height * self.width)
        flat = self.op("Add", self.op("Mul", whole[0], width), whole[1])
        flat = self.op("Add", flat, self.context.tensor(first, "batches"))
        pixels: ir.Value = self.context.op("Gather", [self.rows, flat], axis=0)
        if inside is None:
            return pixels
        kept = self.op("Cast", self.op("Not", inside), to=int(self.data_type))
        return self.op("Mul", pixels, self.column(kept))

    @property
    def rows(self) -> ir.Value:
        """The input as rows of channels, one a pixel."""
        if not hasattr(self, "_rows"):
            last = self.op("Transpose", self.node.inputs[0], perm=[0, 2, 3, 1])
            shape = self.context.tensor(np.array([-1, self.channels], np.int64), "rows")
            self._rows: ir.Value = self.op("Reshape", last, shape)
        return self._rows

    def column(self, value: ir.Value) -> ir.Value:
        """[N,H,W] as [N,H,W,1]."""
        shape = self.context.tensor(np.array([*self.grid_shape[:3], 1], np.int64), "column")
        return self.op("Reshape", value, shape)

    def weight(self, value: ir.Value) -> ir.Value:
        if self.grid_type != self.data_type:
            value = self.op("Cast", value, to=int(self.data_type))
        return self.column(value)


def _sampled(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    sampler = _Sampler(node, context)
    x, y = sampler.coordinate(0, sampler.width), sampler.coordinate(1, sampler.height)
    mode = context.attribute(node, "mode", "bilinear")
    if mode == "nearest":
        places = [_nearest(place, sampler) for place in (y, x)]
        total = sampler.neighbour(places[0], places[1])
    else:
        rows, columns = (_taps(place, sampler) for place in (y, x))
        total = None
        for row, row_weight in rows:
            line = None
            for column, column_weight in columns:
                part = sampler.op("Mul", sampler.neighbour(row, column), sampler.weight(column_weight))
                line = part if line is None else sampler.op("Add", line, part)
            part = sampler.op("Mul", line, sampler.weight(row_weight))
            total = part if total is None else sampler.op("Add", total, part)
    return [context.op("Transpose", [total], perm=[0, 3, 1, 2])]


def _nearest(place: ir.Value, sampler: _Sampler) -> ir.Value:
    """Halves go to the even neighbour."""
    down = sampler.op("Floor", place)
    rest = sampler.op("Sub", place, down)
    halved = sampler.op("Div", down, 2)
    odd = sampler.op("Greater", halved, sampler.op("Floor", halved))
    tie = sampler.op("Not", sampler.op("Or", sampler.op("Less", rest, 0.5), sampler.op("Greater", rest, 0.5)))
    up = sampler.op("Or", sampler.op("Greater", rest, 0.5), sampler.op("And", tie, odd))
    return sampler.op("Add", down, sampler.op("Cast", up, to=int(sampler.grid_type)))


def _taps(place: ir.Value, sampler: _Sampler) -> list[tuple[ir.Value, ir.Value]]:
    """The neighbours along an axis, and their weights."""
    down = sampler.op("Floor", place)
    rest = sampler.op("Sub", place, down)
    if not sampler.is_cubic:
        return [(down, sampler.op("Sub", 1, rest)), (sampler.op("Add", down, 1), rest)]
    taps = []
    for offset in (-1, 0, 1, 2):
        distance = sampler.op("Abs", sampler.op("Sub", rest, offset))
        near = offset in (0, 1)
        a = CUBIC
        if near:  # ((a + 2) d - (a + 3)) d^2 + 1
            inner = sampler.op("Sub", sampler.op("Mul", distance, a + 2), a + 3)
            weight = sampler.op("Add", sampler.op("Mul", sampler.op("Mul", inner, distance), distance), 1)
        else:  # ((a d - 5 a) d + 8 a) d - 4 a
            inner = sampler.op("Sub", sampler.op("Mul", distance, a), 5 * a)
            inner = sampler.op("Add", sampler.op("Mul", inner, distance), 8 * a)
            weight = sampler.op("Sub", sampler.op("Mul", inner, distance), 4 * a)
        taps.append((sampler.op("Add", down, offset), weight))
    return taps


def _check_affine(node: ir.Node, context: Context) -> Declined | None:
    if context.dtype(node.inputs[0]) is None:
        return Declined(UNKNOWN_TYPE)
    return Declined("the size of its grid is computed") if context.integers(node.inputs[1]) is None else None


def _affine(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """The constant grid of all points, times the matrix."""
    batch, _, *sizes = context.integers(node.inputs[1]) or ()
    dtype = context.dtype(node.inputs[0])
    assert dtype is not None
    align = context.attribute(node, "align_corners", 0)
    steps = []
    for size in sizes:
        places = np.arange(size, dtype=np.float64)
        steps.append(places * 2 / max(size - 1, 1) - (size > 1) if align else (places * 2 + 1) / size - 1)
    axes = np.meshgrid(*steps, indexing="ij")[::-1]  # x comes first, then y, then z
    points = np.stack([*axes, np.ones(sizes)], axis=-1).reshape(-1, len(sizes) + 1)
    turned = context.op("Transpose", [node.inputs[0]], perm=[0, 2, 1])
    made = context.op("MatMul", [context.tensor(points.astype(dtype.numpy()), "points"), turned])
    shape = np.array([batch, *sizes, len(sizes)], np.int64)
    return [context.op("Reshape", [made, context.tensor(shape, "grid")])]


def _check_boxes(node: ir.Node, context: Context) -> Declined | None:
    if context.attribute(node, "coordinate_transformation_mode", "half_pixel") == "output_half_pixel":
        return None
    return Declined(
        "its boxes are half a pixel off (half_pixel), and older opsets enlarge those below one pixel"
    )


def _boxes(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    return context.again(node, coordinate_transformation_mode=None)


_MADE: Final = ("Abs", "Add", "And", "Cast", "Clip", "Div", "Floor", "Gather", "Greater", "Less", "Max", "Min", "Mul",
                "Not", "Or", "Reshape", "Sub", "Transpose")  # fmt: skip
RULES: Final = (
    Rule("affine_grid", "lower", ("AffineGrid",), ("MatMul", "Reshape", "Transpose"), "float noise",
         "AffineGrid becomes a product with a constant grid", _affine, _check_affine, "the size of the grid", 20),
    Rule("grid_sample_modes", "lower", ("GridSample",), ("GridSample",), "exact",
         "the modes of a GridSample get their older names", _modes, _check_modes, "two axes to sample", 20),
    Rule("grid_sample", "lower", ("GridSample",), _MADE, "float noise",
         "GridSample becomes Gathers of the neighbours and a weighted sum", _sampled, _check,
         "the sizes of input and grid", 16),
    Rule("roi_align_pixels", "lower", ("RoiAlign",), ("RoiAlign",), "exact",
         "a RoiAlign whose pixels are not moved needs no mode", _boxes, _check_boxes, "output_half_pixel", 16),
)  # fmt: skip
