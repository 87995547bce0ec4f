"""Attempts, parameters of the export and sentences of failures."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from pipeline.errors import Refused, StageFailed
from pipeline.events import Finding, LogLine
from pipeline.exporters.attempts import Attempts
from pipeline.exporters.failures import LONGEST_SENTENCE
from tests.exporters import networks
from tests.exporters.conftest import IMAGE, tensor

VECTOR = {"x": tensor(1, 8)}


class Sorted(torch.nn.Module):
    def forward(self, x):
        return torch.sort(x, dim=-1)[0]


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.LSTM(8, 8, batch_first=True)

    def forward(self, x):
        return self.inner(x)[0]


def failure(make, module, inputs, **config) -> StageFailed:
    with pytest.raises(StageFailed) as caught:
        make(module, inputs, **config)
    return caught.value


def test_up_to_17_torchscript_comes_first(make):
    assert make(networks.Plain(), IMAGE, opset=17).attempts.to_json() == [
        {"exporter": "torchscript", "opset": 17, "outcome": "passed"}
    ]


def test_an_export_that_needs_no_rule_does_without_sympy():
    """The rules' onnx_ir brings it: 0.3 s of every export by TorchScript went into importing both."""
    modules = "choice, torchscript, conversion, holding, symbolics, boundary"
    program = (
        f"import sys; from pipeline.exporters import {modules}; from pipeline.graph import simplify\n"
        "print(sorted({'sympy', 'onnx_ir', 'onnxscript'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_from_18_dynamo_comes_first_and_torchscript_after_it(make):
    made = make(networks.Branching(), VECTOR, opset=18)
    first, second = made.attempts.attempts
    assert (first.exporter, first.outcome, first.reason.code) == ("dynamo", "failed", "PL-313")
    assert (second.exporter, second.outcome) == ("torchscript", "passed")
    [finding] = [event for event in made.events if isinstance(event, Finding)]
    assert finding.message.startswith("dynamo did not export the network, so another exporter was asked: ")
    assert [(place.kind, place.count) for place in made.attempts.frozen] == [("a Python boolean", 1)]
    assert made.attempts.frozen[0].place.startswith("tests/exporters/networks.py:")
    assert made.attempts.frozen[0].decides_a_branch


def test_below_18_dynamo_comes_second(make):
    made = make(networks.Pooling(), {"x": tensor(1, 3, 10, 10)}, opset=17)
    assert [(one.exporter, one.outcome) for one in made.attempts.attempts] == [
        ("torchscript", "failed"),
        ("dynamo", "passed"),
    ]
    assert made.worst() < 1e-5


@pytest.mark.parametrize(
    ("network", "opset", "found"),
    [(Sorted, 9, "differs by"), (Sorted, 7, "differs by"), (Recurrent, 7, "ConstantFill")],
)
def test_what_torchscript_writes_wrongly_below_11_is_not_taken(make, network, opset, found):
    """sort's order is lost at 7 to 9, LSTM at 7 becomes an operator that is none: dynamo's is lowered."""
    made = make(network(), {"x": {"shape": [1, 4, 8]}}, opset=opset)
    tried = [(attempt.exporter, attempt.outcome) for attempt in made.attempts.attempts]
    assert tried[0] == ("torchscript", "failed")
    assert tried[-1][1] == "passed"
    assert made.attempts.attempts[0].reason.code == "PL-315"
    assert found in made.attempts.attempts[0].reason.found
    assert made.worst() < 1e-4


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", ["inner", "outputs", "leaf_names", "network", "module"])
def test_a_module_may_have_any_name(make, exporter, name):
    """One called `inner` was taken for an attribute of ours: no exporter wrote such a network."""

    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, name, torch.nn.Linear(8, 3))

        def forward(self, x):
            return getattr(self, name)(x)

    made = make(
        Named(), {"x": {"shape": [2, 8]}}, opset=18 if exporter == "dynamo" else 17, exporter=exporter
    )
    assert f"{name}.weight" in {tensor.origin for tensor in made.model.held.values()} | set(
        made.model.held
    ) | {tensor.name for tensor in made.graph.initializer}
    assert made.worst() < 1e-5


def test_parameters_that_are_left_outside_are_fed_to_what_is_run(make):
    """Nothing was run then, and the operator that is none was found by parity."""
    made = make(Recurrent(), {"x": {"shape": [1, 4, 8]}}, opset=8, export_params=False)
    assert made.attempts.attempts[0].reason.code == "PL-315"
    assert made.attempts.attempts[-1].outcome == "passed"


def test_what_torchscript_writes_below_11_is_taken_where_it_is_asked_for(make):
    """It is the user's choice then: parity says what is wrong with it."""
    made = make(Sorted(), {"x": {"shape": [1, 4, 8]}}, opset=9, exporter="torchscript")
    assert made.worst() > 1e-2


