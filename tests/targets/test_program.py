"""The program of a bundle, run as its user runs it: what passes, what fails, and what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.targets.program import program
from pipeline.targets.tensorrt.run_engine import compare

#: Gives back what stands in found.npz, which stands for the compiled model.
LOAD = """
def run(inputs):
    return dict(np.load(FOLDER / "found.npz", allow_pickle=False))
"""


def ran(folder: Path, wanted: dict[str, Any], found: dict[str, Any] | None) -> tuple[int, list[str]]:
    """Exit code and lines; nothing goes to stderr."""
    source = program(LOAD, title="nothing", needs="nothing", tolerance=1e-3, threads=1)
    (folder / "run.py").write_text(source)
    np.savez(folder / "inputs.npz", x=np.zeros(1))
    np.savez(folder / "expected.npz", **wanted)
    if found is not None:
        np.savez(folder / "found.npz", **found)
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", str(folder / "run.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def y(*values: complex, dtype: Any = np.float32) -> Any:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (y(1, 2), y(1, 2.0019)),
        (y(1, np.nan, np.inf, -np.inf), y(1, np.nan, np.inf, -np.inf)),
        (y(0, 0), y(0, 0)),
        (y(60000, -60000, dtype=np.float16), y(60000, -60000, dtype=np.float16)),
        (y(1 + 2j, dtype=np.complex64), y(1 + 2.001j, dtype=np.complex64)),
        (y(1, 2, dtype=np.int64), y(1, 2, dtype=np.int64)),
        (y(), y()),
    ],
)
def test_passes(tmp_path: Path, wanted: Any, found: Any) -> None:
    code, lines = ran(tmp_path, {"y": wanted}, {"y": found})
    assert (code, len(lines)) == (0, 1)
    assert lines[0].startswith("y: error ") and lines[0].endswith(", tolerance 0.001: passed")


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        (y(1, 2), y(1, 2.1), "error 0.05"),
        (y(1, np.inf), y(1, np.nan), "NaN 1 times, expected 0"),
        (y(1, np.nan), y(1, np.inf), "NaN 0 times, expected 1"),
        (y(1, np.inf), y(1, -np.inf), "infinity 0 times, expected 1"),
        (y(1, -np.inf), y(1, np.inf), "infinity 1 times, expected 0"),
        (y(1, np.nan), y(np.nan, 1), "NaN 1 times, expected 1, or elsewhere"),
        (y(1, 2), y(1, np.nan), "NaN 1 times"),
        (y(1, 2), y(1, np.inf), "infinity 1 times"),
        (y(1, np.inf), y(1, 2), "infinity 0 times"),
        (y(60000, -60000, dtype=np.float16), y(-60000, 60000, dtype=np.float16), "error 2"),
        (y(complex(1, np.inf), dtype=np.complex64), y(complex(1, -np.inf), dtype=np.complex64), "infinity"),
        (y(1, 2, dtype=np.int64), y(1, 3, dtype=np.int64), "error 0.5"),
        (y(1, 2), y(1, 2, dtype=np.float64), "float64 [2], expected float32 [2]"),
        (y(1, 2), y(1), "float32 [1], expected float32 [2]"),
    ],
)
def test_fails_with_a_sentence(tmp_path: Path, wanted: Any, found: Any, said: str) -> None:
    code, lines = ran(tmp_path, {"y": wanted, "z": y(1)}, {"y": found, "z": y(1)})
    assert code == 1
    assert said in lines[0] and lines[0].endswith("FAILED")
    assert lines[1].endswith("passed")
    assert lines[2:] == ["not what was expected: y"]


@pytest.mark.parametrize(
    ("wanted", "found", "passes"),
    [
        (y(1, np.nan, np.inf, -np.inf), y(1.0001, np.nan, np.inf, -np.inf), True),
        (y(1, np.inf), y(1, np.nan), False),
        (y(1, np.nan), y(1, np.inf), False),
        (y(1, np.inf), y(1, -np.inf), False),
        (y(1, 2), y(1, np.nan), False),
        (y(60000, dtype=np.float16), y(-60000, dtype=np.float16), False),
    ],
)
def test_the_program_for_an_engine_judges_alike(wanted: Any, found: Any, passes: bool) -> None:
    assert compare({"y": wanted}, {"y": found}, 1e-3) is passes
    assert not compare({}, {"y": found}, 1e-3)


def test_an_output_that_is_missing_fails(tmp_path: Path) -> None:
    code, lines = ran(tmp_path, {"y": y(1), "z": y(1)}, {"z": y(1)})
    assert code == 1
    assert lines[0] == "y: the model gives no such output: FAILED"
    assert lines[-1] == "not what was expected: y"


def test_nothing_to_compare_fails(tmp_path: Path) -> None:
    assert ran(tmp_path, {}, {"y": y(1)}) == (
        1,
        ["there is nothing to compare with: expected.npz holds no output"],
    )


def test_a_compiled_file_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    code, lines = ran(tmp_path, {"y": y(1)}, None)
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("the model cannot be run: FileNotFoundError: ")
    assert "found.npz" in lines[0]
