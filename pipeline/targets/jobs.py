"""Compiling a file, and running what came out in another process, from a copy of its own."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import StageFailed
from pipeline.events import Emit
from pipeline.targets.backend import Job, TensorSpec
from pipeline.targets.backends import reference_to
from pipeline.targets.child import Answer, Employer, imports_for
from pipeline.targets.compiled import CompiledFiles, TargetOutputs
from pipeline.targets.messages import Order, Timing, compiled_from_json

if TYPE_CHECKING:
    from pipeline.targets.stages import TargetRequest
#: Inputs and outputs.
Interface = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


def compile_model(
    request: TargetRequest,
    model: Path,
    interface: Interface,
    folder: Path,
    emit: Emit,
    *,
    stage: str = "compile",
) -> tuple[CompiledFiles, Answer]:
    """The compiled files, and how it went.

    Args:
        request: the target.
        model: the .onnx file, with its external data beside it.
        interface: its inputs and its outputs.
        folder: an empty folder.
        emit: gets the tool's log.
        stage: for messages.

    Raises:
        StageFailed: PL-643 to PL-645, PL-647.
    """
    inputs, outputs = interface
    compiled, scratch = folder / "compiled", folder / "scratch"
    compiled.mkdir()
    scratch.mkdir()
    job = job_of(request, model.absolute(), compiled, scratch, interface)
    before = _states(model)
    answer = Employer(stage, request.target, request.python, emit).give(
        Order("compile", reference_to(request.backend), job, import_from=imports_for(request.python)),
        folder,
        failure="PL-643",
    )
    if _states(model) != before:
        raise StageFailed(
            "PL-647", f"{request.target} changed the folder of the model file", where=model.name,
            expected="a backend that writes into its own folders alone",
        )  # fmt: skip
    made = CompiledFiles.of(compiled, compiled_from_json(answer.data["compiled"]), inputs, outputs)
    return made, answer


def run_compiled(
    request: TargetRequest,
    made: CompiledFiles,
    samples: Mapping[str, Mapping[str, Any]],
    folder: Path,
    emit: Emit,
    *,
    timing: Timing | None = None,
    stage: str = "execute",
) -> tuple[TargetOutputs, Answer]:
    """The outputs for every set of inputs, and how it went.

    Args:
        request: the target.
        made: what compile left.
        samples: label to input name to array.
        folder: an empty folder.
        emit: gets the tool's log.
        timing: how latency is measured; null: 50 runs or 30 s after a warm-up.
        stage: for messages.

    Raises:
        StageFailed: PL-644 to PL-647.
    """
    copy, scratch = folder / "compiled", folder / "scratch"
    made.write_files(copy)
    scratch.mkdir()
    # Nothing but the compiled files may be needed: there is no model at that place.
    job = job_of(request, folder / "no-model.onnx", copy, scratch, (made.inputs, made.outputs))
    table: dict[str, dict[str, str]] = {}
    arrays: dict[str, Any] = {}
    for label, values in samples.items():
        for name, array in values.items():
            table.setdefault(label, {})[name] = str(len(arrays))
            arrays[str(len(arrays))] = array
    np.savez(folder / "inputs.npz", **arrays)
    order = Order(
        "run", reference_to(request.backend), job, made.compiled, table, str(folder / "inputs.npz"),
        str(folder / "outputs.npz"), timing or Timing(), imports_for(request.python),
    )  # fmt: skip
    answer = Employer(stage, request.target, request.python, emit).give(order, folder, failure="PL-646")
    return _read(folder / "outputs.npz", answer, request.target), answer


def job_of(
    request: TargetRequest,
    model: Path,
    folder: Path,
    scratch: Path,
    interface: Interface,
) -> Job:
    """The job of a request: see `pipeline.targets.backend.Job`."""
    return Job(
        model=model,
        folder=folder,
        scratch=scratch,
        inputs=interface[0],
        outputs=interface[1],
        precision=request.precision,
        options=request.options,
        threads=request.use_threads,
        timeout_s=request.timeout_s,
        tolerance=request.tolerance,
    )


def _states(model: Path) -> dict[str, tuple[int, int]]:
    """Size and time stamp of the model's files and of what tools would drop beside them ("model.x.bin")."""
    found = [(path.name, path.stat()) for path in model.parent.glob(f"{glob.escape(model.stem)}.*")]
    return {name: (state.st_size, state.st_mtime_ns) for name, state in found}


def _read(path: Path, answer: Answer, target: str) -> TargetOutputs:
    outputs: dict[str, dict[str, Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for label, named in answer.data["outputs"].items():
                outputs[label] = {name: archive[key] for name, key in named.items()}
    except (OSError, ValueError, KeyError) as error:
        raise StageFailed("PL-647", f"the outputs of {target} cannot be read", found=str(error)) from error
    return TargetOutputs(outputs, str(answer.data["precision"]), str(answer.data["proof"]))
