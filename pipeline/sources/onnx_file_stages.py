"""The stages that stand for source, reference and export where a ready .onnx is the source.

No onnx, no numpy until they run, and torch never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import InternalError, StageFailed
from pipeline.events import Finding
from pipeline.parity.config import ParityConfig
from pipeline.samples.spec import InputSpecs
from pipeline.sources.identity import SourceIdentity
from pipeline.stage import ArtifactParts, KeyParts, Verdict, Workspace

if TYPE_CHECKING:
    from pipeline.graph.bare import BareModel

_MIB = 1024 * 1024


@dataclass(frozen=True)
class OnnxFileStage:
    """Opens the file: its graph with the weights held aside where they lie.

    Attributes:
        path: the file.
        identity: of the same file, when the request was read.
        specs: its inputs, under the names of the file.
    """

    path: Path
    identity: SourceIdentity
    specs: InputSpecs

    name: ClassVar[str] = "source"
    takes: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]] = ("file_graph",)
    storable: ClassVar[bool] = False
    on_demand: ClassVar[bool] = True  #: made when a stage that really runs asks for it

    def key_parts(self) -> KeyParts:
        """The file by its digests, wherever it lies."""
        return KeyParts(
            config={"source": "onnx_file", "inputs": self.specs.data()},
            code=("pipeline.sources.onnx_graph",),
            packages=("onnx",),
            extra=_digests(self.identity),
        )

    def requires(self, workspace: Workspace) -> None:
        """The file is still the one that the keys speak of."""
        _refuse_changed(self.path, self.identity)

    def run(self, workspace: Workspace) -> Verdict:
        """Put the graph; refuses a file that is not valid."""
        from pipeline.sources.onnx_graph import open_file

        bare = open_file(self.path, self.specs)
        workspace.put("file_graph", bare)
        return Verdict(summary=f"{self.path.name}, {bare.held_bytes / _MIB:.1f} MiB held aside")

    def ensures(self, workspace: Workspace) -> None:
        """Its inputs are those of the specification."""
        bare: BareModel = workspace.get("file_graph")
        bare.check_invariant()
        if bare.inputs != tuple(leaf.name for leaf in self.specs.leaves):
            raise InternalError(f"the file's graph has inputs {bare.inputs}")


@dataclass(frozen=True)
class FileReferenceStage:
    """Runs the file as it came; see `pipeline.parity.file_reference`."""

    path: Path
    identity: SourceIdentity
    specs: InputSpecs
    config: ParityConfig

    name: ClassVar[str] = "reference"
    takes: ClassVar[tuple[str, ...]] = ("file_graph", "export_inputs", "parity_inputs")
    makes: ClassVar[tuple[str, ...]] = ("reference", "signature")
    storable: ClassVar[bool] = True

    def key_parts(self) -> KeyParts:
        """As with a network: tolerances do not make it anew, and the signature needs no parity setting."""
        return KeyParts(
            config={"kind": self.config.kind},
            code=("pipeline.parity.file_reference",),
            packages=("onnxruntime", "numpy"),
            artifacts={"signature": ArtifactParts(takes=("file_graph", "export_inputs"))},
        )

    def requires(self, workspace: Workspace) -> None:
        """The file is still the one that the keys speak of."""
        _refuse_changed(self.path, self.identity)

    def run(self, workspace: Workspace) -> Verdict:
        """See `make_file_reference`; a file that ONNX Runtime does not load is refused."""
        from pipeline.parity.file_reference import make_file_reference
        from pipeline.sources.onnx_graph import is_value_dependent, refused

        try:
            reference, signature = make_file_reference(
                self.path,
                self.specs,
                workspace.get("export_inputs"),
                workspace.get("parity_inputs"),
                self.config,
                workspace.emit,
                value_dependent=is_value_dependent(workspace.get("file_graph")),
            )
        except StageFailed as error:
            if error.reason.code != "PL-510":
                raise
            raise refused(error, self.path) from error
        workspace.put("reference", reference)
        workspace.put("signature", signature)
        if self.config.kind == "noise":
            workspace.emit(
                Finding(
                    self.name, "info", f"the file's own noise is assumed, not measured: {reference.declined}"
                )
            )
        runs = len(reference.outputs)
        return Verdict(summary=f"the file as it came, {runs} inputs" if runs else "outputs known")

    def ensures(self, workspace: Workspace) -> None:
        """Every set of inputs has every output."""
        reference, names = workspace.get("reference"), workspace.get("signature").names
        for label in workspace.get("parity_inputs") if self.config.kind != "none" else ():
            if tuple(reference.outputs.get(label, ())) != names:
                raise InternalError(f"the reference lacks outputs for {label}")


@dataclass(frozen=True)
class AdoptStage:
    """Gives the file's graph the outputs that it was seen to have, and hands it over as if exported.

    Attributes:
        specs: the inputs, under the names of the file.
        file_opset: of ai.onnx, as the file came.
        opset: that is asked for: a converter brings the graph up, our rules bring it down.
        rules: `export.rules`.
    """

    specs: InputSpecs
    file_opset: int
    opset: int
    rules: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str] = "adopt"
    takes: ClassVar[tuple[str, ...]] = ("file_graph", "signature", "export_inputs")
    makes: ClassVar[tuple[str, ...]] = ("exported", "attempts")
    storable: ClassVar[bool] = False  #: the weights stay where they are, in the user's file

    def key_parts(self) -> KeyParts:
        """What shapes the graph."""
        converted = {} if self.opset == self.file_opset else {"rules": dict(self.rules)}
        return KeyParts(
            config={"opset": self.opset, **converted},
            code=("pipeline.sources.onnx_graph", *(("pipeline.exporters.conversion",) if converted else ())),
            packages=("onnx",),
        )

    def requires(self, workspace: Workspace) -> None:
        """Nothing beyond its artifacts."""

    def run(self, workspace: Workspace) -> Verdict:
        """Put both; the one attempt is the file itself, converted where another opset was asked."""
        from pipeline.exporters.attempts import Attempt, Attempts
        from pipeline.graph.rewrites.rewriting import names_of
        from pipeline.sources.onnx_graph import in_opset, with_outputs

        bare = with_outputs(workspace.get("file_graph"), self.specs, workspace.get("signature"))
        summary, attempt = f"opset {self.opset}, as it came", Attempt("file", self.opset, "passed")
        if self.opset != self.file_opset:
            bare, counts = in_opset(
                bare, self.file_opset, self.opset, workspace.get("export_inputs"), self.rules
            )
            by = f" by {names_of(counts)}" if counts else ""
            summary = f"opset {self.opset}, converted from {self.file_opset}{by}"
            attempt = Attempt("file", self.opset, "passed", converted_from=self.file_opset, rules=counts)
        attempts = Attempts((attempt,))
        workspace.put("exported", bare)
        workspace.put("attempts", attempts)
        return Verdict(summary=summary, recorded={"attempts": attempts.to_json()})

    def ensures(self, workspace: Workspace) -> None:
        """Names, order, opset, and where each weight is from."""
        bare: BareModel = workspace.get("exported")
        bare.check_invariant()
        if bare.outputs != workspace.get("signature").names:
            raise InternalError(f"the adopted graph has outputs {bare.outputs}")
        opsets = {entry.domain: entry.version for entry in bare.parsed().opset_import}
        if opsets.get("") != self.opset:
            raise InternalError(f"the adopted graph has opset {opsets.get('')} instead of {self.opset}")


def _digests(identity: SourceIdentity) -> dict[str, str]:
    return {"file": identity.code} | ({"data": identity.weights} if identity.weights else {})


def _refuse_changed(path: Path, identity: SourceIdentity) -> None:
    """Raise when somebody wrote to the file after the keys were computed."""
    from pipeline.sources.onnx_file import file_digests
    from pipeline.sources.onnx_reader import read_facts

    if file_digests(read_facts(path)) != (identity.code, identity.weights):
        raise StageFailed("PL-240", "the .onnx file changed while the run was at work", where=str(path))
