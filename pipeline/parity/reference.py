"""What the file's outputs must equal: the network itself, run on fresh inputs.

`Reference` and `Signature` are plain arrays and data; torch is imported only when `make_reference`
runs, so that a cached reference is compared without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StageFailed
from pipeline.events import Emit, Progress
from pipeline.parity.config import ParityConfig
from pipeline.parity.signature import SeenRun, Signature, derive_signature
from pipeline.samples.npz import write_npz

if TYPE_CHECKING:
    from pipeline.parity.running import NetworkRuns
    from pipeline.samples.spec import InputSpecs
    from pipeline.sources.network import Network

Arrays = Mapping[str, NDArray[Any]]

STAGE: Final = "reference"
#: The label of a run on the export inputs, kept where there are not two seeds to compare.
EXPORT_LABEL: Final = "export"
#: Inputs on which an output is so many times larger than on the first are run in float64 too. Inputs
#: three times as large make outputs about three times as large; more comes from gates that multiply
#: (squeeze and excitation), and rounding grows along: efficientnet_b0's from 4e-6 to 0.2.
GROWTH: Final = 4.0
#: Relative float32 errors above this are no rounding: the network is run again to see whether it
#: gives the same twice.
SUSPICIOUS_NOISE: Final = 1e-3


@dataclass(frozen=True)
class Reference:
    """Outputs of the network.

    Attributes:
        outputs: label of the inputs ("seed0", "sizes:batch=3") to output name to array, as the
            network gives it.
        exact: the same in float64, for the first inputs and for those on which the network gives far
            more; empty when the network was not run so.
        declined: why there is no float64 result; None when there is one or none was asked for.
    """

    outputs: Mapping[str, Arrays]
    exact: Mapping[str, Arrays] = field(default_factory=dict)
    declined: str | None = None

    @property
    def first(self) -> str:
        """The label of the inputs on which the network's own noise is measured."""
        return next(iter(self.outputs))

    def store(self, folder: Path) -> None:
        """Write reference.json (which array is what) and arrays.npz."""
        arrays: dict[str, NDArray[Any]] = {}
        rows = []
        for exact, sets in ((False, self.outputs), (True, self.exact)):
            for label, outputs in sets.items():
                for name, array in outputs.items():
                    rows.append({"label": label, "exact": exact, "output": name, "array": str(len(arrays))})
                    arrays[str(len(arrays))] = array
        table = {"arrays": rows, "declined": self.declined}
        write_npz(folder / "arrays.npz", arrays)
        (folder / "reference.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `store` wrote."""
        table = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
        outputs: dict[str, dict[str, NDArray[Any]]] = {}
        exact: dict[str, dict[str, NDArray[Any]]] = {}
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            for row in table["arrays"]:
                sets = exact if row["exact"] else outputs
                sets.setdefault(row["label"], {})[row["output"]] = arrays[row["array"]]
        return cls(outputs, exact, table["declined"])


def make_reference(
    network: Network,
    export_inputs: Arrays,
    parity_inputs: Mapping[str, Arrays],
    config: ParityConfig,
    emit: Emit,
    known: Callable[[Signature], None] = lambda signature: None,
) -> tuple[Reference, Signature]:
    """Run the network on every set of parity inputs, and on the first of them in float64 too.

    Others are run in float64 where an output is `GROWTH` times larger than on the first.

    The signature depends on the export inputs, the first parity inputs and the other sizes alone:
    another number of seeds or another way of comparing leaves it as it is.

    Args:
        network: left bit-identical; buffers that it writes to are put back after every run.
        export_inputs: one set, with the example sizes.
        parity_inputs: label to inputs; the first has the example sizes.
        config: `kind=none` runs only what the signature needs.
        emit: gets a `Progress` a run.
        known: gets the signature as soon as it is known, before the longer runs.

    Raises:
        StageFailed: the network fails on its inputs, its outputs are not finite or change their
            structure, or it is random at inference.
    """
    from pipeline.parity.running import NetworkRuns

    proving = config.kind != "none"
    first = next(iter(parity_inputs))
    sizes = [label for label, values in parity_inputs.items() if _shapes(values) != _shapes(export_inputs)]
    seeds = [label for label in parity_inputs if label not in sizes]
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        emit(Progress(STAGE, done, max(done, len(parity_inputs) + (config.kind == "noise")), "runs"))

    runs = NetworkRuns(network, count)

    def run(label: str) -> Arrays:
        found = runs.run(parity_inputs[label], watch=label == first)
        if proving:
            _refuse_not_finite(found, label)
            runs.refuse_random(parity_inputs[label], found)
        return found

    # At the example sizes the first inputs tell the shapes; where they depend on values, the export
    # inputs too. The same runs count whatever is compared: the export's key does not know the settings.
    at_first = run(first)
    at_sizes = {label: run(label) for label in sizes}
    seen = [SeenRun(_axis_sizes(network.specs, parity_inputs[first]), at_first)]
    alone = proving and len(seeds) == 1
    exported = runs.run(export_inputs) if runs.value_dependent or alone else None
    if exported is not None and runs.value_dependent:
        seen.insert(0, SeenRun(_axis_sizes(network.specs, export_inputs), exported))
    seen += [SeenRun(_axis_sizes(network.specs, parity_inputs[label]), at_sizes[label]) for label in sizes]
    signature = _signature(seen, network.specs, runs.value_dependent)
    known(signature)
    if not proving:
        return Reference(at_sizes), signature

    already = {first: at_first, **at_sizes}
    outputs = {label: already[label] if label in already else run(label) for label in parity_inputs}
    _refuse_others(outputs, signature)
    if exported is not None and alone:
        outputs[EXPORT_LABEL] = exported
    if config.kind != "noise":
        return Reference(outputs), signature
    return Reference(outputs, *_exactly(runs, parity_inputs, outputs, seeds)), signature


def _refuse_others(outputs: Mapping[str, Arrays], signature: Signature) -> None:
    for label, found in outputs.items():
        if tuple(found) != signature.names:
            raise StageFailed(
                "PL-504", "the network gives other outputs on one input than on another", where=label,
                found=", ".join(found), expected=", ".join(signature.names),
                next_step="Give the network one structure of outputs, for example with model.prepare",
            )  # fmt: skip


def _exactly(
    runs: NetworkRuns, parity_inputs: Mapping[str, Arrays], outputs: Mapping[str, Arrays], seeds: list[str]
) -> tuple[dict[str, Arrays], str | None]:
    """In float64: the first inputs, and those that give far more; or why there is no such run."""
    first = seeds[0]
    found, declined = runs.run_exactly(parity_inputs[first])
    if not found:
        return {}, declined
    exact: dict[str, Arrays] = {first: found}
    if _noise(outputs[first], found) > SUSPICIOUS_NOISE:
        runs.refuse_unsteady(parity_inputs[first], outputs[first])
    for label in [label for label in seeds[1:] if _grown(outputs[first], outputs[label])]:
        more, _ = runs.run_exactly(parity_inputs[label])
        if more:
            exact[label] = more
    return exact, declined


def _signature(seen: list[SeenRun], specs: InputSpecs, value_dependent: bool) -> Signature:
    positions = {axis.name: index for leaf in reversed(specs.leaves) for index, axis in leaf.dynamic.items()}
    try:
        return derive_signature(seen, positions, value_dependent=value_dependent)
    except ValueError as error:
        raise StageFailed(
            "PL-504", str(error), expected="the same names and ranks for every input",
            next_step="Give the network one structure of outputs, for example with model.prepare",
        ) from error  # fmt: skip


def _axis_sizes(specs: InputSpecs, values: Arrays) -> dict[str, int]:
    return {
        axis.name: values[leaf.name].shape[index]
        for leaf in specs.leaves
        for index, axis in leaf.dynamic.items()
    }


def _shapes(values: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in values.items()}


def _noise(outputs: Arrays, exact: Arrays) -> float:
    """The largest relative float32 error over the outputs whose sizes agree."""
    worst = 0.0
    for name, wide in exact.items():
        if wide.dtype.kind == "f" and wide.shape == outputs[name].shape and wide.size:
            scale = float(np.abs(wide).max())
            worst = max(worst, float(np.abs(outputs[name] - wide).max()) / scale if scale else 0.0)
    return worst


def _grown(first: Arrays, other: Arrays) -> bool:
    """Whether a floating output is so much larger that its rounding has to be measured anew."""
    return any(
        array.dtype.kind == "f"
        and array.size > 0
        and other[name].size > 0
        and float(np.abs(other[name]).max()) > GROWTH * float(np.abs(array).max())
        for name, array in first.items()
    )


def _refuse_not_finite(outputs: Arrays, label: str) -> None:
    for name, array in outputs.items():
        if array.dtype.kind not in "fc":
            continue
        nans, infinities = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        if nans or infinities:
            raise StageFailed(
                "PL-500",
                f"the network's output {name} is not finite",
                where=label,
                found=f"{nans} NaN and {infinities} infinite of {array.size} elements",
                expected="finite numbers",
                next_step="Check model.weights and the fill of model.inputs",
            )
