"""A stage at work in a copy of the process, beside those that come after it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StageFailed
from pipeline.events import Event, Finding, Progress, StageFinished, StageStarted
from pipeline.run.beside import begin, worth_it
from pipeline.run.cache import Cache
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions
from pipeline.run.points import run_points
from pipeline.run.runner import Outcome, execute
from pipeline.stage import ArtifactParts, Verdict, Workspace
from tests.run.conftest import CopiedStep, Step, Text, make_plan

ARTIFACTS = ("early", "late", "graph", "report")
LONG_S = 0.2


def nothing(workspace: Workspace) -> None:
    """More work for a stage of the plan below."""


def plan(
    copied: Callable[[Workspace], None] = nothing,
    export: Callable[[Workspace], None] = nothing,
    *,
    first: Callable[[Workspace], None] = nothing,
    prepare: Callable[[], None] | None = lambda: None,
    config: Any = None,
) -> Plan:
    """source -> copied -> export (takes what is made early) -> prove (takes what is made late)."""

    def both(workspace: Workspace) -> Verdict:
        first(workspace)
        workspace.put("early", Text(f"early {os.getpid()}"))
        copied(workspace)
        workspace.put("late", Text(f"late of {workspace.get('network')}"))
        return Verdict(summary="copied", measured={"seen": 1}, recorded={"what": "copied"})

    def graph(workspace: Workspace) -> Text:
        export(workspace)
        return Text(f"graph {os.getpid()} with {workspace.get('early').text}")

    def prove(workspace: Workspace) -> Text:
        return Text(workspace.get("late").text)

    steps = (
        Step("source", (), ("network",), lambda w: "live", storable=False, on_demand=True),
        CopiedStep(
            "copied",
            ("network",),
            ("early", "late"),
            both,
            prepare=prepare,
            config=config,
            artifacts={"early": ArtifactParts(takes=("network",))},
        ),
        Step("export", ("network", "early"), ("graph",), graph),
        Step("prove", ("graph", "late"), ("report",), prove, config=config),
    )
    return replace(make_plan(steps=steps), artifact_types=dict.fromkeys(ARTIFACTS, Text))


@dataclass
class Bench:
    """Runs plans in a process without threads beside it, as a worker's is."""

    folder: Path
    cache: Cache
    events: list[Event] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)

    def run(self, made: Plan, name: str = "run", *, copies: bool = True) -> Outcome:
        folder = self.folder / name
        folder.mkdir()
        self.events.clear()
        outcome = execute(
            made, folder, cache=self.cache, emit=self.events.append, on_stage=self.marks.append, copies=copies
        )
        assert no_child_is_left()
        return outcome

    def text(self, made: Plan, artifact: str) -> str:
        """What the cache holds."""
        entry = self.cache.find(made.stage_keys[made.maker(artifact).name].key)
        assert entry is not None
        value = self.cache.load(entry, artifact, Text, self.folder / "scratch")
        assert isinstance(value, Text)
        return value.text

    def findings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Finding)]

    def ended(self) -> list[str]:
        return [event.stage for event in self.events if isinstance(event, StageFinished)]


def no_child_is_left() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return True


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    # Whatever ran before in this process may have left threads: here they do not count.
    others, count = threading.active_count() - 1, threading.active_count
    monkeypatch.setattr(threading, "active_count", lambda: count() - others)
    monkeypatch.setattr("pipeline.run.beside._TASKS", tmp_path / "tasks")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "1").mkdir()
    return Bench(tmp_path, Cache(tmp_path / "cache"))


def test_it_works_in_another_process_while_the_next_stage_runs(bench: Bench) -> None:
    other = plan(lambda w: time.sleep(LONG_S))
    outcome = bench.run(other)
    assert outcome.failed is None
    assert bench.text(other, "early") != f"early {os.getpid()}"
    assert bench.text(other, "graph").startswith(f"graph {os.getpid()} with early ")
    assert bench.text(other, "report") == "late of live"
    assert bench.ended() == ["source", "export", "copied", "prove"]
    assert [stage.name for stage in outcome.stages] == ["source", "copied", "export", "prove"]
    copied, prove = outcome.stages[1], outcome.stages[3]
    assert (copied.verdict.summary, copied.verdict.measured, copied.verdict.recorded, copied.cache) == (
        "copied", {"seen": 1}, {"what": "copied"}, "miss",
    )  # fmt: skip
    assert copied.seconds >= LONG_S > prove.seconds  # who waits for it does not count that as its own


