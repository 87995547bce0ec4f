"""Child processes of backends: limits, crashes, lies, and what they cannot do while they run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.errors import StageFailed
from pipeline.events import Finding, LogLine
from pipeline.targets.backend import TensorSpec
from pipeline.targets.child import Answer
from pipeline.targets.compiled import CompiledFiles, TargetOutputs
from pipeline.targets.jobs import compile_model, run_compiled
from pipeline.targets.messages import Timing
from pipeline.targets.sandbox import run_child
from pipeline.targets.stages import TargetRequest
from tests.targets import stand_ins

SPECS = (TensorSpec("in", "float32", (2, 3), (2, 3)),), (TensorSpec("out", "float32", (2, 3), (2, 3)),)
VALUES = {"in": np.arange(6, dtype=np.float32).reshape(2, 3)}


class Bench:
    """Drives one stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Any] = []
        self.model = folder / "model.onnx"
        self.model.write_bytes(b"not read by stand-ins")
        self.count = 0

    def request(self, backend: Any, **changes: Any) -> TargetRequest:
        options = {**backend.option_names, **changes.pop("options", {})}
        return TargetRequest(
            backend.name, backend, {}, "float32", options, changes.pop("timeout_s", 60.0),
            changes.pop("python", None), 1e-4, threads=1,
        )  # fmt: skip

    def fresh(self) -> Path:
        self.count += 1
        folder = self.folder / f"child{self.count}"
        folder.mkdir()
        return folder

    def compile(self, backend: Any, **changes: Any) -> tuple[CompiledFiles, Answer]:
        return compile_model(
            self.request(backend, **changes), self.model, SPECS, self.fresh(), self.events.append
        )

    def run(self, backend: Any, made: CompiledFiles, values: Any = VALUES) -> tuple[TargetOutputs, Answer]:
        return run_compiled(
            self.request(backend), made, {"seed0": values}, self.fresh(), self.events.append,
            timing=Timing(runs=5, seconds=5, warm_up_runs=1, warm_up_seconds=1),
        )  # fmt: skip

    def refused(self, backend: Any, **changes: Any) -> Any:
        with pytest.raises(StageFailed) as failed:
            self.compile(backend, **changes)
        return failed.value.reason

    @property
    def findings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Finding)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_good_backend_compiles_and_runs_in_two_processes(bench: Bench) -> None:
    made, answer = bench.compile(stand_ins.Doubling())
    assert made.size == len('{"factor": 2.0}')
    assert answer.peak_mib > 5
    outputs, ran = bench.run(stand_ins.Doubling(), made)
    np.testing.assert_array_equal(outputs.outputs["seed0"]["out"], VALUES["in"] * 2)
    assert ran.data["latency"]["runs"] == 5
    assert ran.data["latency"]["threads"] == 1
    assert 0 < ran.data["latency"]["median_ms"] <= ran.data["latency"]["p95_ms"]


