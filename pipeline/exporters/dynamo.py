"""torch.onnx.export through torch.export (dynamo=True), with weights held aside. Imports torch.

The exporter gives its program back, whose initializers are views of the network's tensors, so no
complete file is ever made. All of it is public but for short cuts through torch and onnxscript, which
have files of their own (`compiler_import`, `composite_operators`, `torchlib`, `onnxscript_matcher`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from pipeline.errors import InternalError, StageFailed
from pipeline.exporters.boundary import rename
from pipeline.exporters.compiler_import import import_compiler
from pipeline.exporters.composite_operators import composite_operators_once
from pipeline.exporters.flat import FlatNetwork
from pipeline.exporters.holding import Exported
from pipeline.exporters.onnxscript_matcher import first_node_first
from pipeline.exporters.scopes import from_metadata
from pipeline.exporters.torchlib import domains_at_once
from pipeline.exporters.weights import Weight, from_held, from_torch, state
from pipeline.graph.bare import HeldTensor
from pipeline.sources.meta_kernels import load_meta_kernels

if TYPE_CHECKING:
    import onnx

    from pipeline.exporters.config import ExportConfig
    from pipeline.samples.spec import Axis, InputSpecs
    from pipeline.sources.network import Network


def export(
    network: Network,
    leaves: Sequence[torch.Tensor],
    outputs: Sequence[str],
    config: ExportConfig,
    *,
    opset: int,
    parameter_names: Sequence[str],
    translations: Mapping[Callable[..., Any], Callable[..., Any]] | None,
    private_apis: bool = False,
) -> Exported:
    """Export the network and give its graph.

    `export.do_constant_folding=false` switches the exporter's optimizer off, which is what folds.
    `keep_initializers_as_inputs`, `export_params`, `custom_opsets` and names of parameters, which
    the exporter ignores, are served afterwards (see `holding`).

    Args:
        network: prepared (see `flat.prepared`).
        leaves: the sample inputs in their order.
        outputs: names in flattened order.
        config: what was asked.
        opset: what the graph should have; what it really has stands in the result.
        parameter_names: new names for the first tensors of the network's state.
        translations: custom_translation_table.
        private_apis: whether the short cuts through onnxscript may be taken; the graph is the same.

    Raises:
        StageFailed: PL-305, modules that are in training mode and would be written as if they were not.
        Exception: whatever torch and the network raise.
    """
    _refuse_training(network)
    load_meta_kernels()
    if private_apis:
        import_compiler()
    with _short_ways() if private_apis else nullcontext():
        program = torch.onnx.export(
            FlatNetwork(network, outputs),
            tuple(leaves),
            kwargs={},
            dynamo=True,
            opset_version=opset,
            verbose=config.verbose,
            optimize=config.do_constant_folding,
            dynamic_shapes=_dynamic_shapes(network.specs),
            custom_translation_table=dict(translations) if translations else None,
        )
    if program is None:
        raise InternalError("torch.onnx.export(dynamo=True) gave no program")
    model, weights = _serialised(program.model, network.module)
    names = _name_inputs(model.graph, weights, [leaf.name for leaf in network.specs.leaves])
    aliases = _first_names(network.module)
    own = {name: aliases.get(names.get(name, name), names.get(name, name)) for name in weights}
    tensors = network.tensors()
    known = {name: original for name, original in own.items() if original in tensors}
    scopes, lines = from_metadata(model.graph, dict(network.module.named_modules()), known)
    new = dict(zip((name for name, _ in state(network.module)), parameter_names, strict=False))
    mapping = {name: new[original] for name, original in known.items() if original in new}
    moved = rename(model.graph, mapping)
    return Exported(
        model=model,
        weights={moved.get(name, name): weight for name, weight in weights.items()},
        names={moved.get(name, name): original for name, original in own.items()},
        scopes={moved.get(name, name): module for name, module in scopes.items()},
        lines={moved.get(name, name): line for name, line in lines.items()},
        specialised_is_wrong=True,
    )


@contextmanager
def _short_ways() -> Iterator[None]:
    with composite_operators_once(), domains_at_once(), first_node_first():
        yield


def holds_itself_nowhere(module: torch.nn.Module) -> bool:
    """Whether a network is gone when it is let go of: so are torch's own modules, a user's may be cyclic."""
    classes = {type(inner).__module__.partition(".")[0] for inner in module.modules()}
    return classes <= {"torch", "torchvision"}


def _first_names(module: torch.nn.Module) -> dict[str, str]:
    """Every name of a tensor to its first one: the exporter may call a shared tensor by another."""
    first: dict[int, str] = {}
    every = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: first.setdefault(id(tensor), name) for name, tensor in every}


def _refuse_training(network: Network) -> None:
    training = [name for name, module in network.module.named_modules() if module.training]
    if training:
        raise StageFailed(
            "PL-305",
            "the dynamo exporter writes BatchNorm as it is at inference, whatever mode the network is in",
            where="export.training",
            found=f"{len(training)} modules in training mode, the first is {training[0] or 'the network'}",
            expected="a network that is all in eval mode",
            next_step="Type export.training=eval or export.exporter=torchscript",
        )


def _dynamic_shapes(specs: InputSpecs) -> Any:
    """What torch.export takes: one entry an input, inside the row that `FlatNetwork.forward` takes."""
    if not any(leaf.dynamic for leaf in specs.leaves):
        return None
    sizes: dict[str, Any] = {}
    rows = []
    for leaf in specs.leaves:
        for index, axis in leaf.dynamic.items():
            if axis.name not in sizes:
                sizes[axis.name] = _dimension(axis, leaf.shape[index], f"axis{len(sizes)}")
        rows.append({index: sizes[axis.name] for index, axis in leaf.dynamic.items()})
    return (tuple(rows),)


def _dimension(axis: Axis, size: int, stand_in: str) -> Any:
    """The dimension of an axis, as torch takes it.

    Args:
        axis: name and range.
        size: the example's.
        stand_in: the name where the axis' own is no Python identifier; the file has the axis' own.
    """
    name = axis.name if axis.name.isidentifier() else stand_in
    step = axis.multiple_of
    if step > 1 and size // step > 1:
        high = None if axis.max is None else axis.max // step
        return step * torch.export.Dim(f"_{name}", min=max(1, -(-axis.min // step)), max=high)
    # torch takes a symbol whose example is 0 or 1 for a constant: the multiple is left to parity then.
    return torch.export.Dim(name, min=max(1, axis.min), max=axis.max)


def _serialised(model: ir.Model, owner: torch.nn.Module) -> tuple[onnx.ModelProto, dict[str, Weight]]:
    """The graph as a proto without initializers, and their values; `owner` is the network."""
    _lift_inner_initializers(model)
    weights = {}
    for name, value in list(model.graph.initializers.items()):
        if value.const_value is None:
            raise InternalError(f"the initializer {name} of the exported graph has no value")
        weights[name] = _weight(value.const_value, owner)
    model.graph.initializers.clear()
    return ir.to_proto(model), weights


def _lift_inner_initializers(model: ir.Model) -> None:
    from onnx_ir.passes.common import LiftSubgraphInitializersToMainGraphPass

    LiftSubgraphInitializersToMainGraphPass()(model)


@dataclass(frozen=True)
class _IrBytes:
    """The bytes of a tensor of onnx-ir, which packs sub-byte elements itself."""

    tensor: Any

    def __call__(self) -> NDArray[Any]:
        return np.frombuffer(self.tensor.tobytes(), np.uint8)


def _weight(tensor: Any, owner: torch.nn.Module) -> Weight:
    raw = getattr(tensor, "raw", None)
    if isinstance(raw, np.ndarray):
        raw = _seen_by_torch(raw)
    if isinstance(raw, torch.Tensor) and tuple(raw.shape) == tuple(tensor.shape):
        return from_torch(raw, owner)
    shape = tuple(int(size) for size in tensor.shape)
    return from_held(HeldTensor(tensor.name or "", int(tensor.dtype), shape, _IrBytes(tensor)))


def _seen_by_torch(array: NDArray[Any]) -> torch.Tensor | None:
    """A folded weight where it lies: mostly a transposed view of a tensor of the network's.

    None for element types that torch does not share with numpy and for arrays that run backwards.
    """
    with warnings.catch_warnings():
        # What is folded may be read-only; nobody writes to it here.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        try:
            return torch.from_numpy(array)
        except (TypeError, ValueError):
            return None


def _name_inputs(graph: onnx.GraphProto, weights: dict[str, Weight], wanted: Sequence[str]) -> dict[str, str]:
    """Call the inputs as asked; initializers that stand in the way get another name.

    Returns:
        Initializer that was renamed to the name that it had.
    """
    present = [value.name for value in graph.input]
    if len(present) != len(wanted):
        raise StageFailed(
            "PL-321",
            "the exporter gives another number of inputs than the network has",
            found=str(len(present)),
            expected=f"{len(wanted)}: {', '.join(wanted)}",
        )
    moved = rename(graph, dict(zip(present, wanted, strict=True)))
    back = {}
    for old, new in moved.items():
        if old in weights:
            weights[new] = weights.pop(old)
            back[new] = old
    return back
