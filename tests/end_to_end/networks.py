"""Small networks of a user's, each with one thing that a pipeline may get wrong."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from torch import nn


class Plain(nn.Module):
    """Nothing wrong with it."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


class FrozenBranch(Plain):
    """Tracing sees one side of the branch; the negated input takes the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y * 2 if x[0, 0, 0, 0] > 0 else y - 3


class BakedSize(Plain):
    """The batch is turned into a Python number: right only for the size that was traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch = int(x.shape[0])
        y = super().forward(x)
        return y + torch.arange(batch, dtype=y.dtype).sum()


class LeftRandom(Plain):
    """Dropout that is on at inference too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(super().forward(x), 0.5, training=True)


class NotANumber(Plain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(-super().forward(x).abs() - 1)


class Fourier(Plain):
    """An operator that TorchScript has no ONNX for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.fft.rfft(x).abs().mean()


class Unused(Plain):
    """The second input is not used."""

    def forward(self, x: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


class Constant(Plain):
    """The output does not depend on the input: nothing can be proved."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 0 + 1


class Remembers(Plain):
    """What it has computed once is kept in an attribute and in a dict of it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.columns: torch.Tensor | None = None
        self.rows: dict[int, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        height, width = y.shape[-2:]
        if self.columns is None:
            self.columns = torch.linspace(0, 1, width)
        if height not in self.rows:
            self.rows[height] = torch.linspace(-1, 1, height)[:, None].sin()
        return self.head((y * self.columns + self.rows[height]).mean((2, 3)))


class RemembersParametrized(Remembers):
    """The same with a parametrization, which makes it a class of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(5))
        nn.utils.parametrize.register_parametrization(self, "gain", nn.Softplus())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.gain


class Collects(Plain):
    """Returns a dict that it holds itself, as feature extractors do."""

    def __init__(self) -> None:
        super().__init__()
        self.features: dict[str, torch.Tensor] = {}
        self.conv.register_forward_hook(lambda module, args, output: self.features.update(conv=output))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.features["logits"] = super().forward(x)
        return self.features


class MakesABuffer(Plain):
    """Registers a table when it first knows its size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if not hasattr(self, "table"):
            self.register_buffer("table", torch.linspace(0, 1, y.shape[-1]).sin())
        return self.head((y * self.table).mean((2, 3)))


class FillsABuffer(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if self.table is None:
            self.table = torch.linspace(0, 1, y.shape[-1]).sin()
        return self.head((y * self.table).mean((2, 3)))


class MakesALayer(Plain):
    """A layer with random weights, when it first knows its size."""

    def __init__(self) -> None:
        super().__init__()
        self.extra: nn.Module | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if self.extra is None:
            self.extra = nn.Linear(y.shape[-1], 3)
        return self.extra(y)


class Streams(Plain):
    """A state in a buffer, which every run moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.arange(5).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        out = y + self.state
        self.state.mul_(0.9).add_(0.1 * y[0])
        return out


class DrawsOnce(Plain):
    """Noise that is drawn at the first use and stays."""

    def __init__(self) -> None:
        super().__init__()
        self.noise: torch.Tensor | None = None
        self.more: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if self.noise is None:
            self.noise = torch.randn(5)
            self.more["noise"] = torch.randn(5)
        return y + self.noise + self.more["noise"]


class FillsPlaces(Plain):
    """Names that are there before get a layer, a parameter and a longer buffer at the first use."""

    def __init__(self) -> None:
        super().__init__()
        self.extra: nn.Module = nn.Identity()
        self.gain = nn.Parameter(torch.empty(0))
        self.register_buffer("table", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if self.table.shape[0] < y.shape[-1]:
            self.register_buffer("table", torch.linspace(0, 1, y.shape[-1]))
        y = self.head((y * self.table).mean((2, 3)))
        if isinstance(self.extra, nn.Identity):
            self.extra = nn.Linear(y.shape[-1], 3)
            self.gain = nn.Parameter(torch.rand(3) + 0.5)
        return self.extra(y) * self.gain


class OwnLinear(nn.Linear):
    """A layer of a user's own class."""


class TiesLate(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = OwnLinear(5, 5), OwnLinear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.second.weight = self.first.weight
        return self.second(self.first(super().forward(x)))


class Orthogonal(Plain):
    """Weights that other numbers of threads give other bits of."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(5, 600)
        nn.init.orthogonal_(self.wide.weight)
        self.back = nn.Linear(600, 5)
        nn.init.orthogonal_(self.back.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.back(self.wide(super().forward(x)))


class KeepsDeepDown(Plain):
    """Where nobody puts anything back: in a dict within a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, dict[int, torch.Tensor]] = {"rows": {}}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        width = y.shape[-1]
        if width not in self.tables["rows"]:
            self.tables["rows"][width] = torch.arange(width).float() / 7
        return self.head((y * self.tables["rows"][width]).mean((2, 3)))


class DiesInACopy(Plain):
    """Whoever runs it beside the process that built it is killed; the traced graph is wrong."""

    built_in = os.getpid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() != self.built_in:
            os.kill(os.getpid(), signal.SIGKILL)
        y = super().forward(x)
        return y * 100 if torch.jit.is_tracing() else y


class Scaled(nn.modules.lazy.LazyModuleMixin, nn.Module):
    """A lazy module of a user's own, which keeps a size as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.gain = nn.parameter.UninitializedParameter()

    def initialize_parameters(self, x: torch.Tensor) -> None:
        self.size = x.shape[-1]
        self.gain.materialize((self.size,))
        with torch.no_grad():
            self.gain.uniform_(0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gain / self.size


class LazyOfOnesOwn(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scaled = Scaled()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scaled(super().forward(x))


class LazyHead(Plain):
    """A layer that learns its size from what goes in."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.LazyLinear(5)


class Structured(Plain):
    """A list, a dict and a keyword go in; a dict comes out."""

    def forward(
        self, images: list[torch.Tensor], named: dict[str, torch.Tensor], *, scale: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        y = super().forward(torch.stack(images))
        return {"logits": y * scale, "side": named["a"] + named["b"]}


class OtherWhileTraced(Plain):
    """Returns something else when an exporter looks at it."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = super().forward(x)
        return {"traced": y} if torch.jit.is_tracing() else {"run": y}


class NativeCrash(Plain):
    """Ends the process while it runs, as native code may."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import ctypes

        ctypes.string_at(0)
        return x


class Large(nn.Module):
    """Asks for more memory than it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        held = [torch.ones(64, 1024, 1024) for _ in range(64)]
        return x + sum(part.sum() for part in held)


def build(kind: str = "Plain", **arguments: Any) -> nn.Module:
    """A network by the name of its class."""
    made: nn.Module = globals()[kind](**arguments)
    return made.eval()


def no_module() -> str:
    return "not a network"


def fails() -> nn.Module:
    raise RuntimeError("the table of channels is missing")


def without_head(network: nn.Module) -> nn.Module:
    """A preparation: the network ends before its last layer."""
    network.head = nn.Identity()
    return network


class Constants(Plain):
    """Parameters that its author set to constants on purpose, and none that the seed decides."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.full((5,), 0.01))
        self.mask = nn.Parameter(torch.zeros(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.temperature + self.mask


def ends_the_program() -> nn.Module:
    raise SystemExit(0)
