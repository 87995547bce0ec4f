"""Small networks, each named after what is hard about it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Fused(nn.Module):
    """Conv and BatchNorm, which exporters fuse; a Linear whose weight stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Plain(nn.Module):
    """Four tensors, none of which an exporter changes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.head = nn.Linear(16, 600)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


class Unused(nn.Module):
    def forward(self, a, b, c):
        return a + c


class Twice(nn.Module):
    """One tensor returned twice, and an input returned as it is."""

    def forward(self, x):
        y = x * 2
        return y, y, x


class Structured(nn.Module):
    """A list, a dict and a keyword argument in; a dict with None out."""

    def forward(self, xs, d, *, scale):
        return {"z": xs[0] + xs[1] * scale, "a": d["b"] * 2, "nothing": None, "c": d["a"]}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.decoder = nn.Linear(16, 50, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, indices):
        return self.decoder(self.embedding(indices))


class Counting(nn.Module):
    """Writes to a buffer, and has a large one outside of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(32, 32), persistent=False)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return x @ self.table


class Returned(nn.Module):
    """Returns a parameter and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(60_000))

    def forward(self, x):
        return x * 2, self.weight, torch.ones(3)


class Clashing(nn.Module):
    """Names that exporters give to values of their own."""

    def forward(self, relu, add):
        return {"mul": (torch.relu(relu) + add) * 2, "add_1": torch.relu(add)}


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        y = self.linear(x)
        if y.sum() > 0:
            return y * 2
        return y


class Attending(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class Wrapped(nn.Module):
    """An operator inside a named module."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(Attending())

    def forward(self, x):
        return self.block(x)


class Bessel(nn.Module):
    """An operator that neither exporter knows."""

    def forward(self, x):
        return torch.special.i1e(x)


class Pooling(nn.Module):
    """TorchScript needs sizes that divide; dynamo does not."""

    def forward(self, x):
        return F.adaptive_avg_pool2d(x, 6)


class Baked(nn.Module):
    """A size written into the code."""

    def forward(self, x):
        return x.reshape(2, 3)


class Dynamic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x):
        return F.interpolate(self.conv(x), scale_factor=2.0), x.mean((2, 3))


class Halting(nn.Module):
    def __init__(self, message="no tracing here"):
        super().__init__()
        self.message = message

    def forward(self, x):
        if torch.jit.is_tracing() or torch.compiler.is_exporting():
            raise ValueError(self.message)
        return x * 2


class Mixed(nn.Module):
    """One part was left in training mode on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(40)
        self.other = nn.BatchNorm1d(40)

    def forward(self, x):
        return self.norm(x) + self.other(x)
