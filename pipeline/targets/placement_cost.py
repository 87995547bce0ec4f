"""What a graph costs on a target that has an accelerator and a CPU: as predicted, from the profile alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.targets.profile import Profile

if TYPE_CHECKING:
    from pipeline.graph.bare import BareModel
    from pipeline.targets.placement import Placement

#: The place beside the accelerator that a profile names where a device has one.
_CPU: Final = "cpu"


@dataclass(frozen=True)
class PlacementCost:
    """Counts of a graph on a target, for `pipeline.graph.rewrites.weighing`.

    Attributes:
        profile: resolved.
        options: `target.options`: they may ask for nodes to be on the accelerator.
    """

    profile: Profile
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Refused first: such a graph does not run at all, and one that nobody knows of may not. Then what takes
    #: time: work left to the CPU, passages from one to the other, nodes on the CPU, and those that are there
    #: unless only the compiler knows better. Among equals the smaller graph.
    counted: ClassVar[tuple[str, ...]] = (
        "findings that end the run", "nodes of which it is not known whether they run",
        "multiply-accumulates off the accelerator", "passages between accelerator and CPU",
        "nodes on the CPU", "nodes of unknown place", "nodes",
    )  # fmt: skip
    code: ClassVar[tuple[str, ...]] = ("pipeline.targets.placement_cost", "pipeline.targets.judge")

    def of(self, model: BareModel) -> tuple[int, ...]:
        """The counts of a graph; weights may be held aside."""
        from pipeline.targets.judge import judge, requested_nodes

        judgement = judge(
            self.profile, model.parsed(), held=model.held, requested=requested_nodes(self.options)
        )
        alive = [one for one in judgement.placements if one.place != "folded"]
        placed = Counter(one.place for one in alive)
        doubtful = sum(one.place == "unknown" and not self._runs(one) for one in alive)
        off = sum(one.macs or 0 for one in alive if one.place != "accelerator")
        return (
            len(judgement.refused), doubtful, off, judgement.switches, placed["cpu"], placed["unknown"], len(alive)
        )  # fmt: skip

    def _runs(self, placement: Placement) -> bool:
        """Whether the CPU takes a node of which it is not known whether the accelerator does."""
        rule = self.profile.operators.get(placement.operator)
        if rule is None or rule.cpu in ("none", "unknown"):
            return False
        return all(miss.side != _CPU for miss in placement.misses)

    def key(self) -> Mapping[str, Any]:
        """The profile and the nodes that the request asks for."""
        from pipeline.targets.judge import requested_nodes

        return {"profile": self.profile.digest, "requested": sorted(requested_nodes(self.options))}


def cost_on(profile: Profile, options: Mapping[str, Any]) -> PlacementCost | None:
    """What rules are weighed by; None for a target with one place, on which a rule cannot move a node."""
    return PlacementCost(profile, dict(options)) if _CPU in profile.places else None
