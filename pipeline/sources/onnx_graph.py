"""From a ready .onnx file to the bare graph that every later stage works on. Imports onnx; no torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import Refused, StageFailed
from pipeline.exporters.boundary import Boundary, settle, stated
from pipeline.exporters.conversion import lowered
from pipeline.exporters.scopes import NAME_SCOPES, from_metadata
from pipeline.graph.bare import BareModel
from pipeline.graph.dtypes import ELEMENT_TYPES, NUMBERS
from pipeline.graph.finish import MODULE_KEY
from pipeline.graph.ir_version import FREE_INITIALIZERS_IR
from pipeline.graph.view import read_layout
from pipeline.graph.walk import model_nodes, nodes
from pipeline.graph.wire import MalformedError
from pipeline.sources.onnx_refusals import damaged, unsafe, without_runtime

if TYPE_CHECKING:
    import onnx

    from pipeline.parity.signature import Signature
    from pipeline.samples.spec import InputSpecs, TensorSpec

#: Who made a node of the file.
MADE_BY: Final = "file"
#: A value inside the graph that would take more than this is a bomb or a slip: the largest samples
#: are as large (pipeline.samples.notation.LARGEST_BYTES).
LARGEST_VALUE: Final = 4 << 30
#: How ONNX Runtime says that it has no kernel and no schema: "acme:Frob(-1) is not a registered function/op".
_UNREGISTERED: Final = re.compile(r"(?P<domain>[\w.\-]*):(?P<operator>\w+)\(-?\d+\) is not a registered")
#: Operators whose output's size depends on values, or whose graphs run as often as values say.
VALUE_DEPENDENT: Final = frozenset({
    "Compress", "Loop", "NonMaxSuppression", "NonZero", "Range", "Scan", "SequenceAt", "StringSplit",
    "TfIdfVectorizer", "Unique",
})  # fmt: skip


def open_file(path: Path, specs: InputSpecs) -> BareModel:
    """The file's graph with its weights held aside where they lie, checked as far as its structure goes.

    Its inputs have the sizes of `specs`; initializers that stand among the inputs too, as opset 8 and
    before wanted it, are constants.

    Args:
        path: the .onnx file.
        specs: its inputs, under the names of the file.

    Raises:
        Refused: PL-241, no valid ONNX; PL-242, a value inside would take gigabytes.
    """
    import onnx.checker

    model = parse(path)
    fixed = set_inputs(model.graph, specs.leaves)
    if fixed:
        del model.graph.value_info[:]  # sizes that speak of the open axes
    scopes, lines = _scopes(model)
    names = {tensor.name for tensor in model.graph.initializer}
    try:
        bare = BareModel.from_proto(
            model,
            folder=path.parent,
            origins=dict(zip(names, names, strict=True)),
            scopes=scopes,
            lines=lines,
        )
        onnx.checker.check_model(_with_output_types(bare))
    except StageFailed as error:
        raise damaged(path, error.reason.sentence()) from error
    except Exception as error:  # ValidationError, and whatever the parser thinks of broken values
        raise damaged(path, _one_line(error)) from error
    _refuse_bombs(bare, path)
    return bare


def _with_output_types(bare: BareModel) -> onnx.ModelProto:
    """A copy for the checker, which asks every output for a type and a shape; runtimes do not."""
    model = bare.parsed()
    for value in model.graph.output:
        if value.type.WhichOneof("value") in (None, "tensor_type"):
            value.type.tensor_type.elem_type = value.type.tensor_type.elem_type or NUMBERS["float32"]
            value.type.tensor_type.shape.SetInParent()
    return model


def parse(path: Path) -> onnx.ModelProto:
    """The model without its weights' bytes: each large tensor refers to the file.

    Raises:
        Refused: PL-241.
    """
    import onnx

    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(read_layout(path).skeleton)
    except MalformedError as error:
        raise damaged(path, str(error)) from None
    except Exception as error:  # the parser's own class moves between protobuf versions
        raise damaged(path, _one_line(error)) from error
    model.ir_version = max(model.ir_version, FREE_INITIALIZERS_IR)
    for holder in (model, *model.functions):
        for entry in holder.opset_import:
            entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    for node in model_nodes(model):
        node.domain = "" if node.domain == "ai.onnx" else node.domain
    return model


def set_inputs(graph: onnx.GraphProto, leaves: Iterable[TensorSpec]) -> bool:
    """Give the graph exactly these inputs; whether an axis that was open has a size now."""
    before = {value.name: value for value in graph.input}
    wanted = [
        stated(leaf.name, NUMBERS[leaf.dtype],
               (leaf.dynamic[index].name if index in leaf.dynamic else size for index, size in enumerate(leaf.shape)))
        for leaf in leaves
    ]  # fmt: skip
    del graph.input[:]
    graph.input.extend(wanted)
    return any(
        now.HasField("dim_value") and not was.HasField("dim_value")
        for value in wanted
        if value.name in before
        for was, now in zip(before[value.name].type.tensor_type.shape.dim, value.type.tensor_type.shape.dim,
                            strict=False)
    )  # fmt: skip


def with_outputs(bare: BareModel, specs: InputSpecs, signature: Signature) -> BareModel:
    """The graph with outputs of the types and sizes that the file was seen to give.

    Raises:
        StageFailed: PL-321, the file states another type or rank than it gives.
    """
    proto = bare.parsed()
    held = list(proto.graph.input)[len(bare.inputs) :]
    del proto.graph.input[len(bare.inputs) :]
    for value in proto.graph.output:
        if not value.type.tensor_type.elem_type:
            spec = next(one for one in signature.outputs if one.name == value.name)
            value.type.tensor_type.elem_type = NUMBERS[spec.dtype]
    _, moved = settle(proto.graph, Boundary(specs.leaves, signature), specialised_is_wrong=False)
    # An initializer that is an output too has another name now, and the output is a copy of it.
    for value in held:
        value.name = moved.get(value.name, value.name)
    proto.graph.input.extend(held)
    made_by = {node.name: MADE_BY for node in nodes(proto.graph) if node.name}
    tensors = {moved.get(name, name): tensor for name, tensor in bare.held.items()}
    return replace(
        bare,
        proto=proto.SerializeToString(deterministic=True),
        held={name: replace(tensor, name=name) for name, tensor in tensors.items()},
        origins={moved.get(name, name): origin for name, origin in bare.origins.items()},
        made_by=made_by,
    )


def in_opset(
    bare: BareModel, written: int, opset: int, values: Mapping[str, Any], rules: Mapping[str, Any]
) -> tuple[BareModel, Mapping[str, int]]:
    """The graph in another opset: upwards with onnx's converter, downwards with our rules, which are proved.

    Args:
        bare: in opset `written`.
        written: of the file.
        opset: that is asked for.
        values: the export inputs.
        rules: `export.rules`.

    Returns:
        the graph, and how often each rule was applied.

    Raises:
        StageFailed: PL-314, PL-430, PL-431.
    """
    import onnx.version_converter

    if opset < written:
        made, rewriting = lowered(bare, opset, values, rules)
        return made, rewriting.counts
    try:
        proto = onnx.version_converter.convert_version(bare.parsed(), opset)
    except (RuntimeError, ValueError) as error:
        raise StageFailed(
            "PL-314", f"the converter cannot bring the graph from opset {written} to {opset}",
            where="export.opset", found=_one_line(error), next_step="Type export.opset=null",
        ) from error  # fmt: skip
    return replace(bare, proto=proto.SerializeToString(deterministic=True)), {}


def is_value_dependent(bare: BareModel) -> bool:
    """Whether other output sizes may come than were seen."""
    return any(node.op_type in VALUE_DEPENDENT for node in model_nodes(bare.parsed()))


def _scopes(model: onnx.ModelProto) -> tuple[dict[str, str], dict[str, str]]:
    """Modules and source lines, where the file's nodes have them in their metadata."""
    own: dict[str, str] = {}
    modules: set[str] = set()
    for node in nodes(model.graph):
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        modules |= set(_listed(metadata.get(NAME_SCOPES, "")))
        if MODULE_KEY in metadata:
            own |= dict.fromkeys(filter(None, (node.name, *node.output)), metadata[MODULE_KEY])
    scopes, lines = from_metadata(model.graph, modules, {})
    return {**scopes, **own}, lines


