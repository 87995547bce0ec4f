"""torch.onnx.export by tracing (dynamo=False), with weights held aside. Imports torch.

Two roads lead to the same graph. The private one lets torch serialise the graph without a single
weight and takes the final values from inside torch, which spares about six copies of everything.
The public one lets torch write a complete file and takes it apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx
import torch

from pipeline.exporters.flat import FlatNetwork, kept_buffers
from pipeline.exporters.holding import Exported, take_initializers
from pipeline.exporters.places import innermost_first, users_line
from pipeline.exporters.scopes import ModulePaths, from_node_names
from pipeline.exporters.weights import Weight, from_held, from_torch, state
from pipeline.graph.bare import BareModel
from pipeline.graph.walk import nodes

if TYPE_CHECKING:
    from pipeline.exporters.config import ExportConfig
    from pipeline.samples.spec import InputSpecs
    from pipeline.sources.network import Network

#: Tensors with more elements than this are kept from torch's shape inference, which serialises
#: every weight that it is given; shapes, axes and scalars are smaller.
INFERENCE_ELEMENTS: Final = 1024
_DEDUPLICATE: Final = "_jit_pass_onnx_deduplicate_initializers"
_INFER: Final = "_jit_pass_onnx_graph_shape_type_inference"
_NAME: Final = "_jit_pass_onnx_assign_scoped_names_for_node_and_value"
_FILE: Final = "torchscript.onnx"

_TRAINING: Final = {
    "eval": torch.onnx.TrainingMode.EVAL,
    "train": torch.onnx.TrainingMode.TRAINING,
    "preserve": torch.onnx.TrainingMode.PRESERVE,
}


class PrivateRoadClosed(Exception):  # noqa: N818 - what it says is what it is
    """torch does not behave as the private road expects; the public one has to be taken."""


@dataclass
class _Taken:
    """What the private road takes out of torch."""

    calls: int = 0
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)  #: value to the line that it is computed in


def export(
    network: Network,
    leaves: Sequence[torch.Tensor],
    outputs: Sequence[str],
    config: ExportConfig,
    *,
    opset: int,
    parameter_names: Sequence[str],
    private_apis: bool,
    scratch: Path,
    say: Callable[[str], None],
) -> Exported:
    """Trace the network and give its graph.

    Args:
        network: prepared (see `flat.prepared`).
        leaves: the sample inputs in their order.
        outputs: names in flattened order.
        config: everything that torch.onnx.export understands.
        opset: at most what the exporter stamps.
        parameter_names: new names for the first tensors of the network's state.
        private_apis: whether the private road may be taken.
        scratch: an existing folder for the exporter's file.
        say: gets a sentence when the private road turns out to be closed.

    Raises:
        Exception: whatever torch and the network raise.
    """
    ask = _Ask(network, tuple(leaves), tuple(outputs), config, opset, tuple(parameter_names), scratch)
    if private_apis:
        try:
            return _private(ask)
        except PrivateRoadClosed as closed:
            say(f"the export takes torch's public road: {closed}")
    return _public(ask)


@dataclass(frozen=True)
class _Ask:
    network: Network
    leaves: tuple[torch.Tensor, ...]
    outputs: tuple[str, ...]
    config: ExportConfig
    opset: int
    parameter_names: tuple[str, ...]
    scratch: Path

    @property
    def every_tensor_counts(self) -> bool:
        """Whether equal parameters must stay apart, because others may be fed for them."""
        return self.config.keep_initializers_as_inputs or not self.config.export_params

    def call(self, *, export_params: bool, keep: bool) -> onnx.ModelProto:
        """One call of torch.onnx.export; the model, with external data left where it lies."""
        specs = self.network.specs
        path = self.scratch / _FILE
        for old in self.scratch.glob("*"):
            old.unlink()
        with warnings.catch_warnings():
            # Said by torch of this exporter as such; everything else goes to the log.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            torch.onnx.export(
                _traceable(self.network, self.outputs),
                self.leaves,
                str(path),
                dynamo=False,
                export_params=export_params,
                keep_initializers_as_inputs=keep,
                verbose=self.config.verbose,
                input_names=[*(leaf.name for leaf in specs.leaves), *self.parameter_names],
                opset_version=self.opset,
                dynamic_axes=_dynamic_axes(specs),
                training=_TRAINING[self.config.training],
                do_constant_folding=self.config.do_constant_folding,
                custom_opsets=dict(self.config.custom_opsets),
            )
        return onnx.load_model(path, load_external_data=False)

    def exported(
        self, model: onnx.ModelProto, weights: dict[str, Weight], lines: Mapping[str, str]
    ) -> Exported:
        own = [name for name, _ in state(self.network.module)]
        modules = ModulePaths(name for name, _ in self.network.module.named_modules())
        return Exported(
            model=model,
            weights=weights,
            names=dict(zip(self.parameter_names, own, strict=False)),
            scopes=from_node_names(model.graph, modules),
            lines=lines,
        )


def _private(ask: _Ask) -> Exported:
    taken = _Taken()
    with _hooks(taken, deduplicate=not ask.every_tensor_counts):
        model = ask.call(export_params=False, keep=False)
    if taken.calls != 1:
        raise PrivateRoadClosed(f"initializers were deduplicated {taken.calls} times instead of once")
    owner = ask.network.module
    weights = {name: from_torch(tensor, owner) for name, tensor in taken.tensors.items()}
    _refuse_other_tensors(model.graph, weights, {leaf.name for leaf in ask.network.specs.leaves})
    return ask.exported(model, weights, _node_lines(model.graph, taken.lines))


def _public(ask: _Ask) -> Exported:
    before = kept_buffers(ask.network.module)
    model = ask.call(export_params=True, keep=ask.every_tensor_counts)
    lines = _doc_string_lines(model.graph)
    # At opsets 7 and 8 torch lists every initializer as an input.
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    bare = BareModel.from_proto(model, folder=ask.scratch)
    weights = {name: from_held(tensor) for name, tensor in bare.held.items()}
    model = bare.parsed()
    weights.update(take_initializers(model))
    own = dict(zip((name for name, _ in state(ask.network.module)), ask.parameter_names, strict=False))
    for name, buffer, values in before:
        # torch wrote what the trace left in the buffer; it is put back before the values are read.
        if own.get(name, name) in weights and not torch.equal(buffer, values):
            weights[own.get(name, name)] = from_torch(buffer)
    return ask.exported(model, weights, lines)


@contextmanager
def _hooks(taken: _Taken, *, deduplicate: bool) -> Iterator[None]:
    """Some of torch's passes replaced by ones that call them, for the time of one export."""
    passes: Any = torch._C
    for name in (_DEDUPLICATE, _INFER):
        if not callable(getattr(passes, name, None)):
            raise PrivateRoadClosed(f"torch._C has no {name}")
    real_deduplicate, real_infer = getattr(passes, _DEDUPLICATE), getattr(passes, _INFER)

    def deduplicate_and_take(graph: Any, tensors: dict[str, torch.Tensor], *rest: Any) -> Any:
        taken.calls += 1
        found = real_deduplicate(graph, tensors, *rest) if deduplicate else tensors
        if not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
            raise PrivateRoadClosed("deduplication gives something else than tensors")
        taken.tensors = dict(found)
        return found

    def infer_without_weights(graph: Any, tensors: dict[str, torch.Tensor], *rest: Any) -> Any:
        small = {name: value for name, value in tensors.items() if value.numel() <= INFERENCE_ELEMENTS}
        return real_infer(graph, small, *rest)

    # Lines are for people: where torch names its values elsewhere, there are none.
    real_name = getattr(passes, _NAME, None)

    def name_and_take(graph: Any) -> Any:
        found = real_name(graph) if real_name is not None else None
        taken.lines = dict(_lines(graph))
        return found

    replaced: dict[str, Callable[..., Any]] = {
        _DEDUPLICATE: deduplicate_and_take,
        _INFER: infer_without_weights,
    }
    if callable(real_name):
        replaced[_NAME] = name_and_take
    before = {name: getattr(passes, name) for name in replaced}
    try:
        for name, function in replaced.items():
            setattr(passes, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(passes, name, function)


def _refuse_other_tensors(graph: onnx.GraphProto, weights: Mapping[str, Weight], leaves: set[str]) -> None:
    """Hold the tensors that were taken against the typed inputs that stand for them in the graph."""
    inputs = {value.name: value.type.tensor_type for value in graph.input}
    if unknown := sorted(set(inputs) - leaves - set(weights)):
        raise PrivateRoadClosed(f"the graph has an input {unknown[0]!r} without a value")
    for name, weight in weights.items():
        if name not in inputs:
            raise PrivateRoadClosed(f"the graph has no input for the tensor {name!r}")
        kind = inputs[name]
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        if (kind.elem_type, shape) != (weight.dtype, weight.shape):
            raise PrivateRoadClosed(f"the tensor {name!r} has another type or shape than its input")


def _traceable(network: Network, outputs: Sequence[str]) -> torch.nn.Module:
    return FlatNetwork(network, outputs)


def _dynamic_axes(specs: InputSpecs) -> dict[str, dict[int, str]]:
    return {
        leaf.name: {index: axis.name for index, axis in leaf.dynamic.items()}
        for leaf in specs.leaves
        if leaf.dynamic
    }


def _lines(block: Any) -> Iterator[tuple[str, str]]:
    """Value and source line for every node of torch's graph and of the graphs inside it."""
    for node in block.nodes():
        line = users_line(innermost_first(node.sourceRange()))
        if line is not None:
            for value in node.outputs():
                yield value.debugName(), line
        for inner in node.blocks():
            yield from _lines(inner)


def _node_lines(graph: onnx.GraphProto, lines: Mapping[str, str]) -> dict[str, str]:
    """Lines of values, and of the nodes that make them."""
    found = {}
    for node in nodes(graph):
        for name in node.output:
            if name in lines:
                found[name] = lines[name]
                if node.name:
                    found.setdefault(node.name, lines[name])
    return found


def _doc_string_lines(graph: onnx.GraphProto) -> dict[str, str]:
    """The same out of doc strings, which torch writes when it is asked to be verbose."""
    found = {}
    for node in nodes(graph):
        line = users_line(innermost_first(node.doc_string))
        for name in (node.name, *node.output):
            if name and line is not None:
                found[name] = line
    return found