def test_without_copies_it_is_the_same(bench: Bench) -> None:
    beside, alone = plan(), plan(config="another key")
    bench.run(beside, "beside")
    bench.run(alone, "alone", copies=False)
    assert bench.text(alone, "early") == f"early {os.getpid()}"
    assert bench.text(alone, "report") == bench.text(beside, "report")


def test_what_it_tells_arrives_and_is_said_again_by_the_cache(bench: Bench) -> None:
    def tell(workspace: Workspace) -> None:
        workspace.emit(Progress("copied", 1, 2, "runs"))
        workspace.emit(Finding("copied", "warning", "it reads net.txt"))

    outcome = bench.run(plan(tell))
    assert [warning["message"] for warning in outcome.warnings] == ["it reads net.txt"]
    assert Progress("copied", 1, 2, "runs") in bench.events
    bench.run(plan(tell), "again")
    assert bench.findings() == ["it reads net.txt"]
    assert bench.ended() == ["source", "copied", "export", "prove"]


def test_what_it_prints_stands_in_the_log_under_its_mark(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    def say(workspace: Workspace) -> None:
        os.write(1, b"printed by native code\n")
        sys.stdout.write("printed by Python")  # and kept back until it is flushed

    bench.run(plan(say))
    printed = capfd.readouterr().out
    assert "printed by native code" in printed
    assert "printed by Python" in printed
    assert bench.marks == ["source", "copied", "export", "copied", "prove"]


def test_it_leaves_a_processor_to_the_others(bench: Bench) -> None:
    asked = bench.folder / "asked"
    bench.run(plan(prepare=lambda: asked.write_text(str(os.getpid())) and None))
    assert int(asked.read_text()) != os.getpid()


def test_a_stage_may_rather_have_none(bench: Bench) -> None:
    bench.run(plan(prepare=None))
    assert bench.text(plan(), "early") == f"early {os.getpid()}"


def fail(workspace: Workspace) -> None:
    raise StageFailed("PL-500", "the output is not finite", where="seed0", next_step="Check the weights")


def test_its_failure_is_the_run_s_whatever_the_others_do(bench: Bench) -> None:
    def late(workspace: Workspace) -> None:
        time.sleep(LONG_S)
        fail(workspace)

    def also(workspace: Workspace) -> None:
        raise StageFailed("PL-300", "the exporter failed too")

    outcome = bench.run(plan(late, also))
    assert outcome.failed is not None and outcome.failed.name == "copied"
    reason = outcome.failed.verdict.reason
    assert reason is not None and (reason.code, reason.where) == ("PL-500", "seed0")
    assert [stage.name for stage in outcome.stages] == ["source", "copied", "export"]
    assert bench.cache.find(plan(late, also).stage_keys["copied"].key) is None


def test_a_stage_that_waits_for_what_never_comes_is_not_to_blame(bench: Bench) -> None:
    outcome = bench.run(plan(first=fail))
    assert outcome.failed is not None
    assert outcome.failed.name == "copied"
    assert [stage.name for stage in outcome.stages] == ["source", "copied"]


def test_nor_is_it_in_the_record(options: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had the other stage's reason in run.json and on the screen."""
    monkeypatch.setattr("pipeline.run.workers.worth_it", lambda: True)
    (done,) = run_points([plan(first=fail)], [options], lambda index, event: None)[0]
    assert done is not None
    assert done.exit_code == 1
    (record,) = options.out.glob("failed/*/run.json")
    stages = {stage["name"]: stage for stage in json.loads(record.read_text())["stages"]}
    assert {name: stage["status"] for name, stage in stages.items()} == {
        "source": "passed", "copied": "failed", "export": "not reached", "prove": "not reached",
    }  # fmt: skip
    assert stages["copied"]["beside"]


def test_a_failure_behind_it_waits_for_it_and_stands_where_it_went_well(bench: Bench) -> None:
    def broken(workspace: Workspace) -> None:
        raise StageFailed("PL-300", "the exporter failed")

    outcome = bench.run(plan(lambda w: time.sleep(LONG_S), broken))
    assert outcome.failed is not None and outcome.failed.name == "export"
    assert [stage.name for stage in outcome.stages] == ["source", "copied", "export"]


@pytest.mark.parametrize("how", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3)])
@pytest.mark.parametrize("when", ["before anything is made", "after the first"])
def test_when_it_dies_the_stage_runs_again(bench: Bench, how: Callable[[], None], when: str) -> None:
    """Before the first, the export that waited for it was never recorded, and the run passed."""
    ours = os.getpid()

    def die(workspace: Workspace) -> None:
        workspace.emit(Finding("copied", "warning", "it reads net.txt"))
        if os.getpid() != ours:
            how()

    early = when == "before anything is made"
    made = plan(first=die) if early else plan(die)
    outcome = bench.run(made)
    assert outcome.failed is None
    assert [stage.name for stage in outcome.stages] == ["source", "copied", "export", "prove"]
    assert bench.findings() == [
        "it reads net.txt", "the process that worked beside gave no answer: the stage was run again",
    ]  # fmt: skip
    assert bench.text(made, "early") == f"early {ours}"
    bench.run(made, "again")
    assert bench.findings() == ["it reads net.txt"]


