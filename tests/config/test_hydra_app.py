"""What Hydra's own application answers, and tab completion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.arguments import parse_arguments
from pipeline.config.hydra_app import answer
from pipeline.errors import Refused


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert answer(parse_arguments(words)) == 0
    return capsys.readouterr().out


def completed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    return said(capsys, "-sc", "query=bash").split()


@pytest.mark.parametrize("start", ["python -m pipeline", ".venv/bin/python3.11 -m pipeline", "onnx-pipeline"])
def test_completion_of_choices_and_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    assert completed(capsys, monkeypatch, f"{start} simplify=") == ["simplify=none", "simplify=onnxsim"]
    assert completed(capsys, monkeypatch, f"{start} model=alex") == ["model=alexnet"]
    assert completed(capsys, monkeypatch, f"{start} export.op") == ["export.opset="]
    assert "parity.seeds=" in completed(capsys, monkeypatch, f"{start} -m model=alexnet parity.")
    assert "model=" in completed(capsys, monkeypatch, f"{start} mod")


def test_a_mistake_earlier_in_the_line_completes_nothing_and_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "simplify=none" in completed(capsys, monkeypatch, "onnx-pipeline export.opsett=1 simplify=")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_the_shell_completes(tmp_path: Path) -> None:
    """The installed function, called as bash calls it."""
    (tmp_path / "python").symlink_to(sys.executable)
    install = subprocess.run(
        [sys.executable, "-m", "pipeline", "-sc", "install=bash"], capture_output=True, text=True, check=True
    ).stdout
    script = f"""
    PATH={os.path.dirname(sys.executable)}:$PATH
    eval "$1"
    COMP_LINE="python -m pipeline simplify=o"; COMP_POINT=${{#COMP_LINE}}
    _pipeline_completion
    echo "${{COMPREPLY[@]}}"
    COMP_LINE="python other.py simp"; COMP_POINT=${{#COMP_LINE}}; COMPREPLY=()
    _pipeline_completion
    echo "[${{COMPREPLY[@]}}]"
    complete -p python | grep -c _pipeline_completion
    """  # noqa: PTH120
    done = subprocess.run(["bash", "-c", script, "bash", install], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["simplify=onnxsim", "[]", "1"], done.stderr


def test_completion_can_be_uninstalled(capsys: pytest.CaptureFixture[str]) -> None:
    assert "complete -r" in said(capsys, "-sc", "uninstall=bash")
    assert "onnx-pipeline" in said(capsys, "-sc", "install=zsh")


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert "simplify: onnxsim" in said(capsys, "--info", "defaults-tree")
    assert "simplify: none" in said(capsys, "--info", "defaults-tree", "simplify=none")
    assert "main" in said(capsys, "--info", "searchpath")
    assert "chdir: false" in said(capsys, "--cfg", "hydra")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--info", "config", "modl=alexnet"), "PL-101"),
        (("--info", "config", "model=alexnett"), "PL-104"),
        (("--info", "config", "--cfg", "hydra"), "PL-112"),
    ],
)
def test_mistakes_are_our_sentences(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: str
) -> None:
    with pytest.raises(Refused) as refused:
        answer(parse_arguments(words))
    assert refused.value.reason.code == code
    assert "HYDRA_FULL_ERROR" not in capsys.readouterr().err


def test_nothing_of_the_process_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    argv, environment = list(sys.argv), dict(os.environ)
    said(capsys, "--info", "searchpath")
    assert (sys.argv, dict(os.environ)) == (argv, environment)
