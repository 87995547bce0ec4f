"""The stage that judges the finished file against the target's profile. Importable without onnx."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.errors import StageFailed
from pipeline.events import Finding as FindingEvent
from pipeline.graph.rewrites.names import NAMES
from pipeline.stage import KeyParts, Verdict, Workspace
from pipeline.targets.profile import Profile

if TYPE_CHECKING:
    from pipeline.targets.causes import Cause
    from pipeline.targets.judge import Judgement
    from pipeline.targets.placement import Placement

FINDINGS_FILE: Final = "findings.json"
PLACEMENT_FILES: Final = ("placement.csv", "placement.json")
COLUMNS: Final = ("node", "operator", "place", "predicted", "why", "macs", "module")
#: What begins with `export.opset=11` can be typed as it stands.
OVERRIDE: Final = re.compile(r"[a-z_]+\.[^\s=]+=\S+")
_RULE: Final = re.compile(r"\b(?:rule )?(?<!\.)([a-z0-9]+(?:_[a-z0-9]+)+)\b")
#: Warnings of one run, at most; the rest is in findings.json.
MOST_WARNINGS: Final = 10


@dataclass(frozen=True)
class PrecheckStage:
    """Findings and predicted placement of every node; a node that the target refuses ends the run.

    Attributes:
        target: its name, which is its folder in the run directory.
        profile: resolved, with the request's limits.
        options: `target.options`: they may ask for nodes to be on the accelerator.
    """

    target: str
    profile: Profile
    options: Mapping[str, Any] = field(default_factory=dict)
    name: ClassVar[str] = "precheck"
    takes: ClassVar[tuple[str, ...]] = ("model", "finished")
    makes: ClassVar[tuple[str, ...]] = ("judgement",)
    #: It writes the run directory, and takes less time than the cache.
    storable: ClassVar[bool] = False

    def key_parts(self) -> KeyParts:
        from pipeline.targets.judge import requested_nodes

        config = {
            "target": self.target,
            "profile": self.profile.digest,
            "requested": sorted(requested_nodes(self.options)),
        }
        return KeyParts(config=config, code=("pipeline.targets.judge",), packages=("onnx",))

    def requires(self, workspace: Workspace) -> None:
        """Any finished file can be judged."""

    def run(self, workspace: Workspace) -> Verdict:
        from pipeline.graph.source_map import source_map
        from pipeline.targets.causes import causes
        from pipeline.targets.judge import judge, requested_nodes

        rows = source_map(workspace.get("finished"))["nodes"]
        modules, lines = places(rows)
        judgement = judge(
            self.profile, workspace.get("model").path, modules=modules, lines=lines,
            requested=requested_nodes(self.options),
        )  # fmt: skip
        workspace.put("judgement", judgement)
        self._write(workspace, judgement, modules)
        found = causes(judgement.findings)
        self._warn(workspace, [cause for cause in found if cause.verdict == "unknown"])
        figures = judgement.figures()
        if judgement.refused:
            raise self._failed(judgement, figures)
        return Verdict(summary=summary(judgement), measured=figures)

    def ensures(self, workspace: Workspace) -> None:
        """Every node has a place."""
        from pipeline.errors import InternalError
        from pipeline.targets.placement import PLACES

        judgement: Judgement = workspace.get("judgement")
        if not judgement.placements or any(one.place not in PLACES for one in judgement.placements):
            raise InternalError("a node was not judged")

    def _write(self, workspace: Workspace, judgement: Judgement, modules: Mapping[str, str]) -> None:
        # Lines of the source move with comments, so findings may differ where the request is the same.
        findings = workspace.file(f"{self.target}/{FINDINGS_FILE}", "target", same_every_time=False)
        findings.write_text(json_text(judgement.to_json()), encoding="utf-8")
        table = placement_rows(judgement.placements, modules)
        as_csv, as_json = (workspace.file(f"{self.target}/{name}", "target") for name in PLACEMENT_FILES)
        as_csv.write_text(csv_text(table), encoding="utf-8")
        as_json.write_text(json_text(table), encoding="utf-8")

    def _warn(self, workspace: Workspace, unknown: list[Cause]) -> None:
        from pipeline.targets.causes import where_of

        for cause in unknown[:MOST_WARNINGS]:
            others = f" and {len(cause.findings) - 1} more" if len(cause.findings) > 1 else ""
            message = (
                f"{self.target}: not known whether it takes {cause.operator or 'the graph'}: {cause.limit}"
            )
            place = where_of(cause.first)
            message += f" ({place}{others})" if place else ""
            data = {"target": self.target, "operator": cause.operator, "limit": cause.limit,
                    "nodes": [one.node for one in cause.findings if one.node is not None]}  # fmt: skip
            workspace.emit(FindingEvent(self.name, "warning", message, data))
        if len(unknown) > MOST_WARNINGS:
            more = len(unknown) - MOST_WARNINGS
            message = (
                f"{self.target}: {more} more causes that are not known stand in {self.target}/{FINDINGS_FILE}"
            )
            workspace.emit(
                FindingEvent(self.name, "warning", message, {"target": self.target, "causes": more})
            )

    def _failed(self, judgement: Judgement, figures: Mapping[str, Any]) -> StageFailed:
        from pipeline.targets.causes import where_of

        nodes = [finding for finding in judgement.refused if finding.node is not None]
        first = judgement.refused[0] if not nodes or judgement.refused[0].node is None else nodes[0]
        others = len(judgement.refused) - 1
        what = f"the operator {first.operator}" if first.operator else "the graph"
        more = f", and {others} more" if others else ""
        error = StageFailed(
            "PL-608",
            f"{self.target} does not take {what}{more}",
            where=where_of(first) or f"target.{self.target}",
            found=first.found,
            expected=first.limit,
            next_step=f"{_sentence(first.mend)}All findings are in {self.target}/{FINDINGS_FILE}",
        )
        error.measured = dict(figures)
        return error


def _sentence(mend: str | None) -> str:
    if not mend:
        return ""
    typed = as_override(mend)
    return f"Type {typed}. " if OVERRIDE.match(typed) else f"{typed[0].upper()}{typed[1:]}. "


def as_override(mend: str) -> str:
    """A mend with its rules as they are typed: "rule neg_to_mul" is target.rules.neg_to_mul=true."""
    return _RULE.sub(
        lambda found: (
            f"target.rules.{found[1]}=true" if NAMES.get(found[1], ("",))[0] == "legalise" else found[0]
        ),
        mend,
    )


def places(rows: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """Modules and lines by node name, of the nodes of a source map."""
    modules, lines = {}, {}
    for name, row in rows.items():
        if row.get("module") is not None:
            modules[name] = row["module"]
        if row.get("file"):
            lines[name] = row["file"] if row.get("line") is None else f"{row['file']}:{row['line']}"
    return modules, lines


def summary(judgement: Judgement) -> str:
    """A few words: how much lands where, predicted."""
    figures = judgement.figures()
    fast = judgement.places.get("accelerator", "accelerator")
    alive = figures["nodes"] - figures["placed"].get("folded", 0)
    parts = [f"predicted: {figures['placed'].get('accelerator', 0)} of {alive} nodes on {fast}"]
    if figures["macs_on_accelerator"] is not None:
        parts.append(f"{figures['macs_on_accelerator']:.0%} of multiply-accumulates")
    if "cpu" in judgement.places:
        parts.append(f"{figures['switches']} switches to and from {judgement.places['cpu']}")
    if figures["unknown"]:
        parts.append(f"{figures['unknown']} not known")
    return ", ".join(parts)


def placement_rows(placements: Iterable[Placement], modules: Mapping[str, str]) -> list[dict[str, Any]]:
    """The placement table as data."""
    return [
        {
            "node": one.node,
            "operator": one.operator,
            "place": one.place,
            "predicted": True,
            "why": one.why,
            "macs": one.macs,
            "module": modules.get(one.node),
        }
        for one in placements
    ]


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The placement table as CSV."""
    stream = StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "predicted": "yes"} for row in rows)
    return stream.getvalue()


def json_text(data: Any) -> str:
    """JSON for people and programs: sorted, indented."""
    return json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
