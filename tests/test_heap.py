"""Freed memory stays in a worker while its network computes, and goes back with the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import heap

#: Fills 64 MiB in pieces as large as a layer's activations, frees them, and says what is still resident.
MEASURE = """
import ctypes
from pipeline.heap import give_freed_memory_back, keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def fill_and_free():
    pieces = [libc.malloc(4 << 20) for _ in range(16)]
    for piece in pieces:
        ctypes.memset(piece, 1, 4 << 20)
    full = resident()
    for piece in pieces:
        libc.free(piece)
    return full
"""


def run(code: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", MEASURE + code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_freed_memory_stays_until_it_is_given_back() -> None:
    kept, stayed, gone, stays_away = run(
        "print(keep_freed_memory())\n"
        "before = resident()\n"
        "fill_and_free()\n"
        "print(resident() - before > 60 << 20)\n"
        "give_freed_memory_back()\n"
        "print(resident() - before < 8 << 20)\n"
        "fill_and_free()\n"
        "print(resident() - before < 8 << 20)\n"
    )
    assert (kept, stayed, gone, stays_away) == ("True", "True", "True", "True")


def test_large_arrays_go_back_at_once_all_the_same() -> None:
    assert run(
        "keep_freed_memory()\n"
        "before = resident()\n"
        "piece = libc.malloc(64 << 20)\n"
        "ctypes.memset(piece, 1, 64 << 20)\n"
        "print(resident() - before > 60 << 20)\n"
        "libc.free(piece)\n"
        "print(resident() - before < 8 << 20)\n"
    ) == ["True", "True"]


def test_where_nothing_is_kept_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_kept", False)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: pytest.fail("the C library was asked"))
    heap.give_freed_memory_back()


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_kept", False)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert not heap.keep_freed_memory()
    heap.give_freed_memory_back()


@pytest.mark.parametrize(("private", "expected"), [("true", "kept"), ("false", "left alone")])
def test_only_a_worker_that_may_keeps_it(private: str, expected: str, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    wrapper = (
        "import sys\nimport pipeline.heap as heap\n"
        f"heap.keep_freed_memory = lambda: open({str(asked)!r}, 'w').close()\n"
        "from pipeline.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", wrapper, "model=mynet", f"private_apis={private}", f"out={tmp_path / 'out'}",
         "cache.mode=none", "parity.seeds=1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("kept" if asked.exists() else "left alone") == expected
