"""Which target has a tool to write for."""

from __future__ import annotations

from pipeline.targets.config import TargetConfig
from pipeline.targets.handover_stage import handover_stages, writer_of
from tests.targets.handing_over import profile, specs


def test_a_target_without_a_tool_is_handed_nothing() -> None:
    assert handover_stages(TargetConfig(name="somewhere"), profile("somewhere"), specs()) == ()


def test_a_profile_that_extends_one_of_ours_has_its_tool() -> None:
    assert writer_of(profile("mine", extends=("horizon_x5",)), "mine") == "pipeline.targets.horizon.handover"
    assert writer_of(profile("mine"), "mine") is None
