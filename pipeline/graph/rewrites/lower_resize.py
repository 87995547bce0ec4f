"""Resize: what older opsets have no words for becomes a Gather (nearest) or a product with a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.graph.rewrites.lower_activation import UNKNOWN_TYPE
from pipeline.graph.rewrites.lower_axes import input_of
from pipeline.graph.rewrites.lower_shapes import LARGEST_TABLE
from pipeline.graph.rewrites.resampling import Resampling
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context

_UNTABLED: Final = ("tf_crop_and_resize",)
UNKNOWN_SIZES: Final = "the sizes that it makes are not known"


@dataclass(frozen=True)
class _Plan:
    """A Resize whose sizes are known.

    Attributes:
        before, after: sizes.
        scales: as the node has them, or after over before.
        how: along every axis.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    scales: tuple[float, ...]
    how: Resampling


def _how(node: ir.Node, context: Context) -> Resampling:
    return Resampling(
        mode=context.attribute(node, "mode", "nearest"),
        coordinates=context.attribute(node, "coordinate_transformation_mode", "half_pixel"),
        nearest=context.attribute(node, "nearest_mode", "round_prefer_floor"),
        cubic=context.attribute(node, "cubic_coeff_a", -0.75),
        antialias=bool(context.attribute(node, "antialias", 0)),
        exclude_outside=bool(context.attribute(node, "exclude_outside", 0)),
    )


def _given(node: ir.Node, context: Context, index: int) -> np.ndarray | None:
    """Scales (2) or sizes (3) of every axis; None where they are left out, empty or computed."""
    found, rank = context.constant(input_of(node, index)), context.rank(node.inputs[0])
    if found is None or not found.size or rank is None:
        return None
    axes = context.attribute(node, "axes")
    if axes is None:
        return found
    shape = context.shape(node.inputs[0])
    full = np.ones(rank) if index == 2 else np.array([s if isinstance(s, int) else 0 for s in shape or ()])
    full[[axis % rank for axis in axes]] = found
    return full.astype(found.dtype)


def _is_left_out(node: ir.Node, context: Context, index: int) -> bool:
    """Whether an input is not there, or is there and empty."""
    value = input_of(node, index)
    known = context.constant(value)
    return value is None or (known is not None and not known.size) or context.static_shape(value) == (0,)


def _planned(node: ir.Node, context: Context) -> _Plan | None:
    before, after = context.static_shape(node.inputs[0]), context.static_shape(node.outputs[0])
    if before is None or context.attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    scales, sizes = _given(node, context, 2), _given(node, context, 3)
    if scales is None and not _is_left_out(node, context, 2):
        return None  # sizes do not say the scales: 5 by 1.5 is 7, and so is 5 by 1.4
    if scales is not None:
        sizes = np.floor(np.array(before) * scales.astype(np.float64))
    if sizes is None:
        if after is None:
            return None
        sizes = np.array(after)
    if scales is None:
        scales = sizes / np.maximum(np.array(before), 1)
    return _Plan(before, tuple(map(int, sizes)), tuple(map(float, scales)), _how(node, context))


def _untabled(node: ir.Node, context: Context) -> Declined | None:
    """Why no table can be made."""
    how = _how(node, context)
    if how.coordinates in _UNTABLED:
        return Declined(f"it crops (coordinate_transformation_mode {how.coordinates})")
    plan = _planned(node, context)
    if plan is None:
        return Declined(UNKNOWN_SIZES)
    dtype = context.dtype(node.inputs[0])
    if dtype is None:
        return Declined(UNKNOWN_TYPE)
    if how.mode != "nearest":
        if not dtype.is_floating_point():
            return Declined("it interpolates integers")
        pairs = zip(plan.before, plan.after, strict=True)
        if max((a * b for a, b in pairs if a != b), default=0) > LARGEST_TABLE:
            return Declined("its table would be too large")
    return None


