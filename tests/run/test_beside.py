"""A stage at work in a copy of the process, beside those that come after it."""

from __future__ import annotations

import os
import signal
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
    share: Callable[[], None] = lambda: None,
    config: Any = None,
) -> Plan:
    """source -> copied -> export (takes what is made early) -> prove (takes what is made late)."""

    def both(workspace: Workspace) -> Verdict:
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
            shared=share,
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
    values: dict[str, str] = field(default_factory=dict)

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
    bench.run(plan(lambda w: os.write(1, b"printed by native code\n") and None))
    assert "printed by native code" in capfd.readouterr().out
    assert bench.marks == ["source", "copied", "export", "copied", "prove"]


def test_it_leaves_a_processor_to_the_others(bench: Bench) -> None:
    asked = bench.folder / "asked"
    bench.run(plan(share=lambda: asked.write_text(str(os.getpid())) and None))
    assert int(asked.read_text()) != os.getpid()


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
    def early(workspace: Workspace) -> Verdict:
        fail(workspace)
        raise AssertionError

    made = plan()
    steps = tuple(
        replace(stage, work=early) if isinstance(stage, Step) and stage.name == "copied" else stage
        for stage in made.stages
    )
    outcome = bench.run(replace(made, stages=steps))
    assert outcome.failed is not None and outcome.failed.name == "copied"
    assert [stage.name for stage in outcome.stages] == ["source", "copied"]


def test_a_failure_behind_it_waits_for_it_and_stands_where_it_went_well(bench: Bench) -> None:
    def broken(workspace: Workspace) -> None:
        raise StageFailed("PL-300", "the exporter failed")

    outcome = bench.run(plan(lambda w: time.sleep(LONG_S), broken))
    assert outcome.failed is not None and outcome.failed.name == "export"
    assert [stage.name for stage in outcome.stages] == ["source", "copied", "export"]


@pytest.mark.parametrize("how", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3)])
def test_when_it_dies_the_stage_runs_again(bench: Bench, how: Callable[[], None]) -> None:
    ours = os.getpid()

    def die(workspace: Workspace) -> None:
        if os.getpid() != ours:
            how()

    outcome = bench.run(plan(die))
    assert outcome.failed is None
    assert bench.findings() == ["the process that worked beside died: the stage was run again"]
    assert bench.text(plan(die), "early") == f"early {ours}"


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


def test_a_process_with_native_threads_is_not_copied(bench: Bench) -> None:
    """They are counted after the fork, before which OpenBLAS ends its own."""
    (bench.folder / "tasks" / "2").mkdir()
    bench.run(plan())
    assert bench.text(plan(), "early") == f"early {os.getpid()}"
    assert no_child_is_left()


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
            outlet.event(Finding("copied", "info", f"{number} " + "x" * 200))
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
