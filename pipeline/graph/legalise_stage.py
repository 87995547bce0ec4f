"""The stage that applies a target's rules. Importable without onnx."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.events import Finding
from pipeline.graph.rewrites.names import NAMES
from pipeline.graph.rewrites.rewriting import names_of
from pipeline.stage import KeyParts, Verdict, Workspace

if TYPE_CHECKING:
    from pipeline.graph.bare import BareModel
    from pipeline.graph.rewrites.weighing import Cost


@dataclass(frozen=True)
class LegaliseStage:
    """What the target refuses becomes what it takes; see `pipeline.graph.legalise`.

    Attributes:
        rules: names of the rules that are on, from `legalise.wanted_rules`.
        private_apis: as in `SimplifyStage`.
        simplifies: whether the simplifier runs again afterwards; False with simplify=none.
        keep: as in `SimplifyStage`.
        cost: what rules are weighed by, on a target with an accelerator and a CPU.
        asked: names of rules that the user asked for: they are not weighed.
    """

    rules: tuple[str, ...]
    private_apis: bool
    simplifies: bool = True
    keep: tuple[str, ...] = ()
    cost: Cost | None = None
    asked: tuple[str, ...] = ()
    name: ClassVar[str] = "legalise"
    takes: ClassVar[tuple[str, ...]] = ("simplified", "export_inputs")
    makes: ClassVar[tuple[str, ...]] = ("legalised",)
    storable: ClassVar[bool] = True

    def key_parts(self) -> KeyParts:
        # The families are imported by name, so that the key names those that take part.
        families = sorted({NAMES[name][1] for name in self.rules})
        weighed = {} if self.cost is None else {"cost": self.cost.key(), "asked": sorted(self.asked)}
        return KeyParts(
            config={
                "rules": sorted(self.rules),
                "simplifies": self.simplifies,
                "keep": list(self.keep),
                **weighed,
            },
            code=("pipeline.graph.legalise", *families, *(() if self.cost is None else self.cost.code)),
            packages=("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxsim"),
        )

    def requires(self, workspace: Workspace) -> None:
        workspace.get("simplified").check_invariant()

    def run(self, workspace: Workspace) -> Verdict:
        from pipeline.graph.legalise import legalise_and_prove
        from pipeline.graph.simplify import count_nodes, operators

        before: BareModel = workspace.get("simplified")
        done = legalise_and_prove(
            before,
            self.rules,
            workspace.get("export_inputs"),
            simplifies=self.simplifies,
            private_apis=self.private_apis,
            keep=self.keep,
            cost=self.cost,
            asked=self.asked,
        )
        workspace.put("legalised", done.model)
        measured: dict[str, Any] = {
            "nodes": count_nodes(done.model),
            "nodes_before": count_nodes(before),
            "operators": operators(done.model),
            **done.rewriting.to_json(),
        }
        if done.undone:
            measured["undone"] = [asdict(one) for one in done.undone]
        if done.error is not None:
            measured["error"] = done.error
        if done.approximation is not None:
            measured["approximation"] = done.approximation
            workspace.emit(
                Finding(
                    self.name,
                    "warning",
                    "rules that only approximate moved an output by "
                    f"{done.approximation:.1e} of its largest magnitude",
                    {"approximation": done.approximation},
                )
            )
        number = len(done.rewriting.applied)
        by = names_of(done.rewriting.counts)
        summary = f"{measured['nodes']} nodes, {number} rewritten by {by}" if number else "nothing to rewrite"
        return Verdict(summary=summary, measured=measured)

    def ensures(self, workspace: Workspace) -> None:
        """The interface is the one before, but for a frozen batch."""
        from pipeline.errors import InternalError

        before: BareModel = workspace.get("simplified")
        after: BareModel = workspace.get("legalised")
        after.check_invariant()
        same = ("inputs", "outputs", "shown_parameters")
        if changed := [name for name in same if getattr(before, name) != getattr(after, name)]:
            raise InternalError(f"rules changed {changed}")
        if lost := [name for name in self.keep if name in before.held and name not in after.held]:
            raise InternalError(f"rules lost the parameters {lost}")
        if "freeze_batch" not in self.rules:
            for (name, kind, sizes), (_, other, found) in zip(_types(before), _types(after), strict=True):
                # A size that was not known may have become known.
                if kind != other or any(a and a != b for a, b in zip(sizes, found, strict=False)):
                    raise InternalError(f"rules changed the type of {name}")


def _types(model: BareModel) -> list[tuple[str, int, list[int | str]]]:
    graph = model.parsed().graph
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input[: len(model.inputs)], *graph.output)
    ]
