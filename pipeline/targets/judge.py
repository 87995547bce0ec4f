"""A finished graph against a profile: findings, and where each node would run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pipeline.targets.placement import COUNTED, Place, Placement, place
from pipeline.targets.profile import Profile

if TYPE_CHECKING:
    import onnx


Verdict: TypeAlias = Literal["refused", "limited-to-cpu", "unknown"]
#: Worst first.
VERDICTS: Final[tuple[Verdict, ...]] = ("refused", "unknown", "limited-to-cpu")


@dataclass(frozen=True)
class Finding:
    """Something that the target does not take as it is, or that cannot be told.

    Attributes:
        node: its name; None: it is about the whole graph.
        operator: of the node.
        module, line: where in the network it came from, where that is known.
        limit: what the target asks for.
        found: the value that was found.
        verdict: refused; limited-to-cpu: it works, slower; unknown: nobody can tell here.
        mend: the rule or change of the request that would mend it.
    """

    node: str | None
    operator: str | None
    limit: str
    found: str
    verdict: Verdict
    mend: str | None = None
    module: str | None = None
    line: str | None = None


@dataclass(frozen=True)
class Judgement:
    """What a profile says of a graph: all of it predicted from data, nothing measured.

    Attributes:
        profile: the target's name; `digest` of its resolved profile.
        opset, ir_version: of the file.
        findings: whole graph first, then by node in the order of the graph.
        placements: every node, in the order of the graph.
        switches: tensors that pass between accelerator and CPU.
        remarks: what the profile itself does not know.
        problem: why shapes could not be inferred, if so.
    """

    profile: str
    digest: str
    opset: int | None
    ir_version: int
    findings: tuple[Finding, ...]
    placements: tuple[Placement, ...]
    switches: int
    remarks: tuple[str, ...] = ()
    problem: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def refused(self) -> tuple[Finding, ...]:
        """Findings that end the run."""
        return tuple(finding for finding in self.findings if finding.verdict == "refused")

    @property
    def unknown(self) -> tuple[Finding, ...]:
        """Findings that nobody can decide here."""
        return tuple(finding for finding in self.findings if finding.verdict == "unknown")

    @property
    def passed(self) -> bool:
        """Nothing is refused and nothing unknown."""
        return not self.refused and not self.unknown

    def figures(self) -> dict[str, Any]:
        """Counts and shares; JSON data, all predicted."""
        counts = Counter(placement.place for placement in self.placements)
        alive = [placement for placement in self.placements if placement.place != "folded"]
        macs = sum(placement.macs or 0 for placement in alive)
        on = [placement for placement in alive if placement.place == "accelerator"]
        return {
            "predicted": True,
            "nodes": len(self.placements),
            "placed": dict(sorted(counts.items())),
            "nodes_on_accelerator": _share(len(on), len(alive)),
            "macs": macs,
            "macs_not_known": sum(one.operator in COUNTED and one.macs is None for one in alive),
            "macs_on_accelerator": _share(sum(placement.macs or 0 for placement in on), macs),
            "switches": self.switches,
            "refused": len(self.refused),
            "unknown": len(self.unknown),
        }

    def to_json(self) -> dict[str, Any]:
        """All of it; placements are in placement.csv and .json."""
        return {
            "profile": self.profile,
            "profile_digest": self.digest,
            "opset": self.opset,
            "ir_version": self.ir_version,
            "places": dict(self.places),
            **self.figures(),
            "findings": [{key: value for key, value in asdict(one).items() if value is not None}
                         for one in self.findings],
            "remarks": list(self.remarks),
            "shape_inference": self.problem,
        }  # fmt: skip


def judge(
    profile: Profile,
    model: str | Path | onnx.ModelProto,
    *,
    modules: Mapping[str, str] | None = None,
    lines: Mapping[str, str] | None = None,
    held: Iterable[str] = (),
    requested: Iterable[str] = (),
) -> Judgement:
    """What `profile` says of a graph.

    Args:
        profile: the target.
        model: a file, or a proto whose large weights may be missing.
        modules: node name to the module of the network that it came from.
        lines: node name to "file:line".
        held: graph inputs of the proto that stand for initializers.
        requested: names of nodes for which the accelerator is asked.

    Raises:
        Refused: the file is damaged or cannot be read.
    """
    from pipeline.targets.graph_checks import graph_findings
    from pipeline.targets.graph_facts import graph_facts, read_file

    proto = read_file(Path(model)) if isinstance(model, (str, Path)) else model
    facts = graph_facts(proto, held=frozenset(held))
    asked = frozenset(requested) | requested_nodes(profile.options)
    modules, lines = modules or {}, lines or {}
    placements, findings = [], []
    by_output: dict[str, Place] = {}
    crossing: set[tuple[str, Place]] = set()
    for name, node, folded in facts.nodes():
        node.requested = name in asked or node.node.name in asked
        placed = place(profile, node, folded=folded)
        placements.append(placed)
        crossing.update(_crossings(node.inputs, by_output, placed.place))
        by_output.update(dict.fromkeys(node.outputs, placed.place))
        key = node.node.name or name
        if finding := _finding(profile, placed, modules.get(key), lines.get(key)):
            findings.append(finding)
    return Judgement(
        profile=profile.name,
        digest=profile.digest,
        opset=facts.opsets.get(""),
        ir_version=proto.ir_version,
        findings=(*graph_findings(profile, facts, placements), *findings),
        placements=tuple(placements),
        switches=len(crossing),
        remarks=profile.remarks,
        problem=facts.problem,
        places=profile.places,
    )


def requested_nodes(options: Mapping[str, Any]) -> frozenset[str]:
    """Nodes that options ask to be on the accelerator: run_on_bpu (names, or a text with ;) and node_info."""
    given = options.get("run_on_bpu") or ()
    names = given.split(";") if isinstance(given, str) else given
    table = options.get("node_info")
    named = [
        str(node)
        for node, row in (table.items() if isinstance(table, Mapping) else ())
        if isinstance(row, Mapping) and row.get("ON") == "BPU"
    ]
    return frozenset((*(str(name).strip() for name in names), *named))


def _crossings(
    inputs: Iterable[str], made_on: Mapping[str, Place], here: Place
) -> Iterable[tuple[str, Place]]:
    """Tensors that come from the other place."""
    other: Place | None = {"accelerator": "cpu", "cpu": "accelerator"}.get(here)  # type: ignore[assignment]
    return [(name, here) for name in inputs if other is not None and made_on.get(name) == other]


def _finding(profile: Profile, placed: Placement, module: str | None, line: str | None) -> Finding | None:
    verdict: Verdict | None = {"unsupported": "refused", "unknown": "unknown", "cpu": "limited-to-cpu"}.get(
        placed.place
    )  # type: ignore[assignment]
    rule = profile.operators.get(placed.operator)
    if verdict is None or (placed.place == "cpu" and rule is None):
        return None
    misses = [miss for miss in placed.misses if miss.unclear == (verdict == "unknown")]
    mend = next((miss.mend for miss in misses if miss.mend), None) or (rule.mend if rule else None)
    return Finding(
        node=placed.node,
        operator=placed.operator,
        limit="; ".join(miss.limit for miss in misses) or placed.why,
        found=", ".join(dict.fromkeys(miss.found for miss in misses if miss.found)) or placed.operator,
        verdict=verdict,
        mend=mend or _default_mend(profile, verdict, rule is None),
        module=module,
        line=line,
    )


def _default_mend(profile: Profile, verdict: Verdict, unlisted: bool) -> str | None:
    if verdict == "refused":
        return "replace the operator in the network, or cut the model before it"
    if verdict == "unknown":
        if unlisted:
            return "once it is known, state it in target.limits.operators"
        return "ask the vendor's tool; what it answers can be stated in target.limits.operators"
    return None


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
