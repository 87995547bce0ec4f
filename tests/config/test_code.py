"""Digests of code are the same wherever the pipeline is installed, and change with what the code does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.config.code import user_code_digest
from tests.config.trees import as_checkout, as_wheel

SHIPPED = ("mynet", "mynet_multi_input")
REPORT = """
import json, sys
import pipeline
from pipeline.config.code import user_code_digest
from pipeline.config.compose import compose
from pipeline.plan import build_plan
found = {"place": pipeline.__file__}
for name in sys.argv[1:]:
    plan = build_plan(compose([f"model={name}"]))
    code = user_code_digest(f"pkg://models/{name}.py:build")
    stages = {stage: key.key for stage, key in plan.stage_keys.items()}
    found[name] = {"code": code.sha256, "packages": code.packages, "label": plan.label, **plan.keys, **stages}
print(json.dumps(found))
"""


def report(tree: Path, work: Path) -> dict[str, Any]:
    """Digests and keys as the pipeline in `tree` computes them."""
    work.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *SHIPPED], cwd=work, capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(work / "cache"), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    assert Path(found.pop("place")).is_relative_to(tree)
    return found


def test_digests_and_keys_are_the_same_from_a_checkout_and_from_a_wheel(tmp_path: Path) -> None:
    checkout = report(as_checkout(tmp_path / "one/checkout"), tmp_path / "work1")
    wheel = report(as_wheel(tmp_path / "two/deeper/site-packages"), tmp_path / "work2")
    assert checkout == wheel


def test_a_changed_line_in_a_shipped_network_changes_them_a_comment_does_not(tmp_path: Path) -> None:
    tree = as_wheel(tmp_path / "tree")
    before = report(tree, tmp_path / "work")
    file = tree / "pipeline/models/mynet.py"
    file.write_text(file.read_text() + "\n# a comment\n")
    assert report(tree, tmp_path / "work") == before
    file.write_text(file.read_text() + "\nWIDTH = 3\n")
    after = report(tree, tmp_path / "work")
    assert after["mynet_multi_input"] == before["mynet_multi_input"]
    changed = {name for name, value in after["mynet"].items() if value != before["mynet"][name]}
    assert {"code", "result", "graph", "source", "export", "parity", "label"} <= changed
    assert not {"request", "inputs", "packages"} & changed


def test_a_user_s_file_is_the_same_in_another_folder(tmp_path: Path) -> None:
    digests = set()
    for folder in ("here", "there/deeper"):
        place = tmp_path / folder
        place.mkdir(parents=True)
        (place / "net.py").write_text("from layers import width\n\ndef build():\n    return width\n")
        (place / "layers.py").write_text("width = 4\n")
        found = user_code_digest(f"{place}/net.py:build")
        assert {file.name for file in found.files} == {"net.py", "layers.py"}
        digests.add(found.sha256)
    assert len(digests) == 1
    (tmp_path / "here/layers.py").write_text("width = 5\n")
    assert user_code_digest(f"{tmp_path}/here/net.py:build").sha256 not in digests


def test_the_packages_around_a_file_count(tmp_path: Path) -> None:
    """Importing the file runs them first, whether it says so or not."""
    place = tmp_path / "shop" / "networks"
    place.mkdir(parents=True)
    (place / "net.py").write_text("def build():\n    return 5\n")
    (place / "__init__.py").write_text("")
    around = tmp_path / "shop" / "__init__.py"
    digests = set()
    for text in ("", "width = 5\n"):
        around.write_text(text)
        found = user_code_digest(f"{place}/net.py:build")
        assert {around, place / "__init__.py"} <= set(found.files)
        digests.add(found.sha256)
    assert len(digests) == 2


def test_a_package_without_a_file_inside_another_is_followed(tmp_path: Path) -> None:
    """It ended with a KeyError: Python looks for its parent among the modules that are loaded."""
    inner = tmp_path / "lib" / "sub" / "mod.py"
    inner.parent.mkdir(parents=True)
    net = tmp_path / "net.py"
    net.write_text("from lib.sub.mod import W\ndef build(): return W\n")
    digests = []
    for width in (3, 5):
        inner.write_text(f"W = {width}\n")
        found = user_code_digest(f"{net}:build")
        assert inner in found.files
        digests.append(found.sha256)
    assert digests[0] != digests[1]
