"""Which nodes compute as in training. What says so changed with the operator sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.graph.split import raw_bytes
from pipeline.graph.walk import graphs, model_nodes

if TYPE_CHECKING:
    import onnx

#: https://github.com/onnx/onnx/blob/main/docs/Changelog.md: `training_mode` of BatchNormalization
#: came with opset 14, that of Dropout with 12; before 7 both had `is_test`, with 0 as default.
BATCH_NORM_ATTRIBUTE_OPSET: Final = 14
DROPOUT_INPUT_OPSET: Final = 12
IS_TEST_ENDS_OPSET: Final = 7


def training_nodes(model: onnx.ModelProto, opset: int) -> tuple[list[str], list[str]]:
    """Names of the BatchNormalization and Dropout nodes in training mode, and of those in inference mode.

    A Dropout whose mode comes from somewhere else than a constant counts as training: it may be.
    """
    constants = _constants(model)
    training: list[str] = []
    inference: list[str] = []
    for node in model_nodes(model):
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("BatchNormalization", "Dropout"):
            continue
        trains = (
            _batch_norm_trains(node, opset)
            if node.op_type == "BatchNormalization"
            else _dropout_trains(node, opset, constants)
        )
        (training if trains else inference).append(node.name or next(iter(node.output), ""))
    return training, inference


def _batch_norm_trains(node: onnx.NodeProto, opset: int) -> bool:
    if opset >= BATCH_NORM_ATTRIBUTE_OPSET:
        return bool(_integer(node, "training_mode", 0))
    if opset < IS_TEST_ENDS_OPSET:
        return not _integer(node, "is_test", 0)
    # In between the number of outputs says it: running statistics come out in training.
    return sum(bool(name) for name in node.output) > 1


def _dropout_trains(node: onnx.NodeProto, opset: int, constants: dict[str, onnx.TensorProto]) -> bool:
    if opset >= DROPOUT_INPUT_OPSET:
        mode = node.input[2] if len(node.input) > 2 else ""
        return bool(mode) and (mode not in constants or any(raw_bytes(constants[mode])))
    return opset < IS_TEST_ENDS_OPSET and not _integer(node, "is_test", 0)


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    found = {tensor.name: tensor for graph in graphs(model.graph) for tensor in graph.initializer}
    for node in model_nodes(model):
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            found[node.output[0]] = node.attribute[0].t
    return found
