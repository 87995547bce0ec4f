"""What a profile can refuse from the configuration alone, before torch is imported."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pipeline.errors import Refused
from pipeline.samples.spec import InputSpecs, TensorSpec
from pipeline.targets.profile import Profile

#: Element types as the configuration calls them; both are numpy's names.
_SAME: Final = {"float": "float32", "double": "float64"}


def check_request(
    profile: Profile,
    *,
    opset: int,
    inputs: InputSpecs,
    ir_version: int | None = None,
    precision: str = "float32",
    outputs: int | None = None,
    target: str | None = None,
) -> None:
    """Refuse what the target cannot take.

    Args:
        profile: the target.
        opset: version of ai.onnx that will be asked for.
        inputs: the network's inputs, dynamic axes included.
        ir_version: `export.ir_version`; None: whoever writes the file keeps to the profile's.
        precision: `target.precision`.
        outputs: how many are named, where they are.
        target: the name by which messages call it; None: the profile's.

    Raises:
        Refused: PL-605, PL-606 or PL-607.
    """
    profile = replace(profile, name=target or profile.name)
    _versions(profile, opset, ir_version)
    if precision not in profile.precisions:
        first = next(iter(profile.precisions))
        raise Refused(
            "PL-607", f"{profile.name} has no precision {precision}", where="target.precision",
            found=precision, expected=" or ".join(profile.precisions), next_step=f"Type target.precision={first}",
        )  # fmt: skip
    counts = (
        ("inputs", len(inputs.leaves), profile.max_inputs),
        ("outputs", outputs or 0, profile.max_outputs),
    )
    for what, number, most in counts:
        if most is not None and number > most:
            raise Refused(
                "PL-605", f"{profile.name} takes at most {most} {what}", where=f"model.{what}",
                found=str(number), expected=f"at most {most}", next_step=f"Change model.{what}",
            )  # fmt: skip
    for leaf in inputs.leaves:
        _input(profile, leaf)


def _versions(profile: Profile, opset: int, ir_version: int | None) -> None:
    low, high = profile.opset
    if (low is not None and opset < low) or (high is not None and opset > high):
        nearest = low if low is not None and opset < low else high
        raise Refused(
            "PL-605", f"{profile.name} does not take opset {opset}", where="export.opset", found=str(opset),
            expected=profile.opset_text, next_step=f"Type export.opset={nearest}",
        )  # fmt: skip
    most = profile.ir_version
    if ir_version is not None and most is not None and ir_version > most:
        raise Refused(
            "PL-605", f"{profile.name} does not take IR version {ir_version}", where="export.ir_version",
            found=str(ir_version), expected=f"at most {most}", next_step=f"Type export.ir_version={most}",
        )  # fmt: skip


def _input(profile: Profile, leaf: TensorSpec) -> None:
    key, shown = f"model.inputs.{leaf.key}", str(list(leaf.shape))
    if profile.shapes == "static" and leaf.dynamic:
        axis = min(leaf.dynamic)
        raise Refused(
            "PL-606", f"{profile.name} takes fixed shapes only", where=f"{key}.dynamic",
            found=f"axis {axis} is dynamic ({leaf.dynamic[axis].name})", expected="no dynamic axes",
            next_step=f"Type {key}.dynamic={{}}",
        )  # fmt: skip
    if profile.input_rank is not None and len(leaf.shape) != profile.input_rank:
        raise Refused(
            "PL-605", f"{profile.name} takes inputs of rank {profile.input_rank}", where=f"{key}.shape",
            found=f"{leaf.name} has rank {len(leaf.shape)}: {shown}", expected=f"{profile.input_rank} axes",
            next_step=f"Change {key}.shape",
        )  # fmt: skip
    if profile.batch is not None and leaf.shape and leaf.shape[0] != profile.batch:
        raise Refused(
            "PL-605", f"{profile.name} takes batch {profile.batch}", where=f"{key}.shape",
            found=f"{leaf.name} has {shown}", expected=f"a first axis of {profile.batch}",
            next_step=f"Change {key}.shape",
        )  # fmt: skip
    dtype = _SAME.get(leaf.dtype, leaf.dtype)
    if profile.dtypes and dtype not in profile.dtypes:
        raise Refused(
            "PL-605", f"{profile.name} does not take inputs of {dtype}", where=f"{key}.dtype",
            found=f"{leaf.name} is {dtype}", expected=" or ".join(profile.dtypes),
            next_step=f"Change {key}.dtype",
        )  # fmt: skip
