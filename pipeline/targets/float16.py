"""A float32 graph in float16: its weights and values are halved, its inputs and outputs stay as they are.

Every float32 value has up to two forms, float32 and float16; a Cast makes the one that is missing,
directly after the value comes into being. Which form a node takes follows from the node: float16
everywhere, but for operators without a float16 definition or kernel, and for inputs that the ONNX
specification fixes to float32. Weights are converted when the file is written, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

#: Operators that stay in float32: no float16 in their ONNX definition at some opset, no kernel in
#: ONNX Runtime's CPU provider, or values that float16 cannot hold (indices, sums over many elements).
#: After onnxruntime.transformers.float16.DEFAULT_OP_BLOCK_LIST of ONNX Runtime 1.32.
FLOAT32_OPERATORS: Final = frozenset({
    "Bernoulli", "CumSum", "DequantizeLinear", "DynamicQuantizeLinear", "EyeLike", "GridSample", "IsInf",
    "Max", "Min", "Multinomial", "NonMaxSuppression", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "RoiAlign", "TopK",
    "Upsample",
})  # fmt: skip
#: Inputs that the specification fixes to float32: operator to positions.
FLOAT32_INPUTS: Final = {"Resize": (1, 2)}
#: Outputs whose type another attribute fixes to float32 (`stash_type`).
FLOAT32_OUTPUTS: Final = {"LayerNormalization": (1, 2)}
#: Operators whose output is float32 by an attribute that is changed here, without a float32 input.
CHANGED_BY_ATTRIBUTE: Final = frozenset({"Cast", "ConstantOfShape"})
#: The largest finite float16, and the smallest positive one.
LARGEST: Final = 65504.0
SMALLEST: Final = 2.0**-24


class Float16Error(Exception):
    """The graph cannot be halved; `node` and `operator` say where."""

    def __init__(self, sentence: str, *, node: str | None = None, operator: str | None = None) -> None:
        super().__init__(sentence)
        self.node, self.operator = node, operator


@dataclass(frozen=True)
class Halved:
    """What was done.

    Attributes:
        nodes: nodes that take or give float16 now.
        kept: nodes that stay in float32.
        casts: Casts that were put in.
        weights: initializers that were converted.
        clamped: elements of weights beyond the range of float16, which became its largest number.
        vanished: elements of weights that were not zero and are too small for float16.
    """

    nodes: int
    kept: int
    casts: int
    weights: int
    clamped: int
    vanished: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def to_float16(source: Path, target: Path) -> Halved:
    """Write the model at `source` in float16 to `target`.

    Raises:
        Float16Error: a node holds a graph of its own (If, Loop), the model has local functions, or the
            element type of a value cannot be inferred.
        ValueError: the file passes 2 GiB even so.
    """
    import onnx_ir as ir
    import onnx_ir.passes.common as passes

    model = ir.load(source)
    if model.functions:
        name = next(iter(model.functions.values())).name
        raise Float16Error(f"the model holds the local function {name}: float16 does not go into functions")
    if any(value.type is None for node in model.graph for value in node.outputs if value.name):
        model = passes.ShapeInferencePass()(model).model
    unknown = [node for node in model.graph if any(one.type is None for one in node.outputs if one.name)]
    if unknown:
        raise Float16Error(
            f"the element type of what {unknown[0].op_type} {unknown[0].name} gives is not known",
            node=unknown[0].name, operator=unknown[0].op_type,
        )  # fmt: skip
    for node in model.graph:
        if "Sequence" in node.op_type or "Optional" in node.op_type:
            raise Float16Error(
                f"float16 does not go into the lists of {node.op_type} {node.name}",
                node=node.name, operator=node.op_type,
            )  # fmt: skip
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    halving = _Halving(model.graph)
    halving.convert()
    ir.save(model, target)
    return halving.done()


class _Halving:
    """The conversion of one graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.forms: dict[tuple[int, bool], ir.Value] = {}  # (value, in float16?) -> value
        self.names = {value.name for node in graph for value in node.outputs}
        self.names |= {value.name for value in graph.inputs} | set(graph.initializers)
        self.nodes = self.kept = self.casts = self.clamped = self.vanished = 0
        self.weights: set[str] = set()

    def done(self) -> Halved:
        return Halved(self.nodes, self.kept, self.casts, len(self.weights), self.clamped, self.vanished)

    def convert(self) -> None:
        import onnx_ir as ir

        outputs = list(self.graph.outputs)
        for node in list(self.graph):
            if any(True for _ in _subgraphs(node)):
                raise Float16Error(
                    f"the {node.op_type} {node.name} holds a graph of its own, into which float16 does not go",
                    node=node.name, operator=node.op_type,
                )  # fmt: skip
            stays = node.op_type in FLOAT32_OPERATORS or node.domain not in ("", "ai.onnx")
            # Without a float32 input an attribute decides that what comes out is float32 (windows of
            # a Fourier transform): it stays.
            if node.op_type not in CHANGED_BY_ATTRIBUTE:
                stays = stays or not any(value is not None and _is_float32(value) for value in node.inputs)
            touched = False
            for index, value in enumerate(node.inputs):
                if value is None or not _is_float32(value):
                    continue
                half = not stays and index not in FLOAT32_INPUTS.get(node.op_type, ())
                node.replace_input_with(index, self._form(value, half=half))
                touched = touched or half
            if stays:
                self.kept += any(_is_float32(value) for value in node.outputs)
                continue
            _attributes(node)
            for index, value in enumerate(node.outputs):
                if _is_float32(value) and index not in FLOAT32_OUTPUTS.get(node.op_type, ()):
                    self.forms[id(value), True] = value
                    value.metadata_props["was_float32"] = "1"
                    value.dtype = ir.DataType.FLOAT16
                    touched = True
            self.nodes += touched
        for index, value in enumerate(outputs):
            self._keep_output(index, value)
        for node in self.graph:
            for value in node.outputs:
                value.metadata_props.pop("was_float32", None)
        for name in [one for one, value in self.graph.initializers.items() if not value.uses()]:
            if name not in {output.name for output in self.graph.outputs}:
                del self.graph.initializers[name]

    def _form(self, value: ir.Value, *, half: bool) -> ir.Value:
        """The value in float16 or float32."""
        is_half = (id(value), True) in self.forms and self.forms[id(value), True] is value
        if is_half == half:
            return value
        key = (id(value), half)
        if key not in self.forms:
            self.forms[key] = self._weight(value) if value.is_initializer() else self._cast(value, half=half)
        return self.forms[key]

    def _weight(self, value: ir.Value) -> ir.Value:
        """An initializer in float16, converted when it is written."""
        import onnx_ir as ir

        tensor = value.const_value
        if tensor is None:
            raise Float16Error(f"the initializer {value.name} has no values")
        values = tensor.numpy()
        clamped, vanished = _losses(values)
        self.clamped += clamped
        self.vanished += vanished
        name, shape = self._name(f"{value.name}_float16"), ir.Shape(values.shape)
        lazy = ir.LazyTensor(
            lambda: ir.Tensor(_halved(tensor.numpy()), name=name),
            ir.DataType.FLOAT16,
            shape,
            name=name,
        )
        made = ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.FLOAT16), const_value=lazy)
        self.graph.register_initializer(made)
        self.weights.add(name)
        return made

    def _cast(self, value: ir.Value, *, half: bool, name: str | None = None) -> ir.Value:
        """A Cast directly after the value's node, or at the graph's beginning."""
        import onnx_ir as ir

        dtype = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
        made = ir.Value(
            name=name or self._name(f"{value.name}_{'float16' if half else 'float32'}"),
            shape=value.shape, type=ir.TensorType(dtype),
        )  # fmt: skip
        node = ir.Node(
            "", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[made],
            name=self._name(f"{made.name}_cast"),
        )  # fmt: skip
        producer = value.producer()
        if producer is not None:
            self.graph.insert_after(producer, node)
        elif len(self.graph):
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.append(node)
        self.casts += 1
        return made

    def _keep_output(self, index: int, value: ir.Value) -> None:
        """The graph's output has its old name and type."""
        if self.forms.get((id(value), True)) is not value:
            return
        name = value.name
        value.name = self._name(f"{name}_float16")
        self.graph.outputs[index] = self._cast(value, half=False, name=name)

    def _name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.names:
            count += 1
            name = f"{wanted}_{count}"
        self.names.add(name)
        return name


