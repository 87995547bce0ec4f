"""How a ready .onnx file is refused: damaged, or not safe to open."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import Refused


def damaged(path: Path, found: str) -> Refused:
    """PL-241 with what was found."""
    return Refused(
        "PL-241", "the .onnx file is damaged, or no ONNX model", where=path.name, found=found,
        next_step='Try python -c "import onnx; onnx.checker.check_model(\'FILE\')" on it, or save it anew',
    )  # fmt: skip


def unsafe(path: Path, message: str, found: str, expected: str | None = None) -> Refused:
    """PL-242 with what was found."""
    return Refused("PL-242", message, where=path.name, found=found, expected=expected)
