"""What a target takes: the profile, plain data read from YAML. No onnx, no numpy.

`load_profile` reads conf/target/profiles/NAME.yaml (or a file of the user's), lays `limits` over it and
checks everything: operators against ONNX's, limits against the language of `predicates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from pipeline.targets.predicates import Predicate

Support: TypeAlias = Literal["full", "limited", "none", "unknown"]
#: What an operator without a row means: refused, not known, or one of the two places takes it.
Unlisted: TypeAlias = Literal["refused", "unknown", "cpu", "accelerator"]

SUPPORT: Final = ("full", "limited", "none", "unknown")
UNLISTED: Final = ("refused", "unknown", "cpu", "accelerator")


@dataclass(frozen=True)
class OperatorRule:
    """Where one operator runs, and within which limits.

    Attributes:
        operator: its name; with a domain ("com.microsoft::Gelu") where it is none of ONNX's own.
        accelerator: on the target's accelerator (for a runtime on a PC: in the runtime).
        cpu: on the CPU of the device, beside the accelerator.
        accelerator_limits, cpu_limits: all must hold where support is limited.
        general: whether the profile's general limits count too.
        quantized: element types of quantized activations that the table states; no limit of the file.
        notes: the table's remarks.
        mend: the rule or change that helps when a node does not fit.
    """

    operator: str
    accelerator: Support = "none"
    cpu: Support = "none"
    accelerator_limits: tuple[Predicate, ...] = ()
    cpu_limits: tuple[Predicate, ...] = ()
    general: bool = True
    quantized: tuple[str, ...] = ()
    notes: str | None = None
    mend: str | None = None


@dataclass(frozen=True)
class Requirement:
    """Something that the whole graph must have."""

    operator: str
    at_least: int = 1
    place: Literal["accelerator", "cpu", "any"] = "accelerator"
    says: str | None = None


@dataclass(frozen=True)
class Profile:
    """A target's limits, resolved.

    Attributes:
        name: as it was asked for.
        title: one line: the device or runtime.
        citation: where the limits come from.
        extends: names of the profiles that it was laid over, nearest first.
        opset: least and greatest version of ai.onnx; None: not stated.
        ir_version: greatest; None: not stated.
        domains: of operators; "" is ai.onnx.
        dtypes: of the model's inputs and outputs; empty: not stated.
        shapes: whether axes may be dynamic.
        batch: what the first axis of every input must be; None: any.
        input_rank: of every input; None: any.
        max_rank: of any tensor; None: not stated.
        max_inputs, max_outputs: None: not stated.
        requires: what the graph must hold.
        unlisted: what an operator without a row means.
        places: how the vendor calls accelerator and cpu.
        folds_constants: what is computed from constants alone disappears before placement.
        general_limits: of every operator on the accelerator.
        operators: by name.
        wants: names of rewrite rules, in order.
        options: for the compiler; the request's `target.options` are laid over them.
        precisions: what `target.precision` may be, with the tolerance of the comparison
            (largest difference by largest expected value).
        backend: which compiles and runs it; None: judged only.
        verified: whether the tool's verdict was seen on this profile's.
        remarks: what is not verified, or to be known.
        digest: sha256 of the resolved data.
    """

    name: str
    title: str
    citation: str
    extends: tuple[str, ...] = ()
    opset: tuple[int | None, int | None] = (None, None)
    ir_version: int | None = None
    domains: tuple[str, ...] = ("",)
    dtypes: tuple[str, ...] = ()
    shapes: Literal["static", "dynamic"] = "dynamic"
    batch: int | None = None
    input_rank: int | None = None
    max_rank: int | None = None
    max_inputs: int | None = None
    max_outputs: int | None = None
    requires: tuple[Requirement, ...] = ()
    unlisted: Unlisted = "unknown"
    places: Mapping[str, str] = field(default_factory=dict)
    folds_constants: bool = True
    general_limits: tuple[Predicate, ...] = ()
    operators: Mapping[str, OperatorRule] = field(default_factory=dict)
    wants: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    precisions: Mapping[str, float] = field(default_factory=lambda: {"float32": 1e-4})
    backend: str | None = None
    verified: bool = False
    remarks: tuple[str, ...] = ()
    digest: str = ""

    @property
    def opset_text(self) -> str:
        """For people: 10 to 11, from 11, up to 26, not stated."""
        low, high = self.opset
        if low is None and high is None:
            return "not stated"
        if high is None:
            return f"from {low}"
        return (
            f"{low} to {high}"
            if low is not None and low != high
            else f"up to {high}"
            if low is None
            else str(low)
        )

    def place(self, kind: str) -> str:
        """The vendor's word for accelerator or cpu."""
        return self.places.get(kind, kind)


def load_profile(
    name_or_path: str, limits: Mapping[str, Any] | None = None, *, config_dirs: Any = ()
) -> Profile:
    """The profile `name_or_path`, with `limits` laid over it, checked whole.

    Args:
        name_or_path: a name in target/profiles of `config_dirs` or of the pipeline's own, or the path of
            a YAML file (it ends in .yaml or .yml).
        limits: in the schema of a profile; mappings are laid over key by key, everything else replaces.
        config_dirs: the user's folders.

    Raises:
        Refused: there is no such profile, it is damaged, extends itself, names an operator that there
            is not, or a limit that cannot be read.
    """
    from pipeline.targets.profile_file import read

    return read(name_or_path, limits or {}, tuple(config_dirs))
