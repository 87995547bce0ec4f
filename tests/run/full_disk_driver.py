"""Runs a small network on a disk that is full after so many bytes, for many such numbers.

A process of its own in a mount namespace of its own, started by test_full_disk.py:

    unshare -rm python -m tests.run.full_disk_driver FOLDER everything|outputs|cache COUNT
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pipeline.config.compose import compose
from pipeline.plan import build_plan, run_options
from pipeline.run.cache import Cache, CacheEntry
from pipeline.run.points import run_points
from pipeline.run.verify import verify_directory

PAGE: Final = 4096


def mount(folder: Path, size: int, *, again: bool = False) -> None:
    how = f"{'remount,' if again else ''}size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)], check=True)


def used(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


class Driver:
    """A folder on a small disk, and one on a large one."""

    def __init__(self, folder: Path, what: str) -> None:
        self.disk, self.elsewhere, self.what = folder / "disk", folder / "elsewhere", what
        self.disk.mkdir()
        self.elsewhere.mkdir()
        self.plan = build_plan(compose(["model=mynet", "export.opset=13"]))
        options = run_options(compose(["model=mynet"]))
        places = {
            name: self.disk if what in ("everything", name) else self.elsewhere
            for name in ("outputs", "cache")
        }
        self.options = replace(
            options, out=places["outputs"] / "outputs", cache_dir=places["cache"] / "cache"
        )

    def run(self) -> dict[str, Any]:
        """What a run comes to, made in a child process."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            code = 9
            try:
                if self.what == "everything":
                    os.environ["TMPDIR"] = tempfile.tempdir = str(self.disk)
                (done,) = run_points([self.plan], [self.options], lambda index, event: None)[0]
                assert done is not None
                reason = (done.reason or {}).get("code")
                os.write(writing, json.dumps({"code": done.exit_code, "reason": reason}).encode())
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as stream:
            told: dict[str, Any] = json.loads(stream.read())
        assert os.waitpid(child, 0)[1] == 0
        return told

    def clear(self) -> None:
        for place in (self.disk, self.elsewhere):
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def needed(self) -> int:
        """Bytes that a run takes on the disk when all is done."""
        mount(self.disk, 1 << 30)
        assert self.run()["code"] == 0
        total = used(self.disk)
        self.clear()
        return total

    def one(self, size: int) -> str:
        mount(self.disk, size, again=True)
        told = self.run()
        out, final = self.options.out, self.options.out / self.plan.label
        if told["code"] == 0:
            assert verify_directory(final) == []
        else:
            expected = {1: ("PL-703",), 2: ("PL-701",)}
            assert told["reason"] in expected[told["code"]], told
            assert not final.exists()
        for folder in (".making", ".locks"):
            assert not (out / folder).exists() or list((out / folder).iterdir()) == []
        for record in out.glob("failed/*/run.json"):
            assert json.loads(record.read_text())["status"] == "failed"
        cache = Cache(self.options.cache_dir)
        for entry in cache.entries():
            assert isinstance(entry, CacheEntry) and cache.check(entry) is None
        mount(self.disk, 1 << 30, again=True)
        assert self.run()["code"] == 0, "with room again"
        assert verify_directory(final) == []
        self.clear()
        return f"{told['code']} {told['reason'] or 'made'}"


def main(folder: str, what: str, count: str) -> None:
    """Print how many runs ended how, as JSON."""
    import onnx  # noqa: F401 - imported before the forks
    import torch  # noqa: F401

    gc.freeze()
    driver = Driver(Path(folder), what)
    most = driver.needed() + 32 * PAGE  # while it works it needs a little more
    ends: Counter[str] = Counter()
    for number in range(int(count)):
        ends[driver.one(PAGE + number * most // int(count) // PAGE * PAGE)] += 1
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
