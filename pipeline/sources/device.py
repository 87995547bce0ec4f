"""Whether the device that a run asks for is there, seen without torch where that is possible."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import Refused


def refuse_missing_device(device: str, *, dev: Path = Path("/dev")) -> None:
    """Refuse cuda where the system has no GPU device files, or hides them all.

    Args:
        device: "cpu" or "cuda".
        dev: the folder of the device files.

    Raises:
        Refused: there is no GPU.
    """
    if device != "cuda":
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        raise _missing(f"CUDA_VISIBLE_DEVICES={visible!r}, which hides every GPU")
    # NVIDIA's driver, WSL's, and AMD's (whose torch calls its devices cuda too).
    found = any(dev.glob("nvidia[0-9]*")) or (dev / "dxg").exists() or (dev / "kfd").exists()
    if not found:
        raise _missing("no GPU on this machine")


def refuse_unusable_device(device: str) -> None:
    """The same, as torch sees it. Imports torch.

    Raises:
        Refused: this torch cannot use the GPU.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        found = "a torch built without CUDA" if torch.version.cuda is None else "no GPU that torch can use"
        raise _missing(found)


def _missing(found: str) -> Refused:
    return Refused(
        "PL-232", "device=cuda needs a GPU", where="device", found=found, next_step="Type device=cpu"
    )
