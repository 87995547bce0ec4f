"""Which exporters were tried, with what outcome, and what tracing turned into constants. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

from pipeline.errors import Reason
from pipeline.graph.bare import HeldTensor, map_file, write_all

TABLE_FILE: Final = "attempts.json"
TENSORS_FILE: Final = "parameters.bin"


@dataclass(frozen=True)
class Attempt:
    """One exporter, asked once.

    Attributes:
        exporter: torchscript or dynamo.
        opset: the opset that the graph has at the end.
        outcome: passed or failed.
        reason: why it failed.
        converted_from: the opset that the exporter wrote, where a converter or rules brought it to `opset`.
        rules: rewrite rule to the number of nodes that it replaced on the way down.
    """

    exporter: str
    opset: int
    outcome: Literal["passed", "failed"]
    reason: Reason | None = None
    converted_from: int | None = None
    rules: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the manifest; what is not known is left out."""
        data: dict[str, Any] = {"exporter": self.exporter, "opset": self.opset, "outcome": self.outcome}
        if self.converted_from is not None:
            data["converted_from"] = self.converted_from
        if self.rules:
            data["rules"] = dict(self.rules)
        if self.reason is not None:
            data["reason"] = self.reason.to_json()
        return data


@dataclass(frozen=True)
class FrozenPlace:
    """A place where the export turned a value that may vary into a constant.

    Most are harmless (a size that never varies). Where parity fails, they are where to look.

    Attributes:
        place: "torchvision/models/swin_transformer.py:123", without the folder that it lies in; or
            "output output1, dimension 0".
        kind: what became constant: "a Python boolean", "a Python integer", "a size" ...
        count: how often it happened there.
    """

    place: str
    kind: str
    count: int = 1

    @property
    def decides_a_branch(self) -> bool:
        """Whether an `if` or a loop may have been frozen."""
        return self.kind == "a Python boolean"


@dataclass(frozen=True)
class Attempts:
    """Every attempt in order; the last one passed, or there is no graph.

    Attributes:
        attempts: what was tried.
        frozen: constants that the passed export made of values, in the order of their places.
        parameters: export.export_params=false: values of the parameters that are inputs of the file
            and do not stand in it, so that parity can feed them. Empty otherwise.
    """

    attempts: tuple[Attempt, ...]
    frozen: tuple[FrozenPlace, ...] = ()
    parameters: Mapping[str, HeldTensor] = field(default_factory=dict)

    @property
    def passed(self) -> Attempt:
        """The attempt that made the graph."""
        return next(attempt for attempt in self.attempts if attempt.outcome == "passed")

    def to_json(self) -> list[dict[str, Any]]:
        """The manifest's `attempts`."""
        return [attempt.to_json() for attempt in self.attempts]

    def store(self, folder: Path) -> None:
        """Write attempts.json, and parameters.bin where there are parameters."""
        rows = []
        offset = 0
        if self.parameters:
            with (folder / TENSORS_FILE).open("xb", buffering=0) as stream:
                for name, tensor in self.parameters.items():
                    for piece in tensor.pieces():
                        write_all(stream, piece)
                    rows.append({"name": name, "dtype": tensor.dtype, "shape": list(tensor.shape),
                                 "offset": offset, "origin": tensor.origin,
                                 "derived_by": tensor.derived_by})  # fmt: skip
                    offset += tensor.size
        table = {
            "attempts": self.to_json(),
            "frozen": [[place.place, place.kind, place.count] for place in self.frozen],
            "parameters": rows,
        }
        text = json.dumps(table, sort_keys=True, indent=1, ensure_ascii=False)
        (folder / TABLE_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `store` wrote; parameters stay mapped on disk."""
        table = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))
        attempts = tuple(
            Attempt(**{**row, "reason": Reason(**row["reason"]) if "reason" in row else None})
            for row in table["attempts"]
        )
        held = {
            row["name"]: HeldTensor(
                row["name"],
                row["dtype"],
                tuple(row["shape"]),
                _Part(folder / TENSORS_FILE, row["offset"]),
                row["origin"],
                row["derived_by"],
            )
            for row in table["parameters"]
        }
        parameters = {
            name: HeldTensor(
                name, tensor.dtype, tensor.shape, _sized(tensor), tensor.origin, tensor.derived_by
            )
            for name, tensor in held.items()
        }
        return cls(attempts, tuple(FrozenPlace(*row) for row in table["frozen"]), parameters)


@dataclass(frozen=True)
class _Part:
    path: Path
    offset: int
    size: int = 0

    def __call__(self) -> Any:
        return map_file(self.path)[self.offset : self.offset + self.size]


def _sized(tensor: HeldTensor) -> _Part:
    part = tensor.data
    assert isinstance(part, _Part)
    return _Part(part.path, part.offset, tensor.size)
