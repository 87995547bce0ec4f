"""Figures with their units, the same everywhere they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Final

KIB: Final = 1024
#: From here on whole minutes, whole hours are shown, seconds.
MINUTE: Final = 60.0
HOUR: Final = 3600.0
#: A margin beyond this says no more than "far inside", so it gets no more digits.
MARGIN_LIMIT: Final = 1000.0


def duration(seconds: float) -> str:
    """`0.3 s`, `12.4 s`, `2 min 05 s`, `1 h 02 min`.

    Args:
        seconds: at least 0.
    """
    if seconds < MINUTE - 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """`812 B`, `1.2 KiB`, `13.6 MiB`, `233 MiB`: three digits as a rule, binary units.

    Args:
        count: bytes.
    """
    if count < KIB:
        return f"{count:.0f} B"
    value, unit = count / KIB, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < KIB - 0.5:
            break
        value, unit = value / KIB, larger
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def milliseconds(value: float) -> str:
    """`0.034 ms`, `8.1 ms`, `119 ms`: two digits at least, three from ten on."""
    return f"{value:.0f} ms" if value >= 99.95 else f"{value:.3g} ms" if value >= 9.995 else f"{value:.2g} ms"


def figure(value: float | None) -> str:
    """An error or a tolerance: `3.2e-07`; `0` when nothing differs; `-` when there is none."""
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.1e}"


def margin(value: float | None, error: float | None = None) -> str:
    """How many times the error fits into the tolerance: `35x`, `1.2x`, `0.4x`; `exact` without an error."""
    if error == 0:
        return "exact"
    if value is None:
        return "-"
    if value >= MARGIN_LIMIT:
        return ">1000x"
    if value >= 10:
        return f"{value:.0f}x"
    return f"{value:.1f}x" if value >= 0.05 else f"{value:.1g}x"


def place(path: str | Path) -> str:
    """A path as one would type it from here: relative when it lies below the working directory."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def count(number: int, word: str, words: str | None = None) -> str:
    """`1 point`, `3 points`; `words` where the plural takes more than an s."""
    return f"{number} {word}" if number == 1 else f"{number} {words or word + 's'}"
