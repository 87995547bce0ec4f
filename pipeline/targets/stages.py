"""The stages of a target: compile, execute, compare, bundle. Importable without numpy and onnx.

`target_stages` makes all four for one request; the names of stages and artifacts are the same for
every target, since a request has one.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.errors import InternalError, StageFailed
from pipeline.events import Finding
from pipeline.parity.stages import summary_of
from pipeline.samples.spec import InputSpecs
from pipeline.stage import KeyParts, Stage, Verdict, Workspace
from pipeline.targets.backend import Backend, serves
from pipeline.targets.backends import backend_of, check_request, code_of, require_packages

if TYPE_CHECKING:
    from pipeline.parity.compare import OutputComparison
    from pipeline.parity.reference import Reference
    from pipeline.parity.signature import Signature
    from pipeline.targets.child import Answer
    from pipeline.targets.compiled import CompiledFiles, TargetOutputs
    from pipeline.targets.config import TargetConfig

MIB: Final = 2**20
#: Largest max |difference| / max |reference| of an output, by the precision asked, where the profile
#: states none: measured on 13 networks (docs/decisions/0061).
TOLERANCES: Final[Mapping[str, float]] = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}
#: Modules that do the work of every backend.
_WORK: Final = ("pipeline.targets.worker", "pipeline.targets.execute", "pipeline.targets.child")


@dataclass(frozen=True)
class TargetRequest:
    """One target, checked: what every stage of it needs to know.

    Attributes:
        target: its name, which is also its folder in the run directory.
        backend: who compiles and runs.
        versions: package of the backend to its public version, where it will run.
        precision: "float32" or "float16".
        options: the backend's, whole.
        timeout_s: for compile, and again for run.
        python: another interpreter, or None.
        tolerance: see `TOLERANCES`.
        threads: how many the runtime may use; 0: as many processors as this process may use.
    """

    target: str
    backend: Backend
    versions: Mapping[str, str]
    precision: str
    options: Mapping[str, Any]
    timeout_s: float
    python: str | None
    tolerance: float
    threads: int = 0

    @classmethod
    def of(
        cls,
        config: TargetConfig,
        *,
        backend: str | None = None,
        options: Mapping[str, Any] | None = None,
        tolerances: Mapping[str, float] | None = None,
    ) -> TargetRequest:
        """Check a request; nothing is compiled and no package imported.

        Args:
            config: `target`.
            backend: the profile's, where `target.backend` says none; null: the target's name.
            options: the profile's, under `target.options`.
            tolerances: the profile's, by precision.

        Raises:
            Refused: PL-640 no such backend; PL-641 a package is missing; PL-642 a precision or an
                option that it does not take; PL-651 the interpreter cannot be started.
        """
        found = backend_of(config.backend or backend or config.name)
        whole = check_request(found, config.precision, {**(options or {}), **config.options})
        stated = {**TOLERANCES, **(tolerances or {})}
        return cls(
            target=config.name,
            backend=found,
            versions=require_packages(found, config.python),
            precision=config.precision,
            options=whole,
            timeout_s=config.timeout_s,
            python=config.python,
            tolerance=float(stated[config.precision]),
        )

    def key_parts(self, *code: str, **config: Any) -> KeyParts:
        """What a stage of this target keys on; packages of another interpreter stand among the digests."""
        own, digest = code_of(self.backend)
        packages = () if self.python else tuple(self.backend.packages)
        elsewhere = {f"package {name}": version for name, version in self.versions.items()}
        return KeyParts(
            config={"backend": self.backend.name, "precision": self.precision, **config},
            code=(*code, *own),
            packages=("numpy", *packages),
            extra={**digest, "machine": platform.machine(), **(elsewhere if self.python else {})},
        )

    @property
    def use_threads(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))


def target_stages(request: TargetRequest, specs: InputSpecs, *, k: float) -> tuple[Stage, ...]:
    """The stages of one target, in order; they come after parity.

    Args:
        request: the target, checked.
        specs: the inputs, named as in the graph.
        k: `parity.k`.
    """
    return (
        CompileStage(request, specs),
        ExecuteStage(request),
        CompareStage(request, k),
        BundleStage(request),
    )


@dataclass(frozen=True)
class CompileStage:
    """Compiles the finished file in a child process; see `pipeline.targets.worker`."""

    request: TargetRequest
    specs: InputSpecs

    name: ClassVar[str] = "compile"
    takes: ClassVar[tuple[str, ...]] = ("model", "export_inputs", "signature")
    makes: ClassVar[tuple[str, ...]] = ("compiled",)
    storable: ClassVar[bool] = True

    def key_parts(self) -> KeyParts:
        """What shapes the compiled files; the ranges of dynamic axes are compiled in by some tools."""
        axes = [
            [leaf.name, index, axis.name, axis.min, axis.max, axis.multiple_of]
            for leaf in self.specs.leaves
            for index, axis in sorted(leaf.dynamic.items())
        ]
        return self.request.key_parts(*_WORK, options=dict(self.request.options), axes=axes)

    def requires(self, workspace: Workspace) -> None:
        """The file takes exactly the inputs that the request describes, and gives the network's outputs."""
        from pipeline.targets.interface import check_file

        check_file(workspace.get("model").path, self.specs, workspace.get("signature"), self.request.target)

    def run(self, workspace: Workspace) -> Verdict:
        """Compile into an empty folder; only what the backend names and what is really there is kept."""
        from pipeline.targets.interface import input_specs, output_specs
        from pipeline.targets.jobs import compile_model

        request = self.request
        interface = (
            input_specs(self.specs, workspace.get("export_inputs")),
            output_specs(workspace.get("signature")),
        )
        folder = _fresh(workspace.scratch / self.name)
        made, answer = compile_model(
            request, workspace.get("model").path, interface, folder, workspace.emit, stage=self.name
        )
        compiled = made.compiled
        workspace.put("compiled", made)
        seconds = float(answer.data["seconds"])
        return Verdict(
            summary=f"{made.size / MIB:.1f} MiB in {seconds:.1f} s, {compiled.precision}",
            measured={
                "target": {
                    "name": request.target,
                    "versions": dict(request.versions),
                    "compile_seconds": round(seconds, 6),
                    "compile_peak_mib": answer.peak_mib,
                    "artifact_bytes": made.size,
                    "files": {name: len(data) for name, data in made.data.items()},
                    "compiled_precision": {"found": compiled.precision, "proof": compiled.proof},
                    "facts": dict(compiled.facts),
                    **_told(answer),
                }
            },
        )

    def ensures(self, workspace: Workspace) -> None:
        """Every file that the backend names is there and holds something."""
        made: CompiledFiles = workspace.get("compiled")
        if not made.data or any(not len(data) for data in made.data.values()):
            raise StageFailed("PL-647", f"{self.request.target} left an empty file")


