"""Inputs and outputs are what was asked, whatever the exporter made of them."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from pipeline.errors import StageFailed
from pipeline.exporters.boundary import Boundary, rename, settle
from pipeline.parity.signature import OutputSpec, Signature
from pipeline.samples.spec import Axis, TensorSpec
from tests.exporters import networks
from tests.exporters.conftest import tensor

BOTH = pytest.mark.parametrize(("exporter", "opset"), [("torchscript", 13), ("dynamo", 18)])


@BOTH
def test_an_unused_input_keeps_its_place(make, exporter, opset):
    inputs = {"a": tensor(2), "b": tensor(3, 4, dtype="int64", fill={"integers": [0, 5]}), "c": tensor(2)}
    made = make(networks.Unused(), inputs, opset=opset, exporter=exporter)
    assert made.model.inputs == ("a", "b", "c")
    assert made.dimensions("b") == [3, 4]
    assert made.worst() < 1e-6


@BOTH
def test_a_tensor_returned_twice(make, exporter, opset):
    made = make(networks.Twice(), {"x": tensor(2, 3)}, opset=opset, exporter=exporter)
    assert made.model.outputs == ("output1", "output2", "output3")
    assert made.worst() < 1e-6


@BOTH
def test_lists_dicts_and_keywords(make, exporter, opset):
    inputs = {
        "xs": [tensor(2), tensor(2)],
        "d": {"b": tensor(3), "a": tensor(4)},
        "scale": {"shape": [], "pass": "keyword"},
    }
    made = make(networks.Structured(), inputs, opset=opset, exporter=exporter)
    assert made.model.inputs == ("xs_0", "xs_1", "d_b", "d_a", "scale")
    assert made.model.outputs == ("z", "a", "c")
    assert made.worst() < 1e-6


@BOTH
def test_parameters_and_constants_as_outputs(make, exporter, opset):
    made = make(networks.Returned(), {"x": tensor(2)}, opset=opset, exporter=exporter)
    assert made.model.held["weight"].origin == "weight"
    assert made.worst() < 1e-6


@BOTH
def test_names_that_the_exporter_uses_itself(make, exporter, opset):
    made = make(networks.Clashing(), {"relu": tensor(2), "add": tensor(2)}, opset=opset, exporter=exporter)
    assert made.model.outputs == ("mul", "add_1")
    assert made.worst() < 1e-6


@BOTH
def test_dynamic_axes(make, exporter, opset):
    side = {"min": 32, "max": 640, "multiple_of": 32}
    inputs = {
        "x": tensor(
            1, 3, 32, 64, dynamic={0: "batch", 2: {"name": "height", **side}, 3: {"name": "width", **side}}
        )
    }
    sizes = {"batch": 3, "height": 64, "width": 96}
    made = make(networks.Dynamic(), inputs, opset=opset, exporter=exporter, sizes=sizes)
    assert made.dimensions("x") == ["batch", 3, "height", "width"]
    assert made.dimensions("output1") == ["batch", 8, "height", "width"]
    assert made.dimensions("output2") == ["batch", 3]
    from pipeline.samples.make import make_samples

    other = make_samples(made.network.specs, seed=3, stream="parity/0", sizes=sizes)
    assert made.worst(other) < 1e-5


def graph(text: str) -> onnx.GraphProto:
    return onnx.parser.parse_graph(text)


def leaf(name: str, *shape: int, dynamic=None, dtype="float32") -> TensorSpec:
    return TensorSpec(name, shape, dtype, dynamic=dynamic or {})


def output(name: str, *shape: int, varies=(), dtype="float32") -> OutputSpec:
    return OutputSpec(name, dtype, shape, dict.fromkeys(varies, ()))


def test_a_name_is_free_in_every_scope_before_it_is_given():
    made = graph(
        """g (float[2] x, bool c) => (float[2] y) {
            y = If (c) <
                then_branch = a () => (float[2] result) { result = Relu(x) },
                else_branch = b () => (float[2] inner) { inner = Neg(x) }
            >
        }"""
    )
    moved = rename(made, {"y": "result"})
    assert moved == {"y": "result", "result": "result_1"}
    branches = {a.name: a.g for a in made.node[0].attribute}
    assert branches["then_branch"].node[0].output == ["result_1"]
    assert branches["then_branch"].output[0].name == "result_1"
    assert made.output[0].name == "result"


def test_two_names_can_be_exchanged():
    made = graph("g (float[2] x) => (float[2] a, float[2] b) { a = Relu(x) b = Neg(x) }")
    rename(made, {"a": "b", "b": "a"})
    assert [(node.op_type, node.output[0]) for node in made.node] == [("Relu", "b"), ("Neg", "a")]


@pytest.mark.parametrize(
    ("leaves", "outputs", "message"),
    [
        ((leaf("x", 3),), (output("y", 2),), "gives an input another type or size"),
        ((leaf("x", 2, dtype="float64"),), (output("y", 2),), "gives an input another type or size"),
        ((leaf("x", 2),), (output("y", 2, dtype="int64"),), "gives an output another type or rank"),
        ((leaf("x", 2),), (output("y", 2, 1),), "gives an output another type or rank"),
        ((leaf("x", 2),), (output("y", 2), output("z", 2)), "gives another number of outputs"),
    ],
)
def test_another_interface_is_a_failure(leaves, outputs, message):
    made = graph("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(StageFailed, match=message):
        settle(made, Boundary(leaves, Signature(outputs)), specialised_is_wrong=True)


def test_a_dimension_that_the_exporter_believes_static_is_recorded():
    made = graph("g (float[n] x) => (float[2] y) { y = Relu(x) }")
    leaves = (leaf("x", 2, dynamic={0: Axis("n")}),)
    frozen, _ = settle(
        made, Boundary(leaves, Signature((output("z", 2, varies=(0,)),))), specialised_is_wrong=True
    )
    assert [(one.place, one.kind) for one in frozen] == [("output z, dimension 0", "the size 2")]
