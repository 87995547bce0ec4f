"""Small networks of torch's own modules and functions that lowering rules are for, as torch exports them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

import onnx
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from pipeline.graph.bare import BareModel

SCRIPT, DYNAMO = "torchscript", "dynamo"


class Of(nn.Module):
    """A function of the inputs and of layers."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs, *self.layers)


@dataclass(frozen=True)
class Exported:
    """A network, how it is exported, and the rules that it needs on the way to opset 9.

    Attributes:
        network: makes it.
        inputs: sizes of floating inputs, or tensors.
        exporter, opset: of torch.
        needs: names of rules.
        dynamic: whether the first axis of the first input is dynamic.
    """

    network: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    exporter: Literal["torchscript", "dynamo"]
    opset: int
    needs: str
    dynamic: bool = False


def integers(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype) - 3


def _written(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 1:3] = 0.5
    y[1] = x[0] * 2
    return y


class Element(nn.Module):
    """A list in TorchScript."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = torch.split(x, 2)
        return parts[1] * 2


ROWS = torch.tensor([[0, 1], [2, 3], [1, 0]])

NETWORKS: dict[str, Exported] = {
    "brain": Exported(
        lambda: Of(lambda x, conv: conv(x.bfloat16()).float(), nn.Conv2d(3, 4, 3).bfloat16()),
        ((1, 3, 8, 8),),
        SCRIPT,
        15,
        "bfloat16_to_float32",
    ),
    "rms": Exported(lambda: nn.RMSNorm(8), ((2, 5, 8),), DYNAMO, 23, "reduction_axes rms_normalization"),
    "group": Exported(lambda: nn.GroupNorm(2, 8), ((2, 8, 4, 4),), DYNAMO, 23, "group_normalization"),
    "layer": Exported(lambda: nn.LayerNorm(8), ((2, 5, 8),), SCRIPT, 17, "layer_normalization"),
    "activations": Exported(
        lambda: nn.Sequential(
            nn.GELU(), nn.GELU("tanh"), nn.Mish(), nn.Hardswish(), nn.CELU(), nn.Hardtanh(-2, 2)
        ),
        ((2, 8),),
        DYNAMO,
        23,
        "celu clip_limits gelu hard_swish mish",
    ),
    "grown": Exported(
        lambda: Of(
            lambda x: (
                F.interpolate(x, scale_factor=2, mode="nearest"),
                F.interpolate(x, size=(7, 9), mode="bilinear"),
                F.interpolate(x, size=(16, 16), mode="bilinear", align_corners=True),
                F.interpolate(x, size=(5, 3), mode="bilinear", antialias=True),
            )
        ),
        ((1, 3, 8, 8),),
        DYNAMO,
        18,
        "resize_antialias resize_roi resize_scales resize_table upsample",
    ),
    "transformer": Exported(
        lambda: Of(
            lambda x, theta: F.grid_sample(
                x, F.affine_grid(theta, [1, 3, 6, 6], align_corners=False), align_corners=False
            )
        ),
        (
            (1, 3, 8, 8),
            (1, 2, 3),
        ),
        SCRIPT,
        20,
        "affine_grid grid_sample grid_sample_modes",
    ),
    "parts": Exported(
        lambda: Of(lambda x: torch.cat(x.chunk(3, -1)[::-1], -1) * x[..., [-1]]),
        ((2, 8),),
        DYNAMO,
        18,
        "gather_coordinates negative_axes split_sizes",
    ),
    "halves": Exported(
        lambda: Of(lambda x: torch.cat(x.chunk(3, -1)[::-1], -1)),
        ((2, 8),),
        SCRIPT,
        15,
        "negative_indices slice_ranges",
    ),
    "statistics": Exported(
        lambda: Of(lambda x: (x.mean((1, 2)), x.sum(-1), x.amax(1), x.logsumexp(1), x.std())),
        ((2, 3, 4),),
        DYNAMO,
        18,
        "reduce_sum_axes",
    ),
    "bytes": Exported(
        lambda: Of(lambda x: (x.to(torch.int8).amax(1), x.to(torch.int8) * x.to(torch.int8))),
        ((2, 3, 4),),
        SCRIPT,
        17,
        "reduced_small_integers small_integers",
    ),
    "circular": Exported(
        lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        ((1, 3, 8, 8),),
        DYNAMO,
        23,
        "pad_wrap",
    ),
    "margins": Exported(
        lambda: Of(lambda x: (F.pad(x, (1, 2, 1, 1), mode="reflect"), F.pad(x > 0, (1, 1), value=True))),
        ((1, 3, 8, 8),),
        SCRIPT,
        17,
        "pad_amounts pad_truth slice_backwards",
    ),
    "limits": Exported(
        lambda: Of(lambda x: (x.clamp(-1, 1), (x * 5).long().clamp(-2, 3))),
        ((2, 3),),
        SCRIPT,
        17,
        "clip_integers",
    ),
    "most": Exported(
        lambda: Of(lambda x: (*x.topk(2), *(x * 100).int().topk(2, largest=False))),
        ((3, 5),),
        SCRIPT,
        17,
        "top_k_count top_k_smallest",
    ),
    "softmax": Exported(lambda: nn.Softmax(1), ((2, 3, 4),), SCRIPT, 17, "softmax_axis"),
    "whole": Exported(
        lambda: Of(lambda x, y: (torch.relu(x), x % 5, torch.maximum(x, y), x**2, x >= y)),
        (
            integers(2, 3),
            integers(2, 3) * 2,
        ),
        SCRIPT,
        17,
        "extremes_of_integers modulo or_equal power_types relu_integers",
    ),
    "numbers": Exported(
        lambda: Of(lambda x, y: (x >= y, x == y, x.round(), torch.isinf(x), x.nan_to_num())),
        (
            (2, 3),
            (2, 3),
        ),
        DYNAMO,
        18,
        "equal_numbers is_infinite round",
    ),
    "scores": Exported(
        lambda: Of(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
        (
            (1, 2, 3, 4),
            (1, 2, 3, 4),
            (1, 2, 3, 4),
        ),
        DYNAMO,
        23,
        "attention cast_like squeeze_axes",
    ),
    "encoder": Exported(
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        ((2, 3, 8),),
        DYNAMO,
        18,
        "gemm_without_bias reshape_zero",
    ),
    "rotary": Exported(
        lambda: Of(torch.onnx.ops.rotary_embedding),
        (
            (1, 2, 3, 4),
            (1, 3, 2),
            (1, 3, 2),
        ),
        DYNAMO,
        23,
        "rotary_embedding split_parts",
    ),
    "triangles": Exported(
        lambda: Of(lambda x: (x.tril(), x.triu(1), x.cumsum(0))),
        ((3, 4),),
        SCRIPT,
        17,
        "running_sum triangle",
    ),
    "sizes": Exported(
        lambda: Of(lambda x: (x.reshape(x.shape[0], -1), torch.arange(x.shape[0]) + 1)),
        ((3, 4),),
        DYNAMO,
        18,
        "range shape_part",
        dynamic=True,
    ),
    "shuffle": Exported(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.PixelShuffle(2)),
        ((1, 3, 6, 6),),
        DYNAMO,
        18,
        "depth_to_space",
    ),
    "places": Exported(
        lambda: Of(
            lambda x: (
                x.scatter(1, ROWS, x[:, :2]),
                x.gather(1, ROWS),
                x[torch.tensor([0, 2]), torch.tensor([1, 3])],
                x.scatter_add(1, ROWS, x[:, :2]),
                x.scatter_reduce(1, ROWS, x[:, :2], "amax"),
                x.index_put((torch.tensor([0, 2]),), x[:2]),
                _written(x),
            )
        ),
        ((3, 4),),
        DYNAMO,
        18,
        "gather_elements scatter_coordinates scatter_elements scatter_extremes scatter_sums",
    ),
    "pools": Exported(
        lambda: nn.MaxPool2d(3, 2, ceil_mode=True), ((1, 3, 8, 8),), SCRIPT, 17, "pool_to_the_end"
    ),
    "windows beside": Exported(
        lambda: nn.MaxPool2d(2, 3, 1, ceil_mode=True), ((1, 3, 8, 8),), DYNAMO, 23, "pool_beside"
    ),
    "products": Exported(
        lambda: Of(lambda x, y: torch.einsum("bid,bjd->bij", x, y)),
        (
            (2, 3, 4),
            (2, 3, 4),
        ),
        SCRIPT,
        12,
        "einsum",
    ),
    "spectrum": Exported(
        lambda: Of(lambda x: torch.view_as_real(torch.fft.fft(x))),
        ((2, 8),),
        DYNAMO,
        23,
        "fourier fourier_axis",
    ),
    "spectrogram": Exported(
        lambda: Of(
            lambda x: torch.view_as_real(
                torch.stft(x, 8, 4, window=torch.hann_window(8), return_complex=True)
            )
        ),
        ((2, 32),),
        DYNAMO,
        18,
        "short_fourier",
    ),
    "quantized": Exported(
        lambda: Of(
            lambda x: (
                torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 255),
                torch.fake_quantize_per_channel_affine(
                    x, torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3, dtype=torch.int32), 1, -128, 127
                ),
            )
        ),
        ((2, 3, 4),),
        SCRIPT,
        17,
        "dequantize dequantize_channels quantize quantize_channels",
    ),
    "list": Exported(lambda: torch.jit.script(Element()), ((6, 4),), SCRIPT, 12, "sequence_element"),
    "loss": Exported(
        lambda: Of(lambda x: F.cross_entropy(x, torch.tensor([0, 2]))), ((2, 3),), DYNAMO, 18, "losses"
    ),
    "regions": Exported(
        lambda: Of(
            lambda x: torchvision.ops.roi_align(
                x, [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], (2, 2), aligned=False
            )
        ),
        ((1, 3, 8, 8),),
        SCRIPT,
        17,
        "roi_align_pixels",
    ),
}


def exported(made: Exported) -> tuple[BareModel, dict[str, Any]]:
    """The graph as torch writes it, and the inputs that it was exported with."""
    torch.manual_seed(0)
    network = made.network().eval()
    given = tuple(one if isinstance(one, torch.Tensor) else torch.randn(one) for one in made.inputs)
    names = [f"x{index}" for index in range(len(given))]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if made.exporter == SCRIPT:
            buffer = io.BytesIO()
            torch.onnx.export(
                network, given, buffer, dynamo=False, opset_version=made.opset, input_names=names,
                dynamic_axes={"x0": {0: "n"}} if made.dynamic else None,
            )  # fmt: skip
            proto = onnx.ModelProto.FromString(buffer.getvalue())
        else:
            shapes = None
            if made.dynamic:
                shapes = ({0: torch.export.Dim.AUTO}, *[None] * (len(given) - 1))
                shapes = (shapes,) if isinstance(network, Of) else shapes
            program = torch.onnx.export(
                network, given, dynamo=True, opset_version=made.opset, input_names=names, verbose=False,
                dynamic_shapes=shapes,
            )  # fmt: skip
            assert program is not None
            proto = program.model_proto
    values = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
    kept = {value.name for value in proto.graph.input}
    return BareModel.from_proto(proto), {name: array for name, array in values.items() if name in kept}
