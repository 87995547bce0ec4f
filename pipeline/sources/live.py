"""Random weights that mean something: `model.init=live`. Imports torch.

torch's own random weights make proof by comparison empty: untouched batch statistics let the
signal die out (outputs of 1e-9) or explode, heads that begin at zero give zeros, detectors find
nothing. Here, after torch's own initialisation under the seed (docs/decisions/0010):

1. what is constant is drawn: zero weights and biases, layer scales near zero, the weight and bias
   of normalisations (a permutation of channels would not show otherwise);
2. batch statistics are those of one forward pass over samples of the input; in the same pass the
   heads of detectors are given a spread of scores; networks without any normalisation have every
   layer scaled to unit variance;
3. torchvision's networks without any normalisation (alexnet, vgg, squeezenet) are chains of
   convolutions and ReLU: their layers are scaled by He's formula, without a forward pass.

Every tensor draws from a stream of its own (digest of seed and name). The pass runs in float64 on
one thread and its results are rounded, so that the weights do not depend on the number of threads.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _NormBase

from pipeline.samples.make import Variant, make_samples
from pipeline.samples.spec import InputSpecs
from pipeline.sources.attributes import attributes_put_back
from pipeline.sources.detection_heads import HeadSpread, head_spreads
from pipeline.sources.network import DOES_NOT_FIT, Network, inputs_do_not_fit

#: Weight and bias of a normalisation layer: far enough apart that no two channels are the same.
NORM_WEIGHT: Final = (0.75, 1.25)
NORM_BIAS_STD: Final = 0.1
#: Biases that begin at zero, beside activations of about unit variance.
BIAS_STD: Final = 0.05
#: Parameters that are constant and this small are layer scales (ConvNeXt: 1e-6), drawn from here.
SMALL_CONSTANT: Final = 1e-2
LAYER_SCALE: Final = (0.5, 1.0)
#: Fewer values than this for each channel say nothing of it: the whole layer's statistics are taken.
FEWEST_VALUES: Final = 16
#: Variances below this are taken for it.
SMALLEST_VARIANCE: Final = 1e-6
#: Bits of the mantissa that calibrated values keep: float64 results of two ways of summing agree in
#: about 45 bits, so that rounding to 16 makes them the same.
KEPT_BITS: Final = 16
#: Elements of a weight that its standard deviation is estimated from.
_ESTIMATED_FROM: Final = 65536
_LAYERS: Final = (
    torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear,
    torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d,
)  # fmt: skip
_NORMS: Final = (_NormBase, torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.RMSNorm)


def make_live(module: torch.nn.Module, *, seed: int) -> None:
    """Draw what is constant, and scale torchvision's plain chains: everything without a forward pass."""
    seen: set[int] = set()
    with torch.no_grad():
        for prefix, inner in module.named_modules():
            for name, parameter in inner.named_parameters(recurse=False):
                if id(parameter) in seen or not parameter.is_floating_point():
                    continue
                seen.add(id(parameter))
                values = _drawn(inner, name, parameter, f"{prefix}.{name}", seed)
                if values is not None:
                    parameter.copy_(torch.from_numpy(values))
        if _is_plain_chain(module):
            for inner in module.modules():
                if isinstance(inner, _LAYERS):
                    _scale_by_formula(inner.weight)


def calibrate(network: Network, *, seed: int, only_statistics: bool = False) -> None:
    """Run the network once, if that is needed, and set what depends on its activations.

    Args:
        network: whose weights are random.
        seed: of the samples.
        only_statistics: set batch statistics that nobody has set, and no parameter.

    Raises:
        Refused: the network does not take its inputs.
    """
    module = network.module
    spreads = head_spreads(module)
    norms = [inner for inner in module.modules() if _untouched_statistics(inner)]
    without = not any(isinstance(inner, _NORMS) for inner in module.modules())
    layers = [inner for inner in module.modules() if isinstance(inner, _LAYERS)]
    layers = layers if without and not _is_plain_chain(module) else []
    if only_statistics:
        spreads, layers = {}, []
    if not (norms or spreads or layers):
        return
    values = _inputs(network.specs, seed)
    args, kwargs = network.arguments(values)
    from pipeline.parity.float64 import InFloat64, one_thread

    with ExitStack() as stack:
        stack.enter_context(one_thread())
        for inner in norms:
            stack.enter_context(_hooked(inner.register_forward_pre_hook(_set_statistics)))
        for inner, spread in spreads.items():
            stack.enter_context(_hooked(inner.register_forward_hook(_set_spread(spread))))
        for inner in layers:
            stack.enter_context(_hooked(inner.register_forward_hook(_first_call(_set_unit_variance))))
        stack.enter_context(attributes_put_back(module))
        stack.enter_context(torch.no_grad())
        stack.enter_context(InFloat64())
        try:
            module(*args, **kwargs)
        except DOES_NOT_FIT as error:
            raise inputs_do_not_fit(error, values) from error


# -- without a forward pass ------------------------------------------------------------------------


def _drawn(
    module: torch.nn.Module, name: str, parameter: torch.Tensor, path: str, seed: int
) -> np.ndarray[Any, Any] | None:
    """New values of a constant parameter, or None when it stays."""
    constant = _constant(parameter)
    if constant is None or parameter.numel() == 1:
        return None
    shape = tuple(parameter.shape)
    stream = _stream(seed, path)
    if isinstance(module, _NORMS):
        if name == "weight":
            return _float32(stream.uniform(*NORM_WEIGHT, shape))
        return _float32(NORM_BIAS_STD * stream.standard_normal(shape))
    if constant == 0.0:
        std = 1.0 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else BIAS_STD
        return _float32(std * stream.standard_normal(shape))
    if abs(constant) <= SMALL_CONSTANT:
        return _float32(math.copysign(1.0, constant) * stream.uniform(*LAYER_SCALE, shape))
    return None


