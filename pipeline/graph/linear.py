"""MatMul and Add with constant weights become one Gemm, where that leaves fewer nodes.

onnxsim does this when it sees the weights; held aside they look like inputs to it. On sequences
the Gemm works on rows, so it pays only where a Reshape stands on either side anyway (swin_t's
windows: 24 nodes fewer).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pipeline.graph.bare import BareModel
from pipeline.graph.dtypes import NUMBERS
from pipeline.graph.split import raw_bytes
from pipeline.graph.walk import graphs, nodes, subgraphs, used_names

if TYPE_CHECKING:
    import onnx

FUSED_BY: Final = "simplify: MatMul and Add fused"
#: Since this opset Gemm broadcasts its third input by itself.
GEMM_BROADCASTS_OPSET: Final = 7
#: ONNX Runtime's Gemm is slow in float16 on a CPU; onnxsim leaves those alone too.
FUSED_TYPE: Final = NUMBERS["float32"]


@dataclass(frozen=True)
class _Linear:
    """A MatMul and the Add behind it.

    Attributes:
        rows: the Reshape before it, whose shape becomes [-1, `width`]; None: the input has rank 2.
    """

    matmul: onnx.NodeProto
    add: onnx.NodeProto
    bias: str
    width: int
    rows: onnx.NodeProto | None


class _Graph:
    """What has to be known about values."""

    def __init__(self, model: BareModel, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.constants: dict[str, tuple[int, tuple[int, ...]]] = {
            name: (tensor.data_type, tuple(tensor.dims)) for name, tensor in self.initializers.items()
        }
        self.constants.update({name: (held.dtype, held.shape) for name, held in model.held.items()})
        self.ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in (*graph.value_info, *graph.input)
            if value.type.tensor_type.HasField("shape")
        }
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.takers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)
        # Uses that no rewrite here knows of: the graph's outputs, and everything inside branches.
        self.fixed = {value.name for value in graph.output}
        for node in graph.node:
            for inner in subgraphs(node):
                self.fixed.update(used_names(inner))

    def only_taker(self, name: str) -> onnx.NodeProto | None:
        takers = self.takers.get(name, [])
        return takers[0] if len(takers) == 1 and name not in self.fixed else None


def fuse_linear(model: BareModel) -> BareModel:
    """`model` with its linear layers as Gemm where nodes are saved; itself when there are none."""
    proto = model.parsed()
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < GEMM_BROADCASTS_OPSET:
        return model
    graph = _Graph(model, proto)
    found = [linear for node in proto.graph.node if (linear := _linear(node, graph)) is not None]
    shared = Counter(id(linear.rows) for linear in found if linear.rows is not None)
    found = [linear for linear in found if linear.rows is None or shared[id(linear.rows)] == 1]
    if not found:
        return model
    derived = dict(model.derived)
    shapes: dict[int, str] = {}
    retyped: set[str] = set()
    for linear in found:
        if linear.rows is not None:
            if linear.width not in shapes:
                shapes[linear.width] = _rows_shape(proto.graph, linear.width)
                derived[shapes[linear.width]] = FUSED_BY
            linear.rows.input[1] = shapes[linear.width]
            retyped.update((linear.rows.output[0], linear.add.output[0]))
        linear.add.CopyFrom(_gemm(linear))
    gone = {linear.matmul.output[0] for linear in found}
    _keep(proto.graph.node, lambda node: not (node.op_type == "MatMul" and node.output[0] in gone))
    _keep(proto.graph.value_info, lambda value: value.name not in gone | retyped)
    used = used_names(proto.graph)
    _keep(proto.graph.initializer, lambda tensor: tensor.name in used)
    names = {tensor.name for tensor in proto.graph.initializer}
    return replace(
        model,
        proto=proto.SerializeToString(deterministic=True),
        origins={name: origin for name, origin in model.origins.items() if name in names},
        derived={name: step for name, step in derived.items() if name in names},
    )


def _linear(matmul: onnx.NodeProto, graph: _Graph) -> _Linear | None:
    if matmul.op_type != "MatMul" or matmul.domain not in ("", "ai.onnx"):
        return None
    dtype, weight = graph.constants.get(matmul.input[1], (0, ()))
    add = graph.only_taker(matmul.output[0])
    if dtype != FUSED_TYPE or len(weight) != 2 or add is None or add.op_type != "Add":
        return None
    bias = next(iter({*add.input} - {matmul.output[0]}), "")
    if graph.constants.get(bias) != (dtype, (weight[1],)):
        return None
    source = matmul.input[0]
    if graph.ranks.get(source) == 2:
        return _Linear(matmul, add, bias, weight[0], None)
    rows = graph.makers.get(source)
    if rows is None or rows.op_type != "Reshape" or graph.only_taker(source) is not matmul:
        return None
    takers = graph.takers.get(add.output[0], [])
    if not takers or add.output[0] in graph.fixed or source in graph.fixed:
        return None
    if all(_reshapes_anything(node, graph.initializers) for node in takers):
        return _Linear(matmul, add, bias, weight[0], rows)
    return None


def _reshapes_anything(node: onnx.NodeProto, initializers: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a Reshape gives the same whatever sizes its input has: none is copied from there (0)."""
    import numpy as np

    shape = initializers.get(node.input[1]) if node.op_type == "Reshape" else None
    return shape is not None and bool(np.frombuffer(raw_bytes(shape), np.int64).all())


def _rows_shape(graph: onnx.GraphProto, width: int) -> str:
    """A new constant [-1, width]; its name is free in every scope."""
    import numpy as np
    import onnx.numpy_helper

    taken = used_names(graph) | {name for node in nodes(graph) for name in node.output}
    for inner in graphs(graph):
        taken.update(value.name for value in (*inner.input, *inner.initializer))
    name, number = f"rows_of_{width}", 0
    while name in taken:
        number += 1
        name = f"rows_of_{width}_{number}"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, width], np.int64), name))
    return name


def _gemm(linear: _Linear) -> onnx.NodeProto:
    import onnx

    return onnx.NodeProto(
        op_type="Gemm",
        name=linear.add.name,
        input=[linear.matmul.input[0], linear.matmul.input[1], linear.bias],
        output=list(linear.add.output),
    )


def _keep(messages: Any, wanted: Any) -> None:
    """Drop the messages that are not wanted, in place."""
    kept = [type(message).FromString(message.SerializeToString()) for message in messages if wanted(message)]
    del messages[:]
    messages.extend(kept)
