"""The TorchScript exporter: two roads, the same bytes; nothing of torch left changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import StageFailed
from pipeline.events import Finding
from pipeline.exporters import torchscript
from tests.exporters import networks
from tests.exporters.conftest import IMAGE, tensor

HOOKED = (torchscript._DEDUPLICATE, torchscript._INFER, torchscript._NAME)
INDICES = {"indices": tensor(3, dtype="int64", fill={"integers": [0, 50]})}

CASES = {
    "fused": (networks.Fused, IMAGE, {}),
    "tied": (networks.Tied, INDICES, {}),
    "twice": (networks.Twice, {"x": tensor(2, 3)}, {}),
    "counting": (networks.Counting, {"x": tensor(2, 32)}, {}),
    "returned": (networks.Returned, {"x": tensor(2)}, {}),
    "kept": (networks.Plain, IMAGE, {"keep_initializers_as_inputs": True}),
    "left out": (networks.Plain, IMAGE, {"export_params": False}),
    "unfolded": (networks.Fused, IMAGE, {"do_constant_folding": False}),
    "training": (networks.Fused, IMAGE, {"training": "train"}),
}


@pytest.mark.parametrize("opset", [8, 9, 11, 13, 17, 20, 23, 26])
@pytest.mark.parametrize("case", ["fused", "tied"])
def test_both_roads_give_the_same_at_every_opset(make, case, opset):
    build, inputs, config = CASES[case]
    same(make, build(), inputs, opset=opset, exporter="torchscript", **config)


@pytest.mark.parametrize("case", [name for name in CASES if name not in ("fused", "tied")])
def test_both_roads_give_the_same(make, case):
    build, inputs, config = CASES[case]
    same(make, build(), inputs, opset=17, exporter="torchscript", **config)


def same(make, module, inputs, **config):
    private, public = (make(module, inputs, private=road, **config) for road in (True, False))
    assert not [event for event in private.events if isinstance(event, Finding)]
    assert private.file.sha256 == public.file.sha256
    assert private.model.proto == public.model.proto
    for field in ("inputs", "outputs", "scopes", "shown_parameters", "origins"):
        assert getattr(private.model, field) == getattr(public.model, field), field
    rows = [
        [(one.name, one.dtype, one.shape, one.origin, one.derived_by) for one in made.model.held.values()]
        for made in (private, public)
    ]
    assert rows[0] == rows[1]
    if config.get("training") != "train":
        assert private.worst() < 1e-5


def test_hooks_are_restored(make):
    before = [getattr(torch._C, name) for name in HOOKED]
    make(networks.Fused(), IMAGE, exporter="torchscript")
    with pytest.raises(StageFailed):
        make(networks.Bessel(), {"x": tensor(2)}, exporter="torchscript")
    assert [getattr(torch._C, name) for name in HOOKED] == before


def test_weights_never_enter_a_proto(make, monkeypatch):
    sizes = []
    real = torchscript.onnx.load_model
    monkeypatch.setattr(
        torchscript.onnx, "load_model",
        lambda path, **more: sizes.append(path.stat().st_size) or real(path, **more),
    )  # fmt: skip
    made = make(nn.Sequential(nn.Flatten(), nn.Linear(432, 1000)), IMAGE, exporter="torchscript")
    assert made.model.held_bytes > 1_700_000
    assert sizes[0] < 2_000


@pytest.mark.parametrize("missing", [torchscript._DEDUPLICATE, torchscript._INFER])
def test_a_torch_without_the_hook_takes_the_public_road(make, monkeypatch, missing):
    wanted = make(networks.Fused(), IMAGE, exporter="torchscript").file.sha256
    monkeypatch.setattr(torchscript, "_DEDUPLICATE" if "dedup" in missing else "_INFER", "_no_such_pass")
    torch.manual_seed(0)
    made = make(networks.Fused(), IMAGE, exporter="torchscript")
    assert made.file.sha256 == wanted
    assert "public road: torch._C has no _no_such_pass" in made.events[0].message


def test_a_torch_that_calls_the_hook_twice_takes_the_public_road(make, monkeypatch):
    """Deduplicating again would be another order of things than was measured."""
    real = torchscript._hooks

    def twice(taken, *, deduplicate):
        taken.calls = 1
        return real(taken, deduplicate=deduplicate)

    monkeypatch.setattr(torchscript, "_hooks", twice)
    made = make(networks.Fused(), IMAGE, exporter="torchscript")
    assert "deduplicated 2 times" in made.events[0].message
    assert made.worst() < 1e-5


def test_a_tensor_that_does_not_fit_its_input_takes_the_public_road(make, monkeypatch):
    real = torchscript.from_torch
    monkeypatch.setattr(torchscript, "from_torch", lambda tensor, owner: real(tensor.double(), owner))
    made = make(networks.Fused(), IMAGE, exporter="torchscript")
    assert "has another type or shape than its input" in made.events[0].message


def test_origins_of_weights(make):
    made = make(networks.Fused(), IMAGE, exporter="torchscript")
    rows = {one.origin or one.derived_by for one in made.model.held.values()}
    assert rows == {"export: Conv+BatchNorm fused", "head.weight"}
    assert made.model.origins["head.bias"] == "head.bias"

    tied = make(networks.Tied(), INDICES, exporter="torchscript").model.held.values()
    assert [(one.origin, one.derived_by) for one in tied] == [
        ("embedding.weight", None),
        (None, "export: folded transpose"),
    ]

    counting = make(networks.Counting(), {"x": tensor(2, 32)}, exporter="torchscript").model.held.values()
    assert [one.origin for one in counting] == ["table"]


def test_scopes_and_lines(make):
    made = make(networks.Fused(), IMAGE, exporter="torchscript")
    by_operator = {node.op_type: node.name for node in made.graph.node}
    scopes = {operator: made.model.scopes[name] for operator, name in by_operator.items()}
    assert scopes["Conv"] == "features.0"
    assert scopes["Relu"] == "features.2"
    assert scopes["ReduceMean"] == ""
    assert scopes["Gemm"] == "head"
    line = made.model.lines[by_operator["Conv"]]
    assert line.startswith("tests/exporters/networks.py:")
    source = Path(networks.__file__).read_text().splitlines()
    assert (
        source[int(line.partition(":")[2]) - 1].strip() == "return self.head(self.features(x).mean((2, 3)))"
    )


def test_modes_and_buffers_are_as_before(make):
    module = networks.Mixed()
    counting = networks.Counting()
    network = make(module, {"x": tensor(4, 40)}, exporter="torchscript").network
    network.module.other.train()
    made = make(network, exporter="torchscript", training="eval")
    assert [one.training for one in (module, module.norm, module.other)] == [False, False, True]
    assert made.operators.count("BatchNormalization") == 2

    make(counting, {"x": tensor(2, 32)}, exporter="torchscript")
    assert counting.count.item() == 1  # the run for the signature; the trace is taken back
    assert torch.backends.mha.get_fastpath_enabled()


def test_training_mode(make):
    made = make(networks.Fused(), IMAGE, exporter="torchscript", training="train")
    node = next(node for node in made.graph.node if node.op_type == "BatchNormalization")
    assert {a.name: a.i for a in node.attribute}["training_mode"] == 1
    network = made.network
    network.training_modules = frozenset({"features.1"})
    kept = make(network, exporter="torchscript", training="preserve")
    node = next(node for node in kept.graph.node if node.op_type == "BatchNormalization")
    assert {a.name: a.i for a in node.attribute}["training_mode"] == 1


def test_attention_is_exported_without_its_fused_kernel(make):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    made = make(layer, {"x": tensor(1, 4, 16)}, opset=14, exporter="torchscript")
    assert made.worst() < 1e-5


def test_verbose_prints_the_graph(make, capfd):
    make(networks.Plain(), IMAGE, exporter="torchscript", verbose=True)
    assert "graph(%x : Float(2, 3, 12, 12" in capfd.readouterr().out
