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


@pytest.mark.parametrize("opset", [9, 11, 17])
def test_below_18_rules_bring_the_graph_down(make, opset):
    """Asked itself, dynamo would leave 18 and say nothing."""
    made = make(networks.Fused(), IMAGE, opset=opset, exporter="dynamo")
    [attempt] = made.attempts.attempts
    assert (attempt.opset, attempt.converted_from) == (opset, 18)
    assert attempt.rules["reduction_axes"] == 1
    assert [entry.version for entry in made.model.parsed().opset_import] == [opset]
    assert made.worst() < 1e-5
    made.model.check_invariant()
    [mean] = [node for node in made.graph.node if node.op_type == "ReduceMean"]
    assert made.model.made_by[mean.name] == "rule reduction_axes"
    assert made.model.lines[mean.name].startswith("tests/exporters/networks.py:")


def test_a_spectrum_at_an_old_opset(make):
    """dynamo's own converter would stamp a DFT of opset 18 with 17, and 16 has none."""
    made = make(torch_rfft(), {"x": tensor(2, 8)}, opset=11, exporter="dynamo")
    assert "DFT" not in made.operators
    assert made.worst() < 1e-5


def test_weights_are_never_touched(make):
    module = networks.Fused()
    native = make(module, IMAGE, opset=18, exporter="dynamo").model
    lowered = make(module, IMAGE, opset=9, exporter="dynamo").model
    assert list(native.held) == list(lowered.held)
    for name, weight in native.held.items():
        twin = lowered.held[name]
        assert (weight.origin, weight.derived_by) == (twin.origin, twin.derived_by)
        assert bytes(weight.data()) == bytes(twin.data())


def test_a_rule_that_is_switched_off_is_named(make):
    with pytest.raises(StageFailed) as caught:
        make(networks.Fused(), IMAGE, opset=11, exporter="dynamo", rules={"reduction_axes": False})
    reason = caught.value.reason
    assert reason.code == "PL-430"
    assert reason.message.startswith("no rule brings ReduceMean below opset 18: ReduceMean at ")
    assert reason.message.endswith("its rule reduction_axes is switched off")
    assert reason.next_step == "Take export.rules.reduction_axes=false away, or type export.opset=18"
    [attempt] = caught.value.recorded["attempts"]
    assert (attempt["outcome"], attempt["converted_from"]) == ("failed", 18)


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
