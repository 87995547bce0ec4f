"""torch's compiler without triton, FSDP and networkx: the same graph, and everybody else gets the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from pipeline.exporters import compiler_import
from pipeline.exporters.compiler_import import import_compiler

#: One network, exported in a process of its own; prints what the process saw.
SCRIPT = """
import hashlib, json, sys
import torch
import onnx_ir as ir
from pipeline.exporters.compiler_import import import_compiler

left_out = import_compiler() if sys.argv[1] == "short" else None
loaded = [name for name in ("triton", "torch.distributed.fsdp", "networkx") if name in sys.modules]

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2)
    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

torch.manual_seed(0)
network, image = Network().eval(), torch.randn(1, 3, 8, 8)
program = torch.onnx.export(network, (image,), dynamo=True, opset_version=18, verbose=False)
after = [name for name in ("triton", "torch.distributed.fsdp", "networkx") if name in sys.modules]
proto = ir.to_proto(program.model).SerializeToString(deterministic=True)
from torch.utils._triton import has_triton_package
import networkx
import torch._functorch.partitioners as partitioners
from torch._functorch._activation_checkpointing import graph_info_provider
print(json.dumps({
    "left_out": left_out, "loaded": loaded, "after": after, "sha256": hashlib.sha256(proto).hexdigest(),
    "strict": len(list(torch.export.export(network, (image,), strict=True).graph.nodes)),
    "triton": has_triton_package(), "graph": graph_info_provider.nx.DiGraph is networkx.DiGraph,
    "path": graph_info_provider.nx.bfs_predecessors is networkx.bfs_predecessors,
}))
"""


def exported(way: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, way]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == 0, found.stderr[-2000:]
    assert "triton not found" not in found.stderr
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_graph_is_the_same_and_everybody_gets_the_real_modules_afterwards() -> None:
    short, long = exported("short"), exported("long")
    assert short["left_out"] is True
    assert short["loaded"] == short["after"] == []
    assert {name: short[name] for name in ("sha256", "strict", "triton", "graph", "path")} == {
        name: long[name] for name in ("sha256", "strict", "triton", "graph", "path")
    }
    assert short["graph"] and short["path"]


@pytest.mark.parametrize("change", ["loaded", "another torch"])
def test_a_process_or_a_torch_of_another_kind_is_left_alone(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name == "torch._dynamo" or name in ("torch.export._trace", "triton", "networkx"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "torch.distributed.fsdp", raising=False)
    if change == "loaded":
        monkeypatch.setitem(sys.modules, "triton", object())  # type: ignore[arg-type] # what a user's network brought
    else:
        monkeypatch.setattr(torch, "__version__", "3.0.0")
    before = dict(sys.modules)
    assert import_compiler() is False
    assert dict(sys.modules) == before


def test_what_was_hidden_is_there_again_when_the_import_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("torch._dynamo", "torch.export._trace", "triton", "networkx", "torch.distributed.fsdp")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)

    def fails() -> None:
        assert sys.modules["triton"] is None
        assert "DiGraph" in vars(sys.modules["networkx"])
        raise ZeroDivisionError

    monkeypatch.setattr(compiler_import, "load_meta_kernels", fails)
    with pytest.raises(ZeroDivisionError):
        import_compiler()
    assert not any(name in sys.modules for name in names)
