"""Points in child processes: what they leave when all goes well, and when it does not."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import Refused
from pipeline.events import UNSEEN, Event, Finding, RunFinished, StageFinished, StageStarted
from pipeline.run.directory import RunDirectory
from pipeline.run.point import RunOptions
from pipeline.run.points import run_points
from pipeline.run.schemas import problems_of
from pipeline.run.verify import verify_directory
from pipeline.run.workers import Workers
from pipeline.stage import Verdict, Workspace
from tests.run.conftest import Step, Text, abort, eat, hang, make_plan, refuse, stages


def run(points: list, options: RunOptions, events: list | None = None) -> list[RunFinished | None]:
    seen = events if events is not None else []
    return run_points(points, [options] * len(points), lambda index, event: seen.append((index, event)))[0]


def left_over(options: RunOptions) -> list[str]:
    """What lies in the hidden working folders: nothing, when all is tidy."""
    return [str(path) for name in (".making", ".locks") for path in (options.out / name).iterdir()]


def test_a_point_leaves_a_whole_directory(options: RunOptions) -> None:
    events: list[tuple[int, Event]] = []
    (done,) = run([make_plan()], options, events)
    assert done is not None
    assert done.exit_code == 0
    assert not done.reused
    folder = Path(done.directory or "")
    assert verify_directory(folder) == []
    assert (folder / "model.onnx").stat().st_size == 16 * 65536
    for name in ("manifest.json", "run.json"):
        assert problems_of(name, json.loads((folder / name).read_text())) == []
    assert [event.stage for _, event in events if isinstance(event, StageStarted)] == [
        "source",
        "middle",
        "write",
    ]
    assert left_over(options) == []


def test_the_only_worker_gives_its_memory_back_while_the_parent_publishes(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to wait for its pipe to be closed: 0.1 s more after everything was done."""
    ended: list[bool] = []
    started: list[Workers] = []
    start, publish = Workers.start, RunDirectory.publish

    def remembered(workers: Workers) -> None:
        start(workers)
        started.append(workers)

    def looked(place: RunDirectory, folder: Path) -> None:
        found = os.waitid(os.P_PID, started[0]._child, os.WEXITED | os.WNOWAIT)
        ended.append(found is not None and found.si_status == 0)
        publish(place, folder)

    monkeypatch.setattr(Workers, "start", remembered)
    monkeypatch.setattr(RunDirectory, "publish", looked)
    (done,) = run_points([make_plan()], [options], lambda index, event: None)[0]
    assert done is not None and done.exit_code == 0
    assert ended == [True]


def test_the_second_run_verifies_and_returns_the_first(options: RunOptions) -> None:
    (first,) = run([make_plan()], options)
    before = (options.out / "fake-op11-00000000" / "model.onnx").stat().st_mtime_ns
    (second,) = run([make_plan()], options)
    assert first is not None
    assert second is not None
    assert second.reused
    assert second.directory == first.directory
    assert (options.out / "fake-op11-00000000" / "model.onnx").stat().st_mtime_ns == before


def reads_a_file(workspace: Workspace) -> str:
    workspace.emit(Finding("source", "warning", "net.py reads a.json by itself", {UNSEEN: ["a.json"]}))
    workspace.emit(Finding("source", "warning", "something that was so then"))
    return "live"


def test_a_returned_directory_warns_again_of_files_that_no_key_sees(options: RunOptions) -> None:
    """Only its first run said so: whoever changed the file later was given the old result without a word."""
    plan = make_plan(steps=stages(source=reads_a_file))
    run([plan], options)
    for again in (options, replace(options, force=True)):
        events: list[tuple[int, Event]] = []
        run([plan], again, events)
        told = [event for _, event in events if isinstance(event, Finding) and UNSEEN in event.data]
        assert [event.message for event in told] == ["net.py reads a.json by itself"]
        assert sum(isinstance(event, RunFinished) for _, event in events) == 1
        # What was so then, and says nothing of what is returned now, stands in run.json alone.
        others = [event for _, event in events if isinstance(event, Finding) and event not in told]
        assert bool(others) == again.force


