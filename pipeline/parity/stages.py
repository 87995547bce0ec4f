"""The stages of this room: reference, parity, evidence. No torch, no numpy until they run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from pipeline.errors import InternalError, StageFailed
from pipeline.events import Finding, Progress
from pipeline.parity.config import ParityConfig
from pipeline.stage import ArtifactParts, KeyParts, Verdict, Workspace

if TYPE_CHECKING:
    from pipeline.exporters.attempts import Attempts
    from pipeline.graph.assemble import ModelFile
    from pipeline.parity.compare import OutputComparison
    from pipeline.parity.reference import Arrays, Reference
    from pipeline.parity.vacuous import Vacuity

REPORT_FILE: Final = "parity.json"
INPUTS_FILE: Final = "samples/inputs.npz"
EXPECTED_FILE: Final = "samples/expected.npz"
#: export.export_params=false: what the file wants fed beside its inputs.
PARAMETERS_FILE: Final = "samples/parameters.npz"
#: Weights that a copy of the process may hold on to while the worker lets go of them one by one, and takes as much
#: again for transposed ones: vit_l_16's 1160 MiB made a peak of 2959 MiB instead of 1864.
COPIED_BYTES: Final = 384 * 1024 * 1024


@dataclass(frozen=True)
class ReferenceStage:
    """Runs the network on every set of inputs; see `pipeline.parity.reference`."""

    config: ParityConfig

    name: ClassVar[str] = "reference"
    takes: ClassVar[tuple[str, ...]] = ("network", "export_inputs", "parity_inputs")
    makes: ClassVar[tuple[str, ...]] = ("reference", "signature")
    storable: ClassVar[bool] = True

    def key_parts(self) -> KeyParts:
        """Of the configuration only what decides which runs there are: tolerances do not.

        The signature needs no parity setting: of the parity inputs it depends on the first set and
        the other sizes, which are made of the same specification and seed as the export inputs.
        """
        return KeyParts(
            config={"kind": self.config.kind},
            code=("pipeline.parity.reference", "pipeline.parity.running", "pipeline.parity.float64",
                  "pipeline.parity.randomness", "pipeline.parity.signature"),
            packages=("torch", "numpy"),
            artifacts={"signature": ArtifactParts(takes=("network", "export_inputs"))},
        )  # fmt: skip

    def beside(self, workspace: Workspace) -> Callable[[], None] | None:
        """A copy of the process leaves one processor to the stages beside it; there is none of a large network."""
        tensors: Mapping[str, Any] = workspace.get("network").tensors()
        if sum(tensor.nbytes for tensor in tensors.values()) > COPIED_BYTES:
            return None
        return _leave_a_processor

    def requires(self, workspace: Workspace) -> None:
        """Nothing beyond its artifacts."""

    def run(self, workspace: Workspace) -> Verdict:
        """See `make_reference`."""
        from pipeline.parity.reference import make_reference

        inputs = workspace.get("export_inputs"), workspace.get("parity_inputs")
        with workspace.get("network").at_work(self.name, workspace.emit):
            reference, _ = make_reference(
                workspace.get("network"), *inputs, self.config, workspace.emit,
                known=lambda signature: workspace.put("signature", signature),
            )  # fmt: skip
        workspace.put("reference", reference)
        if reference.declined:
            workspace.emit(
                Finding(
                    self.name,
                    "info",
                    f"the network's own noise is assumed, not measured: {reference.declined}",
                )
            )
        runs = len(reference.outputs)
        exact = f", {len(reference.exact)} of them in float64 too" if reference.exact else ""
        return Verdict(summary=f"{runs} inputs{exact}" if runs else "outputs known")

    def ensures(self, workspace: Workspace) -> None:
        """Every set of inputs has every output."""
        if self.config.kind == "none":
            return
        reference, names = workspace.get("reference"), workspace.get("signature").names
        for label in workspace.get("parity_inputs"):
            if tuple(reference.outputs.get(label, ())) != names:
                raise InternalError(f"the reference lacks outputs for {label}")


def _leave_a_processor() -> None:
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() - 1))


@dataclass(frozen=True)
class ParityReport:
    """How the file compared, as it lies in the cache.

    Attributes:
        lines: one an output and set of inputs, as in run.json.
        vacuous: sentences on outputs that prove nothing or little.
    """

    lines: tuple[Mapping[str, Any], ...]
    vacuous: tuple[str, ...] = ()

    def store(self, folder: Path) -> None:
        """Write parity.json."""
        text = json.dumps({"lines": self.lines, "vacuous": self.vacuous}, indent=1, allow_nan=False)
        (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `store` wrote."""
        data = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        return cls(tuple(data["lines"]), tuple(data["vacuous"]))


