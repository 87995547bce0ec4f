"""What only a stage can see and has to refuse: exit code 2, and nothing is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import Refused
from pipeline.events import Event, LogLine, RunFinished
from pipeline.run.point import RunOptions
from pipeline.run.points import run_points
from pipeline.stage import Verdict, Workspace
from tests.run.conftest import Text, make_plan, stages


def unfit(workspace: Workspace) -> Verdict:
    raise Refused("PL-225", "the weights do not fit the network", where="model.weights")


def vacuous_without_a_word(workspace: Workspace) -> Verdict:
    return Verdict("vacuous")


def run(points: list, options: RunOptions, events: list[Event] | None = None) -> list[RunFinished | None]:
    seen = events if events is not None else []
    return run_points(points, [options] * len(points), lambda index, event: seen.append(event))[0]


@pytest.mark.parametrize("stage", ["source", "middle", "write"])
def test_it_is_refused_and_no_directory_is_left(options: RunOptions, stage: str) -> None:
    (done,) = run([make_plan(steps=stages(**{stage: unfit}))], options)
    assert done is not None
    assert (done.exit_code, done.directory) == (2, None)
    assert done.reason is not None
    assert done.reason["code"] == "PL-225"
    assert done.row["status"] == "refused"
    assert not options.out.exists()


def test_the_last_failed_try_and_earlier_runs_stay(options: RunOptions) -> None:
    run([make_plan("kept-op11-00000001")], options)
    run([make_plan(steps=stages(write=unfit))], options)
    assert sorted(path.name for path in options.out.iterdir() if not path.name.startswith(".")) == [
        "kept-op11-00000001"
    ]
    (again,) = run([make_plan()], options)
    assert again is not None
    assert again.exit_code == 0


def test_in_a_sweep_it_is_a_row_and_the_others_go_on(options: RunOptions) -> None:
    points = [
        make_plan("a-op11-00000001"),
        make_plan("b-op11-00000002", steps=stages(write=unfit)),
        make_plan("c-op11-00000003"),
    ]
    assert [done.exit_code for done in run(points, options) if done] == [0, 2, 0]
    assert not (options.out / "failed").exists()


def test_a_verdict_without_a_reason_is_no_success(options: RunOptions) -> None:
    (done,) = run([make_plan(steps=stages(write=vacuous_without_a_word))], options)
    assert done is not None
    assert done.exit_code == 1
    assert done.row["status"] == "vacuous"
    assert not (options.out / "fake-op11-00000000").exists()


def test_debug_reports_the_traceback(options: RunOptions) -> None:
    events: list[Event] = []
    run([make_plan(steps=stages(middle=unfit))], replace(options, debug=True), events)
    (line,) = (event for event in events if isinstance(event, LogLine))
    assert "Traceback" in line.text
    assert "unfit" in line.text


def test_a_cache_folder_may_be_relative(options: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(workspace: Workspace) -> None:
        workspace.file("model.onnx", "model").write_text(workspace.get("text").text)

    options.out.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(options.out.parent)
    relative = replace(options, cache_dir=Path("cache"))
    plans = [
        make_plan(f"{name}-op11-00000001", steps=stages(middle=lambda w: Text("made"), write=writes))
        for name in ("a", "b")
    ]
    assert [run([plan], relative)[0].exit_code for plan in plans] == [0, 0]  # type: ignore[union-attr]
    assert (options.out / "b-op11-00000001" / "model.onnx").read_text() == "made"
