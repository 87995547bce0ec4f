"""From `target` of a request to what the plan needs: the profile, its rules and the stages after parity.

No onnx, no numpy, no backend package: what the configuration alone decides is refused here, before
torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pipeline.errors import Refused
from pipeline.graph.rewrites.names import LEGALISATION, check_rules
from pipeline.targets.backends import BACKENDS, backend_of
from pipeline.targets.backends import check_request as check_options
from pipeline.targets.config import TargetConfig
from pipeline.targets.handover_stage import CALIBRATED, handover_stages, writer_of
from pipeline.targets.placement_cost import PlacementCost, cost_on
from pipeline.targets.precheck_stage import PrecheckStage
from pipeline.targets.profile import Profile, load_profile
from pipeline.targets.request_check import check_request
from pipeline.targets.stages import TargetRequest, target_stages
from pipeline.targets.tensorrt.found import unverified_here

if TYPE_CHECKING:
    from pipeline.parity.config import ParityConfig
    from pipeline.samples.spec import InputSpecs
    from pipeline.stage import Stage

#: Stages that need the target's own software.
RUNNING: Final = ("compile", "execute", "compare", "bundle")
#: Keys of `target` that only a target reads.
_NEEDS_TARGET = ("precision", "profile", "backend", "limits", "rules", "options", "calibration", "python")


@dataclass(frozen=True)
class TargetPlan:
    """A target, checked against the request.

    Attributes:
        profile: its limits.
        rules: the legalisation rules that are on, in the order in which they are applied.
        stages: what follows parity, in order.
        skipped: stages that this machine cannot do, with the reason for the manifest.
        cost: what the rules are weighed by; None where they are not.
        asked: the rules that the request itself switches on: they are not weighed.
    """

    profile: Profile
    rules: tuple[str, ...]
    stages: tuple[Stage, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    cost: PlacementCost | None = None
    asked: tuple[str, ...] = ()


def plan_target(
    config: TargetConfig, parity: ParityConfig, specs: InputSpecs, *, opset: int, ir_version: int | None
) -> TargetPlan | None:
    """What a target asks of the plan; None without one.

    Args:
        config: `target`.
        parity: `parity`.
        specs: the inputs, named as in the graph.
        opset: that will be asked for.
        ir_version: `export.ir_version`.

    Raises:
        Refused: there is no such target, profile, rule or option; the request contradicts the profile;
            a package is missing.
    """
    if config.name == "none":
        _refuse_without_target(config)
        return None
    profile = load_profile(config.profile or config.name, config.limits)
    rules = _rules(config, profile)
    check_request(
        profile, opset=opset, inputs=specs, ir_version=ir_version, precision=config.precision,
        target=config.name,
    )  # fmt: skip
    if parity.kind == "none":
        raise Refused(
            "PL-610", "what runs on the target is compared with the network, and parity=none leaves nothing",
            where="parity", found="parity=none", expected="parity=noise or parity=fixed",
            next_step="Type parity=noise",
        )  # fmt: skip
    stages: list[Stage] = [PrecheckStage(config.name, profile, dict(config.options))]
    stages += handover_stages(config, profile, specs)
    backend = config.backend or profile.backend
    _refuse_other_backend(config, backend)
    _refuse_unread(config, profile, backend)
    absent = unverified_here(backend, config.python)
    if backend is not None and absent is None:
        request = TargetRequest.of(
            config, backend=backend, options=profile.options, tolerances=profile.precisions
        )
        stages += target_stages(request, specs, k=parity.k)
    elif backend is not None:
        check_options(backend_of(backend), config.precision, {**profile.options, **config.options})
    skipped = dict.fromkeys(RUNNING, f"unverified on this machine: {absent}") if absent else {}
    asked = tuple(name for name in rules if config.rules.get(name))
    return TargetPlan(profile, rules, tuple(stages), skipped, cost_on(profile, config.options), asked)


def _refuse_without_target(config: TargetConfig) -> None:
    """A request that would ignore what it holds is refused."""
    plain = TargetConfig()
    for key in _NEEDS_TARGET:
        found = getattr(config, key)
        if found != getattr(plain, key):
            raise Refused(
                "PL-103", f"target.{key} has no effect without a target", where=f"target.{key}",
                found=str(found), expected="a target that reads it, such as target=onnxruntime",
                next_step="Type target=NAME (python -m pipeline targets lists them), or take the key away",
            )  # fmt: skip


def _refuse_other_backend(config: TargetConfig, backend: str | None) -> None:
    """A directory that bears a runtime's name holds what that runtime made."""
    if config.name in BACKENDS and backend not in (None, config.name):
        raise Refused(
            "PL-111", f"the target {config.name} is compiled and run by {config.name}", where="target.backend",
            found=str(backend), expected=f"target.backend={config.name}, or a target of another name",
            next_step=f"Type target={backend}" if backend in BACKENDS else
            "Put name and backend into a file target/NAME.yaml of your own and type --config-dir",
        )  # fmt: skip


def _refuse_unread(config: TargetConfig, profile: Profile, backend: str | None) -> None:
    """What nothing of this target reads would be ignored in silence."""
    writer = writer_of(profile, config.name)
    unread: dict[str, str] = {}
    if backend is None and writer is None and config.options:
        unread[f"options.{next(iter(config.options))}"] = "a target that is compiled or handed over"
    if writer not in CALIBRATED and config.calibration.dir is not None:
        unread["calibration.dir"] = "a target that is handed over with calibration data, such as horizon_x3"
    if backend is None and config.python is not None:
        unread["python"] = "a target with a backend, such as rknn"
    if backend is None and config.timeout_s != TargetConfig().timeout_s:
        unread["timeout_s"] = "a target that is compiled and run here"
    for key, expected in unread.items():
        raise Refused(
            "PL-103", f"target.{key} has no effect with target={config.name}: nothing of it reads that",
            where=f"target.{key}", expected=expected, next_step="Take the key away",
        )  # fmt: skip


def _rules(config: TargetConfig, profile: Profile) -> tuple[str, ...]:
    """The profile's rules and those that the request asks for, without those that it switches off."""
    check_rules(config.rules, key="target.rules", kind="legalise")
    check_rules(dict.fromkeys(profile.wants, True), key="target.rules", kind="legalise")
    ordered = [name for family in LEGALISATION.values() for name in family]
    return tuple(name for name in ordered if config.rules.get(name, name in profile.wants))
