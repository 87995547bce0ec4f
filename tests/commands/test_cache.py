"""`cache` on folders that cannot be read or written, and on entries that are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.run.cache import BLOB_BYTES, Cache
from pipeline.run.plan import StageKey
from tests.run.conftest import Text
from tests.run.permissions import as_anybody
from tests.run.test_cache import flip, forbid

KEYS = [StageKey("middle", digit * 64, {"config": {}}) for digit in "abc"]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Three entries with a large file each."""
    made = Cache(tmp_path / "cache")
    for key in KEYS:
        made.store(key, {"text": Text(key.key * (BLOB_BYTES // 64))}, {})
    return made


def call(*words: str) -> int:
    with as_anybody():
        return main(["cache", *words])


@pytest.mark.parametrize("words", [["clear"], ["clear", "--json"]])
def test_clear_says_what_it_could_not_remove(
    cache: Cache, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """It said "3 entries removed", ended with 0, and all were still there."""
    forbid(cache.root)
    assert call(*words, "--dir", str(cache.root.parent)) == 1
    told = capsys.readouterr()
    assert "Permission denied" in told.err and "3 entries are still there" in told.err
    assert f"chmod -R u+rwX {cache.root.parent}" in told.err
    assert json.loads(told.out) == {"removed": 0} if "--json" in words else told.out.startswith("0 entries")
    assert len(list(cache.entries())) == 3


@pytest.mark.parametrize("action", ["list", "verify", "explain", "clear", "clear --damaged"])
def test_entries_that_cannot_be_read_are_said_in_one_sentence(
    cache: Cache, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    """They were a traceback."""
    forbid(cache.root / "entries", 0o000)
    words = ["model=alexnet"] if action == "explain" else []
    assert call(*action.split(), *words, "--dir", str(cache.root.parent)) == 2
    out, told = capsys.readouterr()
    assert not out and told.startswith("PL-800: ") and told.count("\n") == 1
    assert "Permission denied" in told and str(cache.root / "entries") in told and "--dir=FOLDER" in told


def test_verify_says_how_to_remove_what_is_damaged(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged entry that no run reads stayed for ever, whatever `cache verify` said."""
    flip(cache.root / "entries" / "aa" / KEYS[0].key / "entry.json")
    flip(next((cache.root / "blobs").glob("*/*")))
    words = ["--dir", str(cache.root.parent)]
    assert call("verify", *words) == 1
    damaged = sum(line.startswith("damaged: ") for line in capsys.readouterr().out.splitlines())
    assert damaged in (1, 2)  # the large file may be that of the same entry
    assert call("verify", *words) == 1
    assert f"cache clear --damaged --dir {cache.root.parent}" in capsys.readouterr().out
    assert call("clear", "--damaged", "--json", *words) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": damaged}
    assert call("verify", *words) == 0
    assert len(list((cache.root / "blobs").glob("*/*"))) == len(list(cache.entries())) == 3 - damaged


def test_damaged_entries_that_cannot_be_removed_are_said(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(cache.root / "entries" / "aa" / KEYS[0].key / "entry.json")
    forbid(cache.root)
    assert call("clear", "--damaged", "--dir", str(cache.root.parent)) == 1
    assert "1 damaged entry is still there" in capsys.readouterr().err


def test_only_clear_knows_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list", "--damaged"]) == 2
    assert "--damaged" in capsys.readouterr().err