def test_a_converter_that_hangs_is_killed_with_everything_that_it_started(bench: Bench) -> None:
    started = time.perf_counter()
    reason = bench.refused(stand_ins.Sleeping(), timeout_s=2)
    assert time.perf_counter() - started < 20
    assert reason.code == "PL-644"
    assert reason.message == "doubling did not compile the model within 2 s and was killed"
    assert reason.found == "its last words: reading the graph"
    assert reason.next_step == "Type target.timeout_s=60"
    pid = int((bench.folder / "child1" / "scratch" / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_converter_that_hangs_in_native_code_is_killed(bench: Bench) -> None:
    assert bench.refused(stand_ins.SleepingInC(), timeout_s=1).code == "PL-644"


def test_a_crash_is_a_failed_stage_with_its_last_words(bench: Bench) -> None:
    reason = bench.refused(stand_ins.Aborting())
    assert reason.code == "PL-645"
    assert reason.message == "doubling crashed while it should compile the model (signal SIGABRT)"
    assert "converting node conv1" in reason.found
    assert any(isinstance(one, LogLine) and one.text == "converting node conv1" for one in bench.events)


def test_a_segmentation_fault_while_it_loads_is_one_too(bench: Bench) -> None:
    made, _ = bench.compile(stand_ins.Doubling())
    with pytest.raises(StageFailed) as failed:
        bench.run(stand_ins.Crashing(), made)
    assert failed.value.reason.code == "PL-645"
    assert "signal SIGSEGV" in failed.value.reason.message
    assert "loading blob 7" in str(failed.value.reason.found)


@pytest.mark.parametrize(
    ("backend", "code", "words"),
    [
        (stand_ins.Leaving(), "PL-645", "exit code 0"),
        (stand_ins.Boasting(), "PL-643", "says that it wrote model.json, and it is missing or empty"),
        (stand_ins.Emptying(), "PL-643", "says that it wrote model.json, and it is missing or empty"),
        (stand_ins.Outside(), "PL-643", "lies outside its folder"),
        (stand_ins.Littering(), "PL-647", "changed the folder of the model file"),
        (stand_ins.Raising(), "PL-643", "RuntimeError: first line"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_success_is_not_believed(bench: Bench, backend: Any, code: str, words: str) -> None:
    reason = bench.refused(backend)
    assert reason.code == code
    assert words in reason.sentence()


def test_what_the_tool_names_is_named(bench: Bench) -> None:
    reason = bench.refused(stand_ins.Naming())
    assert (reason.code, reason.message) == ("PL-643", "doubling: no kernel for Det")
    assert reason.where == "node /head/Det, operator Det"


def test_the_log_is_looked_through(bench: Bench) -> None:
    _, answer = bench.compile(stand_ins.Grumbling())
    assert answer.suspicious == ("ERROR: layer foo is not supported, ignored",)
    assert bench.findings == ["doubling said: ERROR: layer foo is not supported, ignored"]


def test_homes_and_caches_are_in_its_scratch_and_its_folder_is_empty(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_PROXY", "http://user:password@proxy")
    made, _ = bench.compile(stand_ins.Telling())
    facts = made.compiled.facts
    scratch = facts["scratch"]
    assert facts["HOME"] == facts["TMPDIR"] == facts["cwd"] == scratch
    assert facts["XDG_CACHE_HOME"].startswith(scratch)
    assert facts["PIP_NO_INDEX"] == "1"
    assert facts["SECRET_PROXY"] == ""
    assert facts["left"] == ["model.json"]


def test_memory_is_the_childs_own(bench: Bench) -> None:
    _, hungry = bench.compile(stand_ins.Hungry())
    _, modest = bench.compile(stand_ins.Doubling())
    assert 280 < hungry.peak_mib - modest.peak_mib < 320


def test_a_corrupt_compiled_file_is_refused(bench: Bench) -> None:
    made, _ = bench.compile(stand_ins.Doubling())
    cut = CompiledFiles({"model.json": made.data["model.json"][:5]}, made.compiled, made.inputs, made.outputs)
    with pytest.raises(StageFailed) as failed:
        bench.run(stand_ins.Doubling(), cut)
    assert failed.value.reason.code == "PL-646"
    assert "model.json cannot be read" in failed.value.reason.message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "inputs seed0 are named"),
        ({"in": VALUES["in"], "more": VALUES["in"]}, "inputs seed0 are named in, more, the model takes in"),
        ({"in": VALUES["in"].astype(np.float64)}, "has the element type float64, expected float32"),
        ({"in": VALUES["in"].T}, "has the shape [3, 2], expected [2, 3]"),
        ({"in": VALUES["in"][0]}, "has the shape [3], expected 2 dimensions"),
    ],
)
def test_inputs_that_do_not_fit_never_reach_the_backend(values: Any, words: str) -> None:
    from pipeline.targets.backend import BackendError
    from pipeline.targets.execute import check_inputs

    with pytest.raises(BackendError) as failed:
        check_inputs(SPECS[0], values, "seed0")
    assert words in failed.value.sentence


def test_they_are_checked_where_the_backend_would_take_them(bench: Bench) -> None:
    made, _ = bench.compile(stand_ins.Doubling())
    with pytest.raises(StageFailed) as failed:
        bench.run(stand_ins.Doubling(), made, {"in": VALUES["in"].astype(np.float64)})
    assert failed.value.reason.code == "PL-646"
    assert "input in of seed0 has the element type float64" in failed.value.reason.message


def test_a_dynamic_axis_has_one_size_in_all_inputs() -> None:
    from pipeline.targets.backend import BackendError
    from pipeline.targets.execute import check_inputs

    specs = tuple(TensorSpec(name, "float32", ("batch", 3), (2, 3)) for name in ("one", "two"))
    check_inputs(specs, {"one": np.zeros((5, 3), np.float32), "two": np.zeros((5, 3), np.float32)}, "seed0")
    with pytest.raises(BackendError, match="two of seed0 has the shape"):
        check_inputs(
            specs, {"one": np.zeros((5, 3), np.float32), "two": np.zeros((4, 3), np.float32)}, "seed0"
        )


def test_outputs_under_other_names_are_refused(bench: Bench) -> None:
    made, _ = bench.compile(stand_ins.Doubling())
    with pytest.raises(StageFailed) as failed:
        bench.run(stand_ins.Renaming(), made)
    assert "gave the outputs out0 for inputs seed0, the model has out" in failed.value.reason.message


def gone(pid: int, seconds: float = 10.0) -> bool:
    ends = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


LEAVES_ONE = (
    "import os, subprocess, sys, pathlib, time;"
    "nap = subprocess.Popen([sys.executable, '-c', 'import os, time; os.setsid(); time.sleep(600)']);"
    "pathlib.Path('pid').write_text(str(nap.pid)); time.sleep(0.3); time.sleep({})"
)


def test_what_a_tool_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    result = run_child([sys.executable, "-c", LEAVES_ONE.format(0)], folder=tmp_path, timeout_s=60)
    assert (result.returncode, result.timed_out) == (0, False)
    assert gone(int((tmp_path / "scratch" / "pid").read_text()))


def test_everything_ends_when_we_are_killed(tmp_path: Path) -> None:
    """Nobody is left to kill anybody: the keeper sees it at its pipe."""
    command = [sys.executable, "-c", LEAVES_ONE.format(600)]
    code = (
        "import pathlib, sys; from pipeline.targets.sandbox import run_child; "
        f"run_child({command!r}, folder=pathlib.Path({str(tmp_path)!r}), timeout_s=600)"
    )
    ours = subprocess.Popen([sys.executable, "-c", code])
    file = tmp_path / "scratch" / "pid"
    while not (file.exists() and file.read_text()):
        assert ours.poll() is None
        time.sleep(0.05)
    ours.kill()
    ours.wait()
    assert gone(int(file.read_text()))


def test_a_command_is_started_without_a_network(tmp_path: Path, listener: int) -> None:
    if not has_namespaces():
        pytest.skip("this system gives no network namespace")
    code = f"import socket; socket.create_connection(('127.0.0.1', {listener}), timeout=5)"
    result = run_child([sys.executable, "-c", code], folder=tmp_path, timeout_s=60)
    assert result.returncode == 1
    assert "unreachable" in result.last_words


def test_an_exit_code_and_a_signal_are_the_commands_own(tmp_path: Path) -> None:
    for number, code in enumerate(("raise SystemExit(7)", "import os; os.kill(os.getpid(), 9)")):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = run_child([sys.executable, "-c", code], folder=folder, timeout_s=60)
        assert result.death() == ("exit code 7", "signal SIGKILL")[number]
    missing = run_child(["/no/such/program"], folder=tmp_path, timeout_s=60)
    assert missing.returncode == 127


# -- network and installation ----------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this machine that takes connections."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            yield port


def has_namespaces() -> bool:
    """Asked of the kernel, not of our code: the network alone, or with a user namespace."""
    code = "import ctypes; f = ctypes.CDLL(None).unshare; raise SystemExit(f(0x40000000) and f(0x50000000))"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("backend", [stand_ins.Connecting(), stand_ins.ConnectingNatively()])
def test_no_connection_can_be_opened(bench: Bench, listener: int, backend: Any) -> None:
    if not has_namespaces():
        pytest.skip("this system gives no network namespace")
    reason = bench.refused(backend, options={"port": listener})
    assert "refused: " in reason.message
    assert "unreachable" in reason.message.lower()


def test_the_record_says_that_a_namespace_was_in_force(bench: Bench) -> None:
    _, answer = bench.compile(stand_ins.Doubling())
    assert answer.isolation["network"] == ("namespace" if has_namespaces() else "open")


needs_unshare = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-r", "true"], capture_output=True, check=False).returncode != 0,
    reason="user namespaces are needed to take network namespaces away",
)


@needs_unshare
def test_without_a_namespace_python_is_refused_and_the_record_says_what_is_open(
    bench: Bench, listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a user namespace whose limit of network namespaces is 0 none is to be had."""
    wrapper = bench.folder / "python-without-namespaces"
    wrapper.write_text(
        "#!/bin/sh\nexec unshare -r sh -c 'echo 0 > /proc/sys/user/max_net_namespaces; exec \"$@\"' sh "
        f'"{sys.executable}" "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setattr("pipeline.targets.child.interpreter", lambda python: str(wrapper))
    _, answer = bench.compile(stand_ins.Doubling())
    assert answer.isolation["network"] == "open"
    assert "no namespace is to be had" in answer.isolation["why"]
    assert any("ran without a network namespace" in text for text in bench.findings)
    reason = bench.refused(stand_ins.Connecting(), options={"port": listener})
    assert "no connection may be opened while a backend runs" in reason.message


def test_nothing_can_be_installed(bench: Bench) -> None:
    """Neither by the pip on PATH nor by the interpreter's own."""
    made, _ = bench.compile(stand_ins.Installing())
    assert made.compiled.facts["pip"] != 0
    assert not made.compiled.facts["installed"]
    assert "doubling tried to install a package and was refused" in bench.findings


# -- another interpreter ---------------------------------------------------------------------------


def test_another_interpreter_runs_the_worker_without_our_packages(bench: Bench, tmp_path: Path) -> None:
    """A bare virtual environment: only the small modules of this room are imported there."""
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(other)], check=True)
    script = (
        "import pipeline.targets.worker, sys, json; "
        "print(json.dumps(sorted(n for n in sys.modules if n.startswith('pipeline'))))"
    )
    link = tmp_path / "import"
    link.mkdir()
    import pipeline

    (link / "pipeline").symlink_to(Path(pipeline.__file__).parent)
    done = subprocess.run(
        [str(other / "bin" / "python"), "-c", script], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(link)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert "pipeline.errors" not in loaded
    assert loaded == [
        "pipeline", "pipeline.targets", "pipeline.targets.backend", "pipeline.targets.keeper",
            "pipeline.targets.messages",
        "pipeline.targets.sandbox", "pipeline.targets.worker", "pipeline.version",
    ]  # fmt: skip