@dataclass(frozen=True)
class ParityStage:
    """Runs the written file and compares it with the reference; see `pipeline.parity.compare`."""

    config: ParityConfig

    name: ClassVar[str] = "parity"
    takes: ClassVar[tuple[str, ...]] = ("model", "parity_inputs", "reference", "signature", "attempts")
    makes: ClassVar[tuple[str, ...]] = ("parity_report",)
    storable: ClassVar[bool] = True

    def key_parts(self) -> KeyParts:
        """The rule, the code that compares and what runs the file."""
        return KeyParts(
            config=asdict(self.config),
            code=("pipeline.parity.compare", "pipeline.parity.vacuous", "pipeline.parity.diagnosis",
                  "pipeline.parity.onnxruntime_session"),
            packages=("onnxruntime", "numpy"),
        )  # fmt: skip

    def requires(self, workspace: Workspace) -> None:
        """The reference holds something to compare with."""
        if not workspace.get("reference").outputs:
            raise InternalError("parity was planned although the reference holds no outputs (parity=none)")

    def run(self, workspace: Workspace) -> Verdict:
        """Compare on every set of inputs; vacuous when nothing could have failed."""
        from pipeline.parity.compare import is_floating
        from pipeline.parity.tolerance import recorded
        from pipeline.parity.vacuous import find_vacuous, judge_vacuous

        reference: Reference = workspace.get("reference")
        comparisons = self._compare(workspace, reference)
        vacuous = find_vacuous(reference, self.config)
        lines = tuple(_line(item, vacuous) for item in comparisons)
        workspace.put("parity_report", ParityReport(lines, tuple(one.sentence for one in vacuous)))
        names: tuple[str, ...] = workspace.get("signature").names
        reason = judge_vacuous(vacuous, names)
        if reason is None:
            for one in vacuous:
                workspace.emit(Finding(self.name, "warning", f"{one.sentence}: its comparison proves little"))
        first = next(iter(reference.outputs.values()))
        dtypes = {array.dtype.name for array in first.values() if is_floating(array)}
        return Verdict(
            status="vacuous" if reason else "passed",
            reason=reason,
            summary=f"{summary_of(min(comparisons, key=lambda one: one.margin))}, {len(comparisons)} comparisons",
            measured={"parity": list(lines)},
            recorded={"tolerances": recorded(self.config, dtypes)},
        )

    def ensures(self, workspace: Workspace) -> None:
        """Every output was compared on every set of inputs, and passed."""
        report: ParityReport = workspace.get("parity_report")
        wanted = {
            (label, name)
            for label in workspace.get("parity_inputs")
            for name in workspace.get("signature").names
        }
        found = {(line["seed"], line["output"]) for line in report.lines}
        if not wanted <= found:
            raise InternalError(f"parity left out {sorted(wanted - found)[:3]}")

    def _compare(self, workspace: Workspace, reference: Reference) -> list[OutputComparison]:
        from pipeline.parity.compare import SIZES, compare
        from pipeline.parity.diagnosis import baked_size, describe, failure
        from pipeline.parity.onnxruntime_session import FileSession

        model: ModelFile = workspace.get("model")
        attempts: Attempts = workspace.get("attempts")
        extra = parameter_values(attempts)
        inputs: Mapping[str, Arrays] = workspace.get("parity_inputs")
        outputs: dict[str, Arrays] = {}
        comparisons: list[OutputComparison] = []
        with FileSession(model.path, extra=extra) as session:
            for done, (label, values) in enumerate(inputs.items(), 1):
                try:
                    outputs[label] = session.run(values, label)
                except StageFailed as error:
                    if label.startswith(SIZES) and comparisons and all(one.passed for one in comparisons):
                        raise baked_size(label, error, comparisons, attempts.frozen) from error
                    raise
                comparisons += compare(reference, {label: outputs[label]}, self.config)
                workspace.emit(Progress(self.name, done, len(inputs), "inputs"))
        if not all(item.passed for item in comparisons):
            raise failure(comparisons, reference, outputs, attempts.frozen)
        for label in sorted({item.label for item in comparisons if item.drowned}):
            workspace.emit(
                Finding(
                    self.name,
                    "warning",
                    f"inputs {describe(label)} prove little: the network's own rounding would hide a fault",
                )
            )
        self._run_optimised(workspace, reference, model, extra)
        return comparisons

    def _run_optimised(
        self, workspace: Workspace, reference: Reference, model: ModelFile, extra: Arrays
    ) -> None:
        """Once more as users run it. The file is proved by now: what goes wrong is the runtime's."""
        from pipeline.parity.compare import compare
        from pipeline.parity.onnxruntime_session import OPTIMISED_RUN_BYTES, run_onnxruntime

        if model.size + model.data_size > OPTIMISED_RUN_BYTES:
            return
        label, values = next(iter(workspace.get("parity_inputs").items()))
        try:
            outputs = run_onnxruntime(model.path, {label: values}, extra=extra, mode="optimised")
        except StageFailed as error:
            if error.reason.code == "PL-510":
                raise
            workspace.emit(Finding(self.name, "warning", f"{OPTIMISED}: {error.reason.sentence()}"))
            return
        for item in compare(reference, outputs, self.config):
            if not item.passed:
                text = item.problem or f"error {item.error:.2g}, tolerance {item.tolerance:.2g}"
                workspace.emit(
                    Finding(self.name, "warning", f"{OPTIMISED}: output {item.output}: {text}", item.line())
                )


