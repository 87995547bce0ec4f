"""The table on the screen: what fits into 80 columns, what into 160, and what a long sweep shows."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pipeline.events import Finding, RunFinished, RunStarted, StageStarted
from pipeline.report.sweep import LiveSweep, PlainSweep, print_table, ranges, summary, table_of, widths_for
from tests.report.drawing import drawn

PASSED = {
    "opset": 11, "exporter": "torchscript", "status": "passed", "error": 3.2e-7, "tolerance": 1.1e-5,
    "margin": 34.4, "nodes": 20, "size_bytes": 244_403_000, "seconds": 4.12, "cached": False,
    "target": "none", "directory": "outputs/alexnet-op11-0a1b2c3d",
}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    asked = {"target": "none", "status": "not reached"}
    reason = "PL-310: the exporter does not know the operator aten::frobnicate"
    return [
        {"point": 0, "model": "alexnet", "opset_asked": 11, **PASSED},
        {"point": 1, "model": "alexnet", "opset_asked": 13, **PASSED, "opset": 13, "cached": True},
        {"point": 2, "model": "vgg11", "opset_asked": 11, **asked, "status": "failed", "stage": "export",
         "reason": reason, "seconds": 0.31},
        {"point": 3, "model": "fasterrcnn_mobilenet_v3_large_320_fpn", "opset_asked": 6, **asked,
         "status": "refused", "stage": "config", "reason": "PL-103: export.opset cannot be 6"},
        {"point": 4, "model": "vgg11", "opset_asked": 13, **asked},
    ]  # fmt: skip


AT_80 = """\
#  model              opset  exporter     status         margin     size    time
────────────────────────────────────────────────────────────────────────────────
0  alexnet               11  torchscript  passed            34x  233 MiB   4.1 s
1  alexnet               13  torchscript  passed            34x  233 MiB  cached
2  vgg11                 11               failed export                    0.3 s
3  fasterrcnn_mobil…      6               refused
4  vgg11                 13               not reached"""


def test_at_80_columns() -> None:
    assert drawn(table_of(rows(), widths_for(rows(), 80)), 80) == AT_80


def test_at_160_columns_more_is_shown() -> None:
    lines = drawn(table_of(rows(), widths_for(rows(), 160)), 160).splitlines()
    assert lines[0].split() == [
        "#", "model", "opset", "exporter", "status", "margin", "error", "tolerance", "nodes", "size", "time",
        "directory",
    ]  # fmt: skip
    assert lines[2].split() == [
        "0", "alexnet", "11", "torchscript", "passed", "34x", "3.2e-07", "1.1e-05", "20", "233", "MiB",
        "4.1", "s", "outputs/alexnet-op11-0a1b2c3d",
    ]  # fmt: skip
    assert "fasterrcnn_mobilenet_v3_large_320_fpn " in lines[5]


def test_what_varies_beside_the_columns_has_a_column() -> None:
    varied = [{**row, "changes": f"seed={row['point']}"} for row in rows()]
    assert "seed=4" in drawn(table_of(varied, widths_for(varied, 80)), 80)


def test_the_final_table_gives_every_reason_once() -> None:
    stream = io.StringIO()
    twice = [*rows(), {**rows()[2], "point": 5, "model": "resnet18"}]
    print_table(twice, "outputs/sweeps/s", stream)
    text = stream.getvalue()
    assert (
        "failed    2, 5 vgg11, resnet18 in export: PL-310: the exporter does not know the operator "
        "aten::frobnicate\n"
    ) in text
    assert text.endswith(
        "sweep     6 points: 2 passed (1 cached), 2 failed, 1 refused, 1 not reached\n"
        "table     outputs/sweeps/s/table.csv\n"
    )
    assert "\x1b" not in text


def test_a_running_point_shows_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    view = LiveSweep(io.StringIO(), rows(), "s", debug=False)
    view.show(4, RunStarted("vgg11-op13-x", "outputs/x", "0" * 64, ("export",)))
    view.show(4, StageStarted("export"))
    text = drawn(view._draw(), 80)
    assert "running export" in text
    assert text.splitlines()[0].startswith("sweep s  4 of 5 done, 2 not passed  0.0 s")
    view.show(4, RunFinished("vgg11-op13-x", "outputs/x", 0, row={**PASSED, "opset": 13}))
    assert "5 of 5 done" in drawn(view._draw(), 80)


def test_a_long_sweep_shows_the_points_around_the_running_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    many = [{"point": index, "model": "mynet", "status": "not reached"} for index in range(300)]
    view = LiveSweep(io.StringIO(), many, "s", debug=False)
    view._console.height = 20
    view.show(150, RunStarted("x", "outputs/x", "0" * 64, ()))
    lines = drawn(view._draw(), 80).splitlines()
    assert len(lines) < 20
    assert any("150  mynet" in line and "running" in line for line in lines)
    assert lines[-1] == "and 287 points more"


def test_the_lines_in_a_pipe() -> None:
    stream = io.StringIO()
    view = PlainSweep(stream, [{"point": 0, "model": "alexnet"}, {"point": 1, "model": "vgg11"}], "s", False)
    view.start()
    view.show(0, Finding("export", "warning", "a branch was frozen"))
    view.show(0, RunFinished("alexnet-op11-x", "outputs/x", 0, row=PASSED))
    reason = {"code": "PL-103", "message": "export.opset cannot be 6"}
    view.show(1, RunFinished("", None, 2, reason=reason, row={"status": "refused"}))
    assert stream.getvalue() == (
        "sweep s: 2 points\n"
        "  warning: alexnet: export: a branch was frozen\n"
        "  1/2  alexnet-op11-x  passed  margin 34x  4.1 s\n"
        "  2/2  vgg11  refused  PL-103: export.opset cannot be 6\n"
    )


def test_ranges() -> None:
    assert [ranges(numbers) for numbers in ([0], [0, 4], [2, 3, 4, 9])] == ["0", "0, 4", "2-4, 9"]


def test_a_point_that_was_running_when_all_ended_was_not_reached() -> None:
    assert summary([{"status": "running"}, PASSED]) == "2 points: 1 passed, 1 not reached"


def test_a_target_that_is_judged_only_is_predicted() -> None:
    judged = {**rows()[0], "target": "horizon_x3"}
    compiled = {**judged, "target": "tvm", "compile_seconds": 2.0, "target_error": 1e-6, "target_margin": 9.0}
    failed = {**rows()[2], "target": "horizon_x3"}
    asked = [judged, compiled, failed]
    lines = drawn(table_of(asked, widths_for(asked, 240)), 240).splitlines()
    assert ["predicted" in line for line in lines[2:]] == [True, False, False]
