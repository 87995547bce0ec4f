"""A workspace and artifacts for stages that write a target's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

from pipeline.graph.assemble import assemble
from pipeline.graph.bare import BareModel
from pipeline.parity.reference import Reference
from pipeline.parity.signature import OutputSpec, Signature
from pipeline.samples.spec import InputSpecs, parse_inputs
from pipeline.targets.judge import judge
from pipeline.targets.profile import OperatorRule, Profile, Requirement

TEXT = """
<ir_version: 6, opset_import: ["" : 11]>
g (float[1, 3, 8, 6] image) => (float[1, 4, 8, 6] y) {
  c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w)
  r = Relu(c)
  s = Softmax<axis = 1>(r)
  y = Identity(s)
}
"""


@dataclass
class Folder:
    """What a stage may touch; files lie below `root`."""

    root: Path
    values: dict[str, Any] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    files: dict[str, tuple[str, bool]] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        folder = self.root / ".scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def emit(self, event: Any) -> None:
        self.events.append(event)

    def get(self, name: str) -> Any:
        return self.values[name]

    def put(self, name: str, value: Any) -> None:
        self.values[name] = value

    def file(self, path: str, kind: str, *, same_every_time: bool = True) -> Path:
        if path in self.files:
            assert self.files[path] == (kind, same_every_time), path
        self.files[path] = (kind, same_every_time)
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def digest(self, path: str, sha256: str) -> None:
        pass

    def release(self, name: str) -> None:
        pass

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if event.level == "warning"]


def specs(inputs: Mapping[str, Any] | None = None) -> InputSpecs:
    return parse_inputs(inputs or {"image": {"shape": [1, 3, 8, 6]}})


def proto() -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT)
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def workspace(
    root: Path,
    model: onnx.ModelProto | None = None,
    given: InputSpecs | None = None,
    judged: Profile | None = None,
) -> Folder:
    """A run directory with a finished file, three sets of inputs and outputs of the reference."""
    model, given = model or proto(), given or specs()
    draw = np.random.default_rng(1)
    bare = BareModel.from_proto(model)
    root.mkdir(exist_ok=True)
    sets = {
        f"seed{index}": {
            leaf.name: draw.standard_normal(leaf.shape).astype(leaf.dtype) for leaf in given.leaves
        }
        for index in range(3)
    }
    outputs = tuple(
        OutputSpec(value.name, "float32", tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim))
        for value in model.graph.output
    )
    reference = Reference(
        {
            label: {one.name: draw.standard_normal(one.shape).astype(np.float32) for one in outputs}
            for label in sets
        }
    )
    return Folder(
        root,
        {
            "model": assemble(bare, root / "model.onnx"),
            "finished": bare,
            "judgement": judge(judged or profile(), root / "model.onnx"),
            "parity_inputs": sets,
            "export_inputs": sets["seed0"],
            "reference": reference,
            "signature": Signature(outputs),
        },
    )


def profile(name: str = "horizon_x3", **fields: Any) -> Profile:
    """Conv and Relu on the accelerator, Softmax on the CPU, everything else refused."""
    return Profile(
        name=name,
        title="a board",
        citation="a test",
        opset=(10, 11),
        ir_version=7,
        shapes="static",
        requires=(Requirement("Conv"),),
        unlisted="refused",
        places={"accelerator": "BPU", "cpu": "CPU"},
        operators={
            "Conv": OperatorRule("Conv", "full", "full"),
            "Relu": OperatorRule("Relu", "full", "full"),
            "Softmax": OperatorRule("Softmax", "none", "full"),
        },
        digest="0" * 64,
        **fields,
    )
