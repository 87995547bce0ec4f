"""Which targets have files for a tool that runs elsewhere, and what the stage holds them to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InternalError
from pipeline.targets.config import TargetConfig
from pipeline.targets.handover_stage import WRITERS, HandoverStage, handover_stages, writer_of
from tests.targets.handing_over import profile, specs, workspace


def test_a_target_without_a_tool_has_no_stage() -> None:
    assert handover_stages(TargetConfig(name="somewhere"), profile("somewhere"), specs()) == ()


def test_a_profile_that_extends_one_of_ours_has_its_tool() -> None:
    assert writer_of(profile("mine", extends=("horizon_x5",)), "mine") == "pipeline.targets.horizon.handover"
    assert writer_of(profile("mine"), "mine") is None


@pytest.mark.parametrize("name", WRITERS)
def test_every_tool_gets_its_files(tmp_path: Path, name: str) -> None:
    (stage,) = handover_stages(TargetConfig(name=name), profile(name), specs())
    assert isinstance(stage, HandoverStage)
    space = workspace(tmp_path / "run")
    verdict = stage.run(space)
    stage.ensures(space)
    assert verdict.status == "passed"
    assert (space.root / name / "README.md").read_text().startswith("# model for ")
    assert all(path.startswith(f"{name}/") for path in space.files)
    (space.root / name / "README.md").unlink()
    with pytest.raises(InternalError, match="README"):
        stage.ensures(space)
