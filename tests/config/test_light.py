"""What the command line answers without a framework: looked at in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "onnxsim", "onnxscript", "onnx_ir", "numpy")
REPORT = """
import json, sys
from pipeline.__main__ import main
code = main(sys.argv[1:])
sys.stdout.flush()
print(json.dumps({"code": code, "modules": sorted(name for name in sys.modules if "." not in name)}), file=sys.stderr)
"""


def loaded(words: Sequence[str], folder: Path, **environment: str) -> tuple[int, set[str], str]:
    """Exit code, modules that were imported, and stdout of a command line."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *words],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    told = json.loads(done.stderr.splitlines()[-1])
    return told["code"], set(told["modules"]), done.stdout


@pytest.mark.parametrize("words", [["--help"], ["-h"], [], ["--version"]])
def test_help_and_version_need_neither_hydra_nor_a_framework(tmp_path: Path, words: list[str]) -> None:
    code, modules, text = loaded(words, tmp_path)
    assert code == 0
    assert text
    assert not modules & {*HEAVY, "hydra", "omegaconf", "yaml", "rich"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--cfg", "job"],
        ["model=mynet", "--cfg", "job", "--resolve"],
        ["model=mynet", "--cfg", "job", "--package", "model"],
        ["model=mynet", "--cfg", "hydra"],
        ["--info", "defaults-tree"],
        ["--info", "searchpath"],
        ["--hydra-help"],
        ["verify", "nowhere"],
        ["model=mynet", "export.opsett=11"],
    ],
)
def test_looking_at_the_request_needs_no_framework(tmp_path: Path, words: list[str]) -> None:
    code, modules, _ = loaded(words, tmp_path)
    assert code in (0, 2)
    assert not modules & set(HEAVY)
    assert list(tmp_path.iterdir()) == []


def test_a_request_without_a_target_does_without_that_room(tmp_path: Path) -> None:
    program = (
        "import sys; from pipeline.config.compose import compose; from pipeline.plan import build_plan\n"
        "build_plan(compose(['model=mynet', *sys.argv[1:]]))\n"
        "print('pipeline.targets.planning' in sys.modules)"
    )
    for words, wanted in (([], "False"), (["target=onnxruntime"], "True")):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert done.stdout.strip() == wanted


def test_completion_needs_no_framework(tmp_path: Path) -> None:
    line = "python -m pipeline model=my"
    words = ["-sc", "query=bash"]
    code, modules, text = loaded(words, tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert code == 0
    assert text.split() == ["model=mynet", "model=mynet_multi_input"]
    assert not modules & set(HEAVY)


@pytest.mark.parametrize(("words", "limit"), [(["--help"], 0.5), (["--cfg", "job"], 1.2)])
def test_answers_come_at_once(tmp_path: Path, words: list[str], limit: float) -> None:
    """CPU time, the best of three: wall time depends on who else works on the machine."""
    best = min(_seconds(words, tmp_path) for _ in range(3))
    assert best < limit


def _seconds(words: Sequence[str], folder: Path) -> float:
    before = os.times()
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipeline", *words], cwd=folder, check=True, capture_output=True, timeout=60
    )
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return min(spent, time.perf_counter() - begun)
