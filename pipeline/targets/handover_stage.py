"""The stage of targets whose compiler runs elsewhere: what the user needs there.

What is predicted of the graph is the precheck's; this stage writes the files for the vendor's tool. No
onnx, no numpy until it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, Final

from pipeline.events import Finding
from pipeline.samples.spec import InputSpecs
from pipeline.stage import KeyParts, Stage, Verdict, Workspace
from pipeline.targets.config import TargetConfig
from pipeline.targets.profile import Profile

#: Profile (or the nearest that it extends) to the module that writes for its tool. It has
#: `prepare(target, profile, specs, prefix)`, which refuses before work, `write(target, profile, specs,
#: prefix, workspace, judgement)`, which returns sentences that the user must read, and `FILES`: names
#: that must be there afterwards.
WRITERS: Final[Mapping[str, str]] = {
    "horizon_x3": "pipeline.targets.horizon.handover",
    "horizon_x5": "pipeline.targets.horizon.handover",
    "horizon_rdk_ultra": "pipeline.targets.horizon.handover",
    "horizon_s100": "pipeline.targets.horizon.handover",
    "tensorrt": "pipeline.targets.tensorrt.handover",
}
#: Of these the ones that read `target.calibration`.
CALIBRATED: Final = ("pipeline.targets.horizon.handover",)
#: How the products of the vendor's tool are called unless the request says otherwise.
PREFIX: Final = "model"


def writer_of(profile: Profile, target: str) -> str | None:
    """The module that writes for the tool of a target, or None."""
    names = (profile.name, *profile.extends, target)
    return next((WRITERS[name] for name in names if name in WRITERS), None)


def handover_stages(target: TargetConfig, profile: Profile, specs: InputSpecs) -> tuple[Stage, ...]:
    """The stage, where there is a tool to write for; what can be refused without work is refused here.

    Args:
        target: of the request.
        profile: the target's.
        specs: the inputs, named as in the graph.

    Raises:
        Refused: PL-620, PL-622, PL-624: options that the vendor's tool does not take, a folder of
            calibration data that cannot be used, a dynamic axis without a largest size.
    """
    writer = writer_of(profile, target.name)
    if writer is None:
        return ()
    import_module(writer).prepare(target, profile, specs, PREFIX)
    return (HandoverStage(target, profile, specs, writer),)


@dataclass(frozen=True)
class HandoverStage:
    """Writes what the vendor's tool is handed into `<target>/`.

    Attributes:
        target: of the request; its name is the folder.
        profile: the target's, resolved.
        specs: the inputs, named as in the graph.
        writer: see `writer_of`.
    """

    target: TargetConfig
    profile: Profile
    specs: InputSpecs
    writer: str

    name: ClassVar[str] = "handover"
    takes: ClassVar[tuple[str, ...]] = ("model", "judgement", "parity_inputs", "reference")
    makes: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[bool] = False

    def key_parts(self) -> KeyParts:
        """The profile and the options; the folder of calibration data is in the request's key."""
        return KeyParts(
            config={"options": dict(self.target.options), "precision": self.target.precision},
            code=(self.writer,),
            packages=("numpy",),
            extra={"profile": self.profile.digest},
        )

    def requires(self, workspace: Workspace) -> None:
        """Nothing beyond its artifacts."""

    def run(self, workspace: Workspace) -> Verdict:
        """Write the files."""
        said: list[str] = import_module(self.writer).write(
            self.target, self.profile, self.specs, PREFIX, workspace, workspace.get("judgement")
        )
        for sentence in said:
            workspace.emit(Finding(self.name, "warning", sentence, {"target": self.target.name}))
        return Verdict(summary=f"{self.target.name}/README.md says what to type")

    def ensures(self, workspace: Workspace) -> None:
        """The page is there, and what it speaks of."""
        from pipeline.errors import InternalError

        folder = workspace.file(f"{self.target.name}/README.md", "target", same_every_time=False).parent
        files: tuple[str, ...] = import_module(self.writer).FILES
        if missing := [name for name in files if not list(folder.glob(name))]:
            raise InternalError(f"{self.writer} left no {missing[0]}")
