"""Every command of the README, as a new user would type it, in one folder, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(1200)
def test_every_block_in_order(tmp_path: Path) -> None:
    """One test, because a block builds on those before it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    folder = tmp_path / "work"
    folder.mkdir()
    for language, text in BLOCKS:
        command = (
            ["bash", "-eo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
        )
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=550, env=environment
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_screen_of_output_is_what_is_printed() -> None:
    """The stages that the README shows are the ones that there are."""
    from pipeline.config.compose import compose
    from pipeline.plan import build_plan

    shown = re.search(r"```text\nalexnet-.*?```", TEXT, re.DOTALL)
    assert shown is not None
    stages = re.findall(r"^  (\w+) +passed", shown[0], re.MULTILINE)
    assert stages == [
        stage.name for stage in build_plan(compose(["model=alexnet", "export.opset=11"])).stages
    ]


def test_make_targets_exist() -> None:
    names = re.findall(r"\bmake ([a-z-]+)", TEXT)
    assert {"demo", "test", "bench"} <= set(names)
    for name in set(names) & {"demo", "test", "bench"}:
        subprocess.run(["make", "-n", name], cwd=ROOT, check=True, capture_output=True)
