"""From the configuration to the network."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import Refused
from pipeline.events import Event, Finding
from pipeline.samples.make import make_samples
from pipeline.samples.spec import parse_inputs
from pipeline.sources.config import ModelConfig
from pipeline.sources.load import load
from pipeline.sources.network import Network

INPUTS = {"x": {"shape": [1, 3, 8, 8]}}
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, seed=None):
        super().__init__()
        if seed is not None:
            torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Dropout(0.5))
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

def gives_a_class():
    return Net

def gives_nothing():
    return None

def headless(net):
    net.head = nn.Identity()

def wrapped(net):
    return nn.Sequential(nn.Conv2d(5, 3, 1), net)

def spoils(net):
    return 3
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


def made(path: Path, *, name: str = "Net", seed: int = 0, **more: Any) -> Network:
    config = replace(ModelConfig(source="factory", factory=f"{path}:{name}", inputs=INPUTS), **more)
    return load(config, seed=seed, device="cpu", specs=parse_inputs(config.inputs))


def same(one: Network, two: Network) -> bool:
    pairs = zip(one.tensors().items(), two.tensors().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_factory_with_arguments_is_in_eval_mode(net: Path) -> None:
    network = made(net, args={"width": 6})
    assert network.module.body[0].out_channels == 6
    assert not any(module.training for module in network.module.modules())
    assert network.training_modules == {"", "body", "body.0", "body.1", "body.2", "head"}
    assert network.run(make_samples(network.specs, seed=0, stream="x"))["output1"].shape == (1, 2)


@pytest.mark.parametrize("init", ["live", "plain"])
def test_the_same_seed_gives_the_same_weights_and_another_others(net: Path, init: str) -> None:
    assert same(made(net, init=init), made(net, init=init))
    assert not same(made(net, init=init), made(net, init=init, seed=1))


def test_plain_is_torch_s_own_under_the_seed(net: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.nn.Conv2d(3, 4, 3).weight
    assert torch.equal(made(net, init="plain", seed=5).module.body[0].weight, wanted)


def test_the_callers_random_state_is_left_alone(net: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    made(net)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_it_is_the_same_network_every_time(net: Path) -> None:
    wanted, again = made(net).tensors(), made(net).tensors()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.items())


@pytest.mark.parametrize(
    ("name", "found", "step"),
    [
        ("gives_a_class", "type from ", "Return an instance: call the class"),
        ("gives_nothing", "NoneType from ", "Return the network that the callable builds"),
    ],
)
def test_a_factory_that_gives_no_network(net: Path, name: str, found: str, step: str) -> None:
    with pytest.raises(Refused) as caught:
        made(net, name=name, init="plain")
    assert caught.value.reason.code == "PL-229"
    assert str(caught.value.reason.found).startswith(found)
    assert caught.value.reason.next_step == step


def test_a_preparation_changes_the_network_in_place_or_returns_another(net: Path) -> None:
    headless = made(net, prepare=f"{net}:headless")
    values = make_samples(headless.specs, seed=0, stream="x")
    assert headless.run(values)["output1"].shape == (1, 4)


def test_a_preparation_that_changes_the_inputs(net: Path) -> None:
    findings: list[Event] = []
    config = ModelConfig(
        source="factory",
        factory=f"{net}:Net",
        prepare=f"{net}:wrapped",
        inputs={"x": {"shape": [1, 5, 8, 8]}},
    )
    network = load(config, seed=0, device="cpu", specs=parse_inputs(config.inputs), emit=findings.append)
    assert network.run(make_samples(network.specs, seed=0, stream="x"))["output1"].shape == (1, 2)
    assert [one.level for one in findings if isinstance(one, Finding)] == ["warning"]


def test_a_preparation_that_gives_no_network(net: Path) -> None:
    with pytest.raises(Refused, match=r"PL-229: model.prepare gave no network; found int from"):
        made(net, prepare=f"{net}:spoils")


def test_inputs_that_do_not_fit(net: Path) -> None:
    with pytest.raises(Refused) as caught:
        made(net, inputs={"x": {"shape": [1, 8]}})
    assert caught.value.reason.code == "PL-230"


def test_weights_of_a_file_are_never_touched(net: Path, tmp_path: Path) -> None:
    wanted = made(net, init="plain", seed=9)
    torch.save(wanted.module.state_dict(), tmp_path / "w.pth")
    assert same(made(net, weights=str(tmp_path / "w.pth")), wanted)


def test_weights_that_the_factory_loads_itself_are_never_touched(net: Path) -> None:
    """The defect: calibration would overwrite the batch statistics of a trained network."""
    assert same(made(net, args={"seed": 4}), made(net, args={"seed": 4}, init="plain"))


def test_weights_that_do_not_fit(net: Path, tmp_path: Path) -> None:
    torch.save(made(net, init="plain").module.state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        Refused, match=r"PL-225.*body\.0\.weight is \[4, 3, 3, 3\] in w\.pth and \[5, 3, 3, 3\]"
    ):
        made(net, args={"width": 5}, weights=str(tmp_path / "w.pth"))


def test_torchvision_with_arguments() -> None:
    config = ModelConfig(
        name="squeezenet1_1", args={"num_classes": 7}, inputs=INPUTS | {"x": {"shape": [1, 3, 64, 64]}}
    )
    network = load(config, seed=0, device="cpu", specs=parse_inputs(config.inputs))
    assert network.run(make_samples(network.specs, seed=0, stream="x"))["output1"].shape == (1, 7)


def test_torchvision_with_arguments_that_it_does_not_take() -> None:
    config = ModelConfig(name="squeezenet1_1", args={"classes": 7}, inputs=INPUTS)
    with pytest.raises(Refused, match=r"PL-228: model.args: torchvision does not build squeezenet1_1"):
        load(config, seed=0, device="cpu", specs=parse_inputs(config.inputs))


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error

    def offline(*args: Any, **kwargs: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    config = ModelConfig(name="squeezenet1_1", weights="DEFAULT", inputs=INPUTS)
    with pytest.raises(Refused) as caught:
        load(config, seed=0, device="cpu", specs=parse_inputs(config.inputs))
    assert str(caught.value) == (
        "PL-226: model.weights: the weights could not be fetched; found URLError: <urlopen error no network>. "
        "Type model.weights=path/to/squeezenet1_1.pth for a file that you have"
    )


def test_cuda_without_a_gpu(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = ModelConfig(source="factory", factory=f"{net}:Net", inputs=INPUTS)
    with pytest.raises(Refused, match=r"PL-232"):
        load(config, seed=0, device="cuda", specs=parse_inputs(INPUTS))
