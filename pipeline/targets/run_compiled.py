"""Running compiled files in a fresh process, from a copy of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import StageFailed
from pipeline.events import Emit
from pipeline.targets.backend import Job
from pipeline.targets.backends import reference_to
from pipeline.targets.child import Answer, Employer, imports_for
from pipeline.targets.compiled import CompiledFiles, TargetOutputs
from pipeline.targets.messages import Order, Timing

if TYPE_CHECKING:
    from pipeline.targets.stages import TargetRequest

#: The stage that this serves, for messages.
STAGE = "execute"


def run_compiled(
    request: TargetRequest,
    made: CompiledFiles,
    samples: Mapping[str, Mapping[str, Any]],
    folder: Path,
    emit: Emit,
    *,
    timing: Timing | None = None,
) -> tuple[TargetOutputs, Answer]:
    """The outputs for every set of inputs, and how it went.

    Args:
        request: the target.
        made: what compile left.
        samples: label to input name to array.
        folder: an empty folder.
        emit: gets the tool's log.
        timing: how latency is measured; null: 50 runs or 30 s after a warm-up.

    Raises:
        StageFailed: PL-644 to PL-647.
    """
    copy, scratch = folder / "compiled", folder / "scratch"
    made.write_files(copy)
    scratch.mkdir()
    job = Job(
        model=folder / "not-here.onnx",  # nothing but the compiled files may be needed
        folder=copy,
        scratch=scratch,
        inputs=made.inputs,
        outputs=made.outputs,
        precision=request.precision,
        options=request.options,
        threads=request.use_threads,
        timeout_s=request.timeout_s,
        tolerance=request.tolerance,
    )
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
    employer = Employer(STAGE, request.target, request.python, emit)
    answer = employer.give(order, folder, failure="PL-646")
    return _read(folder / "outputs.npz", answer, request.target), answer


def _read(path: Path, answer: Answer, target: str) -> TargetOutputs:
    outputs: dict[str, dict[str, Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for label, named in answer.data["outputs"].items():
                outputs[label] = {name: archive[key] for name, key in named.items()}
    except (OSError, ValueError, KeyError) as error:
        raise StageFailed("PL-647", f"the outputs of {target} cannot be read", found=str(error)) from error
    return TargetOutputs(outputs, str(answer.data["precision"]), str(answer.data["proof"]))
