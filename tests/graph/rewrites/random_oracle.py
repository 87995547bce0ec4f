"""onnx.reference as the oracle, where ONNX Runtime has no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from pipeline.graph.bare import BareModel
from tests.graph.rewrites.random_case import Case


@dataclass(frozen=True)
class Sample:
    """A random graph, where it should go, and what to feed."""

    case: Case
    model: BareModel
    target: int
    values: Mapping[str, np.ndarray]


#: How much coarser float16 is judged, as in pipeline.graph.equivalence.
HALF_OVER_SINGLE = 100


def against_reference(given: Sample, lowered: BareModel, noise: float | None = None) -> str | None:
    """What is wrong with a lowered graph whose source ONNX Runtime does not run: onnx.reference is the oracle.

    The lowered graph runs on ONNX Runtime where it can, else on the reference too.
    """
    noise = given.case.noise if noise is None else noise
    expected = ReferenceEvaluator(_whole(given.model)).run(None, dict(given.values))
    try:
        session = onnxruntime.InferenceSession(_whole(lowered).SerializeToString())
        found = session.run(None, {one.name: given.values[one.name] for one in session.get_inputs()})
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        found = ReferenceEvaluator(_whole(lowered)).run(None, dict(given.values))
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"{other.dtype}{other.shape} instead of {one.dtype}{one.shape}"
        scale = max(float(np.abs(one.astype(np.float64)).max(initial=0)), 1e-9)
        scale *= HALF_OVER_SINGLE if one.dtype == np.float16 else 1
        if not np.allclose(
            one.astype(np.float64), other.astype(np.float64), rtol=0, atol=noise * scale, equal_nan=True
        ):
            return f"{other} instead of {one}"
    return None


def _whole(model: BareModel) -> onnx.ModelProto:
    """The full model: held tensors stand in it as initializers."""
    proto = model.parsed()
    for name, tensor in model.held.items():
        full = proto.graph.initializer.add(name=name, dims=tensor.shape, data_type=tensor.dtype)
        full.raw_data = b"".join(tensor.pieces())
    kept = [value for value in proto.graph.input if value.name not in model.held]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return proto
