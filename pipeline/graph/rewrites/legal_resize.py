"""Resize in the forms that restricted targets take: scales or sizes, few coordinate modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from pipeline.graph.rewrites import legal_forms as forms
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.graph.rewrites.context import Context

#: Opset since which Resize has a region, sizes and coordinate modes.
FULL_RESIZE: Final = 11
#: Inputs of the full form.
REGION, SCALES, SIZES = 1, 2, 3
#: Attributes that say how sizes are meant; what is written here has the sizes of every axis.
_OF_SIZES: Final = ("axes", "keep_aspect_ratio_policy")


def _text(node: ir.Node, context: Context, name: str, default: str) -> str:
    value = context.attribute(node, name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def _filled(context: Context, node: ir.Node, index: int) -> ir.Value | None:
    """An input that is there and holds something: exporters write empty tensors for what is left out."""
    value = forms.operand(node, index)
    return None if value is None or context.static_shape(value) == (0,) else value


def _both(node: ir.Node, context: Context) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    before, after = context.static_shape(node.inputs[0]), context.static_shape(node.outputs[0])
    return None if before is None or after is None else (before, after)


def _coordinates(node: ir.Node, context: Context) -> str:
    default = "half_pixel" if context.opset >= FULL_RESIZE else "asymmetric"
    return _text(node, context, "coordinate_transformation_mode", default)


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: one.value for name, one in node.attributes.items() if name not in _OF_SIZES}


def _region(node: ir.Node, context: Context) -> Declined | None:
    if _coordinates(node, context) == "tf_crop_and_resize":
        return Declined("it cuts a region out")
    return None


def _factors(before: tuple[int, ...], after: tuple[int, ...], *, exact: bool) -> NDArray[Any] | None:
    """Scales in float32 that lead from sizes to sizes; None: rounding leads elsewhere.

    A size is floor(size * scale), computed in float32. Where the scale takes no part in which pixel is
    nearest, it may be raised by one rounding to reach the size.
    """
    found = []
    for one, other in zip(before, after, strict=True):
        if one == 0:
            return None
        scale = np.float32(other) / np.float32(one)
        if not exact and int(np.float32(one) * scale) < other:
            scale = np.nextafter(scale, np.float32(np.inf))
        if int(np.float32(one) * scale) != other:
            return None
        found.append(scale)
    return np.array(found, np.float32)


def _to_scales_check(node: ir.Node, context: Context) -> Declined | None:
    if context.opset < FULL_RESIZE or _filled(context, node, SIZES) is None:
        return NOT_NEEDED
    both = _both(node, context)
    if both is None:
        return forms.NO_SIZES
    if (declined := _region(node, context)) is not None:
        return declined
    if _text(node, context, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return Declined("it keeps the ratio of its sides")
    if _factors(*both, exact=_text(node, context, "mode", "nearest") == "nearest") is None:
        return Declined("no float32 scale leads to its sizes")
    return None


def _to_scales(node: ir.Node, context: Context) -> list[ir.Value]:
    both = _both(node, context)
    assert both is not None
    factors = _factors(*both, exact=_text(node, context, "mode", "nearest") == "nearest")
    inputs = [node.inputs[0], forms.operand(node, REGION), context.tensor(factors, "scales")]
    return [context.op("Resize", inputs, **_attributes(node))]


def _to_sizes_check(node: ir.Node, context: Context) -> Declined | None:
    if context.opset < FULL_RESIZE or _filled(context, node, SIZES) is not None:
        return NOT_NEEDED
    both, scales = _both(node, context), context.constant(forms.operand(node, SCALES))
    if both is None or scales is None:
        return forms.NO_SIZES
    if (declined := _region(node, context)) is not None:
        return declined
    if context.attribute(node, "axes") is not None or len(scales) != len(both[0]):
        return Declined("it names axes")
    implied = [np.float32(other) / np.float32(one) for one, other in zip(*both, strict=True)]
    if not np.array_equal(np.array(implied, np.float32), scales):
        return Declined("its scales are not those that its sizes give")
    return None


def _to_sizes(node: ir.Node, context: Context) -> list[ir.Value]:
    both = _both(node, context)
    assert both is not None
    sizes = forms.integers(context, both[1], "sizes")
    inputs = [node.inputs[0], forms.operand(node, REGION), _nothing(context), sizes]
    return [context.op("Resize", inputs, **_attributes(node))]


def _nothing(context: Context) -> ir.Value | None:
    """What stands for scales beside sizes: opset 11 wants an empty tensor there."""
    return None if context.opset > 12 else context.tensor(np.zeros(0, np.float32), "no_scales")


def _half_pixel_check(node: ir.Node, context: Context) -> Declined | None:
    if context.opset < FULL_RESIZE or _coordinates(node, context) != "pytorch_half_pixel":
        return NOT_NEEDED
    both = _both(node, context)
    if both is None:
        return forms.NO_SIZES
    if any(after == 1 and before != 1 for before, after in zip(*both, strict=True)):
        return Declined("an axis shrinks to one place, where the two modes differ")
    return None


def _with_attributes(node: ir.Node, context: Context, **changed: Any) -> list[ir.Value]:
    attributes = {name: one.value for name, one in node.attributes.items()} | changed
    return [context.op("Resize", list(node.inputs), **attributes)]


def _half_pixel(node: ir.Node, context: Context) -> list[ir.Value]:
    return _with_attributes(node, context, coordinate_transformation_mode="half_pixel")


def _nearest_check(node: ir.Node, context: Context) -> Declined | None:
    if context.opset < FULL_RESIZE or _text(node, context, "mode", "nearest") != "nearest":
        return NOT_NEEDED
    coordinates, rounding = (
        _coordinates(node, context),
        _text(node, context, "nearest_mode", "round_prefer_floor"),
    )
    if coordinates == "asymmetric":
        return NOT_NEEDED
    both = _both(node, context)
    if both is None:
        return forms.NO_SIZES
    if coordinates not in ("half_pixel", "pytorch_half_pixel") or not rounding.startswith("round_"):
        return Declined(f"it takes places by {coordinates} and {rounding}")
    if any(before == 0 or after % before or after == 0 for before, after in zip(*both, strict=True)):
        return Declined("it does not enlarge by whole numbers")
    return None


def _nearest(node: ir.Node, context: Context) -> list[ir.Value]:
    return _with_attributes(node, context, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _same_check(node: ir.Node, context: Context) -> Declined | None:
    both = _both(node, context)
    if both is None or both[0] != both[1]:
        return NOT_NEEDED
    if context.opset >= FULL_RESIZE and (declined := _region(node, context)) is not None:
        return declined
    index = SCALES if context.opset >= FULL_RESIZE else 1
    scales = _filled(context, node, index)
    if scales is not None and forms.uniform(context, scales) != 1:
        return Declined("its scales round to the same sizes, and move what it takes")
    return None


def _same(node: ir.Node, context: Context) -> list[ir.Value]:
    return [context.op("Identity", [node.inputs[0]])]


RULES: Final = (
    Rule("resize_to_same_size", "legalise", ("Resize", "Upsample"), ("Identity",), "exact",
         "a Resize to the sizes that are there is left out", _same, _same_check, "static sizes"),
    Rule("resize_pytorch_half_pixel", "legalise", ("Resize",), ("Resize",), "exact",
         "the coordinate mode pytorch_half_pixel becomes half_pixel", _half_pixel, _half_pixel_check,
         "no axis that shrinks to one place"),
    Rule("resize_nearest_asymmetric", "legalise", ("Resize",), ("Resize",), "exact",
         "nearest by whole factors takes places by asymmetric and floor", _nearest, _nearest_check,
         "whole factors, rounding to the nearest"),
    Rule("resize_sizes_to_scales", "legalise", ("Resize",), ("Resize",), "float noise",
         "Resize to sizes becomes Resize by scales", _to_scales, _to_scales_check,
         "static sizes that float32 scales lead to"),
    Rule("resize_scales_to_sizes", "legalise", ("Resize",), ("Resize",), "exact",
         "Resize by scales becomes Resize to sizes", _to_sizes, _to_sizes_check,
         "static sizes that have the scales"),
)  # fmt: skip
