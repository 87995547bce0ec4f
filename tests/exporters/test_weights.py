"""Bytes of tensors, and which tensor of the network they are."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from pipeline.errors import InternalError
from pipeline.exporters.weights import (
    CONSTANT,
    FUSED,
    TRANSPOSED,
    Origins,
    from_held,
    from_torch,
    state,
)
from pipeline.graph.dtypes import NUMBERS
from tests.exporters import networks


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4).t(),
        torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.tensor(3, dtype=torch.int16),
        torch.zeros(0, 3),
        torch.tensor([True, False]),
        torch.arange(8.0)[::2],
        torch.complex(torch.ones(2), torch.ones(2)).conj(),
    ],
)
def test_bytes_are_those_of_the_values(tensor):
    weight = from_torch(tensor)
    wanted = np.ascontiguousarray(tensor.resolve_conj().numpy())
    assert weight.shape == tuple(tensor.shape)
    assert weight.data().tobytes() == wanted.tobytes()
    assert wanted.tobytes().startswith(weight.head())
    held = from_held(weight.held("w", None, None))
    assert held.head() == weight.head()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_types_that_numpy_does_not_have():
    weight = from_torch(torch.tensor([1.0, -2.0], dtype=torch.bfloat16))
    assert weight.dtype == NUMBERS["bfloat16"]
    assert weight.data().tobytes() == b"\x80\x3f\x00\xc0"
    with pytest.raises(InternalError, match="no ONNX element type"):
        from_torch(torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8))


def test_contiguous_tensors_are_not_copied():
    tensor = torch.ones(4, 4)
    assert from_torch(tensor).data().ctypes.data == tensor.data_ptr()


def test_origins():
    first = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": first, "b": first.clone(), "c": torch.ones(3), "bn.running_var": torch.ones(4)}
    origins = Origins(tensors)
    assert origins.of("b", from_torch(tensors["b"])) == "b"  # its own name, when it is equal
    assert origins.of("onnx::Add_1", from_torch(tensors["b"])) == "a"  # else the first equal one
    assert origins.of("a", from_torch(first + 1)) is None
    assert origins.of("a", from_torch(first.double())) is None
    long, other = torch.zeros(100), torch.zeros(100)
    other[99] = 1  # behind the elements that are looked at first
    assert Origins({"long": long}).of("long", from_torch(other)) is None
    negative_zero = torch.tensor([0.0, -0.0])
    assert Origins({"z": torch.zeros(2)}).of("z", from_torch(negative_zero)) is None
    not_a_number = torch.tensor([float("nan")])
    assert Origins({"n": not_a_number}).of("n", from_torch(not_a_number.clone())) == "n"


def test_steps_that_derive():
    matrix = torch.arange(6.0).reshape(2, 3)
    origins = Origins({"w": matrix, "bn.running_var": torch.ones(4)})
    assert origins.derived_by(from_torch(matrix.t()), ["MatMul"]) == TRANSPOSED
    assert origins.derived_by(from_torch(matrix.t().clone()), ["MatMul"]) == TRANSPOSED
    assert origins.derived_by(from_torch(matrix.t() + 1), ["MatMul"]) == CONSTANT
    assert origins.derived_by(from_torch(torch.ones(2, 2, 1, 1)), ["Conv"]) == FUSED
    assert Origins({"w": matrix}).derived_by(from_torch(torch.ones(2, 2, 1, 1)), ["Conv"]) == CONSTANT


def test_the_order_of_the_state():
    assert [name for name, _ in state(networks.Tied())] == ["embedding.weight"]
    assert [name for name, _ in state(networks.Plain())] == [
        "conv.weight", "conv.bias", "head.weight", "head.bias"
    ]  # fmt: skip
    assert [name for name, _ in state(networks.Counting())] == ["count"]


def test_a_copy_takes_the_tensors_place_once_the_network_is_gone():
    network = torch.nn.Linear(5, 7)
    values = network.weight.detach().numpy().copy().T
    weight = from_torch(network.weight.detach().t(), network)
    assert weight.data().ctypes.data != weight.data().ctypes.data  # a copy for each use
    storage = weakref.ref(network.weight)
    del network
    gc.collect()
    kept = weight.data()
    assert storage() is None  # the last reference was the weight's own
    assert kept.tobytes() == values.tobytes()
    assert weight.data().ctypes.data == kept.ctypes.data
    assert weight.head() == values[0].tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64", "int8", "bool"])
def test_kept_copies_of_every_kind(dtype):
    network = torch.nn.Identity()
    tensor = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype)).t()
    weight = from_torch(tensor, network)
    before = weight.data().tobytes()
    del network
    gc.collect()
    assert weight.data().tobytes() == weight.data().tobytes() == before


def test_a_contiguous_tensor_is_never_copied():
    network = torch.nn.Linear(5, 7)
    weight = from_torch(network.weight.detach(), network)
    place = network.weight.data_ptr()
    del network
    gc.collect()
    assert weight.data().ctypes.data == place
