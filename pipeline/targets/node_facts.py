"""The values of the names of `vocabulary` for one node of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, Final

from pipeline.targets import shape_rules
from pipeline.targets.node_values import FUNCTIONS_OF, VARIABLES_OF
from pipeline.targets.predicates import Fact, Unclear

if TYPE_CHECKING:
    import onnx

    from pipeline.targets.graph_facts import Scope, Shape

#: Elements of a constant that are looked at; longer ones are weights.
MOST_ELEMENTS: Final = 4096
#: Resize states how it samples from this opset on; what it did before.
RESIZE_ATTRIBUTES_SINCE: Final = 11
_RESIZE_BEFORE: Final = {
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
    "antialias": 0,
}
#: Operators whose axes came as an input from some opset on, and which input.
AXES_INPUT: Final = {"Pad": 3, "Slice": 3, "Resize": 99, "CenterCropPad": 2}


class NodeFacts:
    """One node. Implements `pipeline.targets.predicates.Facts`.

    Args:
        node: the node.
        scope: the graph that it stands in.
        opsets: domain to version.
        name: unique in the model.
        requested: whether the request asks for the accelerator by name.
    """

    node: onnx.NodeProto
    scope: Scope
    opsets: Mapping[str, int]
    name: str
    domain: str
    inputs: list[str]
    outputs: list[str]
    requested: bool

    def __init__(self, node: onnx.NodeProto, scope: Scope, opsets: Mapping[str, int], name: str) -> None:
        self.node, self.scope, self.opsets, self.name = node, scope, opsets, name
        self.requested = False
        self.domain = "" if node.domain == "ai.onnx" else node.domain
        self.inputs = [one for one in node.input if one]
        self.outputs = [one for one in node.output if one]
        self._stated: dict[str, Any] | None = None
        self._values: dict[str, Fact] = {}

    # -- Facts

    def variable(self, name: str) -> Fact:
        """See `Facts`."""
        if name not in self._values:
            made = VARIABLES_OF.get(name)
            self._values[name] = made(self) if made else self.attribute(name)
        return self._values[name]

    def function(self, name: str, arguments: tuple[Fact, ...]) -> Fact:
        """See `Facts`."""
        return FUNCTIONS_OF[name](self, *arguments)

    def shown(self, name: str, text: str, value: Fact) -> tuple[str, Fact]:
        """See `Facts`: shapes instead of whether they fit, neighbours instead of whether there is one."""
        if name in shape_rules.BROADCASTING or name in ("forms", "ordered_forms"):
            return "shapes", tuple(self.scope.shapes.get(one) for one in self.inputs)
        if name == "produced_by":
            makers = (self.scope.producers.get(one) for one in self.inputs if not self.is_constant(one))
            return "produced by", tuple(one.op_type if one is not None else "an input" for one in makers)
        if name == "feeds":
            takers = [one.op_type for output in self.outputs for one in self.scope.consumers.get(output, ())]
            return "feeds", tuple(dict.fromkeys(takers))
        return text, value

    # -- pieces

    def attribute(self, name: str) -> Fact:
        """What the node states, else the operator's default in this opset, else None."""
        stated = self.stated()
        if name in stated:
            return stated[name]
        opset = self.opsets.get(self.domain, 1)
        known = defaults(self.node.op_type, self.domain, opset)
        if name in known:
            return known[name]
        # A later version's default is what earlier ones did without the attribute, but for Resize.
        if self.node.op_type == "Resize" and opset < RESIZE_ATTRIBUTES_SINCE:
            return _RESIZE_BEFORE.get(name)
        return defaults(self.node.op_type, self.domain, None).get(name)

    def stated(self) -> dict[str, Any]:
        """Attributes as they stand at the node."""
        if self._stated is None:
            self._stated = {one.name: attribute_value(one) for one in self.node.attribute}
        return self._stated

    def shape_of(self, name: str) -> Shape | Unclear:
        """Of a value, when its rank is known."""
        shape = self.scope.shapes.get(name)
        return Unclear(f"the shape of {name} is not known") if shape is None else shape

    def input_name(self, index: int) -> str | None:
        names = self.node.input
        return names[index] or None if 0 <= index < len(names) else None

    def dims(self, name: str | None, what: str = "the input") -> tuple[int, ...] | Unclear:
        """Sizes of a value; unclear where an axis has none."""
        if name is None:
            return Unclear(f"{what} is not given")
        shape = self.shape_of(name)
        if isinstance(shape, Unclear):
            return shape
        if None in shape:
            return Unclear(f"{name} has a dynamic axis")
        return shape  # type: ignore[return-value]

    def first(self) -> str | None:
        return self.inputs[0] if self.inputs else None

    def output(self) -> str | None:
        return self.outputs[0] if self.outputs else None

    def is_constant(self, name: str) -> bool:
        return name in self.scope.constants

    def constant(self, name: str | None) -> Fact:
        """The elements of a constant; unclear when it is none, too long or not at hand."""
        if name is None:
            return None
        if not self.is_constant(name):
            return Unclear(f"{name} is no constant")
        tensor = self.scope.constants[name]
        shape = self.scope.shapes.get(name)
        sizes = [size for size in shape or () if size is not None]
        if tensor is None or prod(sizes) > MOST_ELEMENTS:
            return Unclear(f"the elements of {name} are not at hand")
        return tensor_elements(tensor)

    def rank(self) -> Fact:
        name = self.first() or self.output()
        if name is None:
            return Unclear("the node has neither input nor output")
        shape = self.shape_of(name)
        return shape if isinstance(shape, Unclear) else len(shape)

    def axis(self, value: Fact) -> Fact:
        """An axis counted from 0."""
        rank = self.rank()
        if isinstance(rank, Unclear) and isinstance(value, int) and value >= 0:
            return value
        if isinstance(rank, Unclear) or not isinstance(value, int):
            return rank if isinstance(rank, Unclear) else value
        return value + rank if value < 0 else value

    def axes_input(self) -> int:
        """Which input states the axes, in opsets where one does."""
        return AXES_INPUT.get(self.node.op_type, 1)

    def axes(self) -> Fact:
        """Axes as attribute or input, counted from 0 and sorted; all of them where none are stated."""
        stated = self.stated().get("axes")
        if stated is None:
            stated = self.constant(self.input_name(self.axes_input()))
        if isinstance(stated, Unclear):
            return stated
        rank = self.rank()
        if stated is None or stated == ():
            return rank if isinstance(rank, Unclear) else tuple(range(rank))
        listed = stated if isinstance(stated, tuple) else (stated,)
        found = tuple(self.axis(one) for one in listed)
        unclear = next((one for one in found if isinstance(one, Unclear)), None)
        return unclear or tuple(sorted(found))


