"""The network as later stages see it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import Refused
from pipeline.samples.make import make_samples
from pipeline.samples.spec import InputSpecs, parse_inputs
from pipeline.sources.network import Network

IMAGE = {"shape": [1, 3, 8, 8]}


def specs(node: dict[str, Any]) -> InputSpecs:
    return parse_inputs(node)


class Structured(torch.nn.Module):
    def forward(
        self, images: list[torch.Tensor], extra: dict[str, torch.Tensor], *, scale: torch.Tensor
    ) -> Any:
        return {"first": images[0] * scale, "second": images[1] + extra["bias"], "none": None}


def test_lists_dicts_and_keywords_reach_the_network() -> None:
    node = {
        "images": [IMAGE, IMAGE],
        "extra": {"bias": {"shape": [1], "fill": {"constant": 2}}},
        "scale": {"shape": [1], "fill": {"constant": 3}, "pass": "keyword"},
    }
    network = Network(Structured(), specs(node))
    values = make_samples(network.specs, seed=0, stream="export")
    outputs = network.run(values)
    assert list(outputs) == ["first", "second"]
    np.testing.assert_array_equal(outputs["first"], values["images_0"] * 3)
    np.testing.assert_array_equal(outputs["second"], values["images_1"] + 2)


def test_renamed_inputs_reach_the_same_arguments() -> None:
    node = {
        "images": [IMAGE, IMAGE],
        "extra": {"bias": {"shape": [1]}},
        "scale": {"shape": [1], "pass": "keyword"},
    }
    plain = Network(Structured(), specs(node))
    renamed = Network(Structured(), specs(node).renamed(["a", "b", "c", "d", "weight_0"]))
    one = plain.run(make_samples(plain.specs, seed=0, stream="x"))
    values = make_samples(renamed.specs, seed=0, stream="x")
    assert list(values) == ["a", "b", "c", "d"]
    two = renamed.run(values)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_network_that_writes_into_its_input_leaves_the_samples_alone() -> None:
    class Writes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.add_(1)

    network = Network(Writes(), specs({"x": IMAGE}))
    values = make_samples(network.specs, seed=0, stream="export")
    before = values["x"].copy()
    network.run(values)
    np.testing.assert_array_equal(values["x"], before)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"x": {"shape": [1, 4]}, "y": {"shape": [1, 4]}}, "too many positional arguments"),
        ({"y": {"shape": [1, 4], "pass": "keyword"}}, "missing a required argument: 'input'"),
    ],
)
def test_the_number_and_names_of_inputs_are_held_against_forward(node: dict[str, Any], expected: str) -> None:
    network = Network(torch.nn.Linear(4, 2), specs(node))
    with pytest.raises(Refused) as caught:
        network.refuse_unfitting_call()
    assert caught.value.reason.code == "PL-230"
    assert expected in caught.value.reason.message
    assert "Linear.forward(input: torch.Tensor)" in str(caught.value.reason.expected)


def test_a_rank_that_does_not_fit_is_said_at_the_first_call() -> None:
    network = Network(torch.nn.Conv2d(3, 4, 3), specs({"x": {"shape": [1, 3]}}))
    network.refuse_unfitting_call()
    with pytest.raises(Refused) as caught:
        network.run(make_samples(network.specs, seed=0, stream="export"))
    assert str(caught.value) == (
        "PL-230: model.inputs: the inputs do not fit the network: RuntimeError: Expected 3D (unbatched) or "
        "4D (batched) input to conv2d, but got input of size: [1, 3]; found x float32[1, 3]. "
        "Compare model.inputs with what the network's forward takes"
    )


def test_what_a_later_call_raises_goes_through() -> None:
    network = Network(torch.nn.Linear(4, 2), specs({"x": {"shape": [1, 4]}}))
    network.run({"x": np.zeros((1, 4), np.float32)})
    with pytest.raises(RuntimeError):
        network.run({"x": np.zeros((1, 5), np.float32)})


def test_bfloat16_outputs_come_as_float32() -> None:
    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.bfloat16()

    network = Network(Half(), specs({"x": {"shape": [2], "fill": {"constant": 1.5}}}))
    assert network.run(make_samples(network.specs, seed=0, stream="x"))["output1"].dtype == np.float32


def test_tensors_are_parameters_and_buffers_once() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.BatchNorm1d(2))
    module.append(module[0])
    names = list(Network(module, specs({"x": {"shape": [1, 2]}})).tensors())
    assert names == [
        "0.weight",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
