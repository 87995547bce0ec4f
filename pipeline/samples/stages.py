"""The stage that makes sample inputs. No numpy until it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from pipeline.errors import InternalError, StageFailed
from pipeline.samples.spec import Axis, InputSpecs
from pipeline.stage import ArtifactParts, KeyParts, Verdict, Workspace

#: Variants of the parity inputs in their order; further ones are plain.
VARIANTS: Final[tuple[Literal["plain", "negated", "scaled"], ...]] = ("plain", "negated", "scaled")


@dataclass(frozen=True)
class InputsStage:
    """Makes the export inputs and the parity inputs.

    Attributes:
        specs: named as in the graph.
        seed: the run's.
        seeds: how many fresh sets of parity inputs.
        files: path text -> sha256 of every file that fills an input.
    """

    specs: InputSpecs
    seed: int
    seeds: int
    files: Mapping[str, str] = field(default_factory=dict)

    name: ClassVar[str] = "inputs"
    takes: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]] = ("export_inputs", "parity_inputs")
    storable: ClassVar[bool] = False
    on_demand: ClassVar[bool] = True  #: made when a stage that really runs asks for it

    def key_parts(self) -> KeyParts:
        """The specs hold the files by content; `files` are said again for `cache explain`.

        Each set has a stream of its own, so the number of seeds shapes no set.
        """
        config = {"inputs": self.specs.data(), "seed": self.seed}
        return KeyParts(
            config={**config, "seeds": self.seeds},
            code=("pipeline.samples.make", "pipeline.samples.stages"),
            packages=("numpy",),
            extra={f"file {path.rpartition('/')[2]}": sha256 for path, sha256 in self.files.items()},
            artifacts={"export_inputs": ArtifactParts(config)},
        )

    def requires(self, workspace: Workspace) -> None:
        """It takes nothing."""

    def run(self, workspace: Workspace) -> Verdict:
        """Put both."""
        from pipeline.samples.make import Samples, make_samples

        workspace.put("export_inputs", make_samples(self.specs, seed=self.seed, stream="export"))
        parity: dict[str, Samples] = {}
        for index in range(self.seeds):
            variant = VARIANTS[index] if index < len(VARIANTS) else "plain"
            parity[f"seed{index}"] = make_samples(
                self.specs, seed=self.seed, stream=f"parity/{index}", variant=variant
            )
        for label, sizes in other_sizes(self.specs).items():
            parity[label] = make_samples(self.specs, seed=self.seed, stream=f"parity/{label}", sizes=sizes)
        self._refuse_changed()
        workspace.put("parity_inputs", parity)
        count = len(parity) - self.seeds
        return Verdict(summary=f"{self.seeds} seeds" + (f", {count} other sizes" if count else ""))

    def _refuse_changed(self) -> None:
        """What was read has to be what the keys speak of."""
        try:
            now = self.specs.files()
        except OSError as error:
            now = {str(error.filename): error.strerror or "it cannot be read"}
        for path, sha256 in self.files.items():
            if now.get(path) != sha256:
                raise StageFailed(
                    "PL-234", "the file of an input changed while the run was at work", found=path,
                    next_step="Type the same command again: it takes what is there now",
                )  # fmt: skip

    def ensures(self, workspace: Workspace) -> None:
        """Every set has every tensor, in the order of the call, with its dtype."""
        names = [leaf.name for leaf in self.specs.leaves]
        parity: Mapping[str, Any] = workspace.get("parity_inputs")
        for label, samples in {"export": workspace.get("export_inputs"), **parity}.items():
            dtypes = [str(samples[name].dtype) for name in samples]
            if list(samples) != names or dtypes != [leaf.dtype for leaf in self.specs.leaves]:
                raise InternalError(f"the inputs {label} are not what the specification says")


def other_sizes(specs: InputSpecs) -> dict[str, dict[str, int]]:
    """Label to the size of every dynamic axis, for sets that differ from the example sizes.

    One set changes every axis together, another takes the smallest size of every axis.
    """
    axes = specs.axes
    if not axes:
        return {}
    found: dict[str, dict[str, int]] = {}
    changed = {name: another_size(axis, example) for name, (axis, example) in axes.items()}
    smallest = {name: _first(axis) for name, (axis, _) in axes.items()}
    for sizes in (changed, smallest):
        if sizes != {name: example for name, (_, example) in axes.items()}:
            label = ",".join(f"{name}={size}" for name, size in sizes.items())
            found.setdefault(f"sizes:{label}", sizes)
    return found


def another_size(axis: Axis, example: int) -> int:
    """An allowed size near the example that is not the example: the next larger, else the next smaller one.

    Not twice the example: 2 and 4 hide mistakes (broadcasting, shared factors) that 3 shows.
    """
    step = axis.multiple_of
    larger = (example // step + 1) * step
    if axis.max is None or larger <= axis.max:
        return larger
    return max(_first(axis), (example - 1) // step * step)


def _first(axis: Axis) -> int:
    return math.ceil(axis.min / axis.multiple_of) * axis.multiple_of