def _is_float32(value: ir.Value) -> bool:
    import onnx_ir as ir

    return value.dtype == ir.DataType.FLOAT or "was_float32" in value.metadata_props


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            yield attribute.value


def _attributes(node: ir.Node) -> None:
    """Attributes that say float32: the type of a Cast, the value of a ConstantOfShape."""
    import onnx_ir as ir

    if node.op_type == "Cast" and node.attributes["to"].value == int(ir.DataType.FLOAT):
        node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT16))
    if node.op_type == "ConstantOfShape":
        import numpy as np

        given = node.attributes.get("value")
        array = given.value.numpy() if given is not None else np.zeros(1, np.float32)
        if array.dtype == np.float32:
            node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(_halved(array)))


def _halved(array: NDArray[Any]) -> NDArray[np.float16]:
    import numpy as np

    finite = np.isfinite(array)
    clipped = np.where(finite, np.clip(array, -LARGEST, LARGEST), array)
    return clipped.astype(np.float16)


def _losses(array: NDArray[Any]) -> tuple[int, int]:
    """Elements beyond float16's range, and those that become zero."""
    import numpy as np

    sizes = np.abs(array)
    clamped = int(np.count_nonzero(np.isfinite(sizes) & (sizes > LARGEST)))
    # Half of the smallest number and less rounds to zero.
    return clamped, int(np.count_nonzero((sizes > 0) & (sizes <= SMALLEST / 2)))
