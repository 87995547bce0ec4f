"""What `plan_target` refuses: keys of `target` that nothing reads, and a runtime under another's name."""

from __future__ import annotations

import pytest

from pipeline.config.compose import compose
from pipeline.errors import Refused
from pipeline.parity.config import ParityConfig
from pipeline.samples.spec import parse_inputs
from pipeline.targets.planning import TargetPlan, plan_target


def planned(*words: str) -> TargetPlan | None:
    target = compose(["model=mynet", *words]).target
    specs = parse_inputs({"x": {"shape": [1, 3, 8, 8]}})
    return plan_target(target, ParityConfig(), specs, opset=target.preferred.opset or 11, ir_version=None)


def refusal(*words: str) -> Refused:
    with pytest.raises(Refused) as error:
        planned(*words)
    return error.value


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("target=axera_ax650", "target.options.zzz=1"), "target.options.zzz"),
        (("target=rockchip_rknn2", "target.options.chip=rk3588"), "target.options.chip"),
        (("target=axera_ax650", "target.python=/usr/bin/python3"), "target.python"),
        (("target=horizon_x3", "target.python=/usr/bin/python3"), "target.python"),
        (("target=onnxruntime", "target.calibration.dir=/tmp"), "target.calibration.dir"),
        (("target=tensorrt", "target.calibration.dir=/tmp"), "target.calibration.dir"),
        (("target=deepx", "target.calibration.dir=/tmp"), "target.calibration.dir"),
        (("target=deepx", "target.timeout_s=5"), "target.timeout_s"),
    ],
)
def test_what_nothing_of_the_target_reads_is_refused(words: tuple[str, ...], key: str) -> None:
    reason = refusal(*words).reason
    assert (reason.code, reason.where, reason.next_step) == ("PL-103", key, "Take the key away")


def test_options_are_checked_where_the_tool_is_not_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.targets.planning.unverified_here", lambda *_: "there is no NVIDIA GPU")
    assert refusal("target=tensorrt", "target.options.zzz=1").reason.code == "PL-642"
    plan = planned("target=tensorrt")
    assert plan is not None and "compile" in plan.skipped


def test_a_runtime_is_not_compiled_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = refusal("target=onnxruntime", "target.backend=tvm").reason
    assert (reason.code, reason.next_step) == ("PL-111", "Type target=tvm")
    assert refusal("target=onnxruntime", "target.limits.backend=acme").reason.code == "PL-111"
    assert planned("target=onnxruntime", "target.backend=onnxruntime") is not None
    # A target that is judged only, or the user's own, may be run by any backend.
    own = planned("target=deepx", "target.backend=onnxruntime")
    assert own is not None and [stage.name for stage in own.stages][-1] == "bundle"


def test_a_tool_with_an_environment_of_its_own_is_not_installed_into_ours() -> None:
    assert refusal("target=rknn").reason.sentence() == (
        "target=rknn: the target rknn needs the package rknn-toolkit2, which is not installed. "
        "Type make rknn and target.python=.venv-rknn/bin/python"
    )


@pytest.mark.parametrize(("name", "step"), [("", "Type python -m pipeline targets"), ("nope", "Type python -m pipeline targets"),
                                            ("horizon_x33", "Type target=horizon_x3")])  # fmt: skip
def test_a_target_that_there_is_not(name: str, step: str) -> None:
    with pytest.raises(Refused) as error:
        compose([f"target={name}", "model=mynet"])
    assert (error.value.reason.code, "none" in error.value.reason.sentence()) == ("PL-104", False)
    assert (error.value.reason.next_step or "").endswith(step)
