"""Whole runs of the command line, on a network of every kind."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.end_to_end.conftest import NETWORKS, CommandLine, Done, X, run_command

KINDS = {
    "alexnet": "classification",
    "lraspp_mobilenet_v3_large": "segmentation",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "detection",
    "r3d_18": "video",
    "raft_small": "optical flow",
    "swin_t": "transformer",
}


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One sweep over a network of every kind."""
    folder = tmp_path_factory.mktemp("zoo")
    return run_command(folder, ["-m", f"model={','.join(KINDS)}", "sweep=kinds", "cache.mode=none"])


@pytest.mark.parametrize("name", KINDS)
def test_a_network_of_every_kind_is_made_and_proved(zoo: Done, name: str) -> None:
    rows = {row["model"]: row for row in table_of(zoo.folder / "outputs/sweeps/kinds/table.csv")}
    row = rows[name]
    assert (row["status"], row["opset"]) == ("passed", "17"), row
    assert float(row["margin"]) > 1
    (run,) = [run for run in zoo.runs if run.name.startswith(f"{name}-op17-")]
    verdicts = json.loads((run / "manifest.json").read_text())["verdicts"]
    assert {verdict["status"] for verdict in verdicts.values()} == {"passed"}


def test_the_file_is_what_others_see(command: CommandLine) -> None:
    """Checked with onnx and ONNX Runtime alone, as somebody who got the folder would."""
    done = command("model=mynet_multi_input", "export.opset=11")
    assert done.code == 0, done.err
    path = done.run / "model.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 11)]
    assert [value.name for value in model.graph.input] == ["input1", "input2"]
    assert [value.name for value in model.graph.output] == ["output1"]
    session = onnxruntime.InferenceSession(path)
    with (
        np.load(done.run / "samples/inputs.npz") as inputs,
        np.load(done.run / "samples/expected.npz") as expected,
    ):
        assert list(inputs) == ["input1", "input2"]
        (actual,) = session.run(None, dict(inputs))
        np.testing.assert_allclose(actual, expected["output1"], rtol=1e-3, atol=1e-5)
    assert str(Path.cwd()) not in path.read_bytes().decode("latin-1")


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_an_unused_input_keeps_its_place(network: CommandLine, exporter: str) -> None:
    done = network("Unused", f"export.exporter={exporter}", "export.opset=18",
                   inputs="model.inputs={x: {shape: [1,3,8,8]}, extra: {shape: [2]}}")  # fmt: skip
    assert done.code == 0, done.err
    assert [value["name"] for value in done.manifest["inputs"]] == ["x", "extra"]


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_lists_dicts_and_keywords(network: CommandLine, exporter: str) -> None:
    inputs = (
        "model.inputs={images: [{shape: [3,8,8]}, {shape: [3,8,8]}], named: {a: {shape: [2]}, b: {shape: [2]}}, "
        "scale: {shape: [1], fill: {uniform: [1, 2]}, pass: keyword}}"
    )
    done = network("Structured", f"export.exporter={exporter}", "export.opset=18", inputs=inputs)
    assert done.code == 0, done.err
    assert [value["name"] for value in done.manifest["outputs"]] == ["logits", "side"]
    assert len(done.manifest["inputs"]) == 5


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_dynamic_axis_is_proved_by_another_size(network: CommandLine, exporter: str) -> None:
    done = network("Plain", f"export.exporter={exporter}", "export.opset=18",
                   inputs="model.inputs={x: {shape: [2,3,8,8], dynamic: {0: batch}}}")  # fmt: skip
    assert done.code == 0, done.err
    assert done.manifest["inputs"][0]["shape"] == ["batch", 3, 8, 8]
    assert done.manifest["outputs"][0]["shape"] == ["batch", 5]
    assert any("batch=" in line["seed"] for line in done.record["parity"])