@dataclass(frozen=True)
class ExecuteStage:
    """Loads the compiled files in a fresh process, runs every set of parity inputs and takes the time."""

    request: TargetRequest

    name: ClassVar[str] = "execute"
    takes: ClassVar[tuple[str, ...]] = ("compiled", "parity_inputs")
    makes: ClassVar[tuple[str, ...]] = ("target_outputs",)
    storable: ClassVar[bool] = True

    def key_parts(self) -> KeyParts:
        """The runtime; options may matter to it as well."""
        return self.request.key_parts(*_WORK, options=dict(self.request.options))

    def requires(self, workspace: Workspace) -> None:
        """There is something to run."""
        if not workspace.get("parity_inputs"):
            raise InternalError("no parity inputs to run the compiled model on")

    def run(self, workspace: Workspace) -> Verdict:
        """Run in a process in which nothing was compiled, from a copy of the compiled files."""
        from pipeline.targets.jobs import run_compiled

        request = self.request
        made: CompiledFiles = workspace.get("compiled")
        outputs, answer = run_compiled(
            request, made, workspace.get("parity_inputs"), _fresh(workspace.scratch / self.name),
            workspace.emit, stage=self.name,
        )  # fmt: skip
        workspace.put("target_outputs", outputs)
        latency = dict(answer.data["latency"])
        measured = {
            "target": {
                "load_seconds": round(float(answer.data["load_seconds"]), 6),
                "run_seconds": round(float(answer.data["run_seconds"]), 6),
                "run_peak_mib": answer.peak_mib,
                "latency": latency,
                "precision": {
                    "asked": request.precision,
                    "found": outputs.precision,
                    "proof": outputs.proof,
                },
                **_told(answer, "run_log"),
            }
        }
        if not serves(request.precision, outputs.precision):
            error = StageFailed(
                "PL-648", f"{request.target} does not run in the precision that was asked",
                where="target.precision", found=f"{outputs.precision} ({outputs.proof})",
                expected=request.precision, next_step=self._other(outputs),
            )  # fmt: skip
            error.measured = measured
            raise error
        return Verdict(
            summary=f"{latency['median_ms']:.3g} ms median of {latency['runs']} runs, "
            f"{latency['threads']} threads, {outputs.precision}",
            measured=measured,
        )

    def ensures(self, workspace: Workspace) -> None:
        """Every set of inputs has its outputs."""
        found: TargetOutputs = workspace.get("target_outputs")
        if set(found.outputs) != set(workspace.get("parity_inputs")):
            raise InternalError("the compiled model was not run on every set of inputs")

    def _other(self, found: TargetOutputs) -> str | None:
        """The precision that it does run in, where that can be asked for: a network in float16 is one."""
        names = [name for name in self.request.backend.precisions if serves(name, found.precision)]
        return f"Type target.precision={names[0]}" if names else None


