"""The stage of targets whose compiler runs elsewhere: what the user needs there, and what is predicted of it.

Every target with a profile gets the placement table and the findings; those in `WRITERS` get the files
for their vendor's tool too. No onnx, no numpy until it runs.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.events import Finding
from pipeline.samples.spec import InputSpecs
from pipeline.stage import KeyParts, Stage, Verdict, Workspace
from pipeline.targets.config import TargetConfig
from pipeline.targets.profile import Profile

if TYPE_CHECKING:
    from pipeline.targets.judge import Judgement

#: Profile (or the nearest that it extends) to the module that writes for its tool: it has
#: `prepare(target, profile, specs, prefix)`, which refuses before work, and `write(..., workspace,
#: judgement)`, which returns sentences that the user must read.
WRITERS: Final[Mapping[str, str]] = {
    "horizon_x3": "pipeline.targets.horizon.handover",
    "horizon_x5": "pipeline.targets.horizon.handover",
    "horizon_rdk_ultra": "pipeline.targets.horizon.handover",
    "horizon_s100": "pipeline.targets.horizon.handover",
    "tensorrt": "pipeline.targets.tensorrt.handover",
}
PLACEMENT_FILE: Final = "placement.csv"
FINDINGS_FILE: Final = "findings.json"
#: How the products of the vendor's tool are called unless the request says otherwise.
PREFIX: Final = "model"
COLUMNS: Final = ("node", "operator", "module", "predicted", "macs", "why")


def writer_of(profile: Profile, target: str) -> str | None:
    """The module that writes for the tool of a target, or None."""
    names = (profile.name, *profile.extends, target)
    return next((WRITERS[name] for name in names if name in WRITERS), None)


def handover_stages(target: TargetConfig, profile: Profile, specs: InputSpecs) -> tuple[Stage, ...]:
    """The stage for a target, after everything that can be refused without work was looked at.

    Args:
        target: of the request.
        profile: the target's.
        specs: the inputs, named as in the graph.

    Raises:
        Refused: PL-620 to PL-622: options that the vendor's tool does not take, a folder of calibration
            data that cannot be used.
    """
    writer = writer_of(profile, target.name)
    if writer is not None:
        import_module(writer).prepare(target, profile, specs, PREFIX)
    return (HandoverStage(target, profile, specs, writer),)


@dataclass(frozen=True)
class HandoverStage:
    """Writes placement.csv, findings.json and what the vendor's tool is handed.

    Attributes:
        target: of the request; `name` is the folder.
        profile: the target's, resolved.
        specs: the inputs, named as in the graph.
        writer: see `writer_of`.
    """

    target: TargetConfig
    profile: Profile
    specs: InputSpecs
    writer: str | None = field(default=None)

    name: ClassVar[str] = "handover"
    takes: ClassVar[tuple[str, ...]] = ("model", "finished", "parity_inputs", "reference", "signature")
    makes: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[bool] = False

    def key_parts(self) -> KeyParts:
        """The profile and the options; the folder of calibration data is in the request's key."""
        return KeyParts(
            config={"options": dict(self.target.options), "precision": self.target.precision},
            code=("pipeline.targets.judge", *((self.writer,) if self.writer else ())),
            packages=("numpy", "onnx"),
            extra={"profile": self.profile.digest},
        )

    def requires(self, workspace: Workspace) -> None:
        """Nothing beyond its artifacts."""

    def run(self, workspace: Workspace) -> Verdict:
        """Judge the finished file, then write."""
        from pipeline.graph.source_map import source_map
        from pipeline.targets.judge import judge

        rows = source_map(workspace.get("finished"))["nodes"]
        judgement = judge(
            self.profile,
            workspace.get("model").path,
            modules={name: row["module"] for name, row in rows.items() if row["module"]},
            lines={name: f"{row['file']}:{row['line']}" for name, row in rows.items() if row["line"]},
        )
        self._tables(workspace, judgement, rows)
        said: list[str] = []
        if self.writer is not None:
            said = import_module(self.writer).write(
                self.target, self.profile, self.specs, PREFIX, workspace, judgement
            )
        for sentence in said:
            workspace.emit(Finding(self.name, "warning", sentence))
        figures = judgement.figures()
        measured = {
            "target": {"name": self.target.name, "predicted": figures, "remarks": list(judgement.remarks)}
        }
        return Verdict(summary=_summary(judgement, figures), measured=measured)

    def ensures(self, workspace: Workspace) -> None:
        """Every node of the file stands in the placement table."""
        from pipeline.errors import InternalError

        path = workspace.file(f"{self.target.name}/{PLACEMENT_FILE}", "target")
        with path.open(encoding="utf-8", newline="") as stream:
            count = sum(1 for _ in csv.DictReader(stream))
        findings = workspace.file(f"{self.target.name}/{FINDINGS_FILE}", "target", same_every_time=False)
        if count != json.loads(findings.read_text(encoding="utf-8"))["nodes"]:
            raise InternalError(f"{path.name} has {count} rows")

    def _tables(self, workspace: Workspace, judgement: Judgement, rows: Mapping[str, Any]) -> None:
        text = json.dumps(judgement.to_json(), indent=1, ensure_ascii=False, sort_keys=True)
        # Lines move with comments, so this file may differ where the request is the same.
        path = workspace.file(f"{self.target.name}/{FINDINGS_FILE}", "target", same_every_time=False)
        path.write_text(text + "\n", encoding="utf-8")
        with workspace.file(f"{self.target.name}/{PLACEMENT_FILE}", "target").open(
            "w", encoding="utf-8", newline=""
        ) as stream:
            table = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore")
            table.writeheader()
            for one in judgement.placements:
                place = judgement.places.get(one.place, one.place)
                module = rows.get(one.node, {}).get("module")
                table.writerow({**asdict(one), "predicted": place, "module": module})


def _summary(judgement: Judgement, figures: Mapping[str, Any]) -> str:
    share = figures["macs_on_accelerator"]
    fast = judgement.places.get("accelerator", "accelerator")
    text = f"predicted: {figures['nodes']} nodes"
    if share is not None:
        text += f", {share:.1%} of multiply-accumulates on {fast}"
    for word in ("refused", "unknown"):
        if figures[word]:
            text += f", {figures[word]} {word}"
    return text
