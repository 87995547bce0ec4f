"""The stages of this room: simplify, check, assemble, contract. Importable without onnx."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pipeline.events import Finding
from pipeline.graph.config import SimplifyConfig
from pipeline.stage import KeyParts, Verdict, Workspace

if TYPE_CHECKING:
    from pipeline.graph.bare import BareModel
    from pipeline.graph.contract import Promises

MODEL_FILE: Final = "model.onnx"
SOURCE_MAP_FILE: Final = "source_map.json"
MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class SimplifyStage:
    """onnxsim on the bare graph, its result proved; see `pipeline.graph.simplify`.

    Attributes:
        private_apis: False: only onnxsim's public interface (same bytes, slower to import).
        keep: names that parameters must still have afterwards.
    """

    config: SimplifyConfig
    private_apis: bool
    keep: tuple[str, ...] = ()
    name: ClassVar[str] = "simplify"
    takes: ClassVar[tuple[str, ...]] = ("exported", "export_inputs")
    makes: ClassVar[tuple[str, ...]] = ("simplified",)
    storable: ClassVar[bool] = True

    def key_parts(self) -> KeyParts:
        return KeyParts(
            config={"kind": self.config.kind, "keep": list(self.keep)},
            code=("pipeline.graph.simplify",),
            packages=("numpy", "onnx", "onnxruntime", "onnxsim"),
        )

    def requires(self, workspace: Workspace) -> None:
        workspace.get("exported").check_invariant()

    def run(self, workspace: Workspace) -> Verdict:
        from pipeline.graph.simplify import operators, simplify

        exported: BareModel = workspace.get("exported")
        simplified, done = simplify(
            exported, workspace.get("export_inputs"), private_apis=self.private_apis, keep=self.keep
        )
        workspace.put("simplified", simplified)
        measured: dict[str, Any] = {
            "nodes": done.nodes_after,
            "nodes_before": done.nodes_before,
            "outcome": done.outcome,
            "operators": operators(simplified),
        }
        if done.error is not None:
            measured["error"] = done.error
        summary = f"{done.nodes_after} nodes, {done.nodes_before} before"
        if done.outcome == "unchanged":
            summary = f"{done.nodes_after} nodes, nothing to simplify"
        if done.reason is not None:
            measured["reason"] = done.reason.to_json()
            summary = f"not simplified: {done.reason.found}"
            workspace.emit(Finding(self.name, "warning", done.reason.sentence(), done.reason.to_json()))
        return Verdict(summary=summary, measured=measured)

    def ensures(self, workspace: Workspace) -> None:
        """The interface is the exported one's, and every held tensor has a use or a name to keep."""
        from pipeline.errors import InternalError

        exported: BareModel = workspace.get("exported")
        simplified: BareModel = workspace.get("simplified")
        simplified.check_invariant()
        same = ("inputs", "outputs", "shown_parameters")
        if changed := [name for name in same if getattr(exported, name) != getattr(simplified, name)]:
            raise InternalError(f"simplify changed {changed}")
        if lost := [name for name in self.keep if name in exported.held and name not in simplified.held]:
            raise InternalError(f"simplify lost the parameters {lost}")


@dataclass(frozen=True)
class CheckStage:
    """onnx.checker with full check and strict shape inference on the bare graph."""

    name: ClassVar[str] = "check"
    takes: ClassVar[tuple[str, ...]] = ("finished",)
    makes: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[bool] = False

    def key_parts(self) -> KeyParts:
        return KeyParts(code=("pipeline.graph.check",), packages=("onnx",))

    def requires(self, workspace: Workspace) -> None:
        """Any bare model can be checked."""

    def run(self, workspace: Workspace) -> Verdict:
        from pipeline.graph.check import check, unchecked_domains
        from pipeline.graph.simplify import count_nodes, operators

        model: BareModel = workspace.get("finished")
        check(model)
        for domain, number in unchecked_domains(model).items():
            workspace.emit(
                Finding(
                    self.name,
                    "info",
                    f"{number} nodes of the domain {domain} are not checked: onnx knows no schemas of it",
                    {"domain": domain, "nodes": number},
                )
            )
        total = count_nodes(model)
        return Verdict(summary=f"{total} nodes", measured={"nodes": total, "operators": operators(model)})

    def ensures(self, workspace: Workspace) -> None:
        """Nothing is made."""


@dataclass(frozen=True)
class AssembleStage:
    """Writes model.onnx (and model.onnx.data), and source_map.json."""

    external_data: Literal["auto", "always", "never"]
    ir_version: int | None
    metadata: Mapping[str, str] = field(default_factory=dict)
    name: ClassVar[str] = "assemble"
    takes: ClassVar[tuple[str, ...]] = ("finished",)
    makes: ClassVar[tuple[str, ...]] = ("model",)
    storable: ClassVar[bool] = False

    def key_parts(self) -> KeyParts:
        return KeyParts(
            config={
                "external_data": self.external_data,
                "ir_version": self.ir_version,
                "metadata": dict(self.metadata),
            },
            code=("pipeline.graph.assemble",),
            packages=("onnx",),
        )

    def requires(self, workspace: Workspace) -> None:
        workspace.get("finished").check_invariant()

    def run(self, workspace: Workspace) -> Verdict:
        from pipeline.graph.assemble import assemble
        from pipeline.graph.source_map import mapped_share, source_map

        model: BareModel = workspace.get("finished")
        file = assemble(
            model,
            workspace.file(MODEL_FILE, "model"),
            external_data=self.external_data,
            metadata=self.metadata,
            ir_version=self.ir_version,
        )
        workspace.digest(MODEL_FILE, file.sha256)
        if file.data_path is not None and file.data_sha256 is not None:
            workspace.file(file.data_path.name, "model")
            workspace.digest(file.data_path.name, file.data_sha256)
        workspace.put("model", file)
        text = json.dumps(source_map(model), sort_keys=True, indent=1, ensure_ascii=False)
        # Lines move with comments, so this file may differ where the request is the same.
        workspace.file(SOURCE_MAP_FILE, "source_map", same_every_time=False).write_text(
            text + "\n", encoding="utf-8"
        )
        size = file.size + file.data_size
        return Verdict(
            summary=f"{size / MIB:.1f} MiB" + (", weights beside it" if file.data_path else ""),
            measured={"bytes": size, "mapped_nodes": round(mapped_share(model), 4)},
        )

    def ensures(self, workspace: Workspace) -> None:
        """What was written is read back by the contract."""


@dataclass(frozen=True)
class ContractStage:
    """Reads the finished file back and asserts what the configuration promised."""

    promises: Promises
    name: ClassVar[str] = "contract"
    takes: ClassVar[tuple[str, ...]] = ("model", "finished", "signature")
    makes: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[bool] = False

    def key_parts(self) -> KeyParts:
        config = json.loads(json.dumps(asdict(self.promises), sort_keys=True))
        return KeyParts(config=config, code=("pipeline.graph.contract",), packages=("onnx",))

    def requires(self, workspace: Workspace) -> None:
        """What the stages before made is enough."""

    def run(self, workspace: Workspace) -> Verdict:
        from pipeline.graph.contract import assert_contract

        file = workspace.get("model")
        contract = assert_contract(
            file.path,
            self.promises,
            model=workspace.get("finished"),
            file=file,
            outputs=workspace.get("signature"),
        )
        opset = contract.opsets.get("", contract.opsets.get("ai.onnx"))
        return Verdict(
            summary=f"opset {opset}, IR version {contract.ir_version}", recorded=contract.recorded()
        )

    def ensures(self, workspace: Workspace) -> None:
        """Nothing is made."""
