"""The float64 run without a float64 network: the same numbers as a converted network gives."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.parity import float64
from pipeline.parity.float64 import Declined, InFloat64, Watching, run_in_float64
from pipeline.samples.spec import parse_inputs
from pipeline.sources.network import Network


class Functions(nn.Module):
    """Functions, methods, in-place changes, indexing, casts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8))
        self.register_buffer("shift", torch.rand(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * self.scale + self.shift
        y += self.scale
        y[:, 0] = self.shift[0]
        z = torch.zeros(y.shape, dtype=torch.float32)
        z[:] = y
        half = z.float().to(torch.float32) / 3
        parts = torch.stack([half, torch.tensor(0.1).expand(half.shape)])
        return torch.cat([*parts.unbind(0)], 1).softmax(1).where(half.repeat(1, 2) > 0, 0.5)


class Recurrent(nn.Module):
    """Layers that compare the dtype of their input with that of their weights before they compute."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.LSTM(8, 8, num_layers=2, bidirectional=True), nn.GRU(16, 8), nn.RNN(8, 8)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x, _ = layer(x)
        return x


CASES: dict[str, tuple[nn.Module, list[int]]] = {
    "convolutions": (
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        ),
        [2, 3, 8, 8],
    ),
    "linear": (nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4, bias=False)), [2, 8]),
    "attention": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [2, 4, 8]),
    "recurrent": (Recurrent(), [2, 5, 8]),
    "normalised": (nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)), [2, 5, 8]),
    "functions": (Functions(), [2, 8]),
}


def network(module: nn.Module, shape: list[int], **more: Any) -> Network:
    return Network(module.eval(), parse_inputs({"x": {"shape": shape, **more}}))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_converted_network(name: str) -> None:
    module, shape = CASES[name]
    values = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    before = copy.deepcopy(module.state_dict())
    found = run_in_float64(network(module, shape), values)
    assert not isinstance(found, Declined)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            wide = copy.deepcopy(module).double()(torch.from_numpy(values["x"]).double())
    finally:
        torch.set_default_dtype(torch.float32)
    tolerance = 1e-7 if name == "functions" else 1e-13  # the casts to float32 are real in the converted one
    assert found["output1"].dtype == np.float64
    assert np.allclose(found["output1"], wide.numpy(), rtol=tolerance, atol=tolerance)
    after = module.state_dict()
    assert all(
        torch.equal(after[key], tensor) and after[key].dtype == tensor.dtype for key, tensor in before.items()
    )
    assert torch.get_default_dtype() is torch.float32


def test_a_large_linear_layer_is_converted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float64, "PIECE_BYTES", 8 * 8 * 3)
    module = nn.Linear(8, 10)
    values = {"x": np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)}
    found = run_in_float64(network(module, [2, 5, 8]), values)
    assert not isinstance(found, Declined)
    wide = values["x"].astype(np.float64) @ module.weight.detach().double().numpy().T
    assert np.allclose(found["output1"], wide + module.bias.detach().double().numpy(), rtol=1e-14)


@pytest.mark.parametrize("bytes_", [1, 4000, 10**9])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (5, 2), stride=(2, 1), padding=(4, 0), dilation=(3, 1), bias=False),
        nn.Conv2d(4, 8, 3, stride=3, groups=4),
        nn.Conv2d(4, 6, 1, padding=7),
        nn.Conv2d(4, 6, 3, padding="same"),
        nn.Conv2d(4, 6, 4, padding=(2, 1), padding_mode="reflect"),
        nn.Conv2d(4, 6, 2, stride=5),
        nn.Conv2d(4, 6, 2, padding=(1,), stride=(2,)),
    ],
)
def test_a_convolution_is_computed_in_bands(
    monkeypatch: pytest.MonkeyPatch, layer: nn.Conv2d, bytes_: int
) -> None:
    monkeypatch.setattr(float64, "PIECE_BYTES", bytes_)
    x = torch.rand(2, 4, 13, 17)
    with torch.no_grad():
        wanted = copy.deepcopy(layer).double()(x.double())
        with InFloat64():
            found = layer(x)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, rtol=1e-13, atol=1e-14)


def test_a_convolution_whose_arguments_are_named() -> None:
    x, weight = torch.rand(2, 4, 9, 9), torch.rand(3, 4, 2, 2)
    with InFloat64():
        found = torch.nn.functional.conv2d(weight=weight, input=x, padding=2)
    wanted = torch.nn.functional.conv2d(x.double(), weight.double(), padding=2)
    assert torch.allclose(found, wanted, rtol=1e-13, atol=1e-14)


def test_a_convolution_unfolds_no_more_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch unfolds rows x columns x kernel of the whole batch at once."""
    monkeypatch.setattr(float64, "PIECE_BYTES", 64 * 1024)
    seen = []
    real = torch.conv2d
    monkeypatch.setattr(
        float64.torch, "conv2d", lambda data, *rest: seen.append(data.shape) or real(data, *rest)
    )
    layer = nn.Conv2d(8, 4, 3, padding=1)
    with torch.no_grad():
        float64._conv2d(torch.rand(2, 8, 64, 64), layer.weight, None, 1, 1)
    assert len(seen) == 64  # 2 * 8 * 9 * 64 * 8 bytes a row are more than 64 KiB
    assert {shape[2] for shape in seen} == {3}


def test_depthwise_convolutions_wake_no_other_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch takes their channels one by one: 0.3 s of mobilenet_v2 went into waking threads for each."""
    seen: list[tuple[int, int]] = []
    real = torch.conv2d

    def conv2d(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append((args[6], torch.get_num_threads()))
        return real(*args, **kwargs)

    module = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 3, groups=2))
    wanted = copy.deepcopy(module).double()(torch.ones(1, 4, 9, 9, dtype=torch.float64))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad(), InFloat64():
            monkeypatch.setattr(torch, "conv2d", conv2d)
            found = float64._conv2d(torch.ones(1, 4, 9, 9), module[0].weight, module[0].bias, groups=4)
            found = float64._conv2d(found, module[1].weight, module[1].bias, 1, 0, 1, 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [(4, 1), (2, 2)]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_table_is_not_converted_for_a_few_rows_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[int] = []
    wide = float64._wide

    def watch(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype is torch.float32:
            converted.append(value.numel())
        return wide(value)

    monkeypatch.setattr(float64, "_wide", watch)
    module = nn.Sequential(nn.Embedding(1000, 8), nn.Linear(8, 2))
    rows = network(module, [1, 3], dtype="int64", fill={"integers": [0, 1000]})
    found = run_in_float64(rows, {"x": np.array([[1, 5, 900]])})
    assert not isinstance(found, Declined)
    assert found["output1"].dtype == np.float64
    assert max(converted) < 1000


def test_a_cast_to_float32_inside_stays_wide() -> None:
    class Casts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.half().float().to(torch.float32).type(torch.float32) / 3

    values = {"x": np.array([[0.1, 0.2]], np.float32)}
    found = run_in_float64(network(Casts(), [1, 2]), values)
    assert not isinstance(found, Declined)
    assert np.array_equal(found["output1"], values["x"].astype(np.float64) / 3)


def test_why_there_is_none() -> None:
    class Only32(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise TypeError("float32 only\nand more")

    found = run_in_float64(network(Only32(), [1, 2]), {"x": np.ones((1, 2), np.float32)})
    assert found == Declined("the network does not run in float64: TypeError: float32 only")
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize(
    ("function", "depends"),
    [
        (lambda x: x[x > 0], True),
        (lambda x: x.nonzero(), True),
        (lambda x: torch.where(x > 0), True),
        (torch.unique, True),
        (lambda x: torch.where(x > 0, x, 0), False),
        (lambda x: x[:, 1:], False),
        (lambda x: x[torch.tensor([0, 0])], False),
    ],
)
def test_operators_whose_size_depends_on_values(function: Any, depends: bool) -> None:
    with Watching() as watching:
        function(torch.randn(2, 3))
    assert watching.value_dependent is depends


def test_a_network_that_asks_for_a_weight_s_dtype_finds_its_own() -> None:
    """Told float64, it would compute something else, and the difference be taken for noise."""

    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x)
            return y * 2 if self.inner.weight.dtype == torch.float32 else y

    net = network(Asks(), [2, 4])
    values = {"x": np.ones((2, 4), np.float32)}
    exact = run_in_float64(net, values)
    assert not isinstance(exact, Declined)
    (name,) = exact
    np.testing.assert_allclose(exact[name], net.run(values)[name], rtol=1e-5)
