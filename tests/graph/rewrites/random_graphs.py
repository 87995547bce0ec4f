"""Random small graphs: one operator of a random opset with random attributes, shapes and types.

Some stand behind or before another operator, some inside of a branch. Everything comes from one seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnx.defs
import onnx.helper as h
import onnx.numpy_helper as nh
import onnxruntime
from onnx.reference import ReferenceEvaluator

from pipeline.graph.bare import BareModel
from pipeline.graph.split import hold_values, typed_input
from tests.graph.rewrites import random_images, random_pairs, random_shapes, random_values
from tests.graph.rewrites.random_case import NEWEST, OLDEST, Case, Random
from tests.graph.rewrites.random_oracle import Sample

MAKERS: tuple[Callable[[Random], Case], ...] = (
    *random_values.MAKERS, *random_shapes.MAKERS, *random_images.MAKERS, *random_pairs.MAKERS
)  # fmt: skip


def sample(seed: int, maker: Callable[[Random], Case] | None = None) -> Sample:
    """The graph of a seed."""
    return draw(np.random.default_rng(seed), maker)


def draw(
    r: Random,
    maker: Callable[[Random], Case] | None = None,
    *,
    opset: int | None = None,
    target: int | None = None,
) -> Sample:
    """A graph of a maker, or of any; None for its opset and where it should go are drawn too."""
    case = (maker or MAKERS[int(r.integers(len(MAKERS)))])(r)
    opset = opset or int(r.integers(case.opsets[0], case.opsets[1] + 1))
    # Half of them go the whole way, the others stop somewhere.
    drawn = OLDEST if r.random() < 0.5 else int(r.integers(OLDEST, min(opset, case.below)))
    target = drawn if target is None else target
    branch, around = r.random() < 0.15 and not case.before, r.random() < 0.3 and not case.before
    how = r.random()
    if how < 0.1 and case.operator not in FLOAT32_ALONE and not case.before:
        case = _halved(case)
    free = r.random(64) < 0.5 if 0.1 <= how < 0.25 else None
    model = build(case, opset, branch=branch, around=around, free=free)
    if 0.25 <= how < 0.45:
        model = _held(model)
    return Sample(case, model, target, case.given)


#: Operators that want float32 in one place or another (scales, windows), that took no float16 in some
#: opset, or that no CPU has in float16.
FLOAT32_ALONE = {
    "DFT", "DequantizeLinear", "DynamicQuantizeLinear", "Einsum", "GridSample", "QuantizeLinear", "Range", "Resize", "STFT", "CumSum", "Celu", "IsInf",
    "ScatterElements", "ScatterND",
}  # fmt: skip


def _halved(case: Case) -> Case:
    """The same in float16."""

    def half(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: one.astype(np.float16) if one.dtype == np.float32 else one for name, one in values.items()
        }

    return replace(case, given=half(case.given), known=half(case.known))


def _held(model: BareModel) -> BareModel:
    """Floating constants are held aside, however small: a rule may not count on their values."""
    proto = model.parsed()
    held, kept = dict(model.held), []
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            held[tensor.name] = hold_values(tensor, origin=tensor.name, derived_by=None)
            proto.graph.input.append(typed_input(held[tensor.name]))
        else:
            kept.append(onnx.TensorProto.FromString(tensor.SerializeToString()))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    made = replace(model, proto=proto.SerializeToString(), held=held, origins={})
    made.check_invariant()
    return made


def build(
    case: Case, opset: int, *, branch: bool = False, around: bool = False, free: np.ndarray | None = None
) -> BareModel:
    """The model of a case: alone, behind another operator, or inside a branch.

    `free` says of each size of the inputs whether the file leaves it open.
    """
    given = {name: h.make_tensor_value_info(name, h.np_dtype_to_tensor_dtype(v.dtype), v.shape)
             for name, v in case.given.items()}  # fmt: skip
    if free is not None:
        every = [dim for value in given.values() for dim in value.type.tensor_type.shape.dim]
        for number, (dim, is_free) in enumerate(zip(every, free, strict=False)):
            if is_free:
                dim.dim_param = f"size{number}"
    known = [nh.from_array(np.asarray(v), name) for name, v in case.known.items()]
    names = list(case.inputs)
    nodes = []
    if around:
        nodes.append(
            h.make_node("Identity", [names[0]], ["before"], name="before") if names[0] in given else None
        )
        nodes = [node for node in nodes if node is not None]
        if nodes:
            names[0] = "before"
    outputs = [f"y{index}" for index in range(case.outputs)]
    nodes += case.before
    nodes.append(h.make_node(case.operator, names, outputs, name="core", **case.attributes))
    nodes += case.after
    outputs = list(case.shown) or outputs
    used = {name for node in nodes for name in node.input}
    for name in given:
        if name not in used:
            nodes.append(h.make_node("Identity", [name], ["unused_out"], name="unused"))
    shown = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = h.make_graph(nodes, "g", list(given.values()), shown, known)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=10)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=case.below == NEWEST, data_prop=True)
    types = {value.name: value for value in (*typed.graph.value_info, *typed.graph.output)}
    del model.graph.output[:]
    model.graph.output.extend(
        types[name] if _is_typed(types[name]) else _seen(model, name, case) for name in outputs
    )
    if branch:
        model = _in_branch(model)
    return BareModel.from_proto(model, scopes={"core": "net.core"}, lines={"core": "net.py:1"})


def _is_typed(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.HasField("shape")


def _seen(model: onnx.ModelProto, name: str, case: Case) -> onnx.ValueInfoProto:
    """The type of an output that onnx does not infer, as ONNX Runtime or the reference implementation has it."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.ValueInfoProto(name=name))
    try:
        found = onnxruntime.InferenceSession(shown.SerializeToString()).run([name], dict(case.given))[0]
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        found = ReferenceEvaluator(shown).run([name], dict(case.given))[0]
    return h.make_tensor_value_info(name, h.np_dtype_to_tensor_dtype(found.dtype), found.shape)


def _in_branch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The nodes in both branches of an If whose condition is a constant."""
    inner = {name: onnx.GraphProto() for name in ("then_branch", "else_branch")}
    for name, graph in inner.items():
        graph.name = name
        for node in model.graph.node:
            copied = graph.node.add()
            copied.CopyFrom(node)
            copied.name = f"{name}_{node.name}"
            copied.output[:] = [f"{name}_{out}" if out else "" for out in node.output]
            own = {out for other in model.graph.node for out in other.output}
            copied.input[:] = [f"{name}_{one}" if one in own else one for one in node.input]
        for value in model.graph.output:
            out = graph.output.add()
            out.CopyFrom(value)
            out.name = f"{name}_{value.name}"
    outer = h.make_node("If", ["condition"], [value.name for value in model.graph.output], name="If", **inner)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.append(outer)
    made.graph.initializer.append(nh.from_array(np.array(True), "condition"))
    return made
