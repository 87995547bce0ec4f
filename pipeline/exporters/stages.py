"""The stage that exports the network. No torch, no onnx until it runs."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from pipeline.config.code import user_code_digest
from pipeline.errors import InternalError
from pipeline.events import Finding
from pipeline.exporters.config import ExportConfig
from pipeline.exporters.opsets import Exporter
from pipeline.exporters.parameters import exporters
from pipeline.graph.rewrites.names import LOWERING
from pipeline.graph.rewrites.rewriting import names_of
from pipeline.samples.spec import InputSpecs
from pipeline.stage import KeyParts, Verdict, Workspace

if TYPE_CHECKING:
    from pipeline.exporters.attempts import Attempts
    from pipeline.graph.bare import BareModel

SYMBOLICS_KEY: Final = "export.custom_symbolics"
#: Fields of ExportConfig that other stages use.
_NOT_OURS: Final = (
    "external_data",
    "ir_version",
    "input_names",
    "output_names",
    "opset",
    "custom_symbolics",
)
_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class ExportStage:
    """torch to ONNX, with the weights held aside.

    Attributes:
        config: what was asked.
        opset: of ai.onnx, resolved.
        specs: the inputs, whose names are those of the graph.
        parameter_names: names for the network's parameters, in the order of its state.
        private_apis: whether hooks inside torch may be used for speed; the bytes are the same.
        first: the exporter that the target prefers, where the request leaves the choice.
    """

    config: ExportConfig
    opset: int
    specs: InputSpecs
    parameter_names: tuple[str, ...]
    private_apis: bool
    first: Exporter | None = None

    name: ClassVar[str] = "export"
    takes: ClassVar[tuple[str, ...]] = ("network", "export_inputs", "signature")
    makes: ClassVar[tuple[str, ...]] = ("exported", "attempts")
    storable: ClassVar[bool] = True

    def key_parts(self) -> KeyParts:
        """What shapes the graph; which road was taken does not."""
        data = {name: value for name, value in vars(self.config).items() if name not in _NOT_OURS}
        extra = {}
        if self.config.custom_symbolics is not None:
            extra["custom_symbolics"] = user_code_digest(self.config.custom_symbolics, SYMBOLICS_KEY).sha256
        packages = ["torch", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "onnxsim"]
        return KeyParts(
            config={
                **data,
                "opset": self.opset,
                "inputs": self.specs.data(),
                "parameter_names": list(self.parameter_names),
                "exporters": list(exporters(self.config, self.opset, self.first)),
            },
            code=(
                "pipeline.exporters.choice",
                "pipeline.exporters.torchscript",
                "pipeline.exporters.dynamo",
                "pipeline.graph.rewrites.prove",
                "pipeline.graph.rewrites.raising",
                "pipeline.graph.simplify",
                *(f"pipeline.graph.rewrites.{family}" for family in LOWERING),
            ),
            packages=tuple(packages),
            extra=extra,
        )

    def requires(self, workspace: Workspace) -> None:
        """The export inputs are the leaves of the specification."""
        names = tuple(workspace.get("export_inputs"))
        if set(names) != {leaf.name for leaf in self.specs.leaves}:
            raise InternalError(f"export inputs {names} are not those of the specification")

    def run(self, workspace: Workspace) -> Verdict:
        """Export; the scratch folder stays for as long as weights lie in it."""
        # No name for the network or the graph here: exceptions that were caught while modules were
        # imported keep this frame, and with it whatever it names (see SourceStage).
        self._import_modules(workspace)
        return self._export(workspace)

    def _import_modules(self, workspace: Workspace) -> None:
        import pipeline.exporters.choice  # noqa: F401

        if self.private_apis and exporters(self.config, self.opset, self.first)[0] == "dynamo":
            from pipeline.exporters.compiler_import import import_compiler
            from pipeline.exporters.dynamo import holds_itself_nowhere

            # Modules stay: without them, the collection that lets go of what an export leaves takes 0.3 s
            # less. What holds itself would stay as well.
            if import_compiler() and holds_itself_nowhere(workspace.get("network").module):
                gc.freeze()

    def _export(self, workspace: Workspace) -> Verdict:
        from pipeline.exporters.choice import export

        scratch = workspace.scratch / self.name
        scratch.mkdir(parents=True, exist_ok=True)
        with workspace.get("network").at_work(self.name):
            model, attempts = export(
                workspace.get("network"),
                workspace.get("export_inputs"),
                workspace.get("signature"),
                self.config,
                opset=self.opset,
                parameter_names=self.parameter_names,
                emit=workspace.emit,
                private_apis=self.private_apis,
                scratch=scratch,
                first=self.first,
            )
        workspace.put("exported", model)
        workspace.put("attempts", attempts)
        if attempts.frozen:
            workspace.emit(_frozen(attempts))
        passed = attempts.passed
        written = f"opset {passed.opset}"
        if passed.converted_from is not None:
            by = f" by {names_of(passed.rules)}" if passed.rules else ""
            written += f" from {passed.converted_from}{by}"
        summary = f"{passed.exporter}, {written}, {model.held_bytes / _MIB:.0f} MiB held aside"
        return Verdict(summary=summary, recorded={"attempts": attempts.to_json()})

    def ensures(self, workspace: Workspace) -> None:
        """What was asked stands in the bare graph: names, order, opset, and where each weight is from."""
        model: BareModel = workspace.get("exported")
        attempts: Attempts = workspace.get("attempts")
        model.check_invariant()
        wanted = (*(leaf.name for leaf in self.specs.leaves), *attempts.parameters)
        if model.inputs != wanted:
            raise InternalError(f"the exported graph has inputs {model.inputs} instead of {wanted}")
        if model.outputs != workspace.get("signature").names:
            raise InternalError(f"the exported graph has outputs {model.outputs}")
        proto = model.parsed()
        opsets = {entry.domain: entry.version for entry in proto.opset_import}
        if opsets.get("") != self.opset:
            raise InternalError(f"the exported graph has opset {opsets.get('')} instead of {self.opset}")
        for domain, version in self.config.custom_opsets.items():
            if opsets.get(domain) != version:
                raise InternalError(f"the exported graph has operator set {domain} {opsets.get(domain)}")
        if unexplained := [name for name, held in model.held.items() if not (held.origin or held.derived_by)]:
            raise InternalError(f"nobody says where the tensors {unexplained} come from")


def _frozen(attempts: Attempts) -> Finding:
    count = len(attempts.frozen)
    return Finding(
        "export",
        "info",
        f"tracing turned values into constants at {count} {'place' if count == 1 else 'places'}; parity shows "
        "whether that matters",
        {"places": [[place.place, place.kind, place.count] for place in attempts.frozen]},
    )
