"""The same network, another process, folder, hash seed and number of threads: the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

SCRIPT = """
import hashlib, json, sys, tempfile
from pathlib import Path
import torch
import networks
from pipeline.exporters.choice import export
from pipeline.exporters.config import ExportConfig
from pipeline.parity.signature import SeenRun, derive_signature
from pipeline.samples.make import make_samples
from pipeline.samples.spec import parse_inputs
from pipeline.sources.network import Network

torch.manual_seed(0)
found = {}
for name, exporter, opset, road in json.loads(sys.argv[1]):
    torch.manual_seed(0)
    shape = [1, 2, 4, 8] if name == "Wrapped" else [2, 3, 12, 12]
    network = Network(getattr(networks, name)().eval(), parse_inputs({"x": {"shape": shape}}))
    values = make_samples(network.specs, seed=0, stream="export")
    signature = derive_signature([SeenRun({}, network.run(values))], {}, value_dependent=False)
    model, attempts = export(network, values, signature, ExportConfig(exporter=exporter), opset=opset,
        parameter_names=(), emit=lambda event: None, private_apis=road, scratch=Path(tempfile.mkdtemp()))
    folder = Path(tempfile.mkdtemp())
    model.store(folder)
    attempts.store(folder)
    for path in sorted(folder.iterdir()):
        found[f"{name} {exporter} {opset} {path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
print(json.dumps(found))
"""

CASES = [
    ("Fused", "torchscript", 11, True),
    ("Fused", "dynamo", 18, True),
    ("Wrapped", "torchscript", 17, True),
]


@pytest.mark.slow
def test_the_same_bytes_everywhere(tmp_path):
    runs = []
    for number, (hash_seed, threads) in enumerate([("1", "1"), ("77", "2")]):
        folder = tmp_path / ("checkout" * (number + 1))
        folder.mkdir()
        shutil.copy(Path(__file__).with_name("networks.py"), folder)
        shutil.copytree(Path(pipeline.__file__).parent, folder / "pipeline")
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads,
                       "PYTHONPATH": str(folder), "TMPDIR": str(folder)}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(CASES)],
            capture_output=True, text=True, env=environment, cwd=folder, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        runs.append(json.loads(done.stdout))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 4 * len(CASES)