@dataclass(frozen=True)
class CompareStage:
    """Compares what the compiled model gave with the network; see `pipeline.targets.compare`."""

    request: TargetRequest
    k: float

    name: ClassVar[str] = "compare"
    takes: ClassVar[tuple[str, ...]] = ("target_outputs", "reference", "signature")
    makes: ClassVar[tuple[str, ...]] = ("target_report",)
    storable: ClassVar[bool] = True

    def key_parts(self) -> KeyParts:
        """The rule and the code that compares."""
        return KeyParts(
            config={"tolerance": self.request.tolerance, "precision": self.request.precision, "k": self.k},
            code=("pipeline.targets.compare", "pipeline.targets.vacuity"),
            packages=("numpy",),
        )

    def requires(self, workspace: Workspace) -> None:
        """The reference holds something to compare with."""
        if not workspace.get("reference").outputs:
            raise InternalError("a target was planned although the reference holds no outputs (parity=none)")

    def run(self, workspace: Workspace) -> Verdict:
        """Every output on every set of inputs; fails with the worst and its place, vacuous as in parity."""
        from pipeline.targets.compare import TargetReport, compare_target, failure, whole_tolerance
        from pipeline.targets.vacuity import judge_on_target

        request = self.request
        found: TargetOutputs = workspace.get("target_outputs")
        reference: Reference = workspace.get("reference")
        rule: dict[str, Any] = {"precision": request.precision, "tolerance": request.tolerance, "k": self.k}
        comparisons: list[OutputComparison] = compare_target(reference, found.outputs, **rule)
        allowed = whole_tolerance(reference, **rule)
        lines = tuple(one.line() for one in comparisons)
        if not all(one.passed for one in comparisons):
            raise failure(comparisons, request.target, request.precision, lines)
        for label in sorted({one.label for one in comparisons if one.drowned}):
            message = f"inputs {label} prove little in {request.precision}: rounding would hide a fault"
            workspace.emit(Finding(self.name, "warning", message))
        names: tuple[str, ...] = workspace.get("signature").names
        reason, little = judge_on_target(reference, names, tolerance=request.tolerance, k=self.k)
        for sentence in () if reason else little:
            message = f"{sentence}: its comparison on {request.target} proves little"
            workspace.emit(Finding(self.name, "warning", message))
        if allowed > request.tolerance:
            message = (f"the network's own rounding asks for more than the tolerance {request.tolerance:.2g} "
                       f"in {request.precision}: {allowed:.2g} is taken")  # fmt: skip
            workspace.emit(Finding(self.name, "info", message))
        worst = min(comparisons, key=lambda one: one.margin)
        workspace.put("target_report", TargetReport(lines, allowed))
        return Verdict(
            status="vacuous" if reason else "passed",
            reason=reason,
            summary=f"{summary_of(worst)}, {len(lines)} comparisons",
            measured={"target": {"parity": list(lines), "worst": worst.line(), "tolerance": allowed}},
        )

    def ensures(self, workspace: Workspace) -> None:
        """Every output was compared on every set of inputs."""
        report = workspace.get("target_report")
        signature: Signature = workspace.get("signature")
        wanted = {
            (label, name) for label in workspace.get("target_outputs").outputs for name in signature.names
        }
        if missing := wanted - {(line["seed"], line["output"]) for line in report.lines}:
            raise InternalError(f"the comparison left out {sorted(missing)[:3]}")


@dataclass(frozen=True)
class BundleStage:
    """Writes `<target>/bundle/` and runs its program where the pipeline cannot be imported."""

    request: TargetRequest

    name: ClassVar[str] = "bundle"
    takes: ClassVar[tuple[str, ...]] = (
        "model", "compiled", "parity_inputs", "reference", "target_outputs", "target_report",
    )  # fmt: skip
    makes: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[bool] = False

    def key_parts(self) -> KeyParts:
        """How the files are written."""
        return self.request.key_parts("pipeline.targets.bundle", "pipeline.targets.program")

    def requires(self, workspace: Workspace) -> None:
        """Nothing beyond its artifacts."""

    def run(self, workspace: Workspace) -> Verdict:
        """Write every file; which of them may differ from run to run stands in run.json."""
        from pipeline.targets.bundle import write_bundle

        files = write_bundle(self.request, workspace)
        size = sum(path.stat().st_size for path in files)
        return Verdict(summary=f"{len(files)} files, {size / MIB:.1f} MiB")

    def ensures(self, workspace: Workspace) -> None:
        """The program of the bundle reproduces the expected outputs."""
        from pipeline.targets.bundle import prove_bundle

        prove_bundle(self.request, workspace)


def _fresh(folder: Path) -> Path:
    """An empty folder: what an earlier process left there cannot be taken for this one's."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder.absolute()


def _told(answer: Answer, key: str = "compile_log") -> dict[str, Any]:
    lines = {key: list(answer.suspicious)} if answer.suspicious else {}
    return {"isolation": answer.isolation, **lines}


__all__ = [
    "TOLERANCES", "BundleStage", "CompareStage", "CompileStage", "ExecuteStage", "TargetRequest",
    "target_stages",
]  # fmt: skip
