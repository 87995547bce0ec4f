"""The dynamo exporter: weights as views, the asked opset or a failure, no path of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StageFailed
from pipeline.exporters import dynamo
from tests.exporters import networks
from tests.exporters.conftest import IMAGE, tensor

SLOW = pytest.mark.slow


@pytest.mark.parametrize("opset", [18, 21, pytest.param(20, marks=SLOW), pytest.param(23, marks=SLOW), 26])
def test_opsets(make, opset):
    made = make(networks.Fused(), IMAGE, opset=opset, exporter="dynamo")
    assert [(entry.domain, entry.version) for entry in made.model.parsed().opset_import] == [("", opset)]
    assert made.worst() < 1e-5


def test_weights_are_views_of_the_network(make):
    made = make(networks.Plain(), IMAGE, opset=18, exporter="dynamo")
    held = made.model.held["head.weight"]
    assert held.origin == "head.weight"
    assert held.data().ctypes.data == made.network.module.head.weight.data_ptr()


def test_nothing_of_the_machine_is_in_the_graph(make):
    made = make(networks.Fused(), IMAGE, opset=18, exporter="dynamo")
    proto = made.model.parsed()
    assert str(Path(__file__).parents[2]).encode() not in made.model.proto
    assert b"networks.py" not in made.model.proto
    assert "+" not in proto.producer_version
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert not proto.graph.value_info
    assert not proto.graph.metadata_props


def test_scopes_lines_and_origins(make):
    made = make(networks.Fused(), IMAGE, opset=18, exporter="dynamo")
    by_operator = {node.op_type: node.name for node in made.graph.node}
    scopes = {operator: made.model.scopes[name] for operator, name in by_operator.items()}
    assert (scopes["Conv"], scopes["Gemm"]) == ("features.0", "head")
    assert made.model.lines[by_operator["Gemm"]].startswith("tests/exporters/networks.py:")
    assert made.model.held["features.0.weight_folded"].derived_by == "export: Conv+BatchNorm fused"
    assert made.model.held["head.weight"].origin == "head.weight"


def test_another_opset_than_asked_is_a_failure(make, monkeypatch):
    """What dynamo does by itself below 18: it leaves 18 and says nothing."""
    with pytest.raises(StageFailed) as caught:
        make(networks.Fused(), IMAGE, opset=11, exporter="dynamo")
    reason = caught.value.reason
    assert (reason.code, reason.message) == ("PL-312", "the exporter left opset 18")
    assert reason.next_step == "Type export.opset=18, or export.exporter=torchscript"


def test_a_graph_that_is_only_stamped_is_a_failure(make):
    with pytest.raises(StageFailed) as caught:
        make(torch_rfft(), {"x": tensor(2, 8)}, opset=17, exporter="dynamo")
    reason = caught.value.reason
    assert reason.code == "PL-314"
    assert reason.message == "the exporter stamps opset 17 on a graph of opset 18"


def torch_rfft():
    import torch

    class Spectrum(torch.nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x).abs()

    return Spectrum()


def test_folding_can_be_switched_off(make):
    folded = make(networks.Fused(), IMAGE, opset=18, exporter="dynamo")
    whole = make(networks.Fused(), IMAGE, opset=18, exporter="dynamo", do_constant_folding=False)
    assert "BatchNormalization" not in folded.operators
    assert "BatchNormalization" in whole.operators


def test_training_mode_is_refused(make):
    with pytest.raises(StageFailed) as caught:
        make(networks.Fused(), IMAGE, opset=18, exporter="dynamo", training="train")
    assert caught.value.reason.code == "PL-305"


def test_verbose_puts_the_graph_into_the_log(make):
    made = make(networks.Plain(), IMAGE, opset=18, exporter="dynamo", verbose=True)
    assert any("Conv" in getattr(event, "text", "") and "main_graph" in event.text for event in made.events)


def test_a_fixed_axis_is_a_failure(make):
    with pytest.raises(StageFailed) as caught:
        make(
            networks.Baked(), {"x": tensor(2, 3, dynamic={0: "batch"})}, opset=18, exporter="dynamo",
        )  # fmt: skip
    reason = caught.value.reason
    assert (reason.code, reason.where) == ("PL-322", "model.inputs.x.dynamic")
    assert reason.message == "the exporter fixed the dynamic axis batch at the size 2"


def test_a_program_without_a_value_is_our_own_fault(make, monkeypatch):
    from pipeline.errors import InternalError

    real = dynamo._lift_inner_initializers

    def lose(model):
        real(model)
        next(iter(model.graph.initializers.values())).const_value = None

    monkeypatch.setattr(dynamo, "_lift_inner_initializers", lose)
    with pytest.raises(InternalError, match="has no value"):
        make(networks.Plain(), IMAGE, opset=18, exporter="dynamo")
