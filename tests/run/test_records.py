"""Where each fact stands: what was asked and what it is in manifest.json, how it went in run.json."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.run.point import RunOptions
from pipeline.run.points import run_points
from pipeline.run.records import git_state
from pipeline.run.verify import verify_directory
from tests.run.conftest import make_plan

MANIFEST_KEYS = {
    "schema_version", "keys", "request", "model", "inputs", "outputs", "opsets", "ir_version", "artifacts",
    "verdicts", "tolerances", "attempts", "stages", "seeds", "versions",
}  # fmt: skip
RUN_KEYS = {
    "schema_version", "key", "status", "started", "seconds", "host", "stages", "parity", "artifacts", "overrides",
    "git", "warnings", "builds",
}  # fmt: skip


def records(options: RunOptions) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    (done,) = run_points([make_plan()], [options], lambda index, event: None)[0]
    assert done is not None and done.directory is not None
    folder = Path(done.directory)
    manifest, record = (json.loads((folder / name).read_text()) for name in ("manifest.json", "run.json"))
    return folder, manifest, record


def test_the_records_hold_what_they_promise_and_no_more(options: RunOptions) -> None:
    _, manifest, record = records(options)
    assert manifest.keys() == MANIFEST_KEYS
    assert record.keys() == RUN_KEYS
    text = json.dumps(manifest)
    for measured in ("seconds", str(options.out), record["host"]["name"], record["started"]):
        assert measured not in text


def test_the_manifest_itself_is_hashed(options: RunOptions) -> None:
    """A byte that makes another, valid manifest is seen as well."""
    folder, manifest, _ = records(options)
    manifest["versions"] = {"torch": "0.0.1"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert [(problem.kind, problem.path) for problem in verify_directory(folder)] == [
        ("changed", "manifest.json")
    ]


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.invalid"]
    return subprocess.run(
        ["git", *name, "-C", str(folder), *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_commit_and_dirtiness_of_each_checkout_are_noted(options: RunOptions, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    git(code, "init", "-q")
    (code / "net.py").write_text("x = 1\n")
    git(code, "add", ".")
    git(code, "commit", "-q", "-m", "one")
    _, _, record = records(replace(options, checkouts={"model.factory": code}))
    assert record["git"] == {"model.factory": {"commit": git(code, "rev-parse", "HEAD"), "dirty": False}}
    (code / "net.py").write_text("x = 2\n")
    assert git_state({"model.factory": code})["model.factory"]["dirty"]
    assert git_state({"nowhere": tmp_path / "outside"}) == {}
