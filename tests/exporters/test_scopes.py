"""Module paths out of node names, source lines out of stacks."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from pipeline.exporters.places import innermost_first, innermost_last, place, short_path, users_line
from pipeline.exporters.scopes import ModulePaths, short_name

PACKAGES = sysconfig.get_path("purelib")


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/features/features.0/Conv", "features.0"),
        ("/layer1/layer1.1/conv1/Conv", "layer1.1.conv1"),
        ("/layer1.1/conv1/Conv", "layer1.1.conv1"),  # the Sequential was not called
        ("/blocks.0/mlp/fc/MatMul", "blocks.0.mlp.fc"),
        ("/blocks.0/unknown/Add", "blocks.0"),
        ("/Flatten", ""),
        ("Identity_5", ""),
    ],
)
def test_modules_of_node_names(node, module):
    names = ["", "features", "features.0", "layer1", "layer1.0", "layer1.0.conv1", "layer1.1", "layer1.1.conv1",
             "blocks", "blocks.0", "blocks.0.mlp", "blocks.0.mlp.fc", "blocks.1", "blocks.1.mlp"]  # fmt: skip
    assert ModulePaths(names).of(node) == module


def test_short_names():
    assert short_name("layer1.0.conv1") == "conv1"
    assert short_name("layer1.0") == "layer1.0"
    assert short_name("0.1") == "0.1"


def test_places_do_not_name_folders(tmp_path, monkeypatch):
    assert place(f"{PACKAGES}/torchvision/models/alexnet.py", 48) == "torchvision/models/alexnet.py:48"
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert short_path(str(tmp_path / "mine" / "net.py")) == "mine/net.py"
    monkeypatch.chdir(tmp_path / "mine")
    assert short_path(str(tmp_path / "mine" / "net.py")) == "net.py"
    assert short_path("/somewhere/else/net.py") == "else/net.py"
    assert short_path("net.py") == "net.py"


def test_the_users_line_is_the_innermost_that_is_not_torchs():
    torchscript = (
        f"{PACKAGES}/torch/nn/modules/conv.py(560): _conv_forward\n"
        f"{PACKAGES}/torchvision/models/alexnet.py(48): forward\n"
        f"{Path.cwd()}/pipeline/exporters/flat.py(52): forward\n"
    )
    assert users_line(innermost_first(torchscript)) == "torchvision/models/alexnet.py:48"
    stack = (
        f'File "{Path.cwd()}/pipeline/exporters/flat.py", line 52, in forward\n    found = 1\n'
        f'  File "{PACKAGES}/torchvision/models/resnet.py", line 285, in forward\n    return 1\n'
        f'  File "{PACKAGES}/torch/nn/modules/batchnorm.py", line 210, in forward\n    return F.batch_norm('
    )
    assert users_line(innermost_last(stack)) == "torchvision/models/resnet.py:285"
    assert users_line([(os.path.join(PACKAGES, "torch", "x.py"), 1)]) is None  # noqa: PTH118
