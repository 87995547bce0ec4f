"""Networks of 6 GB of weights: exported, checked, simplified and proved in little more memory than the weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import onnx
import psutil
import pytest

from pipeline.run.verify import verify_directory

ROOT: Final = Path(__file__).resolve().parents[2]
GIB: Final = 2**30
#: Peak memory at most what importing torch takes, and this many times the weights.
WEIGHTS_FACTOR: Final = 1.3
ROOM: Final = 10 * GIB  #: of memory, and again of disk, for one run with some to spare
#: Passed already where 6 GB were proved: these may take no other end.
STAGES: Final = ("export", "simplify", "check", "assemble", "contract", "parity")


def peak_of(words: list[str], folder: Path) -> int:
    """Run a command; bytes of its largest process, from the kernel. The parent of a run takes about 40 MiB."""
    with (folder / "printed.txt").open("w+b") as printed:
        process = subprocess.Popen(words, cwd=ROOT, stdout=printed, stderr=printed)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        assert process.returncode == 0, printed.read().decode()
    return used.ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("builder", "shape"), [("deep_mlp", "[1,8192]"), ("transformer", "[1,64,4096]")])
def test_six_gigabytes(tmp_path: Path, builder: str, shape: str) -> None:
    if psutil.virtual_memory().available < ROOM or shutil.disk_usage(tmp_path).free < ROOM:
        pytest.skip("10 GiB of free memory and of free disk are needed")
    out = tmp_path / "outputs"
    importing = peak_of([sys.executable, "-c", "import torch, torchvision"], tmp_path)
    try:
        peak = peak_of(
            [sys.executable, "-m", "pipeline", "model=factory", "export.opset=17", "cache.mode=none",
             f"model.factory=tests/benchmarks/large_networks.py:{builder}",
             f"model.inputs={{x: {{shape: {shape}}}}}", f"out={out}"],
            tmp_path,
        )  # fmt: skip
        (made,) = (path.parent for path in out.glob("*/manifest.json"))
        manifest = json.loads((made / "manifest.json").read_text())
        record = json.loads((made / "run.json").read_text())
        weights = (made / "model.onnx.data").stat().st_size
        tensors = onnx.load(str(made / "model.onnx"), load_external_data=False).graph.initializer
        problems = verify_directory(made)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    seconds = {stage["name"]: stage["seconds"] for stage in record["stages"]}
    print(f"\n{builder}: {weights / GIB:.2f} GiB, peak {peak / weights:.2f} times that")
    print(f"importing torch {importing / GIB:.2f} GiB; seconds a stage: {seconds}")
    print(*(json.dumps(row) for row in record["parity"]), sep="\n")
    assert weights > 6e9 and any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors)
    assert {name: manifest["verdicts"][name]["status"] for name in STAGES} == dict.fromkeys(STAGES, "passed")
    assert problems == []
    assert any(row["noise"] for row in record["parity"]), "the float64 run was declined"
    assert peak <= importing + WEIGHTS_FACTOR * weights