def _listed(text: str) -> list[str]:
    try:
        scopes = ast.literal_eval(text) if text else []
    except (MemoryError, RecursionError, SyntaxError, ValueError):
        return []
    return [scope for scope in scopes[:-1] if isinstance(scope, str)] if isinstance(scopes, list) else []


def _refuse_bombs(bare: BareModel, path: Path) -> None:
    """No value of known size may take gigabytes: a ConstantOfShape of a few bytes can ask for any."""
    import onnx.shape_inference

    try:  # sizes follow from other sizes: data_prop carries them through Shape, Gather and Concat
        inferred = onnx.shape_inference.infer_shapes(bare.parsed(), strict_mode=False, data_prop=True)
    except Exception as error:  # InferenceError, and what it raises about broken attributes
        raise damaged(path, _one_line(error)) from error
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        sizes = [dim.dim_value for dim in kind.shape.dim]
        bits = ELEMENT_TYPES[kind.elem_type].bits if kind.elem_type in ELEMENT_TYPES else 8
        if prod(sizes) * max(bits, 8) // 8 > LARGEST_VALUE:
            raise unsafe(
                path, f"value {value.name!r} of the .onnx file would not fit into memory", f"the shape {sizes}",
                f"at most {LARGEST_VALUE >> 30} GiB",
            )  # fmt: skip


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split("==> Context")[0].split())
    return (text[:297] + "...") if len(text) > 300 else text or type(error).__name__


def refused(error: StageFailed, path: Path) -> Refused:
    """ONNX Runtime does not open the file as it came: nothing can be compared with it."""
    said = error.reason.found or error.reason.message
    if (missing := _UNREGISTERED.search(said)) and missing["domain"] not in ("", "ai.onnx"):
        return without_runtime(path, f"{missing['domain']}::{missing['operator']}")
    return damaged(path, f"ONNX Runtime does not load it: {said}")
