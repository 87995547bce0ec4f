"""Networks that rules are for: torchvision's, and well-known ones that it has not, as torch exports them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from pipeline.graph.bare import BareModel
from pipeline.samples.spec import parse_inputs
from pipeline.sources.live import calibrate, make_live
from pipeline.sources.network import Network
from tests.graph.rewrites.lower_networks import DYNAMO, Exported, Of
from tests.graph.rewrites.lower_networks import exported as as_written
from tests.graph.test_real_networks import exported


class StyleTransfer(nn.Module):
    """Fast neural style (Johnson et al. 2016), narrow: reflection pads, instance norms, nearest upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 9), nn.InstanceNorm2d(8, affine=True)
        self.down, self.last = nn.Conv2d(8, 16, 3, stride=2), nn.Conv2d(16, 3, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(F.pad(x, (4, 4, 4, 4), mode="reflect"))))
        x = self.down(F.pad(x, (1, 1, 1, 1), mode="replicate"))
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.last(F.pad(x, (4, 4, 4, 4)))


class SuperResolution(nn.Module):
    """FSRCNN (Dong et al. 2016), narrow: PReLU behind every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2), nn.PReLU(8), nn.Conv2d(8, 4, 1), nn.PReLU(1),
            nn.ConvTranspose2d(4, 1, 9, stride=2, padding=4, output_padding=1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Audio(nn.Module):
    """M5 (Dai et al. 2016), narrow: a raw waveform through convolutions along one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, 8, 80, stride=16), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(4),
            nn.Conv1d(8, 16, 3, padding=1), nn.ReLU(), nn.AvgPool1d(4),
        )  # fmt: skip
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x).mean(-1))


class Pyramid(nn.Module):
    """The pyramid pooling of PSPNet (Zhao et al. 2017), and a head that normalises its features (NormFace)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Conv2d(24, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        parts = [
            F.interpolate(F.adaptive_avg_pool2d(x, bins), size=(32, 32), mode="bilinear") for bins in (1, 2)
        ]
        found = self.head(torch.cat([x, *parts], 1)).mean((2, 3))
        return F.normalize(found, dim=1)


class Rotary(nn.Module):
    """Attention with rotary positions (Su et al. 2021) and a mask: Neg, uneven halves, Where."""

    def __init__(self, width: int = 32, length: int = 10) -> None:
        super().__init__()
        self.mix, self.heads, self.width = nn.Linear(width, 3 * width), 4, width
        angle = torch.arange(length)[:, None] / 10 ** torch.linspace(0, 4, width // 8)[None]
        self.register_buffer("cos", torch.cos(torch.cat([angle, angle], -1)))
        self.register_buffer("sin", torch.sin(torch.cat([angle, angle], -1)))
        self.register_buffer("mask", torch.tril(torch.ones(length, length, dtype=torch.bool)))

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        return x * self.cos + torch.cat([-x[..., half:], x[..., :half]], -1) * self.sin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = self.mix(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = self.turned(q) @ self.turned(k).transpose(-1, -2) / math.sqrt(self.width // self.heads)
        weights = torch.where(self.mask, torch.softmax(scores, -1), torch.tensor(0.0))
        gates = torch.softmax(v, dim=2)
        return (weights @ (v - gates**3)).transpose(1, 2).reshape(batch, length, -1)


class _Main(nn.Module):
    """The first output of a segmentation network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)["out"]


def deeplab() -> nn.Module:
    return _Main(
        torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)
    )


def own(kind: Callable[[], nn.Module], shape: tuple[int, ...], opset: int) -> BareModel:
    """Weights and statistics are drawn as in a run, so that the output depends on the input."""
    torch.manual_seed(0)
    network = kind().eval()
    make_live(network, seed=0)
    specs = parse_inputs({"input1": {"shape": list(shape)}}, key="model.inputs")
    calibrate(Network(network, specs), seed=0)
    return exported(network, shape, opset)


def plain(network: nn.Module, shape: tuple[int, ...], opset: int) -> BareModel:
    """With torch's own initial weights."""
    torch.manual_seed(0)
    return exported(network, shape, opset)


