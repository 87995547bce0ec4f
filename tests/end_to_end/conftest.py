"""The command line in a process of its own, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.run.schemas import problems_of
from pipeline.run.verify import verify_directory

NETWORKS = Path(__file__).parent / "networks.py"
X = "model.inputs={x: {shape: [1,3,8,8]}}"


@dataclass(frozen=True)
class Done:
    """What a command line left."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def runs(self) -> list[Path]:
        """Whole run directories, checked: records follow their schemas, every digest is right."""
        found = sorted(path.parent for path in self.folder.glob("outputs/*/manifest.json"))
        for run in found:
            assert verify_directory(run) == []
            for name in ("manifest.json", "run.json"):
                assert problems_of(name, json.loads((run / name).read_text())) == []
        return found

    @property
    def run(self) -> Path:
        (only,) = self.runs
        return only

    @property
    def manifest(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.run / "manifest.json").read_text())
        return data

    @property
    def record(self) -> dict[str, Any]:
        """run.json of the only run, whole or failed."""
        paths = [*self.folder.glob("outputs/*/run.json"), *self.folder.glob("outputs/failed/*/run.json")]
        (path,) = paths
        data: dict[str, Any] = json.loads(path.read_text())
        assert problems_of("run.json", data) == []
        return data


CommandLine = Callable[..., Done]


def run_command(folder: Path, words: Sequence[str], **environment: str) -> Done:
    """`python -m pipeline` in `folder`."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "120", **environment},
        timeout=500,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr, folder)


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    """Run a command line in the test's folder."""
    return lambda *words, **environment: run_command(tmp_path, words, **environment)


@pytest.fixture
def network(command: CommandLine) -> CommandLine:
    """Run one of the networks of networks.py: network("Plain", "export.opset=11")."""

    def run(kind: str, *words: str, inputs: str = X, **environment: str) -> Done:
        return command(
            "model=factory", f"model.factory={NETWORKS}:build", f"model.args={{kind: {kind}}}", inputs, *words,
            **environment,
        )  # fmt: skip

    return run