def test_memory_that_does_not_suffice_for_two_may_suffice_for_one(bench: Bench) -> None:
    ours = os.getpid()

    def much(workspace: Workspace) -> None:
        if os.getpid() != ours:
            raise MemoryError

    outcome = bench.run(plan(much))
    assert outcome.failed is None
    assert len(bench.findings()) == 1


def test_an_error_that_no_stage_knows_is_raised_where_it_always_was(bench: Bench) -> None:
    def unknown(workspace: Workspace) -> None:
        raise LookupError("nobody expects this")

    with pytest.raises(LookupError, match="nobody expects this"):
        bench.run(plan(unknown))
    assert no_child_is_left()


def test_an_error_beside_it_ends_it(bench: Bench) -> None:
    def unknown(workspace: Workspace) -> None:
        raise LookupError("in another stage")

    started = time.monotonic()
    with pytest.raises(LookupError):
        bench.run(plan(lambda w: time.sleep(60), unknown))
    assert time.monotonic() - started < 30
    assert no_child_is_left()


@contextmanager
def another_thread() -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_process_with_threads_is_not_copied(bench: Bench) -> None:
    with another_thread():
        bench.run(plan())
    assert bench.text(plan(), "early") == f"early {os.getpid()}"


COMPUTED = """
import sys
import torch
from pathlib import Path
from pipeline.run.beside import begin

torch.set_num_threads(int(sys.argv[1]))
torch.randn(400, 400) @ torch.randn(400, 400)
torch.randn(1 << 20).exp()

def work(outlet):
    torch.set_num_threads(2)
    torch.randn(1 << 20).exp()
    return {"computed": True}

copy = begin(work, Path(sys.argv[2]), print)
if copy is not None:
    copy.wait()
    copy.end()
print(copy.answer if copy is not None else "none")
"""