def _tabled(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """One axis after the other."""
    plan, made, dtype = _planned(node, context), node.inputs[0], context.dtype(node.inputs[0])
    assert plan is not None
    assert made is not None
    assert dtype is not None
    rank = len(plan.before)
    for axis, (size, out, scale) in enumerate(zip(plan.before, plan.after, plan.scales, strict=True)):
        if plan.how.mode == "nearest":
            places = plan.how.positions(size, out, scale)
            if not np.array_equal(places, np.arange(size)):
                made = context.op("Gather", [made, context.tensor(places, "positions")], axis=axis)
            continue
        table = plan.how.weights(size, out, scale)
        if size != out or not np.allclose(table, np.eye(size)):
            made = _product(made, table.astype(dtype.numpy()), axis, rank, context)
    return [made] if made is not node.inputs[0] else [context.op("Identity", [made])]


def _product(x: ir.Value, table: np.ndarray, axis: int, rank: int, context: Context) -> ir.Value:
    """The product with a matrix [out, in] along an axis."""
    made: ir.Value
    if axis == rank - 1:
        made = context.op("MatMul", [x, context.tensor(np.ascontiguousarray(table.T), "resize_columns")])
        return made
    if axis == rank - 2:
        made = context.op("MatMul", [context.tensor(table, "resize_rows"), x])
        return made
    order = [index for index in range(rank) if index != axis] + [axis]
    turned = context.op("Transpose", [x], perm=order)
    made = context.op("MatMul", [turned, context.tensor(np.ascontiguousarray(table.T), "resize_columns")])
    made = context.op("Transpose", [made], perm=[order.index(index) for index in range(rank)])
    return made


def _check_symmetric(node: ir.Node, context: Context) -> Declined | None:
    newer = context.attribute(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel_symmetric"
    policy = context.attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
    if policy:
        return Declined("it keeps the aspect ratio (keep_aspect_ratio_policy)")
    return _untabled(node, context) if newer else NOT_NEEDED


def _check_antialias(node: ir.Node, context: Context) -> Declined | None:
    return _untabled(node, context) if context.attribute(node, "antialias", 0) else NOT_NEEDED


def _check_axes(node: ir.Node, context: Context) -> Declined | None:
    if "axes" not in node.attributes:
        return NOT_NEEDED
    if _given(node, context, 2) is None and _given(node, context, 3) is None:
        return Declined("the sizes of some axes are computed while it runs")
    if _given(node, context, 2) is None and context.static_shape(node.inputs[0]) is None:
        return Declined("the sizes of the other axes are not known")
    return None


def _axes(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    scales, sizes = _given(node, context, 2), _given(node, context, 3)
    inputs: list[ir.Value | None] = [node.inputs[0], None]
    if scales is not None:
        inputs.append(context.tensor(scales, "scales"))
    else:
        inputs += [None, context.tensor(sizes, "sizes")]
    return context.again(node, inputs, axes=None)


def _check_roi(node: ir.Node, context: Context) -> Declined | None:
    if context.attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return NOT_NEEDED
    return None if input_of(node, 1) is None or input_of(node, 2) is None else NOT_NEEDED


def _roi(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    """What may be left out later has to be there, and be empty."""
    empty = context.tensor(np.zeros(0, np.float32), "empty")
    inputs = [*node.inputs, None, None, None][:4]
    inputs = [inputs[0], inputs[1] or empty, inputs[2] or empty, inputs[3]]
    return context.again(node, inputs if inputs[3] is not None else inputs[:3])


def _old_scales(node: ir.Node, context: Context) -> np.ndarray | None:
    """Scales with which the Resize of opset 10 does the same, or None.

    It copies from x / scale rounded down, and interpolates between there and the next.
    """
    how = _how(node, context)
    plan, given = _planned(node, context), _given(node, context, 2)
    if how.mode not in ("nearest", "linear") or how.antialias:
        return None
    if plan is None:
        whole = given is not None and all(float(one).is_integer() and one >= 1 for one in given)
        if (
            whole
            and how.mode == "nearest"
            and (
                (how.coordinates == "asymmetric" and how.nearest == "floor")
                or (how.coordinates == "half_pixel" and how.nearest == "round_prefer_floor")
            )
        ):
            return given
        return given if whole and how.mode == "linear" and how.coordinates == "asymmetric" else None
    scales = _exact_scales(plan)
    if scales is None or any(one < 1 for one in scales):
        return None
    old = Resampling(how.mode, "asymmetric", "floor")
    for size, out, scale, older in zip(plan.before, plan.after, plan.scales, scales, strict=True):
        if how.mode == "nearest":
            same = np.array_equal(how.positions(size, out, scale), old.positions(size, out, float(older)))
        else:
            same = np.allclose(how.weights(size, out, scale), old.weights(size, out, float(older)), atol=1e-6)
        if not same:
            return None
    return scales


def _exact_scales(plan: _Plan) -> np.ndarray | None:
    """float32 scales whose products with the sizes, rounded down, are the wanted sizes.

    onnx multiplies in float64, ONNX Runtime in float32: both have to come out.
    """
    scales: np.ndarray = (np.array(plan.after) / np.maximum(np.array(plan.before), 1)).astype(np.float32)
    for index, (size, out) in enumerate(zip(plan.before, plan.after, strict=True)):
        if not _gives(scales[index], size, out):
            scales[index] = np.nextafter(scales[index], np.float32(np.inf))
        if not _gives(scales[index], size, out):
            return None
    return scales


def _gives(scale: np.float32, size: int, out: int) -> bool:
    return int(scale * np.float32(size)) == out and int(float(scale) * size) == out


def _check_scales(node: ir.Node, context: Context) -> Declined | None:
    return None if _old_scales(node, context) is not None else NOT_NEEDED


def _scales(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    scales = _old_scales(node, context)
    assert scales is not None
    return [
        context.op(
            "Resize",
            [node.inputs[0], context.tensor(scales.astype(np.float32), "scales")],
            mode=context.attribute(node, "mode", "nearest"),
        )
    ]


def _check_upsample(node: ir.Node, context: Context) -> Declined | None:
    scales = context.constant(node.inputs[1])
    if scales is None:
        return Declined("its scales are computed while it runs")
    if np.all(scales >= 1):
        return None
    return Declined("it makes an axis smaller")


def _upsample(node: ir.Node, context: Context) -> Sequence[ir.Value]:
    return [context.op("Upsample", list(node.inputs), mode=context.attribute(node, "mode", "nearest"))]


_TABLES: Final = ("Gather", "Identity", "MatMul", "Transpose")
RULES: Final = (
    Rule("resize_symmetric", "lower", ("Resize",), _TABLES, "float noise",
         "a Resize about the centre becomes a product with a table", _tabled, _check_symmetric,
         "the sizes", 19),
    Rule("resize_antialias", "lower", ("Resize",), _TABLES, "float noise",
         "an antialiased Resize becomes a product with a table", _tabled, _check_antialias,
         "the sizes", 18),
    Rule("resize_axes", "lower", ("Resize",), ("Resize",), "exact",
         "the scales of a Resize name every axis", _axes, _check_axes,
         "constant scales, or sizes that are all known", 18),
    Rule("resize_roi", "lower", ("Resize",), ("Resize",), "exact",
         "inputs of a Resize that are left out become empty", _roi, _check_roi, "", 13),
    Rule("resize_scales", "lower", ("Resize",), ("Resize",), "exact",
         "a Resize that copies from where opset 10 does gets scales alone", _scales, _check_scales,
         "scales of at least one from the corner", 11),
    Rule("resize_table", "lower", ("Resize",), _TABLES, "float noise",
         "a Resize of known sizes becomes a Gather or a product with a table", _tabled, _untabled,
         "the sizes", 11),
    Rule("upsample", "lower", ("Resize",), ("Upsample",), "exact", "Resize becomes Upsample", _upsample,
         _check_upsample, "constant scales of at least one", 10),
)  # fmt: skip
