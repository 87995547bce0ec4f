"""`cache explain`: of which request and of which cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import pipeline
from pipeline.commands import cache
from pipeline.errors import Refused

NET = "import torch\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())\n"
REQUEST = ("model=factory", "model.factory=net.py:build", "model.inputs={x: {shape: [1,4]}}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run in `typed` and the same in `given`, whose request was given in Python."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("net.py").write_text(NET)
        pipeline.export([*REQUEST, "out=typed", "cache.dir=cache"])
        tree = {"model": {"factory": "net.py:build", "inputs": {"x": {"shape": [1, 4]}}}, "seed": 3}
        pipeline.export(["model=factory", "out=given"], config=tree)
        pipeline.export([*REQUEST, "out=seeded"], config={"seed": 3})
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run_of(folder: Path, out: str) -> Path:
    (found,) = (folder / out).glob("build-*")
    return found


def statuses(capsys: pytest.CaptureFixture[str], *words: str) -> set[str]:
    assert cache.main(["explain", "--json", *words]) == 0
    return {row["status"] for row in json.loads(capsys.readouterr().out)}


def test_the_cache_that_was_typed_is_looked_in_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert statuses(capsys, *REQUEST, "cache.dir=empty") == {"miss"}
    assert statuses(capsys, str(run_of(folder, "typed"))) == {"hit"}  # its record names the cache
    cache.main(["explain", str(run_of(folder, "typed"))])
    assert capsys.readouterr().out.splitlines()[-1] == f"looked in {folder / 'cache' / 'v1'}"


def test_a_directory_whose_request_was_not_typed_is_said_to_be_one(folder: Path) -> None:
    """Of one that `reproduce` made it was "'reproduced' is no override", of one made in Python PL-110."""
    record = run_of(folder, "typed") / "run.json"
    for run, overrides in ((run_of(folder, "typed"), ["reproduced"]), (run_of(folder, "given"), None)):
        if overrides:
            record.write_text(json.dumps(json.loads(record.read_text()) | {"overrides": overrides}))
        with pytest.raises(Refused, match="overrides that were recorded do not give the request") as caught:
            cache.main(["explain", str(run)])
        assert caught.value.reason.code == "PL-801"


def test_what_was_given_in_python_beside_the_overrides_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another request was explained without a word."""
    cache.main(["explain", str(run_of(folder, "seeded"))])
    assert "give another request: seed was 3, is 0\n" in capsys.readouterr().err
    cache.main(["explain", str(run_of(folder, "typed"))])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "content", [b"{}", b'{"overr', b"\x00\xff\x80", None], ids=["empty", "cut", "binary", "none"]
)
def test_a_record_that_cannot_be_read_is_one_sentence(folder: Path, content: bytes | None) -> None:
    """It was a KeyError, a JSONDecodeError or a UnicodeDecodeError."""
    record = run_of(folder, "typed") / "run.json"
    if content is None:
        record.unlink()
    else:
        record.write_bytes(content)
    with pytest.raises(Refused, match=r"PL-801: .*records of the run cannot be read; found run\.json "):
        cache.main(["explain", str(run_of(folder, "typed"))])
    record.unlink(missing_ok=True)


@pytest.mark.parametrize("path", ["./gone", "/nowhere/at/all"])
def test_a_directory_that_is_not_there_is_said_to_be_none(folder: Path, path: str) -> None:
    """The advice was to type /nowhere/at/all=VALUE."""
    with pytest.raises(Refused, match="there is no such run directory"):
        cache.main(["explain", path])