def test_a_damaged_directory_is_moved_aside_and_made_again(options: RunOptions) -> None:
    run([make_plan()], options)
    model = options.out / "fake-op11-00000000" / "model.onnx"
    model.write_bytes(b"changed")
    (done,) = run([make_plan()], options)
    assert done is not None
    assert done.exit_code == 0
    assert not done.reused
    assert verify_directory(options.out / "fake-op11-00000000") == []
    assert [path.read_bytes() for path in (options.out / "damaged").rglob("model.onnx")] == [b"changed"]


def test_a_plain_file_where_damaged_directories_belong_is_one_sentence(options: RunOptions) -> None:
    """It was a FileExistsError."""
    run([make_plan()], options)
    (options.out / "fake-op11-00000000" / "model.onnx").write_bytes(b"changed")
    (options.out / "damaged").write_bytes(b"")
    (done,) = run([make_plan()], options)
    assert done is not None and done.reason is not None
    assert (done.exit_code, done.reason["code"]) == (1, "PL-709")
    assert done.reason["where"] == str(options.out / "damaged")
    assert left_over(options) == []


def test_a_link_that_leads_nowhere_is_moved_aside(options: RunOptions) -> None:
    """It was a NotADirectoryError at the end of the run."""
    options.out.mkdir()
    (options.out / "fake-op11-00000000").symlink_to("nowhere")
    (done,) = run([make_plan()], options)
    assert done is not None and done.exit_code == 0
    assert verify_directory(options.out / "fake-op11-00000000") == []
    assert [path.readlink() for path in (options.out / "damaged").iterdir()] == [Path("nowhere")]


