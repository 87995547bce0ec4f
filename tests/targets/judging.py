"""Graphs of one node as ONNX text, and what a profile says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import onnx
import onnx.parser

from pipeline.targets.graph_facts import graph_facts
from pipeline.targets.judge import Judgement, judge
from pipeline.targets.node_facts import NodeFacts
from pipeline.targets.placement import Placement
from pipeline.targets.profile import Profile, load_profile

DTYPES = {"float32": "float", "float64": "double", "float16": "float16", "int64": "int64", "int32": "int32",
          "bool": "bool", "uint8": "uint8", "int8": "int8"}  # fmt: skip


def model(text: str, *, opset: int = 11, ir_version: int = 6) -> onnx.ModelProto:
    """A model of ONNX text without its head: `f (float[1,3] x) => (float[1,3] y) { y = Relu (x) }`."""
    head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "vendor" : 1, "com.microsoft" : 1]>\n'
    return onnx.parser.parse_model(head + text)


def one_node(
    operator: str,
    *inputs: Sequence[int | str] | str,
    weights: Mapping[int, Sequence[int]] | None = None,
    constants: Mapping[int, str] | None = None,
    attributes: str = "",
    dtypes: Mapping[int, str] | None = None,
    outputs: int = 1,
    opset: int = 11,
) -> onnx.ModelProto:
    """A graph with one node.

    Args:
        operator: its type.
        inputs: shapes of the activations, in order; "" for an input that is not given.
        weights: place among the inputs to the shape of a constant whose data is not at hand.
        constants: place to "int64[1] = {2}", a constant with data.
        attributes: as ONNX text: "kernel_shape = [3, 3]".
        dtypes: place among the inputs to an element type; float32 is the rule.
        outputs: how many.
        opset: of ai.onnx.
    """
    weights, constants, dtypes = weights or {}, constants or {}, dtypes or {}
    given = list(inputs)
    count = len(given) + len(weights) + len(constants)
    names, declared, fixed = [], [], []
    for place in range(count):
        name = f"i{place}"
        if place in constants:
            kind, _, data = constants[place].partition(" = ")
            fixed.append(f"{kind} {name} = {data}")
        else:
            shape = weights[place] if place in weights else given.pop(0)
            if shape == "":
                names.append('""')
                continue
            kind = DTYPES[dtypes.get(place, "float32")]
            size = ",".join(map(str, shape))
            declared.append(f"{kind}[{size}] {name}" if size else f"{kind} {name}")
        names.append(name)
    results = ", ".join(f"o{place}" for place in range(outputs))
    typed = ", ".join(f"float o{place}" for place in range(outputs))
    node = f"{results} = {operator} {f'<{attributes}>' if attributes else ''} ({', '.join(names)})"
    constant_text = f"<{', '.join(fixed)}>" if fixed else ""
    made = model(f"f ({', '.join(declared)}) => ({typed}) {constant_text} {{ {node} }}", opset=opset)
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
        value.type.tensor_type.ClearField("elem_type")
    return made


def held(weights: Mapping[int, Any] | None) -> frozenset[str]:
    """Names of the weights of `one_node`."""
    return frozenset(f"i{place}" for place in weights or {})


def facts_of(made: onnx.ModelProto, constants: frozenset[str] = frozenset(), index: int = 0) -> NodeFacts:
    """The facts of a node."""
    return list(graph_facts(made, held=constants).nodes())[index][1]


@cache
def shipped(name: str) -> Profile:
    """A profile that ships, read once."""
    return load_profile(name)


def judged(
    profile: str | Profile, made: onnx.ModelProto, constants: frozenset[str] = frozenset()
) -> Judgement:
    """What a profile says of a graph."""
    return judge(shipped(profile) if isinstance(profile, str) else profile, made, held=constants)


def placed(profile: str | Profile, operator: str, *inputs: Any, **given: Any) -> Placement:
    """Where a node alone in its graph would run."""
    found = judged(profile, one_node(operator, *inputs, **given), held(given.get("weights")))
    return found.placements[-1]
