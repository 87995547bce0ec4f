"""Figures with units."""

import pytest

from pipeline.report import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (1.24, "1.2 s"), (59.9, "59.9 s"), (59.97, "1 min 00 s"), (65.4, "1 min 05 s"),
        (3599.6, "1 h 00 min"), (3725, "1 h 02 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (14_260_633, "13.6 MiB"), (244_403_000, "233 MiB"),
        (1023.7 * 2**20, "1.0 GiB"), (1.5 * 2**30, "1.5 GiB"), (3000 * 2**40, "3000 TiB"),
    ],
)  # fmt: skip
def test_sizes(count: float, text: str) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (34.9, 1e-7, "35x"), (1.24, 1e-7, "1.2x"), (0.42, 1e-2, "0.4x"), (0.0031, 1.0, "0.003x"),
        (1e6, 0.0, "exact"), (1e6, 1e-30, ">1000x"), (None, 0.0, "exact"), (None, None, "-"),
    ],
)  # fmt: skip
def test_margins(value: float | None, error: float | None, text: str) -> None:
    assert units.margin(value, error) == text


def test_figures() -> None:
    assert [units.figure(value) for value in (3.21e-7, 0.0, None)] == ["3.2e-07", "0", "-"]


def test_counts() -> None:
    assert [units.count(number, "point") for number in (0, 1, 2)] == ["0 points", "1 point", "2 points"]
