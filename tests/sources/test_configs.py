"""Every model's YAML: composed, identified, its inputs read; the small ones run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.compose import compose
from pipeline.locations import CONF_DIR
from pipeline.samples.make import make_samples
from pipeline.samples.spec import parse_inputs
from pipeline.sources.identity import identify
from pipeline.sources.load import load

BASES = ("torchvision", "factory", "onnx_file")
NAMES = sorted(path.stem for path in Path(CONF_DIR, "model").glob("*.yaml") if path.stem not in BASES)


def test_the_networks_that_are_promised_are_there() -> None:
    promised = {
        "alexnet", "vgg11", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1",
        "shufflenet_v2_x0_5", "efficientnet_b0", "densenet121", "vit_b_16", "swin_t", "convnext_tiny", "mvit_v1_b",
        "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn",
        "ssdlite320_mobilenet_v3_large", "r3d_18", "raft_small", "mynet", "mynet_multi_input",
    }  # fmt: skip
    assert set(NAMES) == promised


@pytest.mark.parametrize("name", NAMES)
def test_each_is_named_after_its_file_and_identified(name: str) -> None:
    model = compose([f"model={name}"]).model
    assert identify(model, seed=0).label == name
    assert parse_inputs(model.inputs).leaves
    assert (model.weights, model.init) == (None, "live")


@pytest.mark.parametrize(
    "name", ["mynet", "mynet_multi_input", "raft_small", "squeezenet1_1", "lraspp_mobilenet_v3_large"]
)
def test_the_small_ones_take_their_inputs_and_give_their_outputs(name: str) -> None:
    model = compose([f"model={name}"]).model
    specs = parse_inputs(model.inputs)
    network = load(model, seed=0, device="cpu", specs=specs)
    outputs = network.run(make_samples(specs, seed=0, stream="export"))
    if model.outputs is not None:
        assert tuple(outputs) == model.outputs
