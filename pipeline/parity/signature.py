"""What comes out of a network: names, dtypes, sizes, and which sizes vary with what. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

from numpy.typing import NDArray

FILE: Final = "signature.json"


@dataclass(frozen=True)
class OutputSpec:
    """One output, flattened.

    Attributes:
        name: its name in the file.
        dtype: numpy's name, as the network gives it.
        shape: sizes with the export inputs.
        varies: dimension to the dynamic axes whose size it depends on; an empty tuple means that
            the size depends on values (the number of boxes).
        equals: dimension to the dynamic axis whose size it always has.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    varies: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    equals: Mapping[int, str] = field(default_factory=dict)

    def dimensions(self) -> tuple[int | str, ...]:
        """Sizes as the file should state them: an int, the axis' name, or `<output>_dim_<i>`."""
        return tuple(
            self.equals.get(index, f"{self.name}_dim_{index}") if index in self.varies else size
            for index, size in enumerate(self.shape)
        )


@dataclass(frozen=True)
class Signature:
    """Every output in flattened order.

    Attributes:
        outputs: in the order of the flattened result.
        value_dependent: the network holds operators whose output's size depends on values
            (non-maximum suppression, boolean indexing), so that other sizes may come than were seen.
    """

    outputs: tuple[OutputSpec, ...]
    value_dependent: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.outputs)

    def store(self, folder: Path) -> None:
        """Write signature.json."""
        (folder / FILE).write_text(
            json.dumps(self.to_json(), sort_keys=True, indent=1) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `store` wrote."""
        data = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(tuple(_from_json(row) for row in data["outputs"]), data["value_dependent"])

    def to_json(self) -> dict[str, Any]:
        return {
            "outputs": [
                {
                    "name": output.name,
                    "dtype": output.dtype,
                    "shape": list(output.shape),
                    "varies": {str(index): list(axes) for index, axes in sorted(output.varies.items())},
                    "equals": {str(index): axis for index, axis in sorted(output.equals.items())},
                }
                for output in self.outputs
            ],
            "value_dependent": self.value_dependent,
        }


def _from_json(row: Mapping[str, Any]) -> OutputSpec:
    return OutputSpec(
        name=row["name"],
        dtype=row["dtype"],
        shape=tuple(row["shape"]),
        varies={int(index): tuple(axes) for index, axes in row["varies"].items()},
        equals={int(index): axis for index, axis in row["equals"].items()},
    )


@dataclass(frozen=True)
class SeenRun:
    """One run of the network: the sizes of the dynamic axes that went in, and what came out."""

    axes: Mapping[str, int]
    outputs: Mapping[str, NDArray[Any]]


def derive_signature(
    runs: Sequence[SeenRun], positions: Mapping[str, int], *, value_dependent: bool
) -> Signature:
    """Compare the sizes that came out with the sizes that went in.

    Args:
        runs: the first has the example sizes; others may have other values or other sizes.
        positions: dynamic axis to its index in the input's shape, which decides where two axes
            explain a size equally well.
        value_dependent: see `Signature`.

    Raises:
        ValueError: the runs do not have the same outputs with the same number of dimensions.
    """
    first = runs[0]
    for run in runs[1:]:
        if {n: a.ndim for n, a in run.outputs.items()} != {n: a.ndim for n, a in first.outputs.items()}:
            raise ValueError("the network's outputs differ in name or rank from one input to another")
    outputs = []
    for name, array in first.outputs.items():
        varies: dict[int, tuple[str, ...]] = {}
        equals: dict[int, str] = {}
        for index in range(array.ndim):
            sizes = [run.outputs[name].shape[index] for run in runs]
            if len(set(sizes)) == 1:
                continue
            axes = sorted(positions, key=lambda axis: (positions[axis] != index, positions[axis], axis))
            same = [axis for axis in axes if [run.axes[axis] for run in runs] == sizes]
            varies[index] = (same[0],) if same else _causes(runs, sizes, axes)
            if same:
                equals[index] = same[0]
        outputs.append(OutputSpec(name, array.dtype.name, array.shape, varies, equals))
    return Signature(tuple(outputs), value_dependent)


def _causes(runs: Sequence[SeenRun], sizes: Sequence[int], axes: Sequence[str]) -> tuple[str, ...]:
    """The dynamic axes that explain the sizes; empty when equal axes gave different sizes."""
    seen: dict[tuple[int, ...], int] = {}
    for run, size in zip(runs, sizes, strict=True):
        if seen.setdefault(tuple(run.axes[axis] for axis in axes), size) != size:
            return ()
    for axis in axes:
        if _grows_with([run.axes[axis] for run in runs], sizes):
            return (axis,)
    return tuple(axis for axis in axes if len({run.axes[axis] for run in runs}) > 1)


def _grows_with(sizes_in: Sequence[int], sizes_out: Sequence[int]) -> bool:
    """Whether the one is a function of the other that never falls."""
    pairs = sorted(set(zip(sizes_in, sizes_out, strict=True)))
    if len({size for size, _ in pairs}) != len(pairs):
        return False
    return all(before[1] <= after[1] for before, after in pairwise(pairs))
