"""The program of a bundle: what every backend's run.py shares. Its text uses numpy and the runtime alone."""

from __future__ import annotations

from string import Template
from typing import Final

_TEMPLATE: Final = Template('''\
"""Run the compiled model on inputs.npz and compare with expected.npz: $title.

Needs $needs and numpy. `python run.py` prints a line an output and ends with 0 when all are within
the tolerance, else with 1.
"""

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
#: Largest max |difference| / max |expected| of an output that is accepted.
TOLERANCE = $tolerance
THREADS = $threads


$load


def main():
    inputs = dict(np.load(FOLDER / "inputs.npz", allow_pickle=False))
    expected = dict(np.load(FOLDER / "expected.npz", allow_pickle=False))
    outputs = run(inputs)
    failed = False
    for name, wanted in expected.items():
        found = outputs.get(name)
        if found is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
            print(f"{name}: not what was expected: {getattr(found, 'dtype', 'no output')} "
                  f"{list(getattr(found, 'shape', ()))}, expected {wanted.dtype} {list(wanted.shape)}")
            failed = True
            continue
        if wanted.dtype.kind in "fc":
            same = np.isfinite(wanted)
            error = float(np.abs(found - wanted)[same].max(initial=0)) / (
                float(np.abs(wanted[same]).max(initial=0)) or 1.0
            )
            passed = error <= TOLERANCE and bool((np.isfinite(found) == same).all())
        else:
            error = float((found != wanted).mean()) if wanted.size else 0.0
            passed = error == 0
        print(f"{name}: error {error:.3g}, tolerance {TOLERANCE:.3g}: {'passed' if passed else 'FAILED'}")
        failed = failed or not passed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
''')


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