@pytest.mark.parametrize(("threads", "answer"), [(1, "{'computed': True}"), (2, "none")])
def test_a_process_in_which_openmp_has_computed_is_not_copied(
    tmp_path: Path, threads: int, answer: str
) -> None:
    """A computation in the copy would wait for threads that are not there, for ever."""
    words = [sys.executable, "-c", COMPUTED, str(threads), str(tmp_path / "beside")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == answer, done.stderr


@pytest.mark.usefixtures("bench")
@pytest.mark.parametrize("where", ["os.fork", "pathlib.Path.mkdir"])
def test_where_nothing_can_be_forked_the_stage_runs_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    before = set(Path("/proc/self/fd").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(where, refuse)
        assert begin(lambda outlet: {}, tmp_path / "beside", lambda event: None) is None
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_nothing_is_copied_where_nobody_has_work_meanwhile(bench: Bench) -> None:
    """The exported graph is cached: another comparison needs the reference and nothing beside it."""
    bench.run(plan(), "first")
    again = plan(config="other")
    bench.run(again, "second")
    assert bench.text(again, "early") == f"early {os.getpid()}"


def test_it_is_not_worth_it_on_one_processor_or_where_one_thread_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert worth_it()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert not worth_it()
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    assert not worth_it()


@pytest.mark.usefixtures("bench")
def test_more_than_a_pipe_holds(tmp_path: Path) -> None:
    events: list[Event] = []

    def tell(outlet: Any) -> dict[str, Any]:
        for number in range(2000):
            outlet.tell(Finding("copied", "info", f"{number} " + "x" * 200))
        return {"done": True}

    copy = begin(tell, tmp_path / "beside", events.append)
    assert copy is not None
    copy.wait()
    assert copy.answer == {"done": True}
    assert len(events) == 2000
    copy.end()


def test_two_stages_run_at_a_time_for_the_view(bench: Bench) -> None:
    bench.run(plan(lambda w: time.sleep(LONG_S)))
    names = [(type(event).__name__, event.stage) for event in bench.events
             if isinstance(event, StageStarted | StageFinished)]  # fmt: skip
    assert names.index(("StageStarted", "export")) < names.index(("StageFinished", "copied"))


def stopped(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch, made: Plan, **limits: Any
) -> dict[str, Any]:
    """run.json of a run that its parent had to stop, and log.txt under "log"."""
    monkeypatch.setattr("pipeline.run.workers.worth_it", lambda: True)
    (done,) = run_points([made], [replace(options, **limits)], lambda index, event: None)[0]
    assert done is not None
    assert done.exit_code == 1
    (folder,) = options.out.glob("failed/*")
    record = json.loads((folder / "run.json").read_text())
    return {**record, "stage": done.row["stage"], "log": (folder / "log.txt").read_text()}


def hang(workspace: Workspace) -> None:
    os.write(1, b"loading shard 7\n")
    time.sleep(60)


@pytest.mark.parametrize("first", [True, False], ids=["export waits", "prove waits"])
def test_a_copy_that_hangs_is_the_stage_that_was_stopped(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """It was said to be the stage that waited for it, and what it had printed was lost."""
    found = stopped(options, monkeypatch, plan(first=hang) if first else plan(hang), timeout_s=1.0)
    assert found["stage"] == "copied"
    statuses = {stage["name"]: stage["status"] for stage in found["stages"]}
    assert statuses == {
        "source": "passed", "copied": "failed", "export": "not reached" if first else "passed", "prove": "not reached",
    }  # fmt: skip
    assert "loading shard 7" in found["log"].partition("== copied-beside")[2]


def test_a_stage_that_hangs_while_the_copy_has_ended_is_it(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stopped(options, monkeypatch, plan(export=hang), timeout_s=1.0)
    assert found["stage"] == "export"


def test_a_crash_of_the_stage_itself_is_its_own(options: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the copy first, and then where the stage is run again, by when another one has started."""
    found = stopped(options, monkeypatch, plan(lambda w: os._exit(7)))
    assert found["stage"] == "copied"
    assert found["reason"]["code"] == "PL-704"


def test_nobody_may_be_left_to_wait_for(bench: Bench) -> None:
    """A network's code may ignore SIGCHLD for the whole process."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        outcome = bench.run(plan())
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert outcome.failed is None


def test_a_disk_that_is_too_small_for_two_may_do_for_one(bench: Bench) -> None:
    ours = os.getpid()

    def full(workspace: Workspace) -> None:
        if os.getpid() != ours:
            raise OSError(errno.ENOSPC, "No space left on device")

    assert bench.run(plan(full)).failed is None