def test_a_converter_takes_torchscript_beyond_its_opsets(make):
    made = make(networks.Fused(), IMAGE, opset=26, exporter="torchscript")
    assert made.attempts.to_json() == [
        {"exporter": "torchscript", "opset": 26, "outcome": "passed", "converted_from": 23}
    ]
    assert made.worst() < 1e-5


def test_attempts_are_stored(make, tmp_path):
    made = make(networks.Branching(), VECTOR, opset=18, export_params=False)
    folder = tmp_path / "stored"
    folder.mkdir()
    made.attempts.store(folder)
    back = Attempts.load(folder)
    assert back.attempts == made.attempts.attempts
    assert back.frozen == made.attempts.frozen
    assert list(back.parameters) == list(made.attempts.parameters) == ["linear.weight", "linear.bias"]
    for name, held in made.attempts.parameters.items():
        assert bytes(back.parameters[name].data()) == bytes(held.data())
        assert back.parameters[name].origin == held.origin


def test_an_operator_that_a_newer_opset_has(make):
    """TorchScript writes it at a newer opset, from which rules bring the graph down."""
    made = make(networks.Wrapped(), {"x": tensor(1, 2, 4, 8)}, opset=13, exporter="torchscript")
    first, second = made.attempts.attempts
    reason = first.reason
    assert (reason.code, reason.message) == (
        "PL-310",
        "TorchScript cannot write aten::scaled_dot_product_attention at opset 13",
    )
    assert reason.where.startswith("block.0 (tests/exporters/networks.py:")
    assert reason.expected == "opset 14, the first that has it"
    assert reason.next_step == "Type export.opset=14"
    assert (second.exporter, second.outcome, second.converted_from) == ("torchscript", "passed", 17)
    assert made.worst() < 1e-5


def test_an_operator_that_only_dynamo_has(make):
    inputs = {"x": tensor(1, 3, 10, 10)}
    reason = failure(make, networks.Pooling(), inputs, opset=17, exporter="torchscript").reason
    assert reason.message == (
        "TorchScript cannot write aten::adaptive_avg_pool2d at opset 17: Unsupported: ONNX export of operator "
        "adaptive_avg_pool2d, output size that are not factor of input size"
    )
    assert reason.next_step == "Type export.exporter=dynamo export.opset=17"
    made = make(networks.Pooling(), inputs, opset=11)
    first, second = made.attempts.attempts
    assert (first.exporter, first.outcome) == ("torchscript", "failed")
    assert (second.exporter, second.outcome, second.converted_from) == ("dynamo", "passed", 18)
    assert made.worst() < 1e-5


def test_an_operator_that_nobody_has(make):
    error = failure(make, networks.Bessel(), {"x": tensor(2)}, opset=18)
    assert (
        error.reason.message == "dynamo has no translation of prims::bessel_i1e, and torchscript failed too"
    )
    assert error.reason.next_step.startswith("Give a translation with export.custom_symbolics")
    assert [row["exporter"] for row in error.recorded["attempts"]] == ["dynamo", "torchscript"]


def test_a_branch_under_dynamo_names_its_line(make):
    reason = failure(make, networks.Branching(), VECTOR, opset=18, exporter="dynamo").reason
    assert reason.code == "PL-313"
    source = Path(networks.__file__).read_text().splitlines()
    assert source[int(reason.where.rpartition(":")[2]) - 1].strip() == "if y.sum() > 0:"
    assert "export.exporter=torchscript where the value never changes" in reason.next_step


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_network_that_raises_while_it_is_exported(make, exporter):
    reason = failure(make, networks.Halting(), {"x": tensor(2)}, opset=18, exporter=exporter).reason
    assert reason.code == "PL-311"
    assert reason.message.endswith("failed: ValueError: no tracing here")
    assert reason.where.startswith("tests/exporters/networks.py:")


def test_a_failed_exporter_leaves_the_network_whole(make):
    module = networks.Branching().eval()
    before = {name: (id(one), one.data_ptr(), one.clone()) for name, one in module.named_parameters()}
    make(module, VECTOR, opset=18)
    for name, one in module.named_parameters():
        identity, address, values = before[name]
        assert (id(one), one.data_ptr()) == (identity, address)
        assert torch.equal(one, values)
    assert not module.training


@pytest.mark.parametrize(("exporter", "opset"), [("torchscript", 11), ("dynamo", 18)])
def test_parameters_get_names_and_are_shown(make, exporter, opset):
    names = tuple(f"learned_{index}" for index in range(4))
    made = make(
        networks.Plain(), {"actual_input_1": tensor(2, 3, 12, 12)}, opset=opset, exporter=exporter,
        parameter_names=names, keep_initializers_as_inputs=True,
    )  # fmt: skip
    assert made.model.shown_parameters == names
    assert [held.origin for held in made.model.held.values()] == [
        "conv.weight", "conv.bias", "head.weight", "head.bias"
    ]  # fmt: skip
    import onnx

    written = onnx.load(made.file.path, load_external_data=False)
    assert [value.name for value in written.graph.input] == ["actual_input_1", *names]