def test_a_checkpoint_is_what_the_file_computes(
    network: CommandLine, command: CommandLine, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    state = {"conv.weight": torch.full((4, 3, 3, 3), 0.25), "conv.bias": torch.ones(4),
             "head.weight": torch.arange(20.0).reshape(5, 4), "head.bias": torch.zeros(5)}  # fmt: skip
    torch.save(state, tmp_path / "one.bin")
    save_file(state, tmp_path / "two.bin")
    found = {}
    for name in ("one.bin", "two.bin"):
        done = network("Plain", f"model.weights={name}", f"out={name}-out")
        assert done.code == 0, done.err
        (path,) = (tmp_path / f"{name}-out").glob("build-*/model.onnx")
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        found[name] = tensors
        assert any(np.array_equal(tensor, state["head.weight"]) for tensor in tensors.values())
    assert found["one.bin"].keys() == found["two.bin"].keys()


def test_the_same_request_again_is_verified_and_returned_without_torch(command: CommandLine) -> None:
    first = command("model=mynet")
    again = command("model=mynet", PYTHONPROFILEIMPORTTIME="1")
    assert first.code == again.code == 0
    assert "verified" in again.out
    imported = set(re.findall(r"\| +([\w.]+)$", again.err, re.MULTILINE))
    assert "pipeline.plan" in imported, "the list of imports was read"
    assert not imported & {"torch", "torchvision", "onnx", "onnxruntime", "onnxsim", "numpy"}
    assert len(again.runs) == 1


def test_a_changed_line_makes_another_directory_and_a_comment_does_not(
    command: CommandLine, tmp_path: Path
) -> None:
    net = tmp_path / "net.py"
    text = (
        "from torch import nn\n\ndef build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(128, 3))\n"
    )
    words = ("model=factory", "model.factory=net.py:build", X)
    net.write_text(text)
    assert command(*words).code == 0
    net.write_text(text.replace("\ndef", "\n# a comment\ndef"))
    commented = command(*words)
    assert "verified" in commented.out and len(commented.runs) == 1
    net.write_text(text.replace("3)", "4)"))
    changed = command(*words)
    assert changed.code == 0 and len(changed.runs) == 2


def test_a_sweep_goes_on_after_a_crash_and_makes_only_what_is_missing(
    command: CommandLine, tmp_path: Path
) -> None:
    words = ["-m", "model=factory", f"model.factory={NETWORKS}:build", X, "sweep=crash",
             "model.args={kind: Plain},{kind: NativeCrash},{kind: FrozenBranch},{kind: Constant}"]  # fmt: skip
    done = command(*words)
    table = tmp_path / "outputs/sweeps/crash/table.csv"
    rows = table_of(table)
    assert done.code == 1
    assert [row["status"] for row in rows] == ["passed", "failed", "failed", "vacuous"]
    assert "SIGSEGV" in rows[1]["reason"] and "PL-520" in rows[2]["reason"] and "PL-521" in rows[3]["reason"]
    assert len(done.runs) == 1
    again = command(*words)
    rows = table_of(table)
    assert again.code == 1 and rows[0]["cached"] == "true" and rows[1]["status"] == "failed"
    assert json.loads((table.with_suffix(".json")).read_text())


def test_a_sweep_over_opsets_loads_the_network_once(command: CommandLine) -> None:
    done = command("-m", "model=mynet", "export.opset=9,11,13,17")
    assert done.code == 0, done.err
    records = [json.loads((run / "run.json").read_text()) for run in done.runs]
    assert len(records) == 4
    hits = [next(s["cache"] for s in record["stages"] if s["name"] == "reference") for record in records]
    assert hits.count("hit") == 3


def test_an_interrupted_sweep_leaves_a_true_table(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "-m", "model=mynet,resnet50", "export.opset=11,13", "sweep=cut",
         "cache.mode=none"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("outputs/mynet-op11-*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    rows = table_of(tmp_path / "outputs/sweeps/cut/table.csv")
    made = {row["directory"] for row in rows if row["status"] == "passed"}
    assert made == {
        str(path.parent.relative_to(tmp_path)) for path in tmp_path.glob("outputs/*/manifest.json")
    }
    assert len(rows) == 4 and any(row["status"] != "passed" for row in rows)


def test_the_python_face_from_threads(tmp_path: Path) -> None:
    text = f"""
from concurrent.futures import ThreadPoolExecutor
from pipeline import export, verify

def one(opset):
    return export(["model=mynet", f"export.opset={{opset}}", "out={tmp_path}/o", "cache.mode=none"])

with ThreadPoolExecutor(3) as pool:
    results = list(pool.map(one, [11, 13, 11]))
assert [result.opset for result in results] == [11, 13, 11]
assert results[2].model_path.read_bytes() == results[0].model_path.read_bytes()
assert all(verify(result.directory).whole and result.margin > 1 for result in results)
"""
    done = subprocess.run(
        [sys.executable, "-c", text], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    by_library = next(tmp_path.glob("o/mynet-op11-*"))
    by_command = run_command(tmp_path, ["model=mynet", "export.opset=11", "cache.mode=none"]).run
    assert by_library.name == by_command.name
    for name in ("model.onnx", "manifest.json"):
        assert (by_library / name).read_bytes() == (by_command / name).read_bytes()


def test_on_a_terminal_nothing_that_tools_print_reaches_the_screen(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "model=mynet", "export.verbose=true", "cache.mode=none"],
        cwd=tmp_path, stdout=follower, stderr=follower, stdin=follower,
        env={k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color", "COLUMNS": "80"},
    )  # fmt: skip
    os.close(follower)
    seen = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            chunk = os.read(leader, 4096)
        except OSError:
            break
        seen += chunk
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "made" in text and "outputs/mynet-op17-" in text
    assert "onnx::" not in text and "Warning" not in text
    (log,) = tmp_path.glob("outputs/mynet-*/log.txt")
    assert "onnx::Conv" in log.read_text()
