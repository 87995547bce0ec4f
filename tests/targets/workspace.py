"""A workspace without a cache, and a small model that doubles its input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser

from pipeline.graph.assemble import ModelFile
from pipeline.parity.reference import Reference
from pipeline.parity.signature import OutputSpec, Signature
from pipeline.samples.spec import InputSpecs, parse_inputs
from pipeline.stage import Stage, Verdict

DOUBLE = """
<ir_version: 8, opset_import: ["" : 17]>
double (float[batch,3] in) => (float[batch,3] out)
{ out = Add (in, in) }
"""
SPECS = {"in": {"shape": [2, 3], "dynamic": {0: {"name": "batch", "max": 8}}}}


class DictWorkspace:
    """See `pipeline.stage.Workspace`."""

    def __init__(self, folder: Path, **artifacts: Any) -> None:
        self.folder = folder
        self.scratch = folder / ".scratch"
        self.scratch.mkdir()
        self.values = dict(artifacts)
        self.events: list[Any] = []
        self.files: dict[str, tuple[str, bool]] = {}

    def emit(self, event: Any) -> None:
        self.events.append(event)

    def get(self, name: str) -> Any:
        return self.values[name]

    def put(self, name: str, value: Any) -> None:
        self.values[name] = value

    def file(self, path: str, kind: str, *, same_every_time: bool = True) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        self.files[path] = (kind, same_every_time)
        return target

    def digest(self, path: str, sha256: str) -> None: ...

    def release(self, name: str) -> None: ...

    def walk(self, *stages: Stage) -> list[Verdict]:
        """Run stages as the runner does."""
        verdicts = []
        for stage in stages:
            stage.requires(self)
            verdicts.append(stage.run(self))
            stage.ensures(self)
        return verdicts


def doubling(folder: Path) -> tuple[DictWorkspace, InputSpecs]:
    """Everything that the stages of a target take, for y = 2 x with a dynamic batch."""
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(DOUBLE), path)
    specs = parse_inputs(SPECS)
    random = np.random.default_rng(0)
    inputs = {
        label: {"in": random.standard_normal((size, 3)).astype(np.float32)}
        for label, size in (("seed0", 2), ("seed1", 2), ("sizes:batch=3", 3))
    }
    outputs = {label: {"out": values["in"] * 2} for label, values in inputs.items()}
    exact = {"seed0": {"out": inputs["seed0"]["in"].astype(np.float64) * 2}}
    workspace = DictWorkspace(
        folder,
        model=ModelFile(path, path.stat().st_size, "0" * 64, ()),
        export_inputs=inputs["seed0"],
        parity_inputs=inputs,
        reference=Reference(outputs, exact),
        signature=Signature((OutputSpec("out", "float32", (2, 3), {0: ("batch",)}, {0: "batch"}),)),
    )
    return workspace, specs
