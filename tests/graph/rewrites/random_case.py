"""One operator with random attributes, shapes and types, and how its parts are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

Random = np.random.Generator
NEWEST = 25
OLDEST = 9
#: Relative to the largest magnitude: a thousand roundings of float32.
NOISE = 1e-4


@dataclass
class Case:
    """One operator: `given` are fed, `known` are constants; "" is an input that is left out.

    Nodes of `before` may take both and make inputs of the operator; those of `after` take its outputs y0,
    y1 ... and make the graph's (`shown`, where those are not all of the operator's). `below`: the checker
    takes it at no opset from there on, so that it must go further down.
    """

    operator: str
    inputs: list[str]
    given: dict[str, np.ndarray]
    known: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opsets: tuple[int, int] = (OLDEST + 1, NEWEST)
    before: list[onnx.NodeProto] = field(default_factory=list)
    after: list[onnx.NodeProto] = field(default_factory=list)
    shown: tuple[str, ...] = ()
    noise: float = NOISE
    below: int = NEWEST


def floats(r: Random, *shape: int, dtype: str = "float32") -> np.ndarray:
    return r.standard_normal(shape).astype(dtype)


def sizes(r: Random, low: int = 1, high: int = 4, least: int = 1, most: int = 5) -> tuple[int, ...]:
    return tuple(int(one) for one in r.integers(least, most + 1, r.integers(low, high + 1)))


def values(r: Random, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype.startswith("float"):
        return floats(r, *shape, dtype=dtype)
    if dtype == "bool":
        return r.integers(0, 2, shape).astype(bool)
    low = 0 if dtype.startswith("u") else -9
    return r.integers(low, 10, shape).astype(dtype)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def pick(r: Random, *choices: Any) -> Any:
    return choices[int(r.integers(len(choices)))]
