"""Fixtures for every test: an own cache folder and no colour."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.run.schemas import problems_of


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache; terminals are plain."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("GOMP_SPINCOUNT", "3000")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Hydra's `--info` leaves a handler on the stream that pytest closes after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _records_are_valid(tmp_path: Path) -> Iterator[None]:
    """Every manifest.json and run.json that a test leaves satisfies its JSON Schema."""
    yield
    for name in ("manifest.json", "run.json"):
        for path in tmp_path.rglob(name):
            if path.is_file():
                assert problems_of(name, json.loads(path.read_bytes())) == [], path
