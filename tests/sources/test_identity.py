"""What is refused, and what a network is known by, before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.errors import Refused
from pipeline.sources.config import ModelConfig
from pipeline.sources.identity import identify

NET = "from torch import nn\n\n\ndef build(width=4):\n    return nn.Linear(3, width)\n"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def factory(path: Path, **more: object) -> ModelConfig:
    return replace(ModelConfig(source="factory", factory=f"{path}:build"), **more)  # type: ignore[arg-type]


def test_a_network_of_torchvision() -> None:
    found = identify(ModelConfig(name="regnet_y_400mf"), seed=0)
    assert (found.label, found.source, found.weights) == ("regnet_y_400mf", "torchvision", None)
    assert found.packages == ("torch", "torchvision")
    assert len(found.code) == 64


def test_spellings_of_a_name_are_one_network() -> None:
    assert identify(ModelConfig(name="ResNet18"), seed=0) == identify(ModelConfig(name="resnet18"), seed=0)


def test_weights_by_name_with_or_without_the_enum() -> None:
    short = identify(ModelConfig(name="resnet18", weights="DEFAULT"), seed=0)
    long = identify(ModelConfig(name="resnet18", weights="ResNet18_Weights.IMAGENET1K_V1"), seed=0)
    assert short.weights == long.weights
    assert short.weights is not None


def test_a_factory(net: Path) -> None:
    found = identify(factory(net), seed=0)
    assert (found.label, found.source) == ("build", "factory")
    assert found.files == (net,)
    assert "torch" in found.packages


def test_a_factory_with_a_name(net: Path) -> None:
    assert identify(factory(net, name="My net/v2"), seed=0).label == "My-net-v2"


def test_the_code_counts_not_the_folder_nor_comments(net: Path, tmp_path: Path) -> None:
    before = identify(factory(net), seed=0).code
    moved = tmp_path / "elsewhere" / "net.py"
    moved.parent.mkdir()
    moved.write_text(f"# a comment\n{NET}")
    assert identify(factory(moved), seed=0).code == before
    moved.write_text(NET.replace("width=4", "width=5"))
    assert identify(factory(moved), seed=0).code != before


def test_a_preparation_counts(net: Path, tmp_path: Path) -> None:
    (tmp_path / "prepare.py").write_text("def prepare(net):\n    return net\n")
    plain = identify(factory(net), seed=0)
    prepared = identify(factory(net, prepare=f"{tmp_path}/prepare.py:prepare"), seed=0)
    assert prepared.code != plain.code
    assert prepared.files == (net, tmp_path / "prepare.py")


def test_weights_are_known_by_their_content(net: Path, tmp_path: Path) -> None:
    for name in ("a.pth", "b.bin"):
        torch.save({"weight": torch.ones(4, 3), "bias": torch.zeros(4)}, tmp_path / "same")
        (tmp_path / name).write_bytes((tmp_path / "same").read_bytes())
    one, two = (identify(factory(net, weights=str(tmp_path / name)), seed=0) for name in ("a.pth", "b.bin"))
    assert one.weights == two.weights


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            ModelConfig(name="resnet81"),
            (
                "PL-221: model.name: torchvision has no model resnet81. Did you mean resnet18, "
                "resnet101 or resnet152? Type model.name=resnet18"
            ),
        ),
        (
            ModelConfig(),
            (
                "PL-220: model.name: model=torchvision needs the network's name. "
                "Type model.name=resnet18, or any other of torchvision's names"
            ),
        ),
        (
            ModelConfig(name="resnet50", weights="IMAGENET1K_V3"),
            (
                "PL-222: model.weights: torchvision has no weights IMAGENET1K_V3 for resnet50, expected DEFAULT, "
                "IMAGENET1K_V1, IMAGENET1K_V2. Type model.weights=IMAGENET1K_V1, or a path to a file"
            ),
        ),
        (
            ModelConfig(name="resnet50", weights="ResNet18_Weights.DEFAULT"),
            (
                "PL-222: model.weights: torchvision has no weights ResNet18_Weights.DEFAULT for resnet50, expected "
                "DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2. Type model.weights=DEFAULT, or a path to a file"
            ),
        ),
        (
            ModelConfig(name="resnet18", factory="net.py:build"),
            (
                "PL-220: model.factory does not go with source torchvision; found net.py:build. "
                "Take model.factory away, or use model=factory"
            ),
        ),
        (
            ModelConfig(source="factory"),
            (
                "PL-220: model.factory: model=factory needs a callable. "
                "Type model.factory=path/to/net.py:build or model.factory=my_pkg.net:build"
            ),
        ),
        (
            ModelConfig(source="onnx_file"),
            "PL-220: model.path: model=onnx_file needs the file. Type model.path=path/to/model.onnx",
        ),
    ],
)
def test_refusals(config: ModelConfig, sentence: str) -> None:
    with pytest.raises(Refused) as caught:
        identify(config, seed=0)
    assert str(caught.value) == sentence


def test_a_name_that_the_file_does_not_define(net: Path) -> None:
    with pytest.raises(Refused) as caught:
        identify(ModelConfig(source="factory", factory=f"{net}:biuld"), seed=0)
    assert caught.value.reason.code == "PL-227"
    assert caught.value.reason.message == "net.py defines no biuld"
    assert caught.value.reason.next_step == f"Type model.factory={net}:build"


@pytest.mark.parametrize(
    "text",
    [
        "from layers import *\n",
        "def __getattr__(name):\n    return None\n",
        "globals()['build'] = print\n",
        "if True:\n    def build(): ...\n",
        "try:\n    from layers import build\nexcept ImportError:\n    build = None\n",
        "build: object = print\n",
        "for build in [print]: pass\n",
    ],
)
def test_names_that_only_the_import_can_know_are_left_to_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.py").write_text(text)
    (tmp_path / "layers.py").write_text("def build(): ...\n")
    identify(ModelConfig(source="factory", factory=f"{tmp_path}/net.py:build"), seed=0)


def test_a_factory_takes_no_name_of_weights(net: Path) -> None:
    with pytest.raises(Refused, match=r"PL-222.*a factory takes a file; found DEFAULT"):
        identify(factory(net, weights="DEFAULT"), seed=0)


def test_missing_weights(net: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"PL-223"):
        identify(factory(net, weights=str(tmp_path / "no.pth")), seed=0)


@pytest.mark.parametrize("seed", [-1 - 2**63, 2**64])
def test_a_seed_that_torch_does_not_take(seed: int) -> None:
    with pytest.raises(Refused, match=r"the seed is out of range"):
        identify(ModelConfig(name="resnet18"), seed=seed)


def test_no_framework_is_imported(net: Path) -> None:
    code = (
        "import sys\n"
        "from pipeline.sources.config import ModelConfig\n"
        "from pipeline.sources.identity import identify\n"
        "from pipeline.sources.default_inputs import with_default_inputs\n"
        "import pipeline.sources.stages, pipeline.samples.stages\n"
        "from pipeline.samples.spec import parse_inputs\n"
        "model = with_default_inputs(ModelConfig(name='resnet18'))\n"
        "identity = identify(model, seed=0)\n"
        f"identify(ModelConfig(source='factory', factory={str(net) + ':build'!r}), seed=0)\n"
        "specs = parse_inputs(model.inputs)\n"
        "pipeline.sources.stages.SourceStage(model, identity, specs, 0, 'cpu', True).key_parts()\n"
        "pipeline.samples.stages.InputsStage(specs, 0, 3).key_parts()\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'torch', 'torchvision', 'numpy', 'onnx', 'onnxruntime', 'net'}))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    ).stdout
    assert out.strip() == "[]"
