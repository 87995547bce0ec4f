"""The program of a bundle: what every backend's run.py and page share. Its text uses numpy and the runtime alone."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipeline.targets.backend import Job

_TEMPLATE: Final = Template('''\
"""Run the compiled model on inputs.npz and compare with expected.npz: $title.

Needs $needs and numpy. `python run.py` prints a line an output and ends with 0 when all are within
the tolerance and NaN and infinities stand where they are expected, else with 1 and a sentence.
"""

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
#: Largest max |difference| / max |expected| of an output that is accepted.
TOLERANCE = $tolerance
THREADS = $threads


$load


def parts(array):
    """As float64; of complex numbers the real and the imaginary part."""
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], axis=-1)
    return array.astype(np.float64)


def compare(found, wanted):
    """Whether an output passes, and in words how it compares."""
    if found is None:
        return False, "the model gives no such output"
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False, f"{found.dtype} {list(found.shape)}, expected {wanted.dtype} {list(wanted.shape)}"
    if wanted.dtype.kind not in "fc":
        error = float((found != wanted).mean()) if wanted.size else 0.0
        return error == 0, f"error {error:.3g}, tolerance {TOLERANCE:.3g}"
    found, wanted = parts(found), parts(wanted)
    for word, stands in (("NaN", np.isnan), ("infinity", np.isposinf), ("-infinity", np.isneginf)):
        if (stands(found) != stands(wanted)).any():
            return False, f"{word} {stands(found).sum()} times, expected {stands(wanted).sum()}, or elsewhere"
    finite = np.isfinite(wanted)
    error = float(np.abs(found[finite] - wanted[finite]).max(initial=0)) / (
        float(np.abs(wanted[finite]).max(initial=0)) or 1.0
    )
    return error <= TOLERANCE, f"error {error:.3g}, tolerance {TOLERANCE:.3g}"


def main():
    try:
        inputs = dict(np.load(FOLDER / "inputs.npz", allow_pickle=False))
        expected = dict(np.load(FOLDER / "expected.npz", allow_pickle=False))
        outputs = run(inputs)
    except Exception as error:
        print(f"the model cannot be run: {type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    if not expected:
        print("there is nothing to compare with: expected.npz holds no output")
        return 1
    failed = []
    for name, wanted in expected.items():
        passed, words = compare(outputs.get(name), wanted)
        print(f"{name}: {words}: {'passed' if passed else 'FAILED'}")
        failed += [] if passed else [name]
    if failed:
        print(f"not what was expected: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
''')


def listed(job: Job) -> str:
    """Inputs and outputs as a list for the bundle's page: name, dtype and shape, a line each."""
    return "\n".join(
        f"  - {kind} `{one.name}`: {one.dtype} {list(one.shape)}"
        for kind, specs in (("input", job.inputs), ("output", job.outputs))
        for one in specs
    )


def program(load: str, *, title: str, needs: str, tolerance: float, threads: int) -> str:
    """Source of run.py.

    Args:
        load: source that defines `run(inputs) -> outputs`, dictionaries of arrays by ONNX name; it may
            use `FOLDER` (where run.py lies), `THREADS`, `np` and `Path`, and imports the runtime.
        title: what runs it, in words ("resnet18 on ONNX Runtime").
        needs: distribution and version that it was made with.
        tolerance: see `pipeline.targets.backend.Job.tolerance`.
        threads: see `pipeline.targets.backend.Job.threads`.
    """
    return _TEMPLATE.substitute(
        load=load.strip("\n"), title=title, needs=needs, tolerance=repr(float(tolerance)), threads=threads
    )
