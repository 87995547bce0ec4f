"""Which IR version a model needs, and which its opset brought."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from pipeline.errors import StageFailed
from pipeline.graph.dtypes import ELEMENT_TYPES
from pipeline.graph.walk import graphs, nodes

if TYPE_CHECKING:
    import onnx

#: First opset of ai.onnx that was released with an IR version
#: (https://github.com/onnx/onnx/blob/main/docs/Versioning.md, table of released versions).
OPSET_OF_IR: Final = ((1, 3), (9, 4), (10, 5), (11, 6), (12, 7), (15, 8), (19, 9), (21, 10), (23, 11),
                      (24, 12), (25, 13), (28, 14))  # fmt: skip
#: Initializers that are no graph inputs.
FREE_INITIALIZERS_IR: Final = 4
#: metadata_props on nodes, values and graphs.
NODE_METADATA_IR: Final = 10


def brought_by(opset: int) -> int:
    """The IR version that was released with an opset of ai.onnx."""
    return max(ir for first, ir in OPSET_OF_IR if first <= opset)


def chosen(model: onnx.ModelProto, asked: int | None, dtypes: Iterable[int]) -> int:
    """The IR version to write.

    Args:
        model: the graph as it will be written; held tensors count through `dtypes`.
        asked: export.ir_version; None: what the opset brought, or more where the graph needs it.
        dtypes: element types of the held tensors.

    Raises:
        StageFailed: PL-402, the graph holds something that the asked version does not know.
    """
    needed, because = _needed(model, dtypes)
    if asked is None:
        opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
        return max(needed, brought_by(opsets[0]) if opsets else model.ir_version)
    if asked < needed:
        raise StageFailed(
            "PL-402",
            "the graph needs a newer IR version than was asked",
            where="export.ir_version",
            found=because,
            expected=f"nothing beyond IR version {asked}",
            next_step=f"Type export.ir_version={needed}",
        )
    return asked


def _needed(model: onnx.ModelProto, dtypes: Iterable[int]) -> tuple[int, str]:
    """The lowest version that knows everything in the graph, and the thing that asks for it."""
    found: list[tuple[int, str]] = [(3, "operator sets")]
    kinds = set(dtypes)
    inputs = {value.name for value in model.graph.input}
    free = [tensor.name for tensor in model.graph.initializer if tensor.name not in inputs]
    if free or kinds:
        found.append(
            (FREE_INITIALIZERS_IR, f"initializers that are no graph inputs (the first is {(*free, '')[0]!r})")
        )
    for graph in graphs(model.graph):
        kinds.update(tensor.data_type for tensor in graph.initializer)
        for value in (*graph.input, *graph.output, *graph.value_info):
            kinds.add(value.type.tensor_type.elem_type)
            if value.type.WhichOneof("value") in ("optional_type", "sparse_tensor_type"):
                found.append((8, f"the type of {value.name!r}"))
        if graph.quantization_annotation:
            found.append((5, "quantization annotations"))
        if graph.sparse_initializer:
            found.append((6, "sparse initializers"))
    for node in nodes(model.graph):
        kinds.update(attribute.t.data_type for attribute in node.attribute if attribute.HasField("t"))
        if node.overload:
            found.append((10, f"the overload of node {node.name!r}"))
    if model.functions:
        found.append(
            (9 if any(f.attribute_proto for f in model.functions) else 8, "functions of the model's own")
        )
    if model.training_info:
        found.append((7, "training information"))
    for number in sorted(kinds - {0}):
        kind = ELEMENT_TYPES.get(number)
        if kind is not None:
            found.append((kind.first_ir, f"tensors of {kind.name}"))
    return max(found, key=lambda pair: pair[0])
