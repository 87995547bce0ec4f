"""Copies of the pipeline at another place, in both layouts; the folder goes on PYTHONPATH."""

from __future__ import annotations

import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def as_checkout(folder: Path) -> Path:
    """A tree as in the repository."""
    for name in ("pipeline", "conf", "models"):
        _copy(REPOSITORY / name, folder / name)
    return folder


def as_wheel(folder: Path) -> Path:
    """A tree as a wheel unpacks it: the shipped files are inside the package."""
    _copy(REPOSITORY / "pipeline", folder / "pipeline")
    for name in ("conf", "models"):
        _copy(REPOSITORY / name, folder / "pipeline" / name)
    return folder


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
