"""Stand-ins: a workspace that holds artifacts in a dictionary, and small networks as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch

from pipeline.exporters.attempts import Attempt, Attempts, FrozenPlace
from pipeline.graph.assemble import ModelFile
from pipeline.parity.config import ParityConfig
from pipeline.parity.reference import Reference, make_reference
from pipeline.parity.stages import ParityStage
from pipeline.samples.make import Samples
from pipeline.samples.spec import parse_inputs
from pipeline.samples.stages import InputsStage
from pipeline.sources.network import Network
from pipeline.stage import Verdict


class DictWorkspace:
    """A workspace without a cache."""

    def __init__(self, folder: Path, **artifacts: Any) -> None:
        self.folder = folder
        self.scratch = folder / "scratch"
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

    def release(self, name: str) -> None:
        self.values.pop(name, None)

    @property
    def findings(self) -> list[str]:
        return [event.message for event in self.events if type(event).__name__ == "Finding"]


def model_file(path: Path) -> ModelFile:
    return ModelFile(path, path.stat().st_size, "0" * 64, ())


class Exported:
    """A network, its inputs, its reference and its file, without any pipeline around them."""

    def __init__(
        self,
        module: torch.nn.Module,
        inputs: Mapping[str, Any],
        folder: Path,
        *,
        config: ParityConfig | None = None,
        outputs: tuple[str, ...] | None = None,
        seeds: int = 3,
    ) -> None:
        self.config = config or ParityConfig()
        self.specs = parse_inputs(inputs)
        self.network = Network(module.eval(), self.specs, outputs)
        self.workspace = DictWorkspace(folder, network=self.network)
        InputsStage(self.specs, 0, seeds).run(self.workspace)
        self.reference, self.signature = make_reference(
            self.network,
            self.workspace.get("export_inputs"),
            self.parity_inputs,
            self.config,
            lambda event: None,
        )
        self.path = folder / "model.onnx"
        names = [leaf.name for leaf in self.specs.leaves]
        axes = {leaf.name: {i: axis.name for i, axis in leaf.dynamic.items()} for leaf in self.specs.leaves}
        args, _ = self.network.arguments(self.workspace.get("export_inputs"))
        torch.onnx.export(
            module, args, str(self.path), dynamo=False, opset_version=17, input_names=names,
            output_names=list(self.signature.names),
            dynamic_axes={name: sizes for name, sizes in axes.items() if sizes},
        )  # fmt: skip

    @property
    def parity_inputs(self) -> dict[str, Samples]:
        inputs: dict[str, Samples] = self.workspace.get("parity_inputs")
        return inputs

    @contextmanager
    def changed(self) -> Iterator[onnx.ModelProto]:
        """The file, open for damage."""
        model = onnx.load(str(self.path))
        yield model
        onnx.save(model, str(self.path))

    @contextmanager
    def weight(self, index: int) -> Iterator[np.ndarray[Any, Any]]:
        """The array of one weight in the file, to be changed in place."""
        with self.changed() as model:
            tensor = [one for one in model.graph.initializer if len(one.dims) >= 2][index]
            array = onnx.numpy_helper.to_array(tensor).copy()
            yield array
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    def prove(self, frozen: tuple[FrozenPlace, ...] = (), reference: Reference | None = None) -> Verdict:
        """The parity stage on the file as it lies there."""
        self.workspace.values |= {
            "reference": reference or self.reference,
            "signature": self.signature,
            "model": model_file(self.path),
            "attempts": Attempts((Attempt("torchscript", 17, "passed"),), frozen),
        }
        stage = ParityStage(self.config)
        stage.requires(self.workspace)
        verdict = stage.run(self.workspace)
        stage.ensures(self.workspace)
        return verdict


@pytest.fixture
def small(tmp_path: Path) -> Exported:
    """Two convolutions and a linear layer: 3x16x16 to ten numbers."""
    return Exported(small_network(), {"x": {"shape": [1, 3, 16, 16]}}, tmp_path)


def small_network(features: int = 8) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, features, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(features, features, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(features * 64, 10),
    )


@pytest.fixture
def graph_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph given as ONNX text."""

    def write(text: str, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}'), str(path))
        return path

    return write
