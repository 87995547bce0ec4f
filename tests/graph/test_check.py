"""onnx.checker in full, and its sentences in our form."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import StageFailed
from pipeline.graph.bare import BareModel
from pipeline.graph.check import check, unchecked_domains
from tests.graph.graphs import bare, perceptron, random


def failure(model: BareModel) -> Any:
    with pytest.raises(StageFailed) as caught:
        check(model)
    return caught.value.reason


def test_a_valid_graph_passes() -> None:
    check(perceptron())


def test_a_wrong_shape() -> None:
    model = bare(
        'net (float[2,32] x, float[64,32] w) => (float[2,32] y) { ["/fc/MatMul"] y = MatMul(x, w) }',
        {"w": random(64, 32)},
        scopes={"/fc/MatMul": "fc"},
    )
    reason = failure(model)
    assert reason.sentence() == (
        "node /fc/MatMul of module fc: the graph is not valid ONNX: Incompatible dimensions for matrix "
        "multiplication. Type export.exporter=torchscript or dynamo to try the other exporter, or mend the file "
        "where it came from"
    )
    assert reason.code == "PL-411"


def test_a_declared_output_that_is_not_what_comes_out() -> None:
    reason = failure(bare('net (float[2,3] x) => (float[2,4] y) { ["/act/Relu"] y = Relu(x) }'))
    assert reason.where == "node /act/Relu"
    assert reason.message.endswith("Inferred shape and existing shape differ in dimension 1: (3) vs (4)")


def test_an_attribute_that_the_opset_does_not_know() -> None:
    reason = failure(bare('net (float[2] x) => (float[2] y) { ["/act/Relu"] y = Relu<alpha=1.0>(x) }'))
    assert reason.where == "node /act/Relu"
    assert reason.message == "the graph is not valid ONNX: Unrecognized attribute: alpha for operator Relu"


def test_an_operator_that_there_is_not() -> None:
    reason = failure(bare('net (float[2] x) => (float[2] y) { ["/act/Foo"] y = Foo(x) }'))
    assert reason.where == "node /act/Foo"
    assert "No Op registered for Foo with domain_version of 17" in reason.message


def test_a_value_that_nobody_makes() -> None:
    reason = failure(bare('net (float[2] x) => (float[2] y) { ["/act/Relu"] y = Relu(z) }'))
    assert reason.where == "node /act/Relu"
    assert "topologically sorted" in reason.message


def test_an_operator_set_that_onnx_does_not_know() -> None:
    reason = failure(bare("net (float[2] x) => (float[2] y) { y = Relu(x) }", opset=30))
    assert (reason.code, reason.where, reason.found) == ("PL-412", "export.opset", "opset 30")
    assert reason.next_step.startswith("Type export.opset=")


def test_nodes_without_a_schema_are_counted() -> None:
    model = bare("net (float[2] x) => (float[2] y) { a = mine.Foo(x) y = Relu(a) }", imports=', "mine" : 1')
    check(model)
    assert unchecked_domains(model) == {"mine": 1}
    assert unchecked_domains(perceptron()) == {}
