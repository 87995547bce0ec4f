"""Running a loaded model in the child process: what goes in is checked, what comes out too, and it is timed.

Backends run with missing, swapped or mis-shaped inputs and give numbers all the same, so nothing
reaches one that does not fit the file.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.targets.backend import BackendError, Runner, TensorSpec
from pipeline.targets.messages import Order, Timing

Arrays = Mapping[str, NDArray[Any]]


def read_arrays(order: Order) -> dict[str, Arrays]:
    """Label to input name to array."""
    with np.load(order.arrays, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    return {
        label: {
            name: np.ascontiguousarray(arrays[key]).reshape(arrays[key].shape) for name, key in table.items()
        }
        for label, table in order.inputs.items()
    }


def check_inputs(specs: Sequence[TensorSpec], values: Arrays, label: str) -> None:
    """Raise BackendError when `values` are not what the model takes: names, dtypes, ranks, sizes."""
    wanted = [spec.name for spec in specs]
    if sorted(values) != sorted(wanted):
        raise BackendError(
            f"inputs {label} are named {', '.join(values)}, the model takes {', '.join(wanted)}"
        )
    sizes: dict[str, int] = {}
    for spec in specs:
        _check(spec, values[spec.name], f"input {spec.name} of {label}", sizes)


def check_outputs(specs: Sequence[TensorSpec], outputs: Arrays, label: str) -> None:
    """Raise BackendError when `outputs` are not what the model gives; sizes that depend on values may be any."""
    missing = [spec.name for spec in specs if spec.name not in outputs]
    if missing or len(outputs) != len(specs):
        raise BackendError(
            f"the runtime gave the outputs {', '.join(outputs) or 'none'} for inputs {label}, "
            f"the model has {', '.join(spec.name for spec in specs)}"
        )
    for spec in specs:
        if not isinstance(outputs[spec.name], np.ndarray):
            raise BackendError(f"output {spec.name} is no array")
        _check(spec, outputs[spec.name], f"output {spec.name} for {label}", {})


def _check(spec: TensorSpec, array: NDArray[Any], what: str, sizes: dict[str, int]) -> None:
    if array.dtype.name != spec.dtype:
        raise BackendError(f"{what} has the element type {array.dtype.name}, expected {spec.dtype}")
    shape = array.shape
    if len(shape) != len(spec.shape):
        raise BackendError(f"{what} has the shape {list(shape)}, expected {len(spec.shape)} dimensions")
    for have, want in zip(shape, spec.shape, strict=True):
        fixed = sizes.setdefault(want, have) if isinstance(want, str) else want
        if have != fixed:
            raise BackendError(f"{what} has the shape {list(shape)}, expected {list(spec.shape)}")


def run_all(
    runner: Runner, specs: Sequence[TensorSpec], sets: Mapping[str, Arrays]
) -> dict[str, dict[str, NDArray[Any]]]:
    """Outputs by label and name, copied: a runtime may give the same memory again."""
    found = {}
    for label, values in sets.items():
        try:
            outputs = runner.run(values)
        except BackendError as error:
            raise BackendError(
                f"on inputs {label}: {error.sentence}", node=error.node, operator=error.operator
            ) from error
        check_outputs(specs, outputs, label)
        found[label] = {spec.name: np.array(outputs[spec.name], order="C") for spec in specs}
    return found


def measure(runner: Runner, values: Arrays, timing: Timing) -> dict[str, Any]:
    """Median and 95th percentile of a run, ms; how many runs there were."""
    _repeat(runner, values, timing.warm_up_runs, timing.warm_up_seconds)
    taken = _repeat(runner, values, timing.runs, timing.seconds)
    return {
        "median_ms": round(float(np.median(taken)) * 1e3, 4),
        "p95_ms": round(float(np.percentile(taken, 95)) * 1e3, 4),
        "runs": len(taken),
    }


def _repeat(runner: Runner, values: Arrays, runs: int, seconds: float) -> list[float]:
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < runs:
        before = time.perf_counter()
        runner.run(values)
        after = time.perf_counter()
        taken.append(after - before)
        if after - started > seconds:
            break
    return taken


def write_outputs(path: Path, outputs: Mapping[str, Arrays]) -> dict[str, dict[str, str]]:
    """Write every array; returns label to output name to its key in the file."""
    rows: dict[str, dict[str, str]] = {}
    arrays: dict[str, Any] = {}
    for label, named in outputs.items():
        for name, array in named.items():
            rows.setdefault(label, {})[name] = str(len(arrays))
            arrays[str(len(arrays))] = array
    np.savez(path, **arrays)
    return rows
