"""docs/reach.md is written from docs/reach.json, and every cell of a network that was measured has a row."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "reach.json"


@pytest.fixture(scope="module")
def reach() -> ModuleType:
    path = ROOT / "tests" / "benchmarks" / "reach.py"
    spec = importlib.util.spec_from_file_location("reach", path)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_the_page_is_written_from_its_rows(reach):
    assert reach.page(json.loads(ROWS.read_text())) == (ROOT / "docs" / "reach.md").read_text()


def test_what_was_measured_is_whole(reach):
    cells: dict[tuple[str, str], set[int]] = {}
    for row in json.loads(ROWS.read_text()):
        cells.setdefault((row["model"], row["start"]), set()).add(row["opset"])
        assert row["status"] in ("passed", "failed", "vacuous")
        assert row["status"] == "passed" or row["reason"]
        assert "/" not in (row["reason"] or "").partition("site-packages")[2]
    assert all(opsets == set(reach.OPSETS) for opsets in cells.values())


def test_a_cell_is_green_when_either_start_arrives(reach):
    row = {"model": "mynet", "opset": 9, "date": "2026-01-01", "versions": {}, "reason": "PL-430: no rule"}
    rows = [
        {**row, "start": "torchscript", "status": "failed"},
        {**row, "start": "dynamo", "status": "passed"},
    ]
    page = reach.page(rows)
    assert "| mynet | D | - |" in page
    assert "1 of 1 cells of 9 and 10 are green (100.0 %)" in page
    assert "- **mynet, torchscript, opset 9**: PL-430: no rule" in page
    assert "| mynet | **no** |" in reach.page(rows[:1])


def test_an_exclusion_is_named_and_does_not_count(reach):
    model, opset = next(iter(reach.EXCLUSIONS))
    reason = "PL-430: no rule brings NonMaxSuppression below opset 10"
    row = {"model": model, "date": "2026-01-01", "versions": {}, "start": "torchscript"}
    rows = [
        {**row, "opset": opset, "status": "failed", "reason": reason},
        {**row, "opset": 10, "status": "failed", "reason": "no rule brings RoiAlign below opset 11"},
    ]
    page = reach.page(rows)
    assert f"| {model} | (NonMaxSuppression) | **RoiAlign** |" in page
    assert "0 of 1 cells of 9 and 10 are green (0.0 %)" in page
    assert f"- **{model}, opset {opset}**: {reach.EXCLUSIONS[model, opset]}" in page


def test_what_is_excluded_is_not_reached(reach):
    reached = {
        (row["model"], row["opset"]) for row in json.loads(ROWS.read_text()) if row["status"] == "passed"
    }
    assert not reached & set(reach.EXCLUSIONS)
