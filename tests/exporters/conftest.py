"""One call that exports a small network, writes its file and runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline.exporters.attempts import Attempts
from pipeline.exporters.choice import export
from pipeline.exporters.config import ExportConfig
from pipeline.graph.assemble import assemble
from pipeline.graph.bare import BareModel
from pipeline.parity.signature import SeenRun, Signature, derive_signature
from pipeline.samples.make import Samples, make_samples
from pipeline.samples.spec import parse_inputs
from pipeline.sources.network import Network


@dataclass
class Made:
    """What came of one export."""

    model: BareModel
    attempts: Attempts
    network: Network
    folder: Path
    events: list[Any] = field(default_factory=list)
    _file: Any = None

    @property
    def file(self):
        """The finished file, written and checked."""
        if self._file is None:
            self._file = assemble(self.model, self.folder / "model.onnx")
            onnx.checker.check_model(str(self._file.path), full_check=True)
        return self._file

    @property
    def graph(self) -> onnx.GraphProto:
        return self.model.parsed().graph

    @property
    def operators(self) -> list[str]:
        return [node.op_type for node in self.graph.node]

    def worst(self, values: Mapping[str, Any] | None = None) -> float:
        """The largest relative error of the file against the network."""
        values = values or make_samples(self.network.specs, seed=1, stream="parity/0")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(self.file.path, options, providers=["CPUExecutionProvider"])
        assert [one.name for one in session.get_inputs()] == list(self.model.inputs)
        fed = {name: _array(tensor) for name, tensor in self.attempts.parameters.items()}
        found = session.run(list(self.model.outputs), {**values, **fed})
        errors = []
        for got, wanted in zip(found, self.network.run(values).values(), strict=True):
            assert got.shape == wanted.shape
            errors.append(float(np.abs(got - wanted).max()) / max(float(np.abs(wanted).max()), 1e-9))
        return max(errors)

    def dimensions(self, name: str) -> list[int | str]:
        value = next(one for one in (*self.graph.input, *self.graph.output) if one.name == name)
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _array(tensor: Any) -> Any:
    return np.frombuffer(
        bytes(memoryview(tensor.data())), onnx.helper.tensor_dtype_to_np_dtype(tensor.dtype)
    ).reshape(tensor.shape)


def signature_of(network: Network, values: Samples, sizes: Mapping[str, int] | None) -> Signature:
    specs = network.specs
    runs = [values] if not sizes else [values, make_samples(specs, seed=0, stream="sizes", sizes=sizes)]
    seen = [
        SeenRun(
            {axis.name: run[leaf.name].shape[i] for leaf in specs.leaves for i, axis in leaf.dynamic.items()},
            network.run(run),
        )
        for run in runs
    ]
    positions = {axis.name: i for leaf in specs.leaves for i, axis in leaf.dynamic.items()}
    return derive_signature(seen, positions, value_dependent=False)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    count = 0

    def make(
        module: torch.nn.Module | Network,
        inputs: Any = None,
        *,
        opset: int = 17,
        private: bool = True,
        parameter_names: tuple[str, ...] = (),
        sizes: Mapping[str, int] | None = None,
        **config: Any,
    ) -> Made:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        (folder / "scratch").mkdir(parents=True)
        network = module if isinstance(module, Network) else Network(module.eval(), parse_inputs(inputs))
        values = make_samples(network.specs, seed=0, stream="export")
        signature = signature_of(network, values, sizes)
        events: list[Any] = []
        model, attempts = export(
            network,
            values,
            signature,
            ExportConfig(**config),
            opset=opset,
            parameter_names=parameter_names,
            emit=events.append,
            private_apis=private,
            scratch=folder / "scratch",
        )
        model.check_invariant()
        return Made(model, attempts, network, folder, events)

    return make


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def tensor(*shape: int, **more: Any) -> dict[str, Any]:
    """An input of a shape."""
    return {"shape": list(shape), **more}


IMAGE = {"x": tensor(2, 3, 12, 12)}
