"""Bring a bare graph up to a newer opset with the converters that exist, and carry over what they drop.

onnx's own converter is asked first: it knows every opset. From 18 on onnxscript's is the other one. A
result counts only when the checker takes it and it computes the same; origins go with the names of
values, which both keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import onnx
import onnx.checker
import onnx.version_converter

from pipeline.errors import StageFailed
from pipeline.graph.bare import BareModel, stays_in_proto
from pipeline.graph.equivalence import NotRunnableError, compare_graphs
from pipeline.graph.ir_version import FREE_INITIALIZERS_IR, brought_by
from pipeline.graph.split import hold_values, typed_input
from pipeline.graph.walk import graphs, nodes

#: onnxscript's converter works from this opset on.
ONNXSCRIPT_FROM: Final = 18


def raise_opset(model: BareModel, opset: int, values: Mapping[str, Any]) -> BareModel:
    """The graph at a newer opset of ai.onnx.

    Args:
        model: it is not changed.
        opset: at least that of the model.
        values: arrays by input name, to compare on.

    Raises:
        StageFailed: PL-314, no converter brings the graph there; the reason is that of the first.
    """
    written = opset_of(model.parsed())
    if opset == written:
        return model
    converters = [("onnx.version_converter", _by_onnx)]
    if written >= ONNXSCRIPT_FROM:
        converters.append(("onnxscript.version_converter", _by_onnxscript))
    failures = []
    for name, convert in converters:
        found = _converted(model, opset, name, convert, values)
        if isinstance(found, BareModel):
            return found
        failures.append(f"{name}: {found}")
    raise StageFailed(
        "PL-314",
        f"no converter brings the graph from opset {written} to {opset}",
        where="export.opset",
        found="; ".join(failures),
        next_step=f"Type export.opset={written}",
    )


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of ai.onnx that a model imports."""
    return next(int(one.version) for one in proto.opset_import if one.domain in ("", "ai.onnx"))


def _converted(
    model: BareModel,
    opset: int,
    name: str,
    convert: Callable[[onnx.ModelProto, int], onnx.ModelProto],
    values: Mapping[str, Any],
) -> BareModel | str:
    """The converted model, or why it is not used."""
    try:
        proto = convert(model.parsed(), opset)
    # Somebody else's code: whatever it raises, another converter may do it.
    except Exception as error:  # noqa: BLE001
        return _first_line(error)
    if opset_of(proto) != opset:
        return f"it left opset {opset_of(proto)}"
    try:
        made = _adopted(model, proto, name)
        onnx.checker.check_model(made.parsed(), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, _ChangedError) as error:
        return _first_line(error)
    try:
        equal = compare_graphs(model, made, values)
    except NotRunnableError:
        return made
    except Exception as error:  # noqa: BLE001 - what ONNX Runtime raises for the converted graph
        return _first_line(error)
    return made if equal.difference is None else equal.difference


def _by_onnx(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    converted: onnx.ModelProto = onnx.version_converter.convert_version(proto, opset)
    return converted


def _by_onnxscript(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    import onnx_ir as ir
    from onnxscript import version_converter

    model = ir.from_proto(proto)
    version_converter.convert_version(model, opset, fallback=False)
    return ir.to_proto(model)


class _ChangedError(Exception):
    """A converter changed what is not its own."""


def _adopted(model: BareModel, proto: onnx.ModelProto, converter: str) -> BareModel:
    """The converted graph with the interface, origins and weights of the one before."""
    step = f"raise: {converter}"
    original = model.parsed()
    for what in ("input", "output"):
        before, after = getattr(original.graph, what), getattr(proto.graph, what)
        if [one.name for one in before] != [one.name for one in after]:
            raise _ChangedError(f"it changed the graph's {what}s")
        del after[:]
        after.extend(before)
    if not original.graph.value_info:
        for graph in graphs(proto.graph):
            del graph.value_info[:]
    proto.ir_version = max(FREE_INITIALIZERS_IR, brought_by(opset_of(proto)))
    for name in ("producer_name", "producer_version", "doc_string", "domain"):
        setattr(proto, name, getattr(original, name))
    proto.graph.name = original.graph.name
    scopes, lines, made_by = dict(model.scopes), dict(model.lines), dict(model.made_by)
    _carry_origins(original, proto, scopes, lines, made_by, step)
    small = {tensor.name for tensor in original.graph.initializer}
    derived, held = dict(model.derived), dict(model.held)
    inside = []
    for tensor in proto.graph.initializer:
        if stays_in_proto(tensor.data_type, tuple(tensor.dims)):
            inside.append(tensor)
            if tensor.name not in small:
                derived[tensor.name] = step
        elif tensor.name not in held:
            held[tensor.name] = hold_values(tensor, origin=None, derived_by=step)
            proto.graph.input.append(typed_input(held[tensor.name]))
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in inside]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    names = {tensor.name for tensor in kept}
    made = replace(
        model,
        proto=proto.SerializeToString(deterministic=True),
        held=held,
        scopes=scopes,
        lines=lines,
        origins={name: origin for name, origin in model.origins.items() if name in names},
        derived={name: how for name, how in derived.items() if name in names},
        made_by=made_by,
    )
    made.check_invariant()
    return made


def _carry_origins(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    scopes: dict[str, str],
    lines: dict[str, str],
    made_by: dict[str, str],
    step: str,
) -> None:
    """Names for nodes that lost theirs, and for new ones the origin of the node that takes what they give."""
    named = {name: node.name for node in nodes(before.graph) for name in node.output if name}
    known = {node.name for node in nodes(before.graph)}
    takers: dict[str, onnx.NodeProto] = {}
    every = list(nodes(after.graph))
    for node in every:
        for name in node.input:
            takers.setdefault(name, node)
    taken = known | {node.name for node in every}
    for node in every:
        mine = next((named[name] for name in node.output if named.get(name)), None)
        if mine is not None:
            node.name = mine
            continue
        if not node.name or node.name in known:
            base, number = f"{next(iter(node.output), 'node')}_{node.op_type}", 0
            name = base
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            node.name = name
            taken.add(name)
        made_by[node.name] = step
    for node in reversed(every):
        if made_by.get(node.name) != step:
            continue
        taker = next((takers[name] for name in node.output if name in takers), None)
        for table in (scopes, lines):
            origin = table.get(taker.name) if taker is not None else None
            if origin is not None:
                for name in (node.name, *node.output):
                    if name:
                        table.setdefault(name, origin)
    present = {name for node in every for name in (node.name, *node.output) if name}
    for table in (scopes, lines, made_by):
        for name in [name for name in table if name not in present]:
            del table[name]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
