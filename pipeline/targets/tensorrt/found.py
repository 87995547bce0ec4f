"""Whether an engine can be built and run on this machine. Nothing of TensorRT is imported here."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

#: What the driver of an NVIDIA GPU leaves: Linux, and Linux inside Windows.
GPU_DEVICES: Final = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
#: How long the import may take before it is taken for broken, seconds.
IMPORT_S: Final = 120.0


@dataclass(frozen=True)
class Found:
    """What there is of TensorRT.

    Attributes:
        version: of the Python package, where it can be imported.
        trtexec: the program, where it is on the PATH.
        missing: why no engine can be built here, in words; None: it can.
    """

    version: str | None
    trtexec: str | None
    missing: str | None


def find_tensorrt(python: str | None = None) -> Found:
    """Look for a GPU, for the package (in the interpreter `python`) and for trtexec.

    The package is imported in a process of its own: some wheels are placeholders that only fail then.
    """
    trtexec = shutil.which("trtexec")
    if not any(device.exists() for device in GPU_DEVICES):
        return Found(None, trtexec, "there is no NVIDIA GPU")
    version, why = _version(python)
    if version is None and trtexec is None:
        return Found(None, None, f"{why}, and trtexec is not on the PATH")
    return Found(version, trtexec, None)


def unverified_here(backend: str | None, python: str | None) -> str | None:
    """Why a plan leaves out compiling and running for a backend that is found at run time; None: it does not."""
    return find_tensorrt(python).missing if backend == "tensorrt" else None


@cache
def _version(python: str | None) -> tuple[str | None, str]:
    if python is None and importlib.util.find_spec("tensorrt") is None:
        return None, "the tensorrt package is not installed"
    program = str(Path(python).expanduser()) if python else sys.executable
    try:
        done = subprocess.run(
            [program, "-c", "import tensorrt; print(tensorrt.__version__)"],
            capture_output=True, text=True, timeout=IMPORT_S, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        return None, f"the tensorrt package cannot be imported ({said[-1] if said else 'no message'})"
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"the tensorrt package cannot be imported ({type(error).__name__})"
    return done.stdout.strip().splitlines()[
        -1
    ] if done.stdout.strip() else None, "the tensorrt package says no version"
