"""Every line of bad input that the product knows: one sentence, the right exit code, nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.run.directory import RunDirectory
from tests.end_to_end.conftest import NETWORKS, CommandLine, X

FACTORY = ("model=factory", f"model.factory={NETWORKS}:build", X)

#: What is typed, the code, and what the sentence has to say.
REFUSED = [
    (["model=mynet", "export.opsett=11"], "PL-101", ["export.opsett", "export.opset"]),
    (["model=mynet", "+export.opsett=11"], "PL-101", ["export.opsett", "export.opset"]),
    (["model=mynet", "opset=11"], "PL-101", ["export.opset"]),
    (["model=mynet", "export.opset=eleven"], "PL-102", ["export.opset", "eleven", "whole number"]),
    (["model=mynet", "export.opset=3"], "PL-300", ["3", "7 to"]),
    (["model=mynet", "export.opset=99"], "PL-300", ["99", "7 to"]),
    (["model=mynett"], "PL-104", ["mynett", "mynet"]),
    (["model=torchvision", "model.name=resnet81"], "PL-221", ["resnet81", "resnet18"]),
    (["model=factory", "model.factory=no_such_package.net:build", X], "PL-", ["no_such_package"]),
    (["model=factory", "model.factory=nowhere/net.py:build", X], "PL-", ["nowhere/net.py"]),
    (["model=factory", f"model.factory={NETWORKS}:biuld", X], "PL-", ["biuld", "build"]),
    (["model=factory", f"model.factory={NETWORKS}:no_module", X], "PL-229", ["no_module", "str"]),
    (["model=factory", f"model.factory={NETWORKS}:fails", X], "PL-228", ["the table of channels is missing"]),
    (["model=resnet18", "model.weights=missing.pth"], "PL-", ["missing.pth"]),
    (["model=resnet18", "model.weights=corrupt.pth"], "PL-223", ["corrupt.pth"]),
    (["model=resnet18", "model.weights=NO_SUCH_WEIGHTS"], "PL-222", ["NO_SUCH_WEIGHTS", "IMAGENET1K_V1"]),
    ([*FACTORY, "model.inputs={x: {shape: [1,3,8,8]}, more: {shape: [1]}}"], "PL-230", ["more"]),
    ([*FACTORY, "model.inputs={x: {shape: [1,3,8]}}"], "PL-", ["x"]),
    (["model=mynet", "device=cuda"], "PL-232", ["GPU", "device=cpu"]),
    (["model=mynet", "model.inputs=3"], "PL-", ["model.inputs"]),
    (["model=mynet", "target=tensorrtt"], "PL-", ["tensorrtt"]),
    (["model=mynet", "export.opset=11,13"], "PL-106", ["-m"]),
    (["model=mynet", "export.input_names=[a,a]"], "PL-302", ["'a'", "twice"]),
    (["model=mynet_multi_input", "export.input_names=[a]"], "PL-301", ["fewer"]),
    (
        ["model=mynet", "export.input_names=[a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u]"],
        "PL-304",
        ["more names"],
    ),
    (["model=mynet", "export.input_names=[output1]"], "PL-302", ["output1", "input and an output"]),
    (["model=mynet", "export.input_names=[classifier.bias]"], "PL-302", ["classifier.bias", "parameter"]),
    (["model=mynet", "export.output_names=[a,b]"], "PL-231", ["2", "1"]),
    (["~model.inputs", "model=mynet"], "PL-107", ["Leave ~model.inputs out"]),
    (["~model"], "PL-107", ["Type model=NAME"]),
]


@pytest.mark.parametrize(("words", "code", "said"), REFUSED, ids=[" ".join(row[0])[-60:] for row in REFUSED])
def test_refused(command: CommandLine, tmp_path: Path, words: list[str], code: str, said: list[str]) -> None:
    (tmp_path / "corrupt.pth").write_bytes(b"PK\x03\x04 this is no archive")
    done = command(*words)
    assert done.code == 2, done.err + done.out
    last = done.err.strip().splitlines()[-1]
    assert code in done.err
    for part in said:
        assert part in done.err, last
    assert done.out == ""
    outputs = tmp_path / "outputs"
    left = [path for path in outputs.rglob("*") if path.is_file()] if outputs.is_dir() else []
    assert left == []
    assert not list(outputs.glob("[!.]*")) if outputs.is_dir() else True


STATE = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "head.weight": (5, 4), "head.bias": (5,)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head.bias": None, "nose.bias": (5,)}, ["head.bias", "nose.bias"]),
        ({"head.weight": (5, 7)}, ["head.weight", "[5, 7]", "[5, 4]"]),
    ],
)
def test_weights_that_do_not_fit(
    command: CommandLine, tmp_path: Path, changes: dict[str, tuple[int, ...] | None], said: list[str]
) -> None:
    import torch

    shapes = {name: shape for name, shape in {**STATE, **changes}.items() if shape is not None}
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "w.pth")
    done = command(*FACTORY, "model.weights=w.pth")
    assert done.code == 2 and "PL-225" in done.err
    for part in said:
        assert part in done.err
    assert not (tmp_path / "outputs" / "failed").exists()


def test_a_pickle_that_runs_code_is_not_loaded(command: CommandLine, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path}/owned",)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"conv.weight": Evil()}))
    done = command(*FACTORY, "model.weights=evil.pth")
    assert done.code == 2 and "PL-224" in done.err and "model.trust_pickle=true" in done.err
    assert not (tmp_path / "owned").exists()


def test_an_unwritable_output_folder(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("")
    done = command("model=mynet", "out=a_file/below")
    assert done.code == 2 and "PL-701" in done.err and "out=" in done.err


def test_a_directory_in_use(command: CommandLine, tmp_path: Path) -> None:
    first = command("model=mynet", "dry_run=true")
    label = next(word for word in first.out.split() if word.startswith("outputs/")).removeprefix("outputs/")
    place = RunDirectory(tmp_path / "outputs", label)
    place.prepare()
    with place.lock(0):
        done = command("model=mynet", "wait_s=0.2")
    assert done.code == 2 and "PL-702" in done.err and "wait_s=" in done.err


def test_an_operator_that_the_exporter_does_not_know(network: CommandLine) -> None:
    done = network("Fourier", "export.exporter=torchscript", "export.opset=17")
    assert done.code == 1
    assert "aten::fft_rfft" in done.err and "networks.py:" in done.err and "dynamo" in done.err
    assert done.record["status"] == "failed" and not done.runs


def test_auto_says_each_attempt(network: CommandLine) -> None:
    done = network("Fourier", "export.opset=18", "export.exporter=dynamo")
    assert done.code == 0, done.err
    assert done.manifest["attempts"] == [{"exporter": "dynamo", "opset": 18, "outcome": "passed"}]


def test_outputs_that_are_not_finite(network: CommandLine) -> None:
    done = network("NotANumber")
    assert done.code == 1 and "PL-500" in done.err and "NaN" in done.err
    assert done.record["reason"]["code"] == "PL-500"


def test_a_network_that_is_random_at_inference(network: CommandLine) -> None:
    done = network("LeftRandom")
    assert done.code == 1 and "PL-501" in done.err and "random at inference" in done.err


def test_a_branch_frozen_by_tracing(network: CommandLine) -> None:
    done = network("FrozenBranch", "export.opset=13")
    assert done.code == 1 and "PL-520" in done.err and "branch" in done.err and "networks.py:" in done.err
    assert [row["status"] for row in done.record["stages"] if row["name"] == "parity"] == ["failed"]


def test_a_baked_size(network: CommandLine) -> None:
    done = network("BakedSize", "export.exporter=torchscript",
                   inputs="model.inputs={x: {shape: [2,3,8,8], dynamic: {0: batch}}}")  # fmt: skip
    assert done.code == 1 and "size" in done.err and "baked" in done.err, done.err


def test_a_vacuous_comparison_is_no_success(network: CommandLine) -> None:
    done = network("Constant")
    assert done.code == 1 and "PL-521" in done.err and "parity.allow_vacuous=true" in done.err
    accepted = network("Constant", "parity.allow_vacuous=true")
    assert accepted.code == 0
    assert accepted.manifest["verdicts"]["parity"]["status"] == "vacuous"


def test_a_native_crash_keeps_a_true_record(network: CommandLine) -> None:
    done = network("NativeCrash")
    assert done.code == 1 and "SIGSEGV" in done.err
    assert done.record["status"] == "failed"


def test_a_memory_limit(network: CommandLine) -> None:
    done = network("Large", "memory_limit=2GB")
    assert done.code == 1 and "PL-706" in done.err and "memory_limit=" in done.err


def test_a_time_limit(command: CommandLine) -> None:
    done = command("model=mynet", "timeout_s=0.3")
    assert done.code == 1 and "PL-705" in done.err and "timeout_s=" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "model=resnet50", "cache.mode=none"], cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/.making/*/log.txt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("outputs/*/manifest.json"))
    assert list(tmp_path.glob("outputs/.making/*")) == []
    assert not list(tmp_path.glob("outputs/failed/*/.scratch"))
