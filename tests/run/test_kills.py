"""SIGKILL for the process and, apart from it, the child, in real runs: in every stage, the write and the rename.

`kill_driver.py` looks after each kill: whole directories only, no damaged cache entry, no lock or folder
left over, the next run succeeds, an earlier run is untouched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    "source", "inputs", "reference", "export", "simplify", "check", "assemble", "contract", "parity", "evidence",
}  # fmt: skip
#: 10 stages x 14 and 60 lines are 200 kills.
SLOW = [pytest.mark.slow, pytest.mark.timeout(3000)]
MANY = [pytest.param(whom, 14, 60, marks=SLOW) for whom in ("process", "child")]


@pytest.mark.parametrize(("whom", "in_each_stage", "in_the_write"), [("child", 1, 4), *MANY])
def test_killed_in_every_stage_in_the_write_and_in_the_rename(
    tmp_path: Path, whom: str, in_each_stage: int, in_the_write: int
) -> None:
    words = [sys.executable, "-m", "tests.run.kill_driver", str(tmp_path), whom]
    done = subprocess.run(
        [*words, str(in_each_stage), str(in_the_write)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    hits: dict[str, int] = json.loads(done.stdout)
    total = sum(number for where, number in hits.items() if where != "after the end")
    print(f"\nkilled the {whom} {total} times: {hits}")
    assert {stage for stage in STAGES if hits.get(stage, 0) >= in_each_stage} == STAGES
    assert hits["write and rename"] >= in_the_write
    assert total >= len(STAGES) * in_each_stage + in_the_write


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: nothing is copied")
@pytest.mark.parametrize("tries", [3, pytest.param(40, marks=SLOW)])
def test_a_copy_that_is_killed_costs_only_time(tmp_path: Path, tries: int) -> None:
    """The driver finds the run whole, the same as ever, and makes sure that nobody outlives it."""
    words = [sys.executable, "-m", "tests.run.kill_driver", str(tmp_path), "copy", str(tries), "0"]
    done = subprocess.run(
        words,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr
    hits: dict[str, int] = json.loads(done.stdout)
    print(f"\nkilled the copy: {hits}")
    assert sum(hits.values()) == tries
    assert hits["copy"] >= tries // 3
