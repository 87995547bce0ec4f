"""The disk may begin early: what is asked of the kernel, and that it is only asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.graph import writeback
from pipeline.graph.writeback import EVERY_BYTES, Writeback, begin


def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []

    def note(descriptor: int, offset: int, length: int) -> bool:
        ranges.append((offset, length))
        return True

    monkeypatch.setattr(writeback, "begin", note)
    return ranges


def test_every_byte_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = asked(monkeypatch)
    follow = Writeback(3)
    for size in (10, EVERY_BYTES - 1, EVERY_BYTES + 5, EVERY_BYTES + 6, 3 * EVERY_BYTES):
        follow.written(size)
    follow.written(3 * EVERY_BYTES + 7, last=True)
    assert ranges == [
        (0, EVERY_BYTES + 5), (EVERY_BYTES + 5, 2 * EVERY_BYTES - 5), (3 * EVERY_BYTES, 7)
    ]  # fmt: skip


def test_nothing_is_asked_for_an_empty_file(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = asked(monkeypatch)
    Writeback(3).written(0, last=True)
    assert ranges == []


def test_the_kernel_takes_it_and_the_file_is_as_it_was(tmp_path: Path) -> None:
    data = bytes(range(256)) * 64
    path = tmp_path / "x"
    with path.open("xb", buffering=0) as stream:
        stream.write(data)
        assert begin(stream.fileno(), 0, len(data))
        assert not begin(stream.fileno(), -1, 5), "the kernel's refusal is not reported"
    assert path.read_bytes() == data


def test_a_system_that_cannot_be_asked_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writeback, "_sync_file_range", lambda: None)
    assert not begin(1, 0, 5)
