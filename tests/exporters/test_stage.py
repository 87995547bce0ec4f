"""The stage: what it keys on, what it records, what it reads back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.config.compose import compose
from pipeline.errors import InternalError
from pipeline.events import Finding
from pipeline.exporters.config import ExportConfig
from pipeline.exporters.stages import ExportStage
from pipeline.samples.make import make_samples
from pipeline.samples.spec import parse_inputs
from pipeline.sources.network import Network
from pipeline.stage import Stage
from tests.exporters import networks
from tests.exporters.conftest import IMAGE, signature_of, tensor


class Workspace:
    def __init__(self, folder: Path, **artifacts) -> None:
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.artifacts = artifacts
        self.events = []

    def emit(self, event) -> None:
        self.events.append(event)

    def get(self, name):
        return self.artifacts[name]

    def put(self, name, value) -> None:
        self.artifacts[name] = value


def ready(folder: Path, module: torch.nn.Module, inputs=IMAGE) -> tuple[Workspace, Network]:
    network = Network(module.eval(), parse_inputs(inputs))
    values = make_samples(network.specs, seed=0, stream="export")
    signature = signature_of(network, values, None)
    return Workspace(folder, network=network, export_inputs=values, signature=signature), network


def stage(specs=None, opset: int = 13, **config) -> ExportStage:
    names = config.pop("parameter_names", ())
    return ExportStage(ExportConfig(**config), opset, specs or parse_inputs(IMAGE), names, True)


def test_it_makes_what_it_declares(tmp_path):
    workspace, network = ready(tmp_path, networks.Fused())
    one = stage(network.specs)
    held_to: Stage = one
    assert held_to.makes == ("exported", "attempts")
    one.requires(workspace)
    verdict = one.run(workspace)
    one.ensures(workspace)
    assert verdict.status == "passed"
    assert verdict.summary == "torchscript, opset 13, 0 MiB held aside"
    assert verdict.recorded == {"attempts": [{"exporter": "torchscript", "opset": 13, "outcome": "passed"}]}
    assert not workspace.events


def test_frozen_places_are_one_finding(tmp_path):
    workspace, network = ready(tmp_path, networks.Branching(), {"x": tensor(1, 8)})
    stage(network.specs).run(workspace)
    [finding] = [event for event in workspace.events if isinstance(event, Finding)]
    assert finding.level == "info"
    assert finding.message == (
        "tracing turned values into constants at 1 place; parity shows whether that matters"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"opset": 11},
        {"exporter": "torchscript"},
        {"training": "train"},
        {"do_constant_folding": False},
        {"keep_initializers_as_inputs": True},
        {"export_params": False},
        {"custom_opsets": {"com.example": 1}},
        {"verbose": True},
        {"parameter_names": ("a",)},
        {"specs": parse_inputs({"x": tensor(2, 3, 12, 12, dynamic={0: "batch"})})},
        {"custom_symbolics": "tests/exporters/symbolics.py:build"},
    ],
)
def test_what_shapes_the_graph_is_in_the_key(change):
    assert stage(**change).key_parts() != stage().key_parts()


def test_what_does_not_shape_the_graph_is_not_in_the_key():
    assert stage(external_data="always", ir_version=8).key_parts() == stage().key_parts()
    assert replace(stage(), private_apis=False).key_parts() == stage().key_parts()


def broken(proto, change) -> bytes:
    change(proto)
    return proto.SerializeToString()


def other_opset(proto) -> None:
    proto.opset_import[0].version = 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: replace(m, proto=broken(m.parsed(), other_opset)), "opset 12 instead of 13"),
        (lambda m: replace(m, inputs=("y",)), "inputs"),
        (lambda m: replace(m, outputs=("y",)), "outputs"),
        (
            lambda m: replace(
                m, held={n: replace(t, origin=None, derived_by=None) for n, t in m.held.items()}
            ),
            "nobody says where",
        ),
    ],
)
def test_a_broken_promise_is_seen(tmp_path, change, message):
    workspace, network = ready(tmp_path, networks.Fused())
    one = stage(network.specs)
    one.run(workspace)
    workspace.put("exported", change(workspace.get("exported")))
    with pytest.raises(InternalError, match=message):
        one.ensures(workspace)


def test_other_inputs_than_the_specification_are_seen(tmp_path):
    workspace, _ = ready(tmp_path, networks.Fused())
    with pytest.raises(InternalError, match="not those of the specification"):
        stage(parse_inputs({"z": tensor(2)})).requires(workspace)


def test_the_classic_experiment_composes():
    config = compose(["experiment=alexnet_classic"])
    assert config.model.name == "alexnet"
    assert config.model.inputs["input1"]["shape"] == [10, 3, 224, 224]
    assert config.export.input_names == ("actual_input_1", *(f"learned_{i}" for i in range(16)))
    assert config.export.output_names == ("output1",)
    assert config.export.verbose


class Cyclic(torch.nn.Module):
    """A user's module that holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(4, 2)
        self.itself = (self,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(x)
        return found


@pytest.mark.parametrize("module", [torch.nn.Sequential(torch.nn.Linear(4, 2)), Cyclic()])
@pytest.mark.parametrize("imported", [True, False])
def test_only_what_can_be_let_go_of_is_kept_out_of_collections(tmp_path, monkeypatch, module, imported):
    frozen = []
    monkeypatch.setattr("pipeline.exporters.stages.gc.freeze", lambda: frozen.append(1))
    monkeypatch.setattr("pipeline.exporters.compiler_import.import_compiler", lambda: imported)
    workspace, _ = ready(tmp_path, module, {"x": {"shape": [1, 4]}})
    one = stage(opset=18, exporter="dynamo")
    one._import_modules(workspace)
    assert bool(frozen) == (imported and not isinstance(module, Cyclic))
    replace(one, private_apis=False)._import_modules(workspace)
    replace(one, config=replace(one.config, exporter="torchscript"))._import_modules(workspace)
    assert len(frozen) <= 1
