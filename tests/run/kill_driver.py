"""Kills real runs of a small network at chosen moments and looks at what they leave.

A process of its own, started by test_kills.py: it imports torch once and forks, so that a run takes a
fraction of a second. Whoever is killed has computed nothing in this process before the fork.

    python -m tests.run.kill_driver FOLDER process|child|copy TRIES_IN_EACH_STAGE TRIES_IN_THE_WRITE
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from pipeline.config.compose import compose
from pipeline.events import Event, StageStarted
from pipeline.plan import build_plan, run_options
from pipeline.run import runner, workers
from pipeline.run.cache import Cache, CacheEntry
from pipeline.run.directory import RunDirectory
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions
from pipeline.run.points import run_points
from pipeline.run.verify import verify_directory

#: Every stage is stretched by this at its begin and its end, seconds: some take less than a wake-up.
STRETCH_S: Final = 0.004
#: Modules whose lines are counted where the moment is to lie inside the write or the rename.
WRITING: Final = {
    "child": ("pipeline/graph/assemble.py", "pipeline/run/cache.py"),
    "process": ("pipeline/run/directory.py", "pipeline/run/cache.py"),
}
PUBLISH: Final = "publish"


class Stretched:
    """A stage that takes a little longer."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)

    def requires(self, workspace: Any) -> None:
        time.sleep(STRETCH_S)
        self._stage.requires(workspace)

    def ensures(self, workspace: Any) -> None:
        self._stage.ensures(workspace)
        time.sleep(STRETCH_S)


@dataclass(frozen=True)
class Moment:
    """When to kill: in a stage after a while, or at a line of the code that writes."""

    stage: str = ""
    after: float = 0.0
    line: int = 0


class Lines:
    """Counts the lines of some modules that run, and kills this process at one of them."""

    def __init__(self, files: tuple[str, ...], fatal: int, report: Callable[[int], None]) -> None:
        self.files, self.fatal, self.report, self.count = files, fatal, report, 0

    def __enter__(self) -> None:
        sys.settrace(self.enter)

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)
        self.report(self.count)

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self.line if frame.f_code.co_filename.endswith(self.files) else None

    def line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.line


