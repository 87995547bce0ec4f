"""The defect: files that changed after the keys were made gave other bytes under the old key, and in the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

NET = """
from pathlib import Path
import torch

HERE = Path(__file__).parent


class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = torch.nn.Linear(4, width)

    def forward(self, x):
        FORWARD
        return self.layer(x)


def build():
    BUILD
    return Net(8)
"""
WIDER = "(HERE / 'helper.py').write_text('WIDTH = 16')"


def make(
    folder: Path, *, build: str = "pass", forward: str = "pass", words: tuple[str, ...] = ()
) -> list[str]:
    (folder / "net.py").write_text(NET.replace("BUILD", build).replace("FORWARD", forward))
    (folder / "helper.py").write_text("WIDTH = 8")
    return [
        sys.executable, "-m", "pipeline", "model=factory", f"model.factory={folder}/net.py:build",
        "model.inputs={x: {shape: [2, 4]}}", "parity.seeds=1", f"out={folder}/out", f"cache.dir={folder}/cache",
        *words,
    ]  # fmt: skip


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_nothing_kept(folder: Path) -> None:
    assert [path.name for path in (folder / "out").iterdir() if not path.name.startswith(".")] == ["failed"]
    assert list((folder / "cache").rglob("entry.json")) == []


def test_a_helper_that_changes_before_it_is_imported(tmp_path: Path) -> None:
    command = make(tmp_path, build=f"{WIDER}; from helper import WIDTH; return Net(WIDTH)")
    done = run(command)
    assert done.returncode == 1
    assert "PL-234: the network's code changed while the run was at work; found" in done.stderr
    assert "helper.py" in done.stderr
    assert_nothing_kept(tmp_path)


def test_a_helper_that_forward_imports_and_that_changes_before(tmp_path: Path) -> None:
    done = run(make(tmp_path, forward=f"{WIDER}; from helper import WIDTH; x = x * WIDTH"))
    assert done.returncode == 1
    assert "PL-234: the network's code changed while the run was at work" in done.stderr
    assert_nothing_kept(tmp_path)


def test_weights_that_change_before_they_are_loaded(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(4, 8).state_dict(), tmp_path / "other.pth")
    state = {f"layer.{name}": value for name, value in torch.nn.Linear(4, 8).state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    torch.save({name: value + 1 for name, value in state.items()}, tmp_path / "other.pth")
    done = run(
        make(tmp_path, build="(HERE / 'w.pth').write_bytes((HERE / 'other.pth').read_bytes())",
             words=(f"model.weights={tmp_path}/w.pth",))
    )  # fmt: skip
    assert done.returncode == 1
    assert "PL-234: the weights changed while the run was at work; found" in done.stderr
    assert_nothing_kept(tmp_path)


def test_the_file_of_an_input_that_changes_before_it_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    np.save(tmp_path / "other.npy", np.full((2, 4), 2, np.float32))
    done = run(
        make(tmp_path, build="(HERE / 'x.npy').write_bytes((HERE / 'other.npy').read_bytes())",
             words=(f"model.inputs={{x: {{shape: [2, 4], fill: {{file: {tmp_path}/x.npy}}}}}}",))
    )  # fmt: skip
    assert done.returncode == 1
    assert "PL-234: the file of an input changed while the run was at work" in done.stderr
    assert_nothing_kept(tmp_path)


@pytest.mark.parametrize("build", ["pass", "(HERE / 'helper.py').touch()"])
def test_what_stays_as_it_is_is_made(tmp_path: Path, build: str) -> None:
    done = run(make(tmp_path, build=build, forward="from helper import WIDTH; x = x * WIDTH"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "forward",
    ["import os; os.chdir('/')", "import sys; sys.path.insert(0, str(HERE / 'late'))"],
    ids=["the working folder", "the path"],
)
def test_a_network_that_changes_where_things_are_found_has_not_changed(tmp_path: Path, forward: str) -> None:
    command = make(tmp_path, forward=forward)
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "optional_module.py").write_text("K = 1")
    text = (tmp_path / "net.py").read_text()
    (tmp_path / "net.py").write_text(
        f"try:\n    import optional_module\nexcept ImportError:\n    pass\n{text}"
    )
    command[4] = "model.factory=net.py:build"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
