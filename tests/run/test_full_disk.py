"""The disk is full at this write or at that one: one sentence, nothing that claims success, and the next run works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Root may mount by itself; others may in a user namespace of their own, where the system allows one.
UNSHARE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
MANY = pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])


@pytest.fixture
def namespace(tmp_path: Path) -> list[str]:
    """The words before a command that may mount file systems, which nobody else sees."""
    probe = tmp_path / "probe"
    probe.mkdir()
    words = [*UNSHARE, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(probe)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("neither root nor a user namespace: a full disk cannot be made here")
    return UNSHARE


@pytest.mark.parametrize("count", [3, MANY])
@pytest.mark.parametrize("what", ["everything", "outputs", "cache"])
def test_the_disk_is_full_at_each_write(namespace: list[str], tmp_path: Path, what: str, count: int) -> None:
    words = [*namespace, sys.executable, "-m", "tests.run.full_disk_driver", str(tmp_path), what, str(count)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ends: dict[str, int] = json.loads(done.stdout)
    print(f"\n{count} disks too small for {what}: {ends}")
    assert sum(ends.values()) == count
    if what == "cache":
        assert ends == {"0 made": count}, "the cache is a convenience"
    else:
        assert ends.get("1 PL-703", 0) + ends.get("2 PL-701", 0) >= count // 2


def test_through_the_command_line(namespace: list[str], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=1m tmpfs {small} && "$@"; code=$?; ls -A {small}/failed; exit $code'
    run = [
        sys.executable,
        "-m",
        "pipeline",
        "model=squeezenet1_1",
        f"out={small}",
        f"cache.dir={tmp_path}/cache",
    ]
    done = subprocess.run(
        [*namespace, "sh", "-c", script, "sh", *run], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "PL-703" in done.stderr and "out=" in done.stderr and "Traceback" not in done.stderr