def attribute_value(attribute: onnx.AttributeProto) -> Fact:
    """An attribute as a fact: number, text, tuple; True for graphs and tensors."""
    import onnx

    kinds = onnx.AttributeProto
    if attribute.type == kinds.INT:
        return attribute.i
    if attribute.type == kinds.FLOAT:
        return attribute.f
    if attribute.type == kinds.STRING:
        return attribute.s.decode("utf-8", "replace")
    if attribute.type == kinds.INTS:
        return tuple(attribute.ints)
    if attribute.type == kinds.FLOATS:
        return tuple(attribute.floats)
    if attribute.type == kinds.STRINGS:
        return tuple(one.decode("utf-8", "replace") for one in attribute.strings)
    return True


@cache
def defaults(operator: str, domain: str, opset: int | None) -> dict[str, Fact]:
    """Default values of an operator's attributes in an opset; None: in the newest that onnx knows.

    Empty where onnx does not know the operator.
    """
    import onnx.defs

    try:
        known = onnx.defs.get_schema
        schema = known(operator, domain) if opset is None else known(operator, opset, domain)
    except Exception:  # noqa: BLE001 - onnx raises a type of its C++ part
        return {}
    return {
        name: attribute_value(one.default_value)
        for name, one in schema.attributes.items()
        if one.default_value.type
    }


def tensor_elements(tensor: onnx.TensorProto) -> Fact:
    """The elements of a small tensor: a number when there is one, else a tuple."""
    from onnx import external_data_helper, numpy_helper

    if external_data_helper.uses_external_data(tensor):
        return Unclear(f"the elements of {tensor.name} are not at hand")
    try:
        found = numpy_helper.to_array(tensor)
    except Exception as error:  # noqa: BLE001 - damaged data, or a type without a counterpart in numpy
        return Unclear(f"the elements of {tensor.name} cannot be read: {error}")
    if found.dtype.kind not in "iufb":
        return Unclear(f"the elements of {tensor.name} are no numbers")
    items = found.reshape(-1).tolist()
    return items[0] if len(items) == 1 else tuple(items)
