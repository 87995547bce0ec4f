"""What an attack on the product found: each with the way that a user would meet it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline import export
from pipeline.errors import Refused
from tests.end_to_end.conftest import NETWORKS, CommandLine, X

PROCESSORS = len(os.sched_getaffinity(0))
FACTORY = ("model=factory", f"model.factory={NETWORKS}:build", X)
STATE = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "head.weight": (5, 4), "head.bias": (5,)}


def test_constants_of_a_factory_stay(network: CommandLine) -> None:
    done = network("Constants", "simplify=none")
    assert done.code == 0, done.err
    tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(done.run / "model.onnx").graph.initializer]
    assert any(tensor.shape == (5,) and (tensor == np.float32(0.01)).all() for tensor in tensors)
    assert any(tensor.shape == (5,) and (tensor == 0).all() for tensor in tensors)


@pytest.mark.parametrize("kind", ["complex", "integer", "sparse", "meta"])
def test_a_checkpoint_of_another_kind_is_refused(command: CommandLine, tmp_path: Path, kind: str) -> None:
    state = {name: torch.zeros(shape) for name, shape in STATE.items()}
    change = {
        "complex": lambda tensor: tensor.to(torch.complex64),
        "integer": lambda tensor: tensor.to(torch.int8),
        "sparse": lambda tensor: tensor.to_sparse(),
        "meta": lambda tensor: tensor.to("meta"),
    }[kind]
    state["head.weight"] = change(state["head.weight"])
    torch.save(state, tmp_path / "w.pth")
    done = command(*FACTORY, "model.weights=w.pth")
    assert done.code == 2 and "head.weight" in done.err, done.err
    assert "\x1b" not in done.err


def test_a_checkpoint_with_the_name_of_another_format(command: CommandLine, tmp_path: Path) -> None:
    torch.save({name: torch.ones(shape) for name, shape in STATE.items()}, tmp_path / "w.safetensors")
    assert command(*FACTORY, "model.weights=w.safetensors", "parity.allow_vacuous=true").code == 0


def test_force_reads_nothing_from_the_cache(command: CommandLine) -> None:
    """A factory may open a file that no key can know of."""
    assert command("model=mynet").code == 0
    again = command("model=mynet", "force=true", "cache.mode=readwrite")
    assert again.code == 0, again.err
    assert "cached" not in again.err


def test_a_fresh_sweep_without_a_cache_says_nothing_is_cached(command: CommandLine, tmp_path: Path) -> None:
    done = command("-m", "model=mynet", "export.opset=11,13", "cache.mode=none", "sweep=fresh")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "outputs/sweeps/fresh/table.json").read_text())
    rows = rows if isinstance(rows, list) else rows["points"]
    assert [row["cached"] for row in rows] == [False, False]


def test_nobody_reads_the_progress(tmp_path: Path) -> None:
    text = f"{sys.executable} -m pipeline model=mynet cache.mode=none 2>&1 | head -1"
    subprocess.run(["bash", "-c", text], cwd=tmp_path, check=True, capture_output=True)
    deadline = 100
    for _ in range(deadline):
        if list(tmp_path.glob("outputs/mynet-*/manifest.json")):
            break
        subprocess.run(["sleep", "0.1"], check=True)
    assert list(tmp_path.glob("outputs/mynet-*/manifest.json"))
    assert list(tmp_path.glob("outputs/.making/*")) == []


def test_a_factory_that_ends_the_program_does_not_end_the_caller(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="PL-228"):
        export(["model=factory", f"model.factory={NETWORKS}:ends_the_program", X, f"out={tmp_path}"])


def test_limits_that_a_library_call_cannot_keep_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="timeout_s"):
        export(["model=mynet", "timeout_s=5", f"out={tmp_path}"])


def test_a_library_call_refuses_a_dry_run(tmp_path: Path) -> None:
    """It made the whole directory."""
    with pytest.raises(Refused, match="dry_run"):
        export(["model=mynet", "dry_run=true", f"out={tmp_path / 'outputs'}"])
    assert not (tmp_path / "outputs").exists()


def test_a_library_call_with_one_text_says_how_to_write_it() -> None:
    """Its letters were taken for overrides: 'm' is no override."""
    with pytest.raises(Refused, match=r"Write export\(\['model=mynet', 'seed=1'\]\)"):
        export("model=mynet seed=1")
    with pytest.raises(Refused, match=r"Write config_dirs=\['conf'\]"):
        export(["model=mynet"], config_dirs="conf")


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_parameters_that_are_inputs_come_with_their_values(command: CommandLine, exporter: str) -> None:
    """And a folded weight does not bear the name of the network's own."""
    done = command(
        "model=mynet", f"export.exporter={exporter}", "export.export_params=false", "export.opset=18"
    )
    assert done.code == 0, done.err
    session = onnxruntime.InferenceSession(done.run / "model.onnx")
    with (
        np.load(done.run / "samples/inputs.npz") as inputs,
        np.load(done.run / "samples/parameters.npz") as parameters,
        np.load(done.run / "samples/expected.npz") as expected,
    ):
        assert {value.name for value in session.get_inputs()} == {*inputs, *parameters}
        assert "features.0.weight" not in parameters  # BatchNorm is folded into it
        (actual,) = session.run(None, {**inputs, **parameters})
        np.testing.assert_allclose(actual, expected["output1"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "exporter"),
    [
        ("Remembers", "torchscript"),
        ("Remembers", "dynamo"),
        ("RemembersParametrized", "torchscript"),
        ("KeepsDeepDown", "torchscript"),
        ("MakesABuffer", "torchscript"),
        ("MakesABuffer", "dynamo"),
        ("FillsABuffer", "torchscript"),
        ("MakesALayer", "torchscript"),
        ("Collects", "torchscript"),
        ("DrawsOnce", "torchscript"),
        ("FillsPlaces", "torchscript"),
        ("FillsPlaces", "dynamo"),
        ("TiesLate", "torchscript"),
        ("Orthogonal", "torchscript"),
    ],
)
def test_what_a_network_keeps_of_a_run_is_in_no_other_run(
    network: CommandLine, kind: str, exporter: str
) -> None:
    """Kept from the float64 run that calibrates, it failed the next one; the graph depended on what ran before.

    What is made for good at the first use (layers, buffers) stays, and is the same every time.
    """
    words = ("cache.mode=none", f"export.exporter={exporter}")
    beside = network(kind, *words, "out=beside", OMP_NUM_THREADS="2")
    alone = network(kind, *words, "out=alone", OMP_NUM_THREADS="1")
    public = network(kind, *words, "out=public", "private_apis=false")
    made = []
    for done, name in ((beside, "beside"), (alone, "alone"), (public, "public")):
        assert done.code == 0, done.err
        (run,) = (done.folder / name).glob("build-*")
        made.append([(run / file).read_bytes() for file in ("model.onnx", "manifest.json")])
    assert made[0] == made[1] == made[2]
    assert ("meanwhile" in beside.err) == (PROCESSORS > 1)
    assert "meanwhile" not in alone.err + public.err


