"""Placement and findings of a target whose compiler runs elsewhere."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from pipeline.targets.config import TargetConfig
from pipeline.targets.handover_stage import COLUMNS, HandoverStage, handover_stages, writer_of
from tests.targets.handing_over import profile, specs, workspace


def test_a_target_without_a_tool_gets_placement_and_findings(tmp_path: Path) -> None:
    (stage,) = handover_stages(TargetConfig(name="somewhere"), profile("somewhere"), specs())
    assert isinstance(stage, HandoverStage)
    assert stage.writer is None
    space = workspace(tmp_path / "run")
    verdict = stage.run(space)
    stage.ensures(space)
    assert sorted(space.files) == ["somewhere/findings.json", "somewhere/placement.csv"]
    with (space.root / "somewhere" / "placement.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["operator"], row["predicted"]) for row in rows] == [
        ("Conv", "BPU"), ("Relu", "BPU"), ("Softmax", "CPU"), ("Identity", "unsupported"),
    ]  # fmt: skip
    assert rows[0]["macs"] == str(4 * 8 * 6 * 27)
    assert all(row["why"] for row in rows)
    found = json.loads((space.root / "somewhere" / "findings.json").read_text())
    assert found["switches"] == 1
    assert found["predicted"] is True
    assert {one["operator"]: one["verdict"] for one in found["findings"] if "operator" in one} == {
        "Softmax": "limited-to-cpu", "Identity": "refused",
    }  # fmt: skip
    assert "predicted" in verdict.summary
    assert verdict.measured["target"]["predicted"]["macs_on_accelerator"] == 1.0


def test_a_profile_that_extends_one_of_ours_has_its_tool() -> None:
    assert writer_of(profile("mine", extends=("horizon_x5",)), "mine") == "pipeline.targets.horizon.handover"
    assert writer_of(profile("mine"), "mine") is None
