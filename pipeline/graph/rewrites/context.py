"""What a rule may know of the graph, and how it makes nodes and tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnx.checker
import onnx.defs
import onnx.shape_inference
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.errors import InternalError
from pipeline.graph.bare import HeldTensor, stays_in_proto
from pipeline.graph.dtypes import NUMBERS, element_type
from pipeline.graph.rewrites.constants import Constants

if TYPE_CHECKING:
    from pipeline.graph.rewrites.rule import Rule

STANDARD_DOMAINS: Final = ("", "ai.onnx")
#: Integer constants up to this size take part in inferring types: shapes and axes.
_INFERRED_FROM: Final = 4096


@dataclass(frozen=True)
class Made:
    """A tensor that a rule made.

    Attributes:
        step: what stands in the records as its maker.
        tensor: when it is held aside; None: it stands in the proto.
    """

    step: str
    tensor: HeldTensor | None = None


class Context:
    """The graph as a rule sees it.

    Attributes:
        graph: the main graph.
        opset: of ai.onnx, in which `op` makes nodes.
        held: tensors that are held aside, by name; those that rules made too.
        fixed: those of them that must stay what they are, inputs of the file or named by the user: to a
            rule they are values like any other, and none is computed from them.
    """

    def __init__(
        self, graph: ir.Graph, opset: int, held: Mapping[str, HeldTensor], fixed: Collection[str] = ()
    ) -> None:
        self.graph = graph
        self.fixed = frozenset(fixed)
        self.opset = opset
        self.held: dict[str, HeldTensor] = dict(held)
        self.made: dict[str, Made] = {}
        self.new: list[ir.Node] = []
        self._constants = Constants(self._held_array)
        self._names = _all_names(graph)
        self._node: ir.Node | None = None
        self._rule: Rule | None = None
        self._same: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    # What is known -------------------------------------------------------------------------------

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        """The element type, or None when it is not known."""
        return None if value is None else value.dtype

    def rank(self, value: ir.Value | None) -> int | None:
        """The number of dimensions, or None when it is not known."""
        return None if value is None or value.shape is None else len(value.shape)

    def shape(self, value: ir.Value | None) -> tuple[int | str | None, ...] | None:
        """Sizes: a number, a symbol's name, or None for a size that is not known; None without a rank."""
        if value is None or value.shape is None:
            return None
        return tuple(size if isinstance(size, int) else size.value for size in value.shape)

    def static_shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Sizes that are all numbers, or None."""
        shape = self.shape(value)
        if shape is None:
            return None
        sizes = tuple(size for size in shape if isinstance(size, int))
        return sizes if len(sizes) == len(shape) else None

    def constant(self, value: ir.Value | None, *, held: bool = False) -> NDArray[Any] | None:
        """The value where it is known without running the graph: a constant, or sizes and arithmetic on them.

        Args:
            value: None gives None.
            held: whether the bytes of a tensor that is held aside may be read; without it such a
                tensor is not known.
        """
        return self._constants.of(value, held=held)

    def integers(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """A known tensor of integers as numbers: axes, sizes, starts."""
        found = self.constant(value)
        return None if found is None else tuple(int(one) for one in np.asarray(found).reshape(-1))

    def is_weight(self, value: ir.Value | None) -> bool:
        """Whether it is a constant of the file: an initializer, a Constant or a tensor held aside."""
        if value is None or value.name in self.fixed:
            return False
        return value.name in self.held or self.constant(value) is not None

    def attribute(self, node: ir.Node, name: str, default: Any = None) -> Any:
        """An attribute's value as Python or onnx-ir has it."""
        found = node.attributes.get(name)
        return default if found is None else found.value

    # What is made --------------------------------------------------------------------------------

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        """A new node before the one that is being replaced; its types are inferred.

        Args:
            op_type: of the operator.
            inputs: None for an optional input that is left out.
            outputs: how many.
            domain: "" for ai.onnx.
            attributes: Python numbers, strings, lists and arrays; those that are None are left out.

        Returns:
            The output, or a tuple of them when there are several.
        """
        assert self._node is not None
        assert self._node.graph is not None
        base = self._node.outputs[0].name or self._node.name or "value"
        given = {key: _attribute_value(value) for key, value in attributes.items() if value is not None}
        node = ir.Node(
            domain,
            op_type,
            list(inputs),
            ir.convenience.convert_attributes(given),
            num_outputs=outputs,
            name=self.unique(f"{self._node.name or base}_{op_type}"),
        )
        for index, value in enumerate(node.outputs):
            value.name = self.unique(f"{base}_{op_type}" + (f"_{index}" if outputs > 1 else ""))
        self._node.graph.insert_before(self._node, node)
        self.new.append(node)
        self._infer(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def again(
        self,
        node: ir.Node,
        inputs: Sequence[ir.Value | None] | None = None,
        *,
        outputs: int | None = None,
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """The same operator once more, with other inputs or attributes; those that are None are left out.

        Returns:
            All its outputs.
        """
        kept = {name: one for name, one in node.attributes.items() if name not in attributes}
        made = self.op(
            node.op_type,
            list(node.inputs) if inputs is None else inputs,
            outputs=len(node.outputs) if outputs is None else outputs,
            domain=node.domain,
            **{**kept, **attributes},
        )
        return made if isinstance(made, tuple) else (made,)

    def tensor(self, array: Any, hint: str = "constant") -> ir.Value:
        """A new constant; equal ones are one. Small ones stand in the proto, large ones are held aside."""
        array = np.asarray(array, order="C")  # ascontiguousarray would make a vector of a scalar
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._same or self._same[key].name not in self._names:
            number = NUMBERS[array.dtype.name]
            self._same[key] = self._constant(number, array.shape, array, hint)
        return self._same[key]

    def derived(
        self,
        sources: Sequence[ir.Value],
        compute: Callable[..., NDArray[Any]],
        dtype: ir.DataType,
        shape: Sequence[int],
        hint: str,
    ) -> ir.Value:
        """A new weight computed from other weights; nothing is read before the file is written.

        Args:
            sources: tensors held aside or known constants.
            compute: gets one array a source, and gives the new one.
            dtype: of the new weight.
            shape: of the new weight.
            hint: what its name begins with, usually the first source's name.
        """
        parts = tuple(
            self.held[value.name] if value.name in self.held else self.constant(value) for value in sources
        )
        if any(part is None for part in parts):
            raise InternalError(f"{hint}: a weight can be derived from constants alone")
        lazy = _Derived(parts, compute, int(dtype), tuple(shape))
        if stays_in_proto(int(dtype), tuple(shape)):
            return self._constant(int(dtype), tuple(shape), lazy.array(), hint)
        name = self.unique(hint)
        held = HeldTensor(name, int(dtype), tuple(shape), lazy, None, self._step())
        self.held[name] = held
        self.made[name] = Made(self._step(), held)
        return self._typed_input(name, int(dtype), tuple(shape))

    def unique(self, hint: str) -> str:
        """A name that no value and no node of any scope bears."""
        name, number = hint, 0
        while name in self._names:
            number += 1
            name = f"{hint}_{number}"
        self._names.add(name)
        return name

    # For the engine ------------------------------------------------------------------------------

    def begin(self, rule: Rule, node: ir.Node | None) -> None:
        """From here on nodes are made for `rule` in place of `node`, or anywhere."""
        self._rule, self._node, self.new = rule, node, []

    def place(self, node: ir.Node) -> None:
        """New nodes stand before `node` from here on."""
        self._node = node

    def note(self, name: str) -> None:
        """Say that the rule made the constant `name` anew."""
        self.made[name] = Made(self._step())

    def changed(self) -> None:
        """The graph changed: what was folded is looked up anew."""
        self._constants.forget()

    def _step(self) -> str:
        assert self._rule is not None
        return step_name(self._rule.name)

    def _held_array(self, name: str) -> NDArray[Any] | None:
        tensor = self.held.get(name)
        return None if tensor is None or name in self.fixed else held_array(tensor)

    def _constant(self, number: int, shape: tuple[int, ...], array: NDArray[Any], hint: str) -> ir.Value:
        name = self.unique(hint)
        if stays_in_proto(number, shape):
            value = ir.Value(
                name=name,
                shape=ir.Shape(shape),
                type=ir.TensorType(ir.DataType(number)),
                const_value=ir.Tensor(array, dtype=ir.DataType(number), name=name),
            )
            self.graph.register_initializer(value)
            self.made[name] = Made(self._step())
            return value
        held = HeldTensor(name, number, shape, _Bytes(array), None, self._step())
        self.held[name] = held
        self.made[name] = Made(self._step(), held)
        return self._typed_input(name, number, shape)

    def _typed_input(self, name: str, number: int, shape: tuple[int, ...]) -> ir.Value:
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType(number)))
        self.graph.inputs.append(value)
        return value

    def _infer(self, node: ir.Node) -> None:
        """Give the outputs of a new node their types."""
        if node.domain not in STANDARD_DOMAINS:
            return
        schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        types, data = {}, {}
        for value in node.inputs:
            if value is None or value.name is None:
                continue
            if value.type is None:  # it comes from an operator of another domain
                return
            types[value.name] = ir.serde.serialize_value(value).type
            if value.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.FLOAT):
                known = self.constant(value)
                if known is not None and known.nbytes <= _INFERRED_FROM:
                    data[value.name] = onnx.numpy_helper.from_array(np.asarray(known), value.name)
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, ir.serde.serialize_node(node), types, data,
                opset_imports=[onnx.OperatorSetIdProto(domain="", version=self.opset)],
            )  # fmt: skip
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            rule = self._rule.name if self._rule is not None else "?"
            raise InternalError(f"rule {rule} made a {node.op_type} that is wrong: {error}") from error
        for value in node.outputs:
            if value.name in found:
                proto = onnx.ValueInfoProto(name=value.name, type=found[value.name])
                typed = ir.serde.deserialize_value_info_proto(proto, None)
                value.type, value.shape = typed.type, typed.shape