@pytest.mark.parametrize("whole", [True, False])
def test_what_stands_whole_in_a_read_only_folder_is_returned(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """PL-701, although nothing had to be written."""
    run([make_plan()], options)
    if not whole:
        (options.out / "fake-op11-00000000" / "model.onnx").write_bytes(b"changed")

    def read_only(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "touch"):  # a mode does not stop root
        monkeypatch.setattr(Path, name, read_only)
    for force in (False, True):
        (done,) = run([make_plan()], replace(options, force=force))
        assert done is not None
        if whole and not force:
            assert done.reused and done.exit_code == 0
        else:
            assert done.reason is not None and done.reason["code"] == "PL-701"


def test_force_with_the_same_bytes_keeps_the_old_directory(options: RunOptions) -> None:
    run([make_plan()], options)
    (done,) = run([make_plan()], replace(options, force=True))
    assert done is not None
    assert done.exit_code == 0
    assert sorted(path.name for path in options.out.iterdir() if not path.name.startswith(".")) == [
        "fake-op11-00000000"
    ]


def test_force_with_other_bytes_keeps_both_and_fails(options: RunOptions) -> None:
    def other(workspace: object) -> None:
        workspace.file("model.onnx", "model").write_bytes(b"other")  # type: ignore[attr-defined]

    run([make_plan()], options)
    (done,) = run([make_plan(steps=stages(write=other))], replace(options, force=True))
    assert done is not None
    assert done.exit_code == 1
    assert done.reason is not None
    assert done.reason["code"] == "PL-708"
    assert done.reason["where"] == "model.onnx"
    assert verify_directory(options.out / "fake-op11-00000000") == []


@pytest.mark.parametrize("reads", [False, True])
def test_other_bytes_may_come_of_files_that_no_key_sees(options: RunOptions, reads: bool) -> None:
    """The sentence named two directories to compare, and never what the warnings of both said."""

    def other(workspace: Workspace) -> Verdict:
        workspace.file("model.onnx", "model").write_bytes(b"other")
        return Verdict()

    source = {"source": reads_a_file} if reads else {}
    run([make_plan(steps=stages(**source))], options)
    again = replace(options, force=True, cache_mode="none")
    (done,) = run([make_plan(steps=stages(write=other, **source))], again)
    assert done is not None and done.reason is not None and done.reason["code"] == "PL-708"
    said = "; what the code reads by itself may have changed since: a.json"
    assert done.reason["next_step"].endswith(said) == reads


def test_a_failed_stage_keeps_a_true_record(options: RunOptions) -> None:
    (done,) = run([make_plan(steps=stages(middle=refuse))], options)
    assert done is not None
    assert done.exit_code == 1
    record = json.loads((options.out / "failed" / "fake-op11-00000000" / "run.json").read_text())
    assert problems_of("run.json", record) == []
    assert [(stage["name"], stage["status"]) for stage in record["stages"]] == [
        ("source", "passed"),
        ("middle", "failed"),
        ("write", "not reached"),
    ]
    assert not (options.out / "fake-op11-00000000").exists()
    assert left_over(options) == []


def test_a_native_crash_is_a_failed_stage_and_the_sweep_goes_on(options: RunOptions) -> None:
    points = [
        make_plan("a-op11-00000001"),
        make_plan("b-op11-00000002", steps=stages(write=abort)),
        make_plan("c-op11-00000003"),
        make_plan("d-op11-00000004", group="other"),
    ]
    done = run(points, options)
    assert [result.exit_code for result in done if result] == [0, 1, 0, 0]
    record = json.loads((options.out / "failed" / "b-op11-00000002" / "run.json").read_text())
    assert record["reason"]["code"] == "PL-704"
    assert "SIGABRT" in record["reason"]["found"]
    assert [stage["status"] for stage in record["stages"]] == ["passed", "passed", "failed"]


def test_a_crash_in_a_single_run_keeps_a_true_record(options: RunOptions) -> None:
    (done,) = run([make_plan(steps=stages(write=abort))], options)
    assert done is not None
    assert done.exit_code == 1
    record = json.loads((options.out / "failed" / "fake-op11-00000000" / "run.json").read_text())
    assert record["stages"][-1]["status"] == "failed"
    (again,) = run([make_plan()], options)
    assert again is not None
    assert again.exit_code == 0


def test_a_point_past_its_time_limit_fails(options: RunOptions) -> None:
    points = [make_plan("a-op11-00000001", steps=stages(write=hang)), make_plan("b-op11-00000002")]
    begun = time.monotonic()
    done = run(points, replace(options, timeout_s=0.5))
    assert time.monotonic() - begun < 20
    assert [result.exit_code for result in done if result] == [1, 0]
    assert done[0] is not None
    assert done[0].reason is not None
    assert done[0].reason["code"] == "PL-705"


def test_a_point_past_its_memory_limit_fails(options: RunOptions) -> None:
    (done,) = run([make_plan(steps=stages(middle=eat))], replace(options, memory_bytes=600 * 2**20))
    assert done is not None
    assert done.exit_code == 1
    assert done.reason is not None
    assert done.reason["code"] == "PL-706"


def test_each_point_has_its_own_limits_and_cache(options: RunOptions, tmp_path: Path) -> None:
    def wait(workspace: object) -> Text:
        time.sleep(1.0)
        return Text("made")

    points = [make_plan(f"{name}-op11-00000001", steps=stages(middle=wait)) for name in "abc"]
    each = [
        replace(options, timeout_s=0.2),
        replace(options, timeout_s=30, cache_dir=tmp_path / "another"),
        replace(options, cache_mode="none"),
    ]
    done = run_points(points, each, lambda index, event: None)[0]
    assert [result.exit_code for result in done if result] == [1, 0, 0]
    assert len(list((tmp_path / "another").rglob("entry.json"))) == 1
    assert not list(options.cache_dir.rglob("entry.json"))


def test_what_a_dead_worker_left_for_itself_is_not_kept(options: RunOptions) -> None:
    def leaves(workspace: Workspace) -> Verdict:
        (workspace.scratch / "half a model").write_bytes(b"x" * 1000)
        return abort(workspace)

    run([make_plan(steps=stages(middle=leaves))], options)
    (failed,) = (options.out / "failed").iterdir()
    assert sorted(path.name for path in failed.iterdir()) == ["config.yaml", "log.txt", "run.json"]
    assert verify_directory_of_a_failure(failed) == []


def verify_directory_of_a_failure(folder: Path) -> list[str]:
    """Everything but the manifest, which a failed run has not."""
    return [problem.path for problem in verify_directory(folder) if problem.path != "manifest.json"]


@pytest.mark.parametrize("count", [2, 5, 8])
def test_many_at_once_with_one_cache_and_a_folder_each(options: RunOptions, count: int) -> None:
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            small = replace(options, out=options.out / str(number), cache_bytes=1)
            (done,) = run([make_plan()], small)
            os._exit(0 if done and done.exit_code == 0 else 9)
        children.append(child)
    assert {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children} == {0}
    for number in range(count):
        assert verify_directory(options.out / str(number) / "fake-op11-00000000") == []


def test_a_refused_point_is_a_row_and_leaves_nothing(options: RunOptions) -> None:
    done = run([Refused("PL-100", "no such thing"), make_plan()], options)
    assert [result.exit_code for result in done if result] == [2, 0]


def test_points_of_a_group_share_what_is_live(options: RunOptions) -> None:
    def source(workspace: object) -> str:
        return str(os.getpid()) + str(time.monotonic_ns())

    def middle(workspace: object) -> Text:
        return Text(workspace.get("network"))  # type: ignore[attr-defined]

    def write(workspace: object) -> None:
        workspace.file("model.onnx", "model").write_text(workspace.get("text").text)  # type: ignore[attr-defined]

    points = [
        make_plan(f"{name}-op11-0000000{name}", steps=stages(source=source, middle=middle, write=write))
        for name in "12"
    ]
    done = run(points, replace(options, cache_mode="none"))
    texts = {(Path(result.directory or "") / "model.onnx").read_text() for result in done if result}
    assert len(texts) == 1


def test_a_file_of_one_directory_is_not_shared_with_the_next_point(options: RunOptions) -> None:
    """Two targets of one graph: each run writes its own model, although a later stage takes it."""

    def assemble(workspace: Workspace) -> Path:
        path = workspace.file("model.onnx", "model")
        path.write_text(workspace.get("text").text)
        return path

    def read(workspace: Workspace) -> Verdict:
        path: Path = workspace.get("model")
        return Verdict(summary=path.read_text())

    points = []
    for name in "12":
        steps = (
            *stages()[:2],
            Step("assemble", ("text",), ("model",), assemble, storable=False),
            Step("compile", ("model",), (), read, storable=False, config=name),
        )
        points.append(make_plan(f"{name}-op11-0000000{name}", steps=steps))
    done = run(points, options)
    assert [result.exit_code for result in done if result] == [0, 0]
    assert all((Path(result.directory or "") / "model.onnx").is_file() for result in done if result)


def test_a_hit_does_not_make_the_live_value(options: RunOptions) -> None:
    run([make_plan("a-op11-00000001")], options)
    events: list[tuple[int, Event]] = []
    (done,) = run([make_plan("b-op11-00000002", steps=stages(source=abort))], options, events)
    assert done is not None
    assert done.exit_code == 0
    assert [event.cache for _, event in events if isinstance(event, StageFinished)] == ["off", "hit", "off"]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8])
def test_runs_of_one_request_at_once_do_the_work_once(options: RunOptions, count: int) -> None:
    """All but one wait for the first and return its directory."""
    children = []
    for _ in range(count):
        child = os.fork()
        if not child:
            (done,) = run([make_plan()], options)
            os._exit(
                0 if done and done.exit_code == 0 and done.reused else 3 if done and not done.exit_code else 9
            )
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [0] * (count - 1) + [3]


def test_an_interrupt_ends_the_run_and_leaves_nothing_half_written(options: RunOptions) -> None:
    def press() -> None:
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    results, code = run_points(
        [make_plan(steps=stages(middle=hang)), make_plan("b-op11-00000002")], [options] * 2, lambda i, e: None
    )
    assert code == 130
    assert results[1] is None
    record = json.loads((options.out / "failed" / "fake-op11-00000000" / "run.json").read_text())
    assert record["reason"]["code"] == "PL-707"
    assert left_over(options) == []