def _constant(tensor: torch.Tensor) -> float | None:
    """The value that every element has, or None."""
    if tensor.numel() == 0:
        return None
    flat = tensor.detach().reshape(-1)
    first = flat[0]
    if bool(flat[-1] != first) or bool((flat != first).any()):
        return None
    return float(first)


def _is_plain_chain(module: torch.nn.Module) -> bool:
    """Whether it is alexnet, vgg or squeezenet of torchvision: no normalisation, and ReLU after every layer."""
    return type(module).__module__ in (
        "torchvision.models.alexnet", "torchvision.models.vgg", "torchvision.models.squeezenet",
    ) and not any(isinstance(inner, _NORMS) for inner in module.modules())  # fmt: skip


def _scale_by_formula(weight: torch.Tensor) -> None:
    """Standard deviation sqrt(2 / fan_in), which keeps the variance through ReLU (He et al. 2015)."""
    flat = weight.detach().reshape(-1)
    some = flat[:: max(1, flat.numel() // _ESTIMATED_FROM)].numpy().astype(np.float64)
    factor = math.sqrt(2.0 / math.prod(weight.shape[1:])) / math.sqrt(float(np.mean(some**2)))
    weight.mul_(float(_rounded(torch.tensor([factor], dtype=torch.float64))[0]))


# -- in the forward pass ---------------------------------------------------------------------------


def _inputs(specs: InputSpecs, seed: int) -> dict[str, NDArray[Any]]:
    """Samples; along the last axis of a normal fill three bands are plain, negated and scaled.

    Deep networks with batch statistics of plain inputs alone answer scaled ones, which parity feeds
    too, with outputs a thousand times larger.
    """
    variants: tuple[Variant, ...] = ("plain", "negated", "scaled")
    sets = [make_samples(specs, seed=seed, stream="calibration", variant=variant) for variant in variants]
    values = dict(sets[0])
    for leaf in specs.leaves:
        if leaf.fill.kind == "normal" and leaf.shape:
            width = values[leaf.name].shape[-1]
            band = np.arange(width) * len(sets) // width
            values[leaf.name] = np.choose(band, [samples[leaf.name] for samples in sets])
    return values


def _untouched_statistics(module: torch.nn.Module) -> bool:
    if not isinstance(module, _NormBase) or module.running_mean is None or module.running_var is None:
        return False
    return bool((module.running_mean == 0).all()) and bool((module.running_var == 1).all())


def _set_statistics(module: Any, args: tuple[Any, ...]) -> None:
    if not _untouched_statistics(module):
        return  # a module that is called again keeps what its first call gave
    mean, variance = _statistics(args[0], 1)
    module.running_mean.copy_(_rounded(mean))
    module.running_var.copy_(_rounded(variance))


def _first_call(change: Callable[[Any, torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """A forward hook that changes the module and its output at the first call alone."""
    called = False

    def hook(module: Any, args: Any, output: Any) -> Any:
        nonlocal called
        if called or not isinstance(output, torch.Tensor) or output.numel() < 2:
            return output
        called = True
        return change(module, output)

    return hook


def _set_spread(spread: HeadSpread) -> Callable[..., Any]:
    """Gives every channel of a head the wanted mean and standard deviation."""

    def change(module: Any, output: torch.Tensor) -> torch.Tensor:
        channel = 1 if output.ndim > 2 else output.ndim - 1
        mean, variance = _statistics(output, channel)
        factor = _rounded(spread.std / variance.sqrt())
        shift = _rounded(spread.mean - mean * factor)
        if spread.classes is not None:
            shift[:: spread.classes] += spread.background
            shift[1 :: spread.classes] += spread.favoured
        module.weight.mul_(factor.reshape(-1, *[1] * (module.weight.ndim - 1)))
        module.bias.mul_(factor).add_(shift)
        shape = [1] * output.ndim
        shape[channel] = -1
        return output * factor.reshape(shape) + shift.reshape(shape)

    return _first_call(change)


def _set_unit_variance(module: Any, output: torch.Tensor) -> torch.Tensor:
    std = output.detach().double().std(correction=0)
    if float(std) == 0.0:
        return output
    factor = _rounded(1.0 / std.reshape(1))[0]
    module.weight.mul_(factor)
    if module.bias is not None:
        module.bias.mul_(factor)
    return output * factor


def _statistics(values: torch.Tensor, channel: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel; of the whole layer where a channel has too few values."""
    rows = values.detach().double().movedim(channel, 0).flatten(1)
    channels = rows.shape[0]
    if rows.shape[1] < FEWEST_VALUES:
        rows = rows.reshape(1, -1)
    # Twice over the values: torch.var_mean goes once, and takes longer.
    mean = rows.mean(dim=1)
    variance = (rows - mean[:, None]).square_().mean(dim=1).clamp(min=SMALLEST_VARIANCE)
    return mean.expand(channels), variance.expand(channels)


def _rounded(values: torch.Tensor) -> torch.Tensor:
    mantissa, exponent = torch.frexp(values.double())
    return torch.ldexp(torch.round(mantissa * 2.0**KEPT_BITS) / 2.0**KEPT_BITS, exponent)


# -- streams and switches --------------------------------------------------------------------------


def _stream(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"weights\0{seed}\0{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def _float32(values: Any) -> np.ndarray[Any, Any]:
    return np.asarray(values, dtype=np.float32)


@contextmanager
def _hooked(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
