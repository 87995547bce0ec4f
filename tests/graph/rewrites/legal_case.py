"""Random small graphs for legalisation rules: what a case is, and how its graph is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

from pipeline.graph.bare import BareModel

NUMPY = {"float": "float32", "double": "float64", "float16": "float16", "int64": "int64", "bool": "bool"}
OPSETS = (11, 13, 17, 20)


@dataclass(frozen=True)
class Case:
    """What shows a rule at work.

    Attributes:
        rule: its name.
        taken: a random graph with at least one node that the rule is made for; it may be declined for
            sizes that do not fit, but mostly is not.
        declined: a graph with a node that the rule looks at and leaves alone.
        reason: a part of why.
    """

    rule: str
    taken: Callable[[Random], BareModel]
    declined: Callable[[], BareModel]
    reason: str


def build(
    inputs: Mapping[str, tuple[str, Sequence[int | str]]],
    body: str,
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    output: str = "float",
    result: str = "",
) -> BareModel:
    """A bare model of nodes as text; constants of more than 1 KiB are held aside as in a run."""
    # Without brackets it is a scalar; with empty ones nothing is known of the rank.
    given = ", ".join(
        f"{kind}{'[' + ','.join(map(str, sizes)) + ']' if sizes else ''} {name}"
        for name, (kind, sizes) in inputs.items()
    )
    lines = "\n".join(
        f'["n{index}"] {line.strip()}' for index, line in enumerate(body.strip().splitlines()) if line.strip()
    )
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]>\ng ({given}) => ({output}[{result}] y) {{\n{lines}\n}}'
    )
    for name, array in (constants or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    names = {node.name: f"part.{node.name}" for node in model.graph.node}
    return BareModel.from_proto(model, scopes=names, lines=dict.fromkeys(names, "net.py:7"))


def values(model: BareModel, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Numbers for every input: of both signs, some large, some zero."""
    random = np.random.default_rng(seed)
    found = {}
    for value in model.parsed().graph.input[: len(model.inputs)]:
        tensor = value.type.tensor_type
        sizes = [dim.dim_value or 2 for dim in tensor.shape.dim]
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if kind == np.bool_:
            found[value.name] = random.random(sizes) < 0.5
        elif kind.kind in "iu":
            found[value.name] = random.integers(-3 if kind.kind == "i" else 0, 4, sizes).astype(kind)
        else:
            array = random.standard_normal(sizes) * random.choice([0.5, 2.0, 5.0])
            found[value.name] = np.where(random.random(sizes) < 0.05, 0.0, array).astype(kind)
    return found


def numbers(rng: Random, *shape: int, kind: str = "float32", low: float = -2.0, high: float = 2.0) -> Any:
    """Random numbers as a weight."""
    return np.random.default_rng(rng.randrange(2**32)).uniform(low, high, shape).astype(kind)


def image(rng: Random, *, channels: int | None = None, smallest: int = 2, largest: int = 9) -> list[int]:
    """[N, C, H, W]."""
    return [
        rng.choice([1, 1, 2]),
        channels or rng.randint(1, 6),
        rng.randint(smallest, largest),
        rng.randint(smallest, largest),
    ]


def sizes(rng: Random, rank: int, *, largest: int = 5, ones: float = 0.2) -> list[int]:
    """Sizes of any tensor; some are 1."""
    return [1 if rng.random() < ones else rng.randint(2, largest) for _ in range(rank)]


def broadcast(rng: Random, shape: Sequence[int]) -> list[int]:
    """Sizes that are broadcast to these."""
    kept = list(shape[rng.randint(0, len(shape)) :]) if rng.random() < 0.3 else list(shape)
    return [1 if rng.random() < 0.35 else size for size in kept]


def attributes(**given: Any) -> str:
    """Attributes as text."""
    parts = []
    for name, value in given.items():
        if value is None:
            continue
        if isinstance(value, str):
            parts.append(f'{name} = "{value}"')
        elif isinstance(value, (list, tuple)):
            parts.append(f"{name} = [{', '.join(map(str, value))}]")
        elif isinstance(value, float):
            parts.append(f"{name} = {value:.9f}")
        else:
            parts.append(f"{name} = {value}")
    return f"<{', '.join(parts)}>" if parts else ""


def ints(*given: int) -> Any:
    return np.asarray(given, np.int64)