class Driver:
    """One folder with an earlier run in it, and a run that is killed again and again."""

    def __init__(self, folder: Path, whom: str) -> None:
        self.folder, self.whom = folder, whom
        self.out = folder / "outputs"
        self.chance = random.Random(f"{whom} 7")
        self.trial = 0
        config = compose(["model=mynet", "export.opset=13", f"out={self.out}", "wait_s=20"])
        plan = build_plan(config)
        self.plan = replace(plan, stages=tuple(map(Stretched, plan.stages)))
        self.options = run_options(config)
        earlier = build_plan(compose(["model=mynet", "export.opset=11", f"out={self.out}"]))
        self.run_whole(earlier, replace(self.options, cache_mode="none"))
        self.earlier = self.out / earlier.label
        self.earlier_digest = digest_of(self.earlier)

    # -- running ---------------------------------------------------------------------------------

    def fork(self, body: Callable[[int], None]) -> tuple[int, Any]:
        """A child that writes lines to us; its pid, and the stream of what it says."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            code = 9
            try:
                os.close(reading)
                body(writing)
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        return child, os.fdopen(reading, "r")

    def run_whole(self, plan: Plan, options: RunOptions) -> None:
        def body(writing: int) -> None:
            (done,) = run_points([plan], [options], lambda index, event: None)[0]
            assert done is not None and done.exit_code == 0, done

        child, _ = self.fork(body)
        assert os.waitpid(child, 0)[1] == 0

    def run_and_kill(self, moment: Moment) -> tuple[str, int]:
        """Where the process was when somebody was killed, and how many lines were counted."""
        self.trial += 1
        options = replace(self.options, cache_dir=self.folder / f"cache{self.trial}")

        def body(writing: int) -> None:
            def say(text: str) -> None:
                os.write(writing, f"{text}\n".encode())

            def note(index: int, event: Event) -> None:
                if isinstance(event, StageStarted):
                    say(f"stage {event.stage}")

            self.patch(say, moment)
            run_points([self.plan], [options], note)

        child, said = self.fork(body)
        victims = {"process": child}
        where, lines = "start", 0
        killed = False
        for text in said:
            word, _, rest = text.strip().partition(" ")
            if word == "worker":
                victims["child"] = int(rest)
            elif word == "copy":
                victims["copy"] = int(rest)
            elif word == "lines":
                lines += int(rest)
            elif word == "stage" and not killed:
                where = rest
            if not killed and moment.stage in (where, word) and moment.stage and self.whom in victims:
                time.sleep(moment.after)
                try:
                    os.kill(victims[self.whom], signal.SIGKILL)
                except ProcessLookupError:
                    where = "after the end"
                killed = True
        os.waitpid(child, 0)
        for process in victims.values():
            wait_until_gone(process)
        if self.whom == "copy":
            where = self.without_its_copy()
        if moment.line:
            where = "write and rename"
        self.settled(options)
        return where, lines

    def patch(self, say: Callable[[str], None], moment: Moment) -> None:
        """In the process: tell about the worker, and watch the lines that write."""
        start, work, publish = workers.Workers.start, workers.work_in, RunDirectory.publish
        begin = runner.begin

        def started(self_: Any) -> None:
            start(self_)
            say(f"worker {self_._child}")

        def begun(*args: Any) -> Any:
            copy = begin(*args)
            if copy is not None:
                say(f"copy {copy._process}")
            return copy

        def worked(*args: Any, **options: Any) -> Any:
            if self.whom != "child":
                return work(*args, **options)
            with Lines(WRITING["child"], moment.line, lambda count: say(f"lines {count}")):
                return work(*args, **options)

        def published(*args: Any) -> Any:
            say(f"stage {PUBLISH}")
            if self.whom != "process":
                return publish(*args)
            with Lines(WRITING["process"], moment.line, lambda count: say(f"lines {count}")):
                return publish(*args)

        workers.Workers.start = started  # type: ignore[method-assign]
        workers.work_in = worked
        runner.begin = begun
        RunDirectory.publish = published  # type: ignore[method-assign]

    # -- looking ---------------------------------------------------------------------------------

    def settled(self, options: RunOptions) -> None:
        """Nothing claims success without being whole, and the next run succeeds."""
        for folder in self.out.iterdir():
            if not folder.name.startswith(".") and folder.name != "failed":
                assert verify_directory(folder) == [], folder
        for folder in self.out.glob("failed/*"):
            assert verify_record_of(folder), folder
        cache = Cache(options.cache_dir)
        for entry in cache.entries():
            assert isinstance(entry, CacheEntry) and cache.check(entry) is None, entry
        self.run_whole(self.plan, options)
        made = self.out / self.plan.label
        assert verify_directory(made) == []
        assert digest_of(self.earlier) == self.earlier_digest
        assert list((self.out / ".making").iterdir()) == []
        assert list((self.out / ".locks").iterdir()) == []
        assert list(self.out.glob("failed/*")) == []
        shutil.rmtree(made)
        shutil.rmtree(options.cache_dir)

    def without_its_copy(self) -> str:
        """Whose copy was killed: the run is whole, the same as ever, and says so."""
        made = self.out / self.plan.label
        assert verify_directory(made) == []
        assert (made / "manifest.json").read_bytes() == self.unharmed
        record = json.loads((made / "run.json").read_text())
        died = [warning for warning in record["warnings"] if "gave no answer" in warning["message"]]
        assert len(died) <= 1
        return "copy" if died else "after its end"

    def seconds(self) -> dict[str, float]:
        """How long each stage takes."""
        options = replace(self.options, cache_mode="none")
        self.run_whole(self.plan, options)
        record = json.loads((self.out / self.plan.label / "run.json").read_text())
        shutil.rmtree(self.out / self.plan.label)
        return {stage["name"]: stage["seconds"] for stage in record["stages"]}

    def drive(self, in_each_stage: int, in_the_write: int) -> Counter[str]:
        hits: Counter[str] = Counter()
        if self.whom == "copy":
            seconds = self.seconds()["reference"]
            self.run_whole(self.plan, replace(self.options, cache_mode="none"))
            self.unharmed = (self.out / self.plan.label / "manifest.json").read_bytes()
            shutil.rmtree(self.out / self.plan.label)
            for number in range(in_each_stage):  # the first at once: nothing has been handed over
                hits[self.run_and_kill(Moment("copy", number * seconds / in_each_stage))[0]] += 1
            return hits
        for stage, seconds in self.seconds().items():
            tries = 0
            # A kill may come late, and then hits the stage behind it: it is counted there.
            while hits[stage] < in_each_stage and tries < 3 * in_each_stage:
                tries += 1
                hits[self.run_and_kill(Moment(stage, self.chance.uniform(0.0, 0.8 * seconds)))[0]] += 1
        where, lines = self.run_and_kill(Moment())
        assert where == PUBLISH and lines > in_the_write, (where, lines)
        for number in range(in_the_write):
            hits[self.run_and_kill(Moment(line=1 + number * lines // in_the_write))[0]] += 1
        return hits


def verify_record_of(folder: Path) -> bool:
    """A failed run's record is there and says failed; no partial file passes for a model of a whole run."""
    record = json.loads((folder / "run.json").read_text())
    return record["status"] == "failed" and not (folder / "manifest.json").exists()


def wait_until_gone(pid: int) -> None:
    """The kernel ends a worker whose parent has died; nobody but init may reap it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        time.sleep(0.001)
    raise AssertionError(f"worker {pid} outlives its parent")


def digest_of(folder: Path) -> str:
    """Every name and byte of a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(str(path.relative_to(folder)).encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def main(folder: str, whom: str, in_each_stage: str, in_the_write: str) -> None:
    """Print the number of kills by where they hit, as JSON."""
    import onnx  # noqa: F401 - imported before the forks, as a sweep's server imports torch
    import torch  # noqa: F401

    gc.freeze()
    hits = Driver(Path(folder), whom).drive(int(in_each_stage), int(in_the_write))
    print(json.dumps(hits))


if __name__ == "__main__":
    main(*sys.argv[1:])