def step_name(rule: str) -> str:
    """How a rule stands in the records (made_by, derived_by)."""
    return f"rule {rule}"


def held_array(tensor: HeldTensor) -> NDArray[Any]:
    """A held tensor's bytes as an array; types that numpy lacks come as ml_dtypes'."""
    raw = np.frombuffer(memoryview(tensor.data()).cast("B"), np.uint8)
    kind = element_type(tensor.dtype)
    if kind.bits < 8:
        raise InternalError(f"{tensor.name} has elements of {kind.bits} bits")
    array: NDArray[Any] = raw.view(ir.DataType(tensor.dtype).numpy()).reshape(tensor.shape)
    return array


@dataclass(frozen=True)
class _Bytes:
    array: NDArray[Any]

    def __call__(self) -> Any:
        return np.ascontiguousarray(self.array).reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class _Derived:
    """A weight that is computed when its bytes are needed."""

    sources: tuple[Any, ...]
    compute: Callable[..., NDArray[Any]]
    dtype: int
    shape: tuple[int, ...]

    def array(self) -> NDArray[Any]:
        found = self.compute(
            *(held_array(one) if isinstance(one, HeldTensor) else one for one in self.sources)
        )
        wanted = ir.DataType(self.dtype).numpy()
        if tuple(found.shape) != self.shape or found.dtype != wanted:
            raise InternalError(f"a derived weight is {found.dtype}{found.shape}, not {wanted}{self.shape}")
        return found

    def __call__(self) -> Any:
        return np.ascontiguousarray(self.array()).reshape(-1).view(np.uint8)


def _attribute_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ir.tensor(value)
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        return value.item()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, tuple):
        return list(value)
    return value


def _all_names(graph: ir.Graph) -> set[str]:
    names: set[str] = set()
    for inner in (graph, *graph.subgraphs()):
        names.update(value.name for value in (*inner.inputs, *inner.initializers.values()) if value.name)
        for node in inner:
            names.update(name for name in (node.name, *(value.name for value in node.outputs)) if name)
    return names
