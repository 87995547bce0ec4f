"""model=torchvision model.name=X needs no inputs."""

from __future__ import annotations

import pytest

from pipeline.samples.spec import parse_inputs
from pipeline.sources.config import ModelConfig
from pipeline.sources.default_inputs import with_default_inputs


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("regnet_y_400mf", {"input1": (1, 3, 224, 224)}),
        ("inception_v3", {"input1": (1, 3, 299, 299)}),
        ("fcn_resnet50", {"input1": (1, 3, 224, 224)}),
        ("retinanet_resnet50_fpn", {"images_0": (3, 320, 320)}),
        ("raft_large", {"image1": (1, 3, 128, 128), "image2": (1, 3, 128, 128)}),
        ("mc3_18", {"input1": (1, 3, 8, 112, 112)}),
        ("swin3d_t", {"input1": (1, 3, 16, 224, 224)}),
    ],
)
def test_by_the_kind_of_network(name: str, leaves: dict[str, tuple[int, ...]]) -> None:
    model = with_default_inputs(ModelConfig(name=name))
    assert {leaf.name: leaf.shape for leaf in parse_inputs(model.inputs).leaves} == leaves


def test_given_inputs_stay() -> None:
    model = ModelConfig(name="resnet18", inputs={"x": {"shape": [2, 3, 64, 64]}})
    assert with_default_inputs(model) is model


def test_a_factory_has_none() -> None:
    model = ModelConfig(source="factory", factory="net.py:build")
    assert with_default_inputs(model) is model
