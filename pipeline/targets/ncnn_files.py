"""What stands in the files that pnnx writes: layers, blobs, layouts of inputs and outputs, element types."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.targets.backend import BackendError

#: First line of a .param file.
MAGIC: Final = "7767517"
#: Before weights in half precision in a .bin file (ncnn, src/modelbin.cpp).
HALF_TAG: Final = b"\x47\x6b\x30\x01"

_INPUT: Final = re.compile(r"ex\.input\(\"(in\d+)\", ncnn\.Mat\(.*?(?:batch_index=(\d+))?\)\.clone")
_OUTPUT: Final = re.compile(r"from_numpy\((out\d+)\.numpy\((?:batch_index=(\d+))?\)\)")


@dataclass(frozen=True)
class Blob:
    """A blob and which axis of the array is its batch; None: it has none."""

    name: str
    batch: int | None


@dataclass(frozen=True)
class Layer:
    """A line of a .param file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Param:
    """A .param file."""

    layers: tuple[Layer, ...]

    def numbered(self, kind: str) -> list[str]:
        """Blobs that are called `kind` and a number."""
        pattern = re.compile(rf"{kind}\d+")
        return [name for layer in self.layers for name in layer.outputs if pattern.fullmatch(name)]


def read_param(text: str) -> Param:
    """Layers of a .param file.

    Raises:
        BackendError: it is none, or cut off.
    """
    lines = text.splitlines()
    if len(lines) < 2 or lines[0].strip() != MAGIC:
        raise BackendError("pnnx left a .param file that does not begin like one")
    layers = []
    for line in lines[2:]:
        words = line.split()
        if not words:
            continue
        try:
            taken, given = int(words[2]), int(words[3])
        except (IndexError, ValueError) as error:
            raise BackendError(f"pnnx left a .param file with the line {line.strip()[:80]!r}") from error
        blobs = words[4 : 4 + taken + given]
        layers.append(Layer(words[0], words[1], tuple(blobs[:taken]), tuple(blobs[taken:])))
    if len(layers) != int(lines[1].split()[0]):
        raise BackendError(f"the .param file promises {lines[1].split()[0]} layers and has {len(layers)}")
    return Param(tuple(layers))


def layouts_of(program: str) -> dict[str, int | None]:
    """Blob to the axis that is its batch, from the example program that pnnx writes: it says it nowhere else."""
    found: dict[str, int | None] = {}
    for pattern in (_INPUT, _OUTPUT):
        for name, axis in pattern.findall(program):
            found[name] = int(axis) if axis else None
    return found


def half_tensors(path: Path) -> int:
    """How many tensors of a .bin file are marked as half precision."""
    data = path.read_bytes()
    count, place = 0, data.find(HALF_TAG)
    while place >= 0:
        count += place % 4 == 0
        place = data.find(HALF_TAG, place + 1)
    return count


def weights_precision(path: Path) -> tuple[str, str]:
    """Element type of the weights of a .bin file, and how that was seen."""
    count = half_tensors(path)
    return ("float16" if count else "float32"), f"{count} tensors marked as half precision in {path.name}"
