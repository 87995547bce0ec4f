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


def without_runtime(path: Path, operator: str) -> Refused:
    """PL-243: the file is sound, and holds an operator that only its maker can run."""
    return Refused(
        "PL-243", f"no runtime here has the operator {operator}, so nothing can be compared with the file",
        where=path.name, expected="operators of ONNX, or functions made of them",
        next_step="Put a function of that name into the file, or export the network without the operator",
    )  # fmt: skip
