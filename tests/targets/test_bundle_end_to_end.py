"""Whole runs of the command line with a target: the directory, its records, its bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.targets.contract_tests import run_program

pytestmark = pytest.mark.slow

DYNAMIC = ("model.inputs.input1.dynamic={0:batch}", "model.inputs.input2.dynamic={0:batch}")


def pipeline(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words], cwd=folder, capture_output=True, text=True, check=False
    )  # fmt: skip


def made(folder: Path, *words: str) -> tuple[Path, dict[str, Any], str]:
    done = pipeline(folder, "model=mynet_multi_input", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    directory = next(path for path in (folder / "outputs").iterdir() if path.name.startswith("mynet"))
    return directory, json.loads((directory / "run.json").read_text()), done.stdout


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_two_inputs_and_a_dynamic_batch(tmp_path: Path, target: str, precision: str) -> None:
    directory, record, shown = made(tmp_path, f"target={target}", f"target.precision={precision}", *DYNAMIC)
    found = record["target"]
    sizes = {line["seed"] for line in found["parity"]}
    assert {"seed0", "seed1", "seed2", "sizes:batch=2"} <= sizes
    assert found["worst"]["tolerance"] == {"float32": 1e-4, "float16": 5e-3}[precision]
    assert found["worst"]["error"] <= found["worst"]["tolerance"]
    assert found["precision"]["asked"] == precision
    assert found["precision"]["found"].startswith(precision)
    assert 1 <= found["latency"]["runs"] <= 50
    assert found["latency"]["median_ms"] <= found["latency"]["p95_ms"]
    assert found["artifact_bytes"] > 0
    assert f"target    {target} " in shown
    assert "latency" in shown
    bundle = directory / target / "bundle"
    done = run_program(bundle, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "output1: error" in done.stdout
    assert pipeline(tmp_path, "verify", str(directory)).returncode == 0
    (bundle / "run.py").write_text("print('changed')")
    assert pipeline(tmp_path, "verify", str(directory)).returncode == 1


def test_two_targets_of_one_graph_in_a_sweep(tmp_path: Path) -> None:
    done = pipeline(tmp_path, "-m", "model=mynet", "target=onnxruntime,openvino", "sweep=two")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "outputs/sweeps/two/table.csv").read_text().splitlines()
    heading = lines[0].split(",")
    for line in lines[1:]:
        row = dict(zip(heading, line.split(","), strict=True))
        assert row["status"] == "passed"
        assert float(row["target_error"]) <= float(row["target_tolerance"])
        assert float(row["latency_ms"]) > 0
        assert int(row["artifact_bytes"]) > 0


def test_what_fails_on_the_target_says_so_and_keeps_its_record(tmp_path: Path) -> None:
    """A limit of no time at all: the tool cannot have started."""
    done = pipeline(tmp_path, "model=mynet", "target=openvino", "target.timeout_s=0.05")
    assert done.returncode == 1
    assert "PL-644" in done.stdout + done.stderr
    (record,) = (tmp_path / "outputs" / "failed").glob("*/run.json")
    assert json.loads(record.read_text())["reason"]["code"] == "PL-644"
