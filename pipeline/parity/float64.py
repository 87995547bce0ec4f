"""The network once more in float64, without a float64 copy of it. Imports torch.

A function mode sees every torch function that the network calls and hands it float64 arguments
in place of smaller floats; parameters are converted where they are used and let go right after.
Compared with converting the network: less time, and the memory of one layer instead of two networks
(figures in docs/decisions/0020). The network itself is never written to.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from pipeline.sources.attributes import attributes_put_back

if TYPE_CHECKING:
    from pipeline.sources.network import Network

#: Weights of linear layers are converted in pieces of this size, so that a layer of 400 MB does
#: not take 800 MB more. 16 MiB of float64 stay in the processor's cache at no loss of speed.
#: Convolutions are computed in bands of rows whose unfolded inputs are no larger: torch unfolds
#: the whole batch at once in float64, 231 MB for vgg16's second layer and one image, and the bands
#: are faster (0.11 s of processor time there instead of 0.26).
PIECE_BYTES: Final = 16 * 1024 * 1024

_WIDER: Final = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
#: Methods that name a dtype instead of taking one.
_CASTS: Final[dict[Any, Any]] = {
    torch.Tensor.float: torch.Tensor.double,
    torch.Tensor.half: torch.Tensor.double,
    torch.Tensor.bfloat16: torch.Tensor.double,
}
#: The attribute `dtype`, and who has to find the one that is computed with: LSTM, GRU and RNN compare their
#: weights' with their input's. A network of the user's may decide something by it, and finds its own.
_COMPARES: Final = "torch.nn.modules.rnn"
_DTYPE: Final = torch.Tensor.dtype.__get__  # type: ignore[attr-defined] # a descriptor
#: Functions that only pick or arrange elements: exact in any dtype, so that a large table is not
#: converted for a few rows of it, nor a weight for a transposed view.
_EXACT: Final = frozenset(
    {
        torch.nn.functional.embedding,
        torch.embedding,
        torch.Tensor.__getitem__,
        torch.index_select,
        torch.Tensor.index_select,
        torch.gather,
        torch.Tensor.gather,
        torch.Tensor.view,
        torch.Tensor.reshape,
        torch.reshape,
        torch.Tensor.permute,
        torch.permute,
        torch.Tensor.transpose,
        torch.transpose,
        torch.Tensor.t,
        torch.Tensor.expand,
        torch.Tensor.expand_as,
        torch.Tensor.squeeze,
        torch.Tensor.unsqueeze,
        torch.squeeze,
        torch.unsqueeze,
        torch.Tensor.flatten,
        torch.flatten,
        torch.Tensor.detach,
        torch.Tensor.contiguous,
        torch.Tensor.numpy,
        torch.Tensor.size,
        torch.Tensor.dim,
        torch.Tensor.numel,
        torch.Tensor.is_floating_point,
    }
)

_SIZE_DEPENDS_ON_VALUES: Final = frozenset(
    {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "nms", "torchvision.nms"}
)


@dataclass(frozen=True)
class Declined:
    """Why there is no float64 run."""

    reason: str  #: ends without a full stop


def run_in_float64(network: Network, values: Mapping[str, Any]) -> dict[str, NDArray[Any]] | Declined:
    """The outputs with every floating computation in float64, or why that does not work.

    Outputs that the network casts to a smaller dtype by itself come back as float64 all the same.
    """
    args, kwargs = network.arguments(values)
    try:
        with torch.no_grad(), attributes_put_back(network.module):
            with InFloat64():
                outputs = network.module(*_wide(args), **_wide(kwargs))
            found = {name: tensor.detach().cpu() for name, tensor in network.flatten(outputs).items()}
    except Exception as error:  # noqa: BLE001 - a network may raise anything; the run goes on without
        return Declined(f"the network does not run in float64: {type(error).__name__}: {_first_line(error)}")
    small = [name for name, tensor in found.items() if tensor.dtype in _WIDER]
    if small:
        return Declined(f"output {small[0]} stays {found[small[0]].dtype} whatever goes in")
    return {name: np.asarray(tensor.numpy()) for name, tensor in found.items()}


class Watching(TorchFunctionMode):
    """Sees whether operators are used whose output's size depends on values.

    Attributes:
        value_dependent: such an operator was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.value_dependent = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func` as it is."""
        name = getattr(func, "__name__", "")
        if name in _SIZE_DEPENDS_ON_VALUES:
            self.value_dependent = True
        elif name == "__getitem__" and len(args) > 1:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(item, torch.Tensor) and item.dtype is torch.bool for item in index):
                self.value_dependent = True
        elif name == "where" and len(args) == 1:
            self.value_dependent = True
        return func(*args, **(kwargs or {}))


class InFloat64(TorchFunctionMode):
    """While this is active, torch functions compute in float64."""

    def __enter__(self) -> Self:
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(self._default)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func` with wider arguments."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__" and func == _DTYPE and sys._getframe(1).f_globals.get("__name__") == _COMPARES:
            own = func(*args, **kwargs)
            return _WIDER.get(own, own)
        if name == "__get__" or func in _EXACT:
            return func(*args, **kwargs)
        if func is torch.nn.functional.linear:
            return _linear(*args, **kwargs)
        if func is torch.conv2d:
            return _conv2d(*args, **kwargs)
        if _writes_to_first(name) and args:
            # The tensor that is written to must stay the one that the caller holds.
            return func(args[0], *_wide(args[1:]), **_wide(kwargs))
        wider: Callable[..., Any] = _CASTS.get(func, func)
        return wider(*_wide(args), **_wide(kwargs))


