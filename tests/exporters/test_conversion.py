"""What becomes of an exported graph on its way to the asked opset."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import StageFailed
from pipeline.exporters.conversion import lowered, raised, refuse_unrunnable, refuse_wrong
from pipeline.graph.session import array_value, held_value, run_bare
from tests.graph.graphs import bare, perceptron, random

BRANCHES = """
    g (float[n,3] x, bool c) => (float[p,q] y)
    {
        y = If (c) <
            then_branch = t () => (a) { axes = Constant<value_ints=[0]>() a = Squeeze(x, axes) },
            else_branch = e () => (b) { b = Identity(x) }
        >
    }
"""


def test_branches_that_do_not_run_are_refused():
    """What TorchScript writes for mvit_v1_b at 13 and 17: checker and simplifier take it."""
    model = bare(BRANCHES)
    with pytest.raises(StageFailed) as caught:
        refuse_unrunnable(model, {"x": random(2, 3), "c": np.array(True)}, {})
    assert caught.value.reason.code == "PL-315"
    assert "Squeeze" in caught.value.reason.found


@pytest.mark.parametrize(("size", "side"), [(1, True), (2, False)])
def test_branches_that_run_are_taken(size, side):
    refuse_unrunnable(bare(BRANCHES), {"x": random(size, 3), "c": np.array(side)}, {})


def test_a_graph_without_branches_is_not_run():
    refuse_unrunnable(perceptron(), {"x": random(1, 1)}, {})


class Computes:
    """A network that gives what it is told to."""

    def __init__(self, outputs):
        self.outputs = outputs

    def run(self, values):
        return self.outputs


def outputs_of(model, values):
    feeds = {name: array_value(value) for name, value in values.items()}
    feeds.update({name: held_value(tensor) for name, tensor in model.held.items()})
    return dict(zip(model.outputs, run_bare(model.proto, feeds), strict=True))


@pytest.mark.parametrize(("factor", "wrong"), [(1.0, False), (1.005, False), (1.02, True), (-1.0, True)])
def test_a_graph_that_computes_something_else_is_refused(factor, wrong):
    model, values = perceptron(), {"x": random(2, 32)}
    network = Computes({name: array * factor for name, array in outputs_of(model, values).items()})
    if not wrong:
        refuse_wrong(model, values, {}, network)
        return
    with pytest.raises(StageFailed, match="does not compute what the network computes") as caught:
        refuse_wrong(model, values, {}, network)
    assert caught.value.reason.code == "PL-315"


def test_a_graph_that_nothing_can_be_compared_with_has_to_run():
    refuse_wrong(perceptron(), {"x": random(2, 32)}, {}, None)
    with pytest.raises(StageFailed, match="does not run on the inputs"):
        refuse_wrong(perceptron(), {"x": random(2, 31)}, {}, None)


def test_down_and_up_again():
    values = {"x": random(2, 32)}
    low, rewriting = lowered(perceptron(), 9, values, {})
    assert rewriting.applied == ()
    up = raised(low, 23, values)
    assert [entry.version for entry in up.parsed().opset_import] == [23]
    assert list(up.held) == ["fc1.weight", "fc2.weight"]
    assert all(tensor.derived_by is None for tensor in up.held.values())
    assert (up.scopes["b"], up.lines["b"]) == ("act", "net.py:8")


def test_new_nodes_of_a_converter_have_the_origin_of_what_takes_them():
    model = bare(
        'g (float[2,1,3] x) => (float[2,3] y) { ["/a/Squeeze"] y = Squeeze<axes=[1]>(x) }',
        opset=11, scopes={"/a/Squeeze": "a", "y": "a"}, lines={"/a/Squeeze": "net.py:3"},
    )  # fmt: skip
    up = raised(model, 17, {"x": random(2, 1, 3)})
    nodes = up.parsed().graph.node
    assert [node.op_type for node in nodes][-1] == "Squeeze"
    for node in nodes:
        assert up.scopes[node.name] == "a"
        assert up.lines[node.name] == "net.py:3"
    made = [node.name for node in nodes if node.op_type != "Squeeze"]
    assert [up.made_by[name] for name in made] == ["raise: onnx.version_converter"] * len(made)


def test_an_operator_that_a_newer_opset_renamed():
    model = bare(
        'g (float[1,3,4,4] x) => (float[1,3,8,8] y) <float[4] s = {1,1,2,2}> { y = Upsample<mode="nearest">(x, s) }',
        opset=9,
    )  # fmt: skip
    up = raised(model, 20, {"x": random(1, 3, 4, 4)})
    assert [node.op_type for node in up.parsed().graph.node] == ["Constant", "Resize"]


def test_what_no_converter_can_do_is_said_with_every_reason():
    with pytest.raises(StageFailed) as caught:
        raised(bare("g (float[2] x) => (float[2] y) { y = Relu(x) }", opset=18), 99, {"x": random(2)})
    reason = caught.value.reason
    assert reason.code == "PL-314"
    assert "onnx.version_converter: " in reason.found
    assert "; onnxscript.version_converter: " in reason.found
    assert reason.next_step == "Type export.opset=18"