OPTIMISED: Final = "ONNX Runtime's own optimisation, which runs after loading, changes the result"


def parameter_values(attempts: Attempts) -> dict[str, Any]:
    """Arrays for the parameters that the file asks for from outside (export.export_params=false)."""
    if not attempts.parameters:
        return {}
    import numpy as np

    from pipeline.graph.dtypes import element_type

    return {
        name: np.frombuffer(memoryview(tensor.data()).cast("B"), element_type(tensor.dtype).name).reshape(
            tensor.shape
        )
        for name, tensor in attempts.parameters.items()
    }


@dataclass(frozen=True)
class EvidenceStage:
    """Writes the first set of parity inputs and what the network gave for it, for anyone to repeat."""

    name: ClassVar[str] = "evidence"
    takes: ClassVar[tuple[str, ...]] = ("parity_inputs", "reference", "attempts")
    makes: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[bool] = False

    def key_parts(self) -> KeyParts:
        """Only how the files are written."""
        return KeyParts(code=("pipeline.samples.npz",), packages=("numpy",))

    def requires(self, workspace: Workspace) -> None:
        """Nothing beyond its artifacts."""

    def run(self, workspace: Workspace) -> Verdict:
        """Write samples/inputs.npz, and samples/expected.npz where the network was run."""
        from pipeline.samples.npz import write_npz

        label, inputs = next(iter(workspace.get("parity_inputs").items()))
        write_npz(workspace.file(INPUTS_FILE, "samples"), inputs)
        outputs = workspace.get("reference").outputs.get(label)
        if outputs is not None:
            # Not the same every time: another processor rounds otherwise.
            write_npz(workspace.file(EXPECTED_FILE, "samples", same_every_time=False), outputs)
        if parameters := parameter_values(workspace.get("attempts")):
            write_npz(workspace.file(PARAMETERS_FILE, "parameters"), parameters)
        return Verdict(
            summary=f"inputs and outputs of {label}" if outputs is not None else f"inputs of {label}"
        )

    def ensures(self, workspace: Workspace) -> None:
        """The files read back as what was to be written."""
        import numpy as np

        label, inputs = next(iter(workspace.get("parity_inputs").items()))
        outputs = workspace.get("reference").outputs.get(label)
        for path, same, arrays in ((INPUTS_FILE, True, inputs), (EXPECTED_FILE, False, outputs)):
            if arrays is None:
                continue
            with np.load(workspace.file(path, "samples", same_every_time=same), allow_pickle=False) as read:
                if read.files != list(arrays) or any(
                    read[name].dtype != array.dtype or read[name].tobytes() != array.tobytes()
                    for name, array in arrays.items()
                ):
                    raise InternalError(f"{path} does not hold what was written")


def _line(item: OutputComparison, vacuous: Sequence[Vacuity]) -> dict[str, Any]:
    line = item.line()
    found = next((one for one in vacuous if one.output == item.output), None)
    return {**line, **({"vacuous": found.kind, "spread": found.spread} if found else {})}


def summary_of(worst: OutputComparison) -> str:
    """The worst comparison in the words of the block that ends a run; margin and metric stand there alone."""
    error = f"{worst.error:.1e}" if worst.error else "0"
    return f"{worst.output}, error {error}, tolerance {worst.tolerance:.1e}"
