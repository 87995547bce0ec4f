"""Random weights that mean something, and are the same wherever they are made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.samples.make import make_samples
from pipeline.samples.spec import parse_inputs
from pipeline.sources.config import ModelConfig
from pipeline.sources.default_inputs import with_default_inputs
from pipeline.sources.live import _rounded, calibrate, make_live
from pipeline.sources.load import load
from pipeline.sources.network import Network


@pytest.fixture(autouse=True)
def _same_draw() -> None:
    torch.manual_seed(0)


def live(module: torch.nn.Module, inputs: dict[str, Any], seed: int = 0) -> Network:
    network = Network(module.eval(), parse_inputs(inputs))
    make_live(module, seed=seed)
    calibrate(network, seed=seed)
    return network


def torchvision(name: str, *, seed: int = 0, size: int | None = None, init: Any = "live") -> Network:
    model = with_default_inputs(ModelConfig(name=name, init=init))
    if size is not None:
        model.inputs["input1"]["shape"] = [1, 3, size, size]
    return load(model, seed=seed, device="cpu", specs=parse_inputs(model.inputs))


def outputs(network: Network, count: int = 3) -> list[np.ndarray[Any, Any]]:
    sets = [make_samples(network.specs, seed=0, stream=f"parity/{index}") for index in range(count)]
    return [next(iter(network.run(values).values())) for values in sets]


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "alexnet"])
def test_outputs_have_a_magnitude_and_depend_on_the_input(name: str) -> None:
    """The defect: 3e-9 for mobilenet_v2, and the same output for every input for shufflenet."""
    seen = np.stack(outputs(torchvision(name)))
    assert 0.05 < np.abs(seen).max() < 100
    assert seen.std(0).mean() > 0.01 * np.sqrt((seen**2).mean())


def test_a_head_that_begins_at_zero_is_drawn() -> None:
    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(8, 4)
            self.token = torch.nn.Parameter(torch.zeros(1, 1, 8))
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + self.token[0])

    network = live(Head(), {"x": {"shape": [1, 8]}})
    assert all(float(tensor.detach().std()) > 0.01 for tensor in network.tensors().values())


def test_layer_scales_reach_the_output() -> None:
    """The defect: layer scales of 1e-6 hide a wrong block of ConvNeXt."""
    network = torchvision("convnext_tiny", size=32)
    scales = [tensor for name, tensor in network.tensors().items() if name.endswith("layer_scale")]
    assert scales
    assert all(0.5 <= float(scale.detach().min()) and float(scale.detach().max()) <= 1.0 for scale in scales)


def test_norms_differ_from_channel_to_channel() -> None:
    network = live(
        torch.nn.Sequential(torch.nn.LayerNorm(6), torch.nn.GroupNorm(2, 6)), {"x": {"shape": [1, 6]}}
    )
    for tensor in network.tensors().values():
        assert len(set(tensor.flatten().tolist())) == 6


def test_constants_with_a_meaning_stay() -> None:
    module = torch.nn.Sequential(torch.nn.PReLU(4), torch.nn.Conv2d(4, 4, 1))
    make_live(module, seed=0)
    assert module[0].weight.tolist() == [0.25] * 4


def test_batch_statistics_are_those_of_the_activations() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5, affine=False))
    network = live(module, {"x": {"shape": [1, 3, 40, 40], "fill": {"uniform": [0, 1]}}})
    values = np.stack(outputs(network))
    np.testing.assert_allclose(values.mean((0, 1, 3, 4)), 0, atol=0.1)
    np.testing.assert_allclose(values.std((0, 1, 3, 4)), 1, atol=0.1)


def test_a_norm_with_one_value_a_channel_does_not_explode() -> None:
    """The defect: batch statistics of one value (global pooling, batch 1) have variance zero."""
    module = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(3, 8, 1), torch.nn.BatchNorm2d(8)
    )
    for value in outputs(live(module, {"x": {"shape": [1, 3, 16, 16]}})):
        assert np.abs(value).max() < 20


def test_statistics_of_a_network_that_has_seen_data_stay() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    module[0].running_mean.fill_(5.0)
    live(module, {"x": {"shape": [4, 3]}})
    assert module[0].running_mean.tolist() == [5.0] * 3


def test_a_deep_network_without_norms_keeps_its_signal() -> None:
    layers = [layer for _ in range(30) for layer in (torch.nn.Linear(16, 16), torch.nn.ReLU())]
    torch.manual_seed(0)
    seen = np.stack(outputs(live(torch.nn.Sequential(*layers[:-1]), {"x": {"shape": [8, 16]}})))
    assert 0.1 < seen.std() < 10
    assert seen.std(0).mean() > 1e-3


def test_rounding_keeps_sixteen_bits() -> None:
    values = torch.tensor([1.0 + 2**-20, -3.0e-9, 0.0, 1e20], dtype=torch.float64)
    rounded = _rounded(values)
    assert float(rounded[0]) == 1.0
    torch.testing.assert_close(rounded, values, rtol=2**-16, atol=0)
    assert torch.equal(_rounded(rounded * (1 + 1e-12)), rounded)


@pytest.mark.parametrize(
    ("name", "seeds"),
    [("fasterrcnn_mobilenet_v3_large_320_fpn", (0,)), ("ssdlite320_mobilenet_v3_large", (0,))],
)
def test_detectors_find_other_boxes_on_other_inputs(name: str, seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        network = torchvision(name, seed=seed)
        found = []
        for index, variant in enumerate(("plain", "negated", "scaled")):
            values = make_samples(network.specs, seed=0, stream=f"parity/{index}", variant=variant)
            result = network.run(values)
            assert len(result["boxes"]) >= 1
            assert np.isfinite(result["boxes"]).all()
            found.append(result)
        first, second = (result["boxes"] for result in found[:2])
        assert first.shape != second.shape or not np.allclose(first, second, atol=1)
        # Distinct scores: else rounding alone would say in which order the boxes come.
        assert len(set(found[0]["scores"].tolist())) >= 0.95 * len(found[0]["scores"])


SAME = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
sys.path.insert(0, "")
from pipeline.samples.spec import parse_inputs
from pipeline.sources.config import ModelConfig
from pipeline.sources.load import load
digest = hashlib.sha256()
for name, size in (("resnet18", 64), ("mobilenet_v3_small", 64), ("squeezenet1_1", 64)):
    inputs = {"x": {"shape": [1, 3, size, size]}}
    network = load(ModelConfig(name=name), seed=3, device="cpu", specs=parse_inputs(inputs), private_apis=sys.argv[2] == "1")
    for key, tensor in network.tensors().items():
        digest.update(key.encode() + tensor.detach().numpy().tobytes())
assert torch.get_num_threads() == int(sys.argv[1])
print(digest.hexdigest())
"""


def test_weights_do_not_depend_on_threads_process_or_hash_seed() -> None:
    digests = set()
    for threads, private, hash_seed in (("1", "1", "1"), ("2", "0", "77")):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads}
        root = Path(__file__).parents[2]
        command = [sys.executable, "-W", "ignore", "-c", SAME, threads, private]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd=root)
        digests.add(result.stdout)
    assert len(digests) == 1
