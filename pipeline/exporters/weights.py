"""Values of initializers, wherever they lie, and which tensor of the network each one is. Imports torch."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import InternalError
from pipeline.graph.bare import HeldTensor
from pipeline.graph.dtypes import NUMBERS, raw_size

#: Elements that are compared before a whole tensor is.
FIRST_ELEMENTS: Final = 64

FUSED: Final = "export: Conv+BatchNorm fused"
TRANSPOSED: Final = "export: folded transpose"
CONSTANT: Final = "export: a constant of the graph"

_CONVOLUTIONS: Final = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Weight:
    """The value of an initializer.

    Attributes:
        dtype: onnx.TensorProto.DataType.
        shape: sizes.
        data: a call that gives the raw little-endian bytes as a C-contiguous uint8 array.
        head: a call that gives the bytes of the first elements along the last dimension, FIRST_ELEMENTS
            at most; cheap, also where `data` would have to copy.
        place: (address, strides, dtype) of a torch tensor in memory: equal places are equal values.
    """

    dtype: int
    shape: tuple[int, ...]
    data: Callable[[], NDArray[Any]]
    head: Callable[[], bytes]
    place: tuple[Any, ...] | None = None

    def held(self, name: str, origin: str | None, derived_by: str | None) -> HeldTensor:
        """As it stands in the table of a bare model."""
        return HeldTensor(name, self.dtype, self.shape, self.data, origin, None if origin else derived_by)


@dataclass
class TorchBytes:
    """The bytes of a torch tensor: a view where it is contiguous and on the CPU, else a copy.

    A copy (of a transposed weight) is made for each use, so that it never stands beside the network's
    own tensor for long. Once the network is gone, the first copy takes the tensor's place instead:
    nobody else needs that, and the copying is done once.

    Attributes:
        owner: the network that the tensor belongs to; None: nobody is known, the tensor stays.
    """

    tensor: torch.Tensor
    owner: weakref.ref[torch.nn.Module] | None = None

    def __call__(self) -> NDArray[Any]:
        tensor = self.tensor.detach()
        if tensor.is_complex():
            tensor = tensor.resolve_conj()
        tensor = tensor.resolve_neg().cpu()
        if not tensor.is_contiguous() and self.owner is not None and self.owner() is None:
            tensor = self.tensor = _copied(tensor)
        tensor = tensor.contiguous()
        # reshape before view: a 0-d tensor has no last dimension whose bytes could be viewed.
        return tensor.reshape(-1).view(torch.uint8).numpy()

    def head(self) -> bytes:
        """The bytes of the first elements along the last dimension."""
        tensor = self.tensor
        if tensor.numel() and tensor.ndim:
            tensor = tensor[(0,) * (tensor.ndim - 1)][:FIRST_ELEMENTS]
        return TorchBytes(tensor)().tobytes()


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy in pages of its own.

    The system gets them back as soon as the copy is let go; what malloc has taken may stay with the
    process (330 MiB of vit_b_16 did, while ONNX Runtime mapped as much again).
    """
    pages = mmap.mmap(-1, tensor.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)


@dataclass(frozen=True)
class _Head:
    """The same of a tensor whose bytes lie in a row."""

    tensor: HeldTensor

    def __call__(self) -> bytes:
        count = min(FIRST_ELEMENTS, self.tensor.shape[-1]) if self.tensor.shape else 1
        size = raw_size(self.tensor.dtype, (count,))
        return bytes(memoryview(self.tensor.data()).cast("B")[:size])


def from_torch(tensor: torch.Tensor, owner: torch.nn.Module | None = None) -> Weight:
    """The weight that a torch tensor is; nothing is copied.

    Args:
        tensor: its values must not change any more.
        owner: see `TorchBytes`; it is not kept alive.

    Raises:
        InternalError: an element type that ONNX or this product does not know.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in NUMBERS:
        raise InternalError(f"a tensor of {tensor.dtype} has no ONNX element type here")
    place = (tensor.data_ptr(), tuple(tensor.stride()), name) if tensor.numel() else None
    if tensor.is_conj() or tensor.is_neg():
        place = None
    values = TorchBytes(tensor, weakref.ref(owner) if owner is not None else None)
    return Weight(NUMBERS[name], tuple(tensor.shape), values, values.head, place)


def from_held(tensor: HeldTensor) -> Weight:
    """The weight of a held tensor."""
    return Weight(tensor.dtype, tensor.shape, tensor.data, _Head(tensor))


class Origins:
    """Finds the network's own tensor that a weight equals bit for bit."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.weights = {name: _weight(tensor) for name, tensor in tensors.items()}
        self.has_batch_norm = any(name.endswith(".running_var") or name == "running_var" for name in tensors)
        self._by_kind: dict[tuple[int, tuple[int, ...]], list[str]] = {}
        self._heads: dict[str, bytes] = {}
        for name, weight in self.weights.items():
            if weight is not None:
                self._by_kind.setdefault((weight.dtype, weight.shape), []).append(name)

    def of(self, name: str, weight: Weight) -> str | None:
        """The tensor of the same name when it is equal, else the first equal one, in order.

        Args:
            name: what the network calls the tensor, as far as the exporter kept it.
            weight: its value in the graph.
        """
        candidates = self._by_kind.get((weight.dtype, weight.shape), [])
        if name in candidates:
            candidates = [name, *(other for other in candidates if other != name)]
        head = weight.head() if candidates else b""
        return next((other for other in candidates if self._equal(other, weight, head)), None)

    def derived_by(self, weight: Weight, users: Iterable[str]) -> str:
        """The step that made a weight which is no tensor of the network.

        Args:
            weight: its value.
            users: operators that it goes into.
        """
        if len(weight.shape) == 2 and self._is_transposed(weight):
            return TRANSPOSED
        if self.has_batch_norm and any(user in _CONVOLUTIONS for user in users):
            return FUSED
        return CONSTANT

    def _equal(self, name: str, weight: Weight, head: bytes) -> bool:
        own = self._own(name)
        if own.place is not None and own.place == weight.place:
            return True
        # Almost every pair differs in its first elements.
        if name not in self._heads:
            self._heads[name] = own.head()
        return self._heads[name] == head and np.array_equal(own.data(), weight.data())

    def _is_transposed(self, weight: Weight) -> bool:
        candidates = [self._own(name) for name in self._by_kind.get((weight.dtype, weight.shape[::-1]), ())]
        if weight.place is not None:
            turned = (weight.place[0], weight.place[1][::-1], weight.place[2])
            if any(own.place == turned for own in candidates):
                return True
        head = weight.head()
        for own in candidates:
            rows = own.data().reshape(*own.shape, -1)
            if rows[:FIRST_ELEMENTS, 0].tobytes() == head:
                wanted = weight.data().reshape(*weight.shape, -1).transpose(1, 0, 2)
                if np.array_equal(rows, wanted):
                    return True
        return False

    def _own(self, name: str) -> Weight:
        own = self.weights[name]
        assert own is not None, name
        return own


def state(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and persistent buffers in the order of the state; a shared tensor under its first name.

    It is the order in which names beyond the inputs name parameters.
    """
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _weight(tensor: torch.Tensor) -> Weight | None:
    try:
        return from_torch(tensor)
    except InternalError:
        return None  # quantized and other types that stand in no file under their own bytes