def test_names_that_the_network_has_are_refused(make):
    with pytest.raises(Refused, match="PL-302"):
        make(
            networks.Plain(),
            {"conv.weight": tensor(2, 3, 12, 12)} if 0 else IMAGE,
            parameter_names=("head.bias",),
        )
    with pytest.raises(Refused, match="PL-304"):
        make(networks.Plain(), IMAGE, parameter_names=tuple("abcde"))


@pytest.mark.parametrize(("exporter", "opset"), [("torchscript", 17), ("dynamo", 18)])
def test_parameters_that_are_left_out_are_inputs(make, exporter, opset):
    made = make(networks.Plain(), IMAGE, opset=opset, exporter=exporter, export_params=False)
    assert made.model.inputs == ("x", "conv.weight", "conv.bias", "head.weight", "head.bias")
    assert not made.model.held
    assert made.worst() < 1e-5


def test_equal_parameters_stay_apart_where_others_may_be_fed(make):
    module = networks.Mixed()
    merged = make(module, {"x": tensor(4, 40)}, opset=17, do_constant_folding=False)
    apart = make(
        module, {"x": tensor(4, 40)}, opset=17, do_constant_folding=False, keep_initializers_as_inputs=True
    )
    assert len(merged.model.shown_parameters) == 0
    assert len(apart.model.shown_parameters) == 8


def symbolics(text: str) -> str:
    return f"tests/exporters/symbolics.py:{text}"


@pytest.mark.parametrize(("exporter", "opset"), [("torchscript", 17), ("dynamo", 18)])
def test_custom_symbolics_and_operator_sets(make, exporter, opset):
    made = make(
        networks.Bessel(), {"x": tensor(3)}, opset=opset, exporter=exporter,
        custom_symbolics=symbolics("build"), custom_opsets={"com.example": 3},
    )  # fmt: skip
    assert [(node.domain, node.op_type) for node in made.graph.node] == [("com.example", "BesselI1e")]
    assert {entry.domain: entry.version for entry in made.model.parsed().opset_import} == {
        "": opset,
        "com.example": 3,
    }
    # Registered for one export alone.
    assert (
        failure(make, networks.Bessel(), {"x": tensor(3)}, opset=opset, exporter=exporter).reason.code
        == "PL-310"
    )


def test_custom_symbolics_that_give_nothing(make):
    reason = failure(
        make,
        networks.Bessel(),
        {"x": tensor(3)},
        exporter="torchscript",
        custom_symbolics=symbolics("nothing"),
    ).reason
    assert reason.code == "PL-307"
    reason = failure(
        make,
        networks.Bessel(),
        {"x": tensor(3)},
        exporter="torchscript",
        custom_symbolics=symbolics("misnamed"),
    ).reason
    assert reason.found == "special_i1e"


def test_what_torch_says_is_cut_to_a_sentence(make):
    """A guard over the sizes of ninety lists of boxes was two thousand characters of a sentence."""
    wordy = networks.Halting("no tracing" + " here" * 400)
    reason = failure(make, wordy, {"x": tensor(2)}, opset=18, exporter="torchscript").reason
    assert reason.message.endswith("here here ...")
    assert len(reason.message) <= LONGEST_SENTENCE + len("TorchScript failed: ValueError: ")


def test_an_operator_set_that_no_node_uses(make):
    reason = failure(make, networks.Plain(), IMAGE, custom_opsets={"com.example": 1}).reason
    assert (reason.code, reason.where) == ("PL-323", "export.custom_opsets.com.example")


def test_what_exporters_say_goes_to_the_log_alone(make, capfd):
    before = {
        name: (list(logger.handlers), logger.propagate)
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.startswith("torch")
    }
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        made = make(networks.Branching(), VECTOR, opset=17)
        with pytest.raises(StageFailed):
            make(networks.Bessel(), {"x": tensor(2)}, opset=11, exporter="dynamo")
        assert warnings.filters == filters
    assert not leaked
    out, err = capfd.readouterr()
    assert "TracerWarning" not in out + err
    assert "requested opset_version" not in out + err
    texts = [event.text for event in made.events if isinstance(event, LogLine)]
    assert any("TracerWarning: Converting a tensor to a Python boolean" in text for text in texts)
    for name, (handlers, propagate) in before.items():
        logger = logging.getLogger(name)
        assert [one for one in handlers if one not in logger.handlers] == []
        assert logger.propagate == propagate


def test_exports_take_turns(make):
    """torch's exporters are not safe to call from two threads; ours is."""
    errors = []

    def run():
        try:
            assert make(networks.Fused(), IMAGE, opset=13).worst() < 1e-5
        except Exception as error:  # noqa: BLE001 - shown by the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
