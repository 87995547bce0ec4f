"""What the outputs must equal where a ready .onnx is the source: the file as it came, run as it stands.

ONNX Runtime runs it with every optimisation off, so that what is compared is our work on the graph and
not the runtime's. There is no float64 run of a file: its noise is assumed (`tolerance.ASSUMED_NOISE_EPSILONS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StageFailed
from pipeline.events import Emit, Progress
from pipeline.parity.config import ParityConfig
from pipeline.parity.onnxruntime_session import FileSession
from pipeline.parity.reference import EXPORT_LABEL, STAGE, Reference
from pipeline.parity.signature import SeenRun, Signature, derive_signature
from pipeline.samples.spec import InputSpecs

Arrays = Mapping[str, NDArray[Any]]

DECLINED: Final = "a ready .onnx runs in its own precision only"


def make_file_reference(
    path: Path,
    specs: InputSpecs,
    export_inputs: Arrays,
    parity_inputs: Mapping[str, Arrays],
    config: ParityConfig,
    emit: Emit,
    *,
    value_dependent: bool,
) -> tuple[Reference, Signature]:
    """Run the file on every set of parity inputs; see `pipeline.parity.reference.make_reference`.

    Args:
        path: the file as it came, with its external data.
        specs: its inputs, under the names of the file.
        export_inputs: one set, with the example sizes.
        parity_inputs: label to inputs; the first has the example sizes.
        config: `kind=none` runs only what the signature needs.
        emit: gets a `Progress` a run.
        value_dependent: whether sizes of outputs may depend on values.

    Raises:
        StageFailed: PL-500, outputs are not finite; PL-501, the file gives something else every time;
            PL-503, it fails on inputs of some size; PL-504, its outputs change their rank; PL-510, ONNX
            Runtime does not load it.
    """
    proving = config.kind != "none"
    first = next(iter(parity_inputs))
    shapes = {name: array.shape for name, array in export_inputs.items()}
    sizes = [
        label
        for label, values in parity_inputs.items()
        if {name: array.shape for name, array in values.items()} != shapes
    ]
    seeds = [label for label in parity_inputs if label not in sizes]
    wanted = list(parity_inputs) if proving else [first, *sizes]
    outputs: dict[str, Arrays] = {}
    with FileSession(path) as session:

        def run(label: str, values: Arrays) -> Arrays:
            emit(Progress(STAGE, len(outputs) + 1, len(wanted) + 1, "runs"))
            try:
                found = session.run(values, label)
            except StageFailed as error:
                raise _does_not_run(error, label, specs, other_size=label in sizes) from error
            if proving:
                refuse_not_finite(found, label)
            return found

        for label in wanted:
            outputs[label] = run(label, parity_inputs[label])
        again = run(EXPORT_LABEL, parity_inputs[first]) if proving else {}
        for name, array in outputs[first].items():
            if proving and array.tobytes() != again[name].tobytes():
                raise StageFailed(
                    "PL-501", f"the file gives another output {name} every time it runs", where=first,
                    expected="the same outputs for the same inputs",
                    next_step="Take operators such as RandomNormal or a training-mode Dropout out of the network",
                )  # fmt: skip
        seen = [_seen(specs, parity_inputs[first], outputs[first])]
        alone = proving and len(seeds) == 1
        if value_dependent or alone:
            exported = run(EXPORT_LABEL, export_inputs)
            if value_dependent:
                seen.insert(0, _seen(specs, export_inputs, exported))
            if alone:
                outputs[EXPORT_LABEL] = exported
    seen += [_seen(specs, parity_inputs[label], outputs[label]) for label in sizes]
    positions = {axis.name: index for leaf in reversed(specs.leaves) for index, axis in leaf.dynamic.items()}
    try:
        signature = derive_signature(seen, positions, value_dependent=value_dependent)
    except ValueError as error:
        raise StageFailed(
            "PL-504", str(error), expected="the same names and ranks for every input"
        ) from error
    return Reference(outputs if proving else {}, {}, DECLINED), signature


def _seen(specs: InputSpecs, values: Arrays, outputs: Arrays) -> SeenRun:
    axes = {
        axis.name: values[leaf.name].shape[index]
        for leaf in specs.leaves
        for index, axis in leaf.dynamic.items()
    }
    return SeenRun(axes, outputs)


def refuse_not_finite(outputs: Arrays, label: str) -> None:
    """Raise StageFailed PL-500 where a floating output holds NaN or infinity."""
    for name, array in outputs.items():
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise StageFailed(
                "PL-500", f"the file's output {name} is not finite", where=label,
                found=f"{int((~np.isfinite(array)).sum())} of {array.size} elements",
                expected="finite numbers", next_step="Check the fill of model.inputs",
            )  # fmt: skip


def _does_not_run(error: StageFailed, label: str, specs: InputSpecs, *, other_size: bool) -> StageFailed:
    said = error.reason.found or error.reason.message
    if not other_size:
        return StageFailed(
            "PL-503", "the file as it came fails on its inputs", where=error.reason.where or label, found=said,
            next_step="Give model.inputs the shape and fill that the network takes",
        )  # fmt: skip
    leaf = next(leaf for leaf in specs.leaves if leaf.dynamic)
    shape = ",".join(map(str, leaf.shape))
    return StageFailed(
        "PL-503", f"the file as it came does not take every size that it states ({label.partition(':')[2]})",
        where=error.reason.where or label, found=said,
        next_step=f"Type 'model.inputs={{{leaf.key}: {{shape: [{shape}], dynamic: {{}}}}}}' to fix its sizes, "
        "or name in dynamic the axes and the range that it takes",
    )  # fmt: skip
