"""Values of a graph that are known without running it: constants, sizes, and arithmetic on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

#: Results of folding are sizes, axes and indices; what is larger is data.
LARGEST_FOLDED: Final = 64 * 1024
#: A chain of arithmetic on sizes longer than this is no arithmetic on sizes.
DEEPEST: Final = 64


class Constants:
    """Looks up and folds; remembers what it folded until `forget`."""

    def __init__(self, held: Callable[[str], NDArray[Any] | None]) -> None:
        self._held = held
        self._folded: dict[ir.Value, NDArray[Any] | None] = {}

    def forget(self) -> None:
        """The graph changed."""
        self._folded.clear()

    def of(self, value: ir.Value | None, *, held: bool = False) -> NDArray[Any] | None:
        """The value, or None when it is not known.

        Args:
            value: of the graph.
            held: whether the bytes of a tensor that is held aside may be read.
        """
        if value is None:
            return None
        if held and value.producer() is None and value.name is not None:
            found = self._held(value.name)
            if found is not None:
                return found
        return self._known(value, 0)

    def _known(self, value: ir.Value, depth: int) -> NDArray[Any] | None:
        node = value.producer()
        if node is None:
            if value.const_value is None or not value.is_initializer():
                return None
            array: NDArray[Any] = value.const_value.numpy()
            return array
        if value not in self._folded:
            self._folded[value] = self._fold(node, depth) if depth < DEEPEST else None
        return self._folded[value]

    def _fold(self, node: ir.Node, depth: int) -> NDArray[Any] | None:
        if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
            return None
        if node.op_type == "Constant":
            return _constant(node)
        if node.op_type == "Shape":
            return _sizes(node)
        fold = _FOLDS.get(node.op_type)
        if fold is None:
            return None
        inputs = [None if value is None else self._known(value, depth + 1) for value in node.inputs]
        if any(found is None for value, found in zip(node.inputs, inputs, strict=True) if value is not None):
            return None
        try:
            found = fold(inputs, {name: attribute.value for name, attribute in node.attributes.items()})
        except (ValueError, IndexError, TypeError, AttributeError):
            return None
        return None if found is None or found.nbytes > LARGEST_FOLDED else np.asarray(found)


def _constant(node: ir.Node) -> NDArray[Any] | None:
    for name, attribute in node.attributes.items():
        if name == "value":
            array: NDArray[Any] = attribute.as_tensor().numpy()
            return array
        if name in ("value_int", "value_ints"):
            return np.asarray(attribute.value, np.int64)
        if name in ("value_float", "value_floats"):
            return np.asarray(attribute.value, np.float32)
    return None


def _sizes(node: ir.Node) -> NDArray[Any] | None:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else len(shape)
    return np.asarray(list(shape)[start:end], np.int64)


def _slice(inputs: list[Any], attributes: dict[str, Any]) -> Any:
    if len(inputs) < 3:
        return None
    data, starts, ends = inputs[:3]
    axes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else range(len(starts))
    steps = inputs[4] if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # A step backwards past the first element is written as the smallest integer.
        stop = None if step < 0 and end < -data.shape[axis] else int(end)
        index[axis] = slice(int(start), stop, int(step))
    return data[tuple(index)]


def _axes(inputs: list[Any], attributes: dict[str, Any]) -> tuple[int, ...] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(int(axis) for axis in inputs[1])
    return tuple(attributes["axes"]) if "axes" in attributes else None


def _reshape(inputs: list[Any], attributes: dict[str, Any]) -> Any:
    data, shape = inputs
    sizes = [data.shape[i] if size == 0 and not attributes.get("allowzero", 0) else int(size)
             for i, size in enumerate(shape)]  # fmt: skip
    return data.reshape(sizes)


def _cast(inputs: list[Any], attributes: dict[str, Any]) -> Any:
    import onnx_ir as ir

    return inputs[0].astype(ir.DataType(attributes["to"]).numpy())


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[list[Any], dict[str, Any]], Any]:
    return lambda inputs, attributes: function(inputs[0], inputs[1])


def _each(function: Callable[[Any, Any], Any]) -> Callable[[list[Any], dict[str, Any]], Any]:
    return lambda inputs, attributes: reduce(function, inputs)


def _divide(one: Any, other: Any) -> Any:
    if one.dtype.kind in "iu":
        if not np.all(other):
            return None
        quotient = np.abs(one) // np.abs(other)  # towards zero, as ONNX divides integers
        return (np.sign(one) * np.sign(other) * quotient).astype(one.dtype)
    return one / other


def _constant_of_shape(inputs: list[Any], attributes: dict[str, Any]) -> Any:
    fill = attributes["value"].numpy().reshape(()) if "value" in attributes else np.float32(0)
    return np.full([int(size) for size in inputs[0]], fill)


_FOLDS: Final[dict[str, Callable[[list[Any], dict[str, Any]], Any]]] = {
    "Identity": lambda inputs, attributes: inputs[0],
    "Cast": _cast,
    "Gather": lambda inputs, attributes: np.take(inputs[0], inputs[1], axis=attributes.get("axis", 0)),
    "Concat": lambda inputs, attributes: np.concatenate(inputs, axis=attributes["axis"]),
    "Slice": _slice,
    "Reshape": _reshape,
    "Squeeze": lambda inputs, attributes: np.squeeze(inputs[0], axis=_axes(inputs, attributes)),
    "Unsqueeze": lambda inputs, attributes: np.expand_dims(inputs[0], _axes(inputs, attributes) or ()),
    "Transpose": lambda inputs, attributes: np.transpose(inputs[0], attributes.get("perm")),
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _binary(_divide),
    "Equal": _binary(np.equal),
    "Less": _binary(np.less),
    "Greater": _binary(np.greater),
    "GreaterOrEqual": _binary(np.greater_equal),
    "LessOrEqual": _binary(np.less_equal),
    "And": _binary(np.logical_and),
    "Or": _binary(np.logical_or),
    "Not": lambda inputs, attributes: np.logical_not(inputs[0]),
    "Max": _each(np.maximum),
    "Min": _each(np.minimum),
    "Abs": lambda inputs, attributes: np.abs(inputs[0]),
    "Where": lambda inputs, attributes: np.where(*inputs),
    "Neg": lambda inputs, attributes: -inputs[0],
    "Range": lambda inputs, attributes: np.arange(*(item.reshape(()) for item in inputs)),
    "ConstantOfShape": _constant_of_shape,
    "Expand": lambda inputs, attributes: inputs[0] * np.ones(inputs[1], inputs[0].dtype),
}
