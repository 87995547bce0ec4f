"""Nothing lost: kills at many moments, a full disk, a read-only folder, a clock that runs back.

After each fault: no directory claims success without being whole, no partial file stands under a
final name, no lock is stale, the next run succeeds, and earlier runs are untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.events import StageStarted
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions
from pipeline.run.points import run_points
from pipeline.run.verify import verify_directory
from pipeline.run.workers import Workers
from pipeline.stage import Verdict, Workspace
from tests.run.conftest import Text, make_plan, stages, write_model
from tests.run.permissions import as_anybody


def slow_model(workspace: Workspace) -> Verdict:
    """Writes for about 30 ms, so that kills fall into the write."""
    path = workspace.file("model.onnx", "model")
    with path.open("wb") as stream:
        for piece in range(30):
            stream.write(bytes([piece]) * 65536)
            stream.flush()
            time.sleep(0.001)
    return Verdict(recorded={"opsets": {"": 11}, "ir_version": 6})


def pause(workspace: Workspace) -> Text:
    time.sleep(0.02)
    return Text(workspace.get("network") + "!")


def plan() -> Plan:
    return make_plan("killed-op11-00000001", steps=stages(middle=pause, write=slow_model))


def digest_of(folder: Path) -> str:
    """Every name and byte of a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(str(path.relative_to(folder)).encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def settled(options: RunOptions, earlier: str) -> None:
    """The invariants after a fault, then a run that must succeed."""
    for folder in options.out.iterdir():
        if not folder.name.startswith(".") and folder.name not in ("failed", "damaged", "sweeps"):
            assert verify_directory(folder) == [], folder
    (done,) = run_points([plan()], [replace(options, wait_s=10)], lambda index, event: None)[0]
    assert done is not None
    assert done.exit_code == 0
    assert verify_directory(Path(done.directory or "")) == []
    assert digest_of(options.out / "earlier-op11-00000009") == earlier
    assert list((options.out / ".making").iterdir()) == []
    assert not any((options.out / "failed").iterdir()) if (options.out / "failed").is_dir() else True


@pytest.fixture
def earlier(options: RunOptions) -> str:
    """A finished run beside, which no fault may touch."""
    run_points([make_plan("earlier-op11-00000009")], [options], lambda index, event: None)
    return digest_of(options.out / "earlier-op11-00000009")


def kill_and_look(options: RunOptions, earlier: str, delay: float, whom: str) -> str:
    """Run in a child process, kill it (or its worker) after `delay` seconds; where it was hit."""
    ready, go = os.pipe()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        stage = options.out / "stage"

        def note(index: int, event: object) -> None:
            if isinstance(event, StageStarted):
                stage.write_text(event.stage)

        start = Workers.start

        def started(workers: Workers) -> None:
            start(workers)
            os.write(go, f"{workers._child}\n".encode())

        Workers.start = started  # type: ignore[method-assign]
        try:
            run_points([plan()], [options], note)
        finally:
            os._exit(0)
    os.close(go)
    worker = int(os.read(ready, 32).split()[0])
    os.close(ready)
    time.sleep(delay)
    where = (options.out / "stage").read_text() if (options.out / "stage").exists() else "start"
    try:
        os.kill(child if whom == "parent" else worker, signal.SIGKILL)
    except ProcessLookupError:
        where = "after the end"
    os.waitpid(child, 0)
    (options.out / "stage").unlink(missing_ok=True)
    if (options.out / "killed-op11-00000001").exists():
        where = "after the end"
        assert verify_directory(options.out / "killed-op11-00000001") == []
    settled(options, earlier)
    for name in ("killed-op11-00000001",):
        subprocess.run(["rm", "-rf", str(options.out / name)], check=True)
    return where


@pytest.mark.parametrize("whom", ["parent", "worker"])
@pytest.mark.parametrize("tries", [12, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_killed_at_many_moments(options: RunOptions, earlier: str, whom: str, tries: int) -> None:
    """SIGKILL for the parent, and apart from it the worker, anywhere between fork and rename."""
    chance = random.Random(7)
    hits: Counter[str] = Counter()
    for _ in range(tries):
        # A fresh cache, so that the stage in the middle really runs.
        fresh = replace(options, cache_dir=options.cache_dir / str(chance.random()))
        hits[kill_and_look(fresh, earlier, chance.uniform(0.0, 0.14), whom)] += 1
    print(f"\nkilled {whom} {tries} times: {dict(hits)}")
    assert tries - hits["after the end"] >= tries // 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB (needs root, as CI has; a quota by file size otherwise)."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    if done.returncode:
        pytest.skip("mounting a small tmpfs needs root: the full disk was not tried on this machine")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("pieces", [1, 4, 8, 12, 15])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    options: RunOptions, small_disk: Path, pieces: int
) -> None:
    """The disk is filled up beforehand, so that another write is the one that fails."""
    (small_disk / "filler").write_bytes(b"x" * 65536 * pieces)
    full = replace(options, out=small_disk / "outputs")
    (done,) = run_points([make_plan(steps=stages(write=write_model))], [full], lambda index, event: None)[0]
    assert done is not None
    assert done.exit_code == 1
    assert done.reason is not None
    assert done.reason["code"] == "PL-703"
    assert not (full.out / "fake-op11-00000000").exists()
    assert list((full.out / ".making").iterdir()) == []
    (small_disk / "filler").unlink()
    for path in (full.out / "failed").rglob("model.onnx"):
        path.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    (again,) = run_points([make_plan()], [full], lambda index, event: None)[0]
    assert again is not None
    assert again.exit_code == 0


def test_a_read_only_outputs_folder_is_refused(options: RunOptions, tmp_path: Path) -> None:
    """A read-only bind mount stops root too."""
    place = tmp_path / "ro"
    place.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(place)], check=False
    ).returncode
    if not mounted:
        place.chmod(0o555)
    try:
        (done,) = run_points(
            [make_plan()], [replace(options, out=place / "outputs")], lambda index, event: None
        )[0]
        assert done is not None
        assert done.exit_code == 2
        assert done.reason is not None
        assert done.reason["code"] == "PL-701"
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)


def test_an_outputs_folder_that_became_read_only_is_refused(options: RunOptions) -> None:
    """Its own folders may still be written: the directory would be made, and could not get its name."""
    run_points([make_plan("earlier-op11-00000000")], [options], lambda index, event: None)
    options.out.chmod(0o555)
    try:
        with as_anybody():
            (done,) = run_points([make_plan()], [options], lambda index, event: None)[0]
    finally:
        options.out.chmod(0o755)
    assert done is not None
    assert done.reason is not None
    assert (done.exit_code, done.reason["code"]) == (2, "PL-701")


def test_a_clock_that_runs_backwards_changes_nothing(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(10**6, 0, -1))
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))
    monkeypatch.setattr(time, "time_ns", lambda: next(hours) * 10**9)
    for _ in range(2):
        (done,) = run_points([make_plan()], [options], lambda index, event: None)[0]
        assert done is not None
        assert done.exit_code == 0
    record = json.loads((options.out / "fake-op11-00000000" / "run.json").read_text())
    assert record["seconds"] >= 0
    assert all(stage["seconds"] >= 0 for stage in record["stages"])


def test_a_cache_that_cannot_be_written_is_a_warning(options: RunOptions, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the cache's folder should be")
    events: list[object] = []
    (done,) = run_points([make_plan()], [options], lambda index, event: events.append(event))[0]
    assert done is not None
    assert done.exit_code == 0
    record = json.loads((Path(done.directory or "") / "run.json").read_text())
    assert [warning["stage"] for warning in record["warnings"]] == ["middle"]
