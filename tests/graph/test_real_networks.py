"""Graphs as torch's exporters leave them, simplified with the weights held aside and without."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from pipeline.graph.assemble import assemble
from pipeline.graph.bare import BareModel
from pipeline.graph.check import check
from pipeline.graph.contract import Promises, assert_contract
from pipeline.graph.onnxsim_core import run_onnxsim
from pipeline.graph.simplify import count_nodes, simplify
from pipeline.graph.source_map import mapped_share
from pipeline.graph.view import view_for_runtime
from pipeline.parity.signature import OutputSpec, Signature
from pipeline.samples.spec import Axis, TensorSpec

#: Nodes that onnxsim alone leaves of torchvision's networks (TorchScript exporter).
ALONE = {"alexnet": (11, 20), "resnet18": (13, 49), "mobilenet_v2": (13, 102), "vit_b_16": (17, 516)}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act(self.norm(self.conv(x)))


class Small(nn.Module):
    """Convolution, normalisation, attention-like linear layers on sequences, shapes computed on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, stride=4)
        self.blocks = nn.Sequential(Block(24), Block(24))
        self.norm = nn.LayerNorm(24)
        self.mix = nn.Linear(24, 72)
        self.table = nn.Parameter(torch.randn(1, 64, 24))
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x))
        x = x.flatten(2).transpose(1, 2) + self.table
        q, k, v = self.mix(self.norm(x)).chunk(3, dim=-1)
        scores = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
        return self.head((scores @ v).mean(1))


def exported(network: nn.Module, shape: tuple[int, ...], opset: int, *, dynamic: bool = False) -> BareModel:
    """The TorchScript exporter's graph; a node's name is its scope."""
    buffer = io.BytesIO()
    axes = {"input1": {0: "batch"}, "output1": {0: "batch"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.randn(shape),), buffer, dynamo=False, opset_version=opset,
            input_names=["input1"], output_names=["output1"], dynamic_axes=axes,
        )  # fmt: skip
    proto = onnx.ModelProto.FromString(buffer.getvalue())
    own = dict(network.state_dict())
    return BareModel.from_proto(
        proto,
        origins={tensor.name: tensor.name for tensor in proto.graph.initializer if tensor.name in own},
        scopes={
            node.name: ".".join(node.name.split("/")[1:-1]) for node in proto.graph.node if "/" in node.name
        },
    )


def alone(model: BareModel, tmp_path: Path) -> int:
    """Nodes that onnxsim leaves when it sees the weights."""
    assemble(model, tmp_path / "full.onnx")
    found = onnx.ModelProto.FromString(
        run_onnxsim((tmp_path / "full.onnx").read_bytes(), private_apis=True, largest_folded=1 << 30)
    )
    return len(found.graph.node)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
@pytest.mark.parametrize("dynamic", [False, True])
def test_from_the_exporter_to_the_file(tmp_path: Path, small: nn.Module, opset: int, dynamic: bool) -> None:
    model = exported(small, (2, 3, 32, 32), opset, dynamic=dynamic)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    simplified, done = simplify(model, {"input1": x}, private_apis=True)
    check(simplified)
    assert done.outcome == "simplified"
    assert done.nodes_after <= alone(model, tmp_path)
    assert mapped_share(simplified) >= 0.95
    assert simplified.held_bytes <= model.held_bytes + 1024

    path = tmp_path / "model.onnx"
    file = assemble(simplified, path)
    axis = {0: Axis("batch")} if dynamic else {}
    output = OutputSpec("output1", "float32", (2, 10), {0: ("batch",)} if dynamic else {}, {0: "batch"})
    assert_contract(
        path,
        Promises(opset=opset, inputs=(TensorSpec("input1", (2, 3, 32, 32), dynamic=axis),)),
        model=simplified,
        file=file,
        outputs=Signature((output,)),
    )
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tmp_path))
    session = onnxruntime.InferenceSession(
        view_for_runtime(path), options, providers=["CPUExecutionProvider"]
    )
    for batch in (2, 5) if dynamic else (2,):
        values = np.random.default_rng(batch).standard_normal((batch, 3, 32, 32)).astype(np.float32)
        with torch.no_grad():
            expected = small(torch.from_numpy(values)).numpy()
        (found,) = session.run(None, {"input1": values})
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_both_roads_give_the_same_bytes(small: nn.Module) -> None:
    model = exported(small, (2, 3, 32, 32), 17)
    values = {"input1": np.ones((2, 3, 32, 32), np.float32)}
    one, done = simplify(model, values, private_apis=True)
    other, again = simplify(model, values, private_apis=False)
    assert one.proto == other.proto
    assert done == again
    assert done.outcome == "simplified"


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_no_more_nodes_than_onnxsim_alone_leaves(tmp_path: Path, name: str) -> None:
    import torchvision

    torch.manual_seed(0)
    opset, limit = ALONE[name]
    build: Callable[[], Any] = getattr(torchvision.models, name)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model = exported(build(), (1, 3, 224, 224), opset)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    values = {"input1": np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)}
    simplified, done = simplify(model, values, private_apis=True)
    assert done.reason is None
    assert count_nodes(simplified) <= min(limit, alone(model, tmp_path))
    assert mapped_share(simplified) >= 0.95
    check(simplified)
