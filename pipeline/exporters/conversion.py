"""Bringing an exported graph to a newer opset with onnx's converter, without its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import StageFailed
from pipeline.graph.split import typed_input

if TYPE_CHECKING:
    from pipeline.exporters.holding import Exported


def convert_upwards(exported: Exported, opset: int, written: int) -> None:
    """Replace the graph by one of a newer opset; names of values stay.

    Args:
        exported: is changed; weights that are no graph inputs yet become some.
        opset: newer than `written`.
        written: the opset that it has.

    Raises:
        StageFailed: PL-314, the converter does not know an operator.
    """
    import onnx.version_converter

    graph = exported.model.graph
    inputs = {value.name for value in graph.input}
    for name, weight in exported.weights.items():
        if name not in inputs:
            graph.input.append(typed_input(weight.held(name, None, None)))
    try:
        exported.model = onnx.version_converter.convert_version(exported.model, opset)
    except (RuntimeError, ValueError) as error:
        raise StageFailed(
            "PL-314",
            f"the converter cannot bring the graph from opset {written} to {opset}",
            where="export.opset",
            found=(str(error).strip().splitlines() or [type(error).__name__])[0],
            next_step=f"Type export.opset={written}",
        ) from error


def refuse_invalid(exported: Exported, opset: int, native: int) -> None:
    """Check a graph that the exporter itself brought to an older opset: it may only be stamped so.

    Raises:
        StageFailed: PL-314.
    """
    import onnx.checker

    checked = type(exported.model)()
    checked.CopyFrom(exported.model)
    inputs = {value.name for value in checked.graph.input}
    for name, weight in exported.weights.items():
        if name not in inputs:
            checked.graph.input.append(typed_input(weight.held(name, None, None)))
    try:
        onnx.checker.check_model(checked, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StageFailed(
            "PL-314",
            f"the exporter stamps opset {opset} on a graph of opset {native}",
            where="export.opset",
            found=(str(error).strip().splitlines() or [type(error).__name__])[0],
            next_step=f"Type export.opset={native}",
        ) from error