@pytest.mark.parametrize("kind", ["LazyHead", "LazyOfOnesOwn"])
@pytest.mark.parametrize("words", [(), ("model.init=plain",)])
def test_lazy_layers_learn_their_size(network: CommandLine, kind: str, words: tuple[str, ...]) -> None:
    done = network(kind, "cache.mode=none", *words)
    assert done.code == 0, done.err
    shapes = {tuple(tensor.dims) for tensor in onnx.load(done.run / "model.onnx").graph.initializer}
    assert (5, 4) in shapes


def test_a_lazy_layer_takes_its_weights(network: CommandLine, tmp_path: Path) -> None:
    state = {name: torch.randn(shape) for name, shape in STATE.items()}
    torch.save(state, tmp_path / "w.pth")
    done = network("LazyHead", "model.weights=w.pth")
    assert done.code == 0, done.err
    tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(done.run / "model.onnx").graph.initializer]
    assert any(np.array_equal(tensor, state["head.weight"].numpy()) for tensor in tensors)


@pytest.mark.skipif(PROCESSORS < 2, reason="one processor: nothing is copied")
def test_a_copy_that_is_killed_leaves_nothing_unproved(network: CommandLine) -> None:
    """A run whose copy had been killed was published without its parity stage, with exit code 0."""
    done = network("DiesInACopy", "cache.mode=none", OMP_NUM_THREADS="2")
    assert done.code == 1, done.err
    assert "gave no answer" in done.err
    assert "PL-520" in done.err
    stages = {stage["name"]: stage["status"] for stage in done.record["stages"]}
    assert stages["reference"] == "passed"
    assert stages["parity"] == "failed"


def test_the_first_use_changes_no_buffer_of_a_checkpoint(network: CommandLine, tmp_path: Path) -> None:
    """The file held another state than the checkpoint, and matched a network that did so, too."""
    state = {name: torch.randn(shape) for name, shape in STATE.items()}
    state["state"] = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0])
    torch.save(state, tmp_path / "w.pth")
    done = network("Streams", "model.weights=w.pth", "simplify=none")
    assert done.code == 0, done.err
    tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(done.run / "model.onnx").graph.initializer]
    assert any(np.array_equal(tensor, state["state"].numpy()) for tensor in tensors)
