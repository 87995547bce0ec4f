"""What the stages of a target hand on: compiled files and what they gave, as artifacts of the cache. No numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pipeline.targets.backend import Compiled, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COMPILED_FILE: Final = "compiled.json"
OUTPUTS_FILE: Final = "outputs.json"
ARRAYS_FILE: Final = "arrays.npz"
FILES: Final = "files"


@dataclass(frozen=True)
class CompiledFiles:
    """Compiled files, what the backend said of them and what the model takes and gives.

    Attributes:
        data: name of each file to its bytes, mapped: they stay when the folder goes.
        compiled: see `pipeline.targets.backend.Compiled`.
        inputs, outputs: of the model, in the file's order.
    """

    data: Mapping[str, Any]
    compiled: Compiled
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def of(
        cls, folder: Path, compiled: Compiled, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> Self:
        """Take over the files in `folder`, which may go away afterwards."""
        from pipeline.graph.bare import map_file

        names = (*compiled.files, *compiled.others)
        return cls({name: map_file(folder / name) for name in names}, compiled, inputs, outputs)

    @property
    def size(self) -> int:
        """Bytes of what the runtime needs."""
        return sum(len(self.data[name]) for name in self.compiled.files)

    def write_files(self, folder: Path) -> None:
        """Write every file into `folder`."""
        from pipeline.graph.bare import write_all

        for name, data in self.data.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb", buffering=0) as stream:
                write_all(stream, memoryview(data))

    def store(self, folder: Path) -> None:
        """Write compiled.json and files/."""
        from dataclasses import asdict

        from pipeline.targets.messages import compiled_to_json

        table = {
            "compiled": compiled_to_json(self.compiled),
            "inputs": [asdict(one) for one in self.inputs],
            "outputs": [asdict(one) for one in self.outputs],
        }
        (folder / COMPILED_FILE).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        self.write_files(folder / FILES)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `store` wrote."""
        from pipeline.targets.messages import compiled_from_json, specs_from_json

        table = json.loads((folder / COMPILED_FILE).read_text(encoding="utf-8"))
        return cls.of(
            folder / FILES,
            compiled_from_json(table["compiled"]),
            specs_from_json(table["inputs"]),
            specs_from_json(table["outputs"]),
        )


@dataclass(frozen=True)
class TargetOutputs:
    """What the compiled model gave in a fresh process.

    Attributes:
        outputs: label of the inputs to output name to array.
        precision, proof: what was in force, and where that was read.
    """

    outputs: Mapping[str, Mapping[str, NDArray[np.generic]]]
    precision: str
    proof: str

    def store(self, folder: Path) -> None:
        """Write outputs.json (which array is what) and arrays.npz."""
        from pipeline.samples.npz import write_npz

        rows: list[dict[str, str]] = []
        arrays: dict[str, Any] = {}
        for label, named in self.outputs.items():
            for name, array in named.items():
                rows.append({"label": label, "output": name, "array": str(len(arrays))})
                arrays[str(len(arrays))] = array
        write_npz(folder / ARRAYS_FILE, arrays)
        table = {"arrays": rows, "precision": self.precision, "proof": self.proof}
        (folder / OUTPUTS_FILE).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `store` wrote."""
        import numpy as np

        table = json.loads((folder / OUTPUTS_FILE).read_text(encoding="utf-8"))
        outputs: dict[str, dict[str, Any]] = {}
        with np.load(folder / ARRAYS_FILE, allow_pickle=False) as archive:
            for row in table["arrays"]:
                outputs.setdefault(row["label"], {})[row["output"]] = archive[row["array"]]
        return cls(outputs, table["precision"], table["proof"])
