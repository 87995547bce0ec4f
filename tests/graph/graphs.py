"""Small graphs as text, with weights held aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.parser

from pipeline.graph.bare import BareModel, HeldTensor
from pipeline.graph.dtypes import NUMBERS

OPSET = 17


@dataclass(frozen=True)
class Fixed:
    """The bytes of an array, as a held tensor's `data`."""

    array: np.ndarray[Any, Any]

    def __call__(self) -> Any:
        return np.ascontiguousarray(self.array).reshape(-1).view(np.uint8)


def held(name: str, array: np.ndarray[Any, Any], origin: str | None = "") -> HeldTensor:
    """A held tensor; its origin is its name unless one is given."""
    return HeldTensor(
        name=name,
        dtype=NUMBERS[array.dtype.name],
        shape=array.shape,
        data=Fixed(array),
        origin=name if origin == "" else origin,
        derived_by="export: test" if origin is None else None,
    )


def bare(
    text: str,
    weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    opset: int = OPSET,
    ir_version: int = 8,
    imports: str = "",
    **fields: Any,
) -> BareModel:
    """A bare model of a graph's text; `weights` are the graph inputs after the real ones."""
    weights = weights or {}
    model = onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}{imports}]>\n{text}'
    )
    inputs = [value.name for value in model.graph.input]
    made = BareModel(
        proto=model.SerializeToString(deterministic=True),
        held={name: held(name, array) for name, array in weights.items()},
        inputs=tuple(name for name in inputs if name not in weights),
        outputs=tuple(value.name for value in model.graph.output),
        **{"scopes": {}, "lines": {}, **fields},
    )
    made.check_invariant()
    return made


def operators_of(model: BareModel) -> list[str]:
    return [node.op_type for node in model.parsed().graph.node]


def random(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray[Any, Any]:
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return values.astype(dtype)


def perceptron(**fields: Any) -> BareModel:
    """Two linear layers whose weights (32x64 and 64x10) are held."""
    return bare(
        """
        net (float[2,32] x, float[32,64] "fc1.weight", float[64,10] "fc2.weight") => (float[2,10] y)
        {
            ["/fc1/MatMul"] a = MatMul(x, "fc1.weight")
            ["/act/Relu"] b = Relu(a)
            ["/fc2/MatMul"] y = MatMul(b, "fc2.weight")
        }
        """,
        {"fc1.weight": random(32, 64), "fc2.weight": random(64, 10)},
        **{
            "scopes": {"a": "fc1", "b": "act", "y": "fc2"},
            "lines": {"a": "net.py:7", "b": "net.py:8", "y": "net.py:9"},
            **fields,
        },
    )