def _writes_to_first(name: str) -> bool:
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def _wide(value: Any) -> Any:
    """The value with every smaller float tensor and dtype in it made wider."""
    if isinstance(value, torch.Tensor):
        with torch._C.DisableTorchFunction():
            wider = _WIDER.get(value.dtype)
            return value if wider is None else value.to(wider)
    if isinstance(value, torch.dtype):
        return _WIDER.get(value, value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_wide(item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_wide(item) for item in value)
    if isinstance(value, dict):
        return {key: _wide(item) for key, item in value.items()}
    return value


def _linear(data: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """torch.nn.functional.linear, the weight converted a piece of its rows at a time."""
    data, bias = _wide(data), _wide(bias)
    rows = max(1, PIECE_BYTES // max(1, 8 * weight.shape[-1]))
    if weight.ndim != 2 or weight.shape[0] <= rows:
        return torch.nn.functional.linear(data, _wide(weight), bias)
    flat = data.reshape(-1, data.shape[-1])
    result = flat.new_empty((flat.shape[0], weight.shape[0]))
    for start in range(0, weight.shape[0], rows):
        piece = slice(start, start + rows)
        result[:, piece] = flat @ _wide(weight[piece]).t()
    if bias is not None:
        result += bias
    return result.reshape(*data.shape[:-1], weight.shape[0])


def _conv2d(
    input: torch.Tensor,  # noqa: A002 - torch's own name, by which it may be passed
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """torch.conv2d, a band of output rows at a time."""
    data, weight, bias = _wide(input), _wide(weight), _wide(bias)
    if groups > 1 and weight.shape[1] == 1:
        with one_thread():
            return torch.conv2d(data, weight, bias, stride, padding, dilation, groups)
    if data.ndim != 4 or isinstance(padding, str):
        return torch.conv2d(data, weight, bias, stride, padding, dilation, groups)
    (down, across), (above, beside), (tall, wide) = _pair(stride), _pair(padding), _pair(dilation)
    height, width = tall * (weight.shape[2] - 1) + 1, wide * (weight.shape[3] - 1) + 1
    rows = (data.shape[2] + 2 * above - height) // down + 1
    columns = (data.shape[3] + 2 * beside - width) // across + 1
    unfolded = data.shape[0] * math.prod(weight.shape[1:]) * columns * data.element_size()
    band = max(1, PIECE_BYTES // max(1, unfolded))
    if rows <= band:
        return torch.conv2d(data, weight, bias, stride, padding, dilation, groups)
    result: torch.Tensor = data.new_empty((data.shape[0], weight.shape[0], rows, columns))
    for first in range(0, rows, band):
        last = min(first + band, rows)
        start, stop = first * down - above, (last - 1) * down - above + height
        piece = data[:, :, max(start, 0) : max(stop, 0)]
        over = min(max(-start, 0), stop - start)
        under = stop - start - over - piece.shape[2]
        if over or under:
            piece = torch.nn.functional.pad(piece, (0, 0, over, under))
        result[:, :, first:last] = torch.conv2d(piece, weight, bias, stride, (0, beside), dilation, groups)
    return result


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread meanwhile.

    In float64 torch takes the channels of a depthwise convolution one by one; waking another thread for
    each costs several times what is computed (mobilenet_v2's 0.04 s of processor time became 0.33).
    What is computed may set another number: that one stays.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() == 1:
            torch.set_num_threads(before)


def _pair(value: Any) -> tuple[int, int]:
    """Two numbers, of one, a sequence of one, or a sequence of two."""
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