def of_torchvision(name: str, size: int, opset: int) -> BareModel:
    """One of torchvision's networks on a small image."""
    more = {"init_weights": False} if name == "inception_v3" else {}
    kind = deeplab if name == "deeplab" else lambda: torchvision.models.get_model(name, weights=None, **more)
    return own(kind, (1, 3, size, size), opset)


NETWORKS: dict[str, Callable[[], BareModel]] = {
    "mobilenet_v3_small": lambda: of_torchvision("mobilenet_v3_small", 64, 11),
    "deeplabv3": lambda: of_torchvision("deeplab", 256, 11),
    "shufflenet": lambda: of_torchvision("shufflenet_v2_x0_5", 64, 11),
    "densenet121": lambda: of_torchvision("densenet121", 64, 11),
    "swin_t 11": lambda: of_torchvision("swin_t", 64, 11),
    "swin_t 17": lambda: of_torchvision("swin_t", 64, 17),
    "convnext_tiny": lambda: of_torchvision("convnext_tiny", 64, 11),
    "inception_v3": lambda: of_torchvision("inception_v3", 96, 11),
    "style": lambda: own(StyleTransfer, (1, 3, 32, 32), 13),
    "super_resolution": lambda: own(SuperResolution, (1, 1, 16, 16), 11),
    "audio": lambda: own(Audio, (1, 1, 2000), 11),
    "pyramid": lambda: own(Pyramid, (1, 3, 32, 32), 11),
    "rotary": lambda: own(Rotary, (1, 10, 32), 17),
    "channels last": lambda: own(
        lambda: Of(
            lambda x, mix: mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(3, 8, bias=False)
        ),
        (1, 3, 8, 8),
        11,
    ),
    "limits": lambda: plain(
        Of(lambda x: (x.clamp(-1, 1), x.clamp(min=0), torch.min(torch.relu(x * 9), torch.tensor(6.0)))),
        (2, 3),
        13,
    ),
    "colours": lambda: plain(
        Of(lambda x: x.index_select(1, torch.tensor([0, 1])) + x[:, 1:2]), (1, 3, 8, 8), 13
    ),
    "cropped": lambda: plain(
        nn.Sequential(nn.ZeroPad2d((-1, -1, 2, 0)), nn.Conv2d(3, 4, 1)), (1, 3, 8, 8), 13
    ),
    "same size": lambda: as_written(
        Exported(lambda: nn.Upsample(size=(8, 8), mode="bilinear"), ((1, 3, 8, 8),), DYNAMO, 18, "")
    )[0],
    "volume": lambda: plain(
        nn.Sequential(nn.Conv3d(1, 2, 1), nn.ReLU(), nn.MaxPool3d(2)), (1, 1, 4, 4, 4), 13
    ),
    "same padding": lambda: plain(
        nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        (1, 3, 8, 8),
        13,
    ),
    "uneven": lambda: plain(Of(lambda x: torch.cat(x.split([1, 3, 4], 1)[::-1], 1)), (2, 8, 4, 4), 13),
    "large mean": lambda: plain(
        nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1)), (1, 1, 112, 112), 13
    ),
    "gelu": lambda: plain(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Sigmoid()), (2, 8), 13),
    "any batch": lambda: exported(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), (2, 8), 13, dynamic=True),
    "double": lambda: plain(Of(lambda x: torch.sigmoid(x.double() * 0.5).float()), (2, 3), 13),
    "large kernel": lambda: plain(
        nn.Sequential(nn.Conv2d(3, 8, 11, 4, 2), nn.Conv2d(8, 2, 9)), (1, 3, 64, 64), 11
    ),
    "grown": lambda: plain(
        nn.Sequential(nn.ConvTranspose2d(4, 4, 2, 2), nn.ConvTranspose2d(4, 2, 3)), (1, 4, 5, 5), 11
    ),
    "products": lambda: plain(Of(lambda x: torch.einsum("bid,bjd->bij", x, x * 2)), (2, 3, 4), 13),
    # What onnxsim does itself is left to the rules with simplify=none.
    "as exported": lambda: plain(nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3)), (1, 3, 8, 8), 11),
}
