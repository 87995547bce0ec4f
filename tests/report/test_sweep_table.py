"""table.csv and table.json: columns, values, and that no moment shows half a file."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from pipeline.errors import Refused
from pipeline.events import RunFinished
from pipeline.report.sweep_table import SweepTable, csv_text, sweep_name

HEADING = (
    "point,model,opset_asked,opset,exporter,target,status,stage,reason,error,tolerance,margin,nodes,"
    "size_bytes,seconds,cached,directory,"
    "target_precision,target_error,target_tolerance,target_margin,latency_ms,latency_p95_ms,latency_runs,"
    "threads,compile_seconds,run_seconds,artifact_bytes"
)


def table(folder: Path, points: int = 2) -> SweepTable:
    rows = [
        {"point": index, "model": "mynet", "opset_asked": 11 + index, "status": "not reached"}
        for index in range(points)
    ]
    return SweepTable(folder, rows, [(f"export.opset={11 + index}",) for index in range(points)])


def finished(**row: object) -> RunFinished:
    return RunFinished("x", "outputs/x", 0, row={"status": "passed", **row})


def test_the_columns_are_those_that_scripts_rely_on() -> None:
    assert csv_text([]).strip() == HEADING


def test_a_fresh_table_says_that_nothing_is_reached(tmp_path: Path) -> None:
    table(tmp_path / "sweep").begin()
    rows = list(csv.DictReader((tmp_path / "sweep" / "table.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["not reached", "not reached"]
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == {"table.csv", "table.json"}


def test_a_finished_point_is_written_at_once(tmp_path: Path) -> None:
    sweep = table(tmp_path)
    sweep.begin()
    sweep.finish(1, finished(error=3.2e-7, nodes=20, cached=False, opset=12, size_bytes=5, seconds=1.25))
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert rows[0]["status"] == "not reached"
    assert {name: rows[1][name] for name in ("error", "nodes", "cached", "opset", "seconds", "directory")} == {
        "error": "3.2e-07", "nodes": "20", "cached": "false", "opset": "12", "seconds": "1.25",
        "directory": "outputs/x",
    }  # fmt: skip
    data = json.loads((tmp_path / "table.json").read_text())
    assert data[1]["error"] == 3.2e-7
    assert data[1]["cached"] is False
    assert data[1]["overrides"] == ["export.opset=12"]
    assert len((tmp_path / "table.json").read_text().splitlines()) == 2 + len(data)


def test_a_reason_is_one_line_with_its_code(tmp_path: Path) -> None:
    sweep = table(tmp_path)
    reason = {"code": "PL-310", "message": 'it says\n"no", and no more'}
    sweep.finish(0, RunFinished("x", None, 1, reason=reason, row={"status": "failed", "stage": "export"}))
    text = (tmp_path / "table.csv").read_text()
    assert len(text.splitlines()) == 3
    assert next(csv.DictReader(text.splitlines()))["reason"] == 'PL-310: it says\\n"no", and no more'


def test_an_interrupt_while_it_is_written_leaves_the_old_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = table(tmp_path)
    sweep.begin()
    before = (tmp_path / "table.csv").read_text()

    def interrupted(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep.finish(0, finished())
    assert (tmp_path / "table.csv").read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", "table.json"}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="PL-701"):
        table(tmp_path / "file" / "sweep").begin()


def test_the_same_points_have_the_same_name() -> None:
    one = sweep_name(["alexnet", "alexnet"], ["export.opset=11", "export.opset=13"])
    other = sweep_name(["alexnet", "alexnet"], ["export.opset=13", "export.opset=11"])
    assert one == other
    assert one.startswith("alexnet-2-points-")
    assert sweep_name(["a", "b"], ["x", "y"]).startswith("2-models-2-points-")
    assert sweep_name(["../a b"], ["x"]).startswith(".._a_b-1-point-")
