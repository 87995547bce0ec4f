"""`verify`, `compare` and `cache`: exit codes, `--json`, and what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.__main__ import main
from tests.report.drawing import in_pipe


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, Path]:
    """Run directories by opset."""
    monkeypatch.chdir(tmp_path)
    assert in_pipe(("-m", "model=alexnet", "export.opset=11,13"), tmp_path).returncode == 0
    return {opset: next((tmp_path / "outputs").glob(f"alexnet-op{opset}-*")) for opset in (11, 13)}


def test_verify(runs: dict[int, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(runs[11]), str(runs[13])]) == 0
    assert "whole and unchanged" in capsys.readouterr().out
    (runs[11] / "model.onnx").write_bytes(b"x")
    assert main(["verify", str(runs[11]), str(runs[13]), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in told] == ["changed", "whole"]
    assert told[0]["problems"][0]["path"] == "model.onnx"
    assert main(["verify", str(runs[11].parent)]) == 2


def test_compare_says_same(runs: dict[int, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(runs[11]), str(runs[11]), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["same"], told["differences"]) == (True, [])
    assert {"total", "export"} <= set(told["times"])


def test_compare_says_what_differs_causes_first(
    runs: dict[int, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # These files are no graphs: a real one is compared in test_reproduce.py.
    for name in ("_graphs", "_outputs"):
        monkeypatch.setattr(f"pipeline.commands.compare.{name}", lambda first, second: iter(()))
    assert main(["compare", str(runs[11]), str(runs[13])]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "request    export.opset was 11, is 13"
    assert "opsets     ai.onnx was 11, is 13" in lines
    assert lines[-1].endswith("differences between outputs/" + f"{runs[11].name} and outputs/{runs[13].name}")


def test_compare_refuses_what_is_no_whole_run_directory(
    runs: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs[11]), "nowhere"]) == 2
    assert "PL-801: nowhere: not a run directory" in capsys.readouterr().err
    (runs[13] / "config.yaml").write_text("changed")
    assert main(["compare", str(runs[11]), str(runs[13])]) == 2
    assert "not whole" in capsys.readouterr().err


def test_cache_list_clear_and_verify(runs: dict[int, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list", "--dir", "cache", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {entry["stage"] for entry in entries} == {"reference", "export", "simplify"}
    assert main(["cache", "list", "--dir", "cache"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{len(entries)} entries, ")
    assert main(["cache", "verify", "--dir", "cache"]) == 0
    victim = next(Path("cache").rglob("text"))
    victim.chmod(0o644)
    victim.write_text("damaged")
    assert main(["cache", "verify", "--dir", "cache"]) == 1
    assert "1 damaged entry" in capsys.readouterr().out
    assert main(["cache", "clear", "--dir", "cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": len(entries)}
    assert main(["cache", "list", "extra"]) == 2
    assert main(["cache", "list", "--bogus"]) == 2
    assert main(["cache", "lost"]) == 2


def test_a_misspelt_command_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compair", "a", "b"]) == 2
    assert "Did you mean compare?" in capsys.readouterr().err
