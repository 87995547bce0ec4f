"""A network whose arguments and results are plain rows of tensors, as both exporters want them. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from pipeline.errors import StageFailed
from pipeline.exporters.names import listed
from pipeline.sources.attributes import attributes_put_back

if TYPE_CHECKING:
    from pipeline.sources.network import Network

#: Buffers up to this size in all are put back after a trace that wrote to them.
KEPT_BUFFERS_BYTES: Final = 64 * 1024 * 1024
#: Under which a flat network keeps what is its own: no name for an attribute.
_OURS: Final = "the network, its leaves and its outputs"


class FlatNetwork(torch.nn.Module):
    """Takes the leaves of the inputs in their order and gives the outputs in the signature's order.

    Keyword arguments, lists, dicts, dataclasses and None are the network's own business, which no
    exporter then has to understand. The tables of submodules, parameters and buffers are those of
    the network's module itself, so that every name is the network's own.
    """

    def __init__(self, network: Network, outputs: Sequence[str]) -> None:
        super().__init__()
        module = network.module
        self._parameters = module._parameters
        self._buffers = module._buffers
        self._modules = module._modules
        self._non_persistent_buffers_set = module._non_persistent_buffers_set
        self.training = module.training
        # Every name that an attribute may have may be one of the network's modules or tensors.
        vars(self)[_OURS] = network, tuple(leaf.name for leaf in network.specs.leaves), tuple(outputs)

    def forward(self, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        network, leaf_names, outputs = vars(self)[_OURS]
        values = dict(zip(leaf_names, leaves, strict=True))
        args, kwargs = network.specs.call_arguments(values, _as_it_is)
        found = network.flatten(network.module(*args, **kwargs))
        if tuple(found) != outputs:
            raise StageFailed(
                "PL-320",
                "the network gives other outputs while it is exported than when it runs",
                found=listed(tuple(found)),
                expected=listed(outputs),
                next_step="Make forward return the same whether it is traced or not",
            )
        return tuple(found[name] for name in outputs)


def _as_it_is(value: Any) -> Any:
    return value


def leaves(network: Network, values: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    """The sample inputs as tensors on the network's device, in the order of the leaves."""
    args, kwargs = network.arguments(values)
    flat: dict[str, torch.Tensor] = {}
    for argument, tree in _pairs(network, args, kwargs):
        _collect(argument, tree, flat)
    return tuple(flat[leaf.name] for leaf in network.specs.leaves)


def _pairs(network: Network, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    positional = iter(args)
    for argument in network.specs.arguments:
        yield argument.tree, next(positional) if argument.passing == "positional" else kwargs[argument.name]


def _collect(tree: Any, value: Any, flat: dict[str, torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        flat[tree.name] = value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _collect(tree[key], inner, flat)
    else:
        for branch, inner in zip(tree, value, strict=True):
            _collect(branch, inner, flat)


@contextmanager
def prepared(network: Network, training: Literal["eval", "train", "preserve"]) -> Iterator[None]:
    """The network as the exporters need it; afterwards everything is as before.

    No gradients, the asked mode in every module, attention without its fused inference kernel
    (which no exporter knows), and buffers and attributes that a trace writes to put back.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_mode(network, training))
        stack.enter_context(_plain_attention())
        stack.enter_context(_buffers_put_back(network))
        stack.enter_context(attributes_put_back(network.module))
        yield


@contextmanager
def _mode(network: Network, training: str) -> Iterator[None]:
    modules = dict(network.module.named_modules())
    before = {module: module.training for module in modules.values()}
    try:
        for name, module in modules.items():
            module.training = training == "train" or (
                training == "preserve" and (module.training or name in network.training_modules)
            )
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@contextmanager
def _plain_attention() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _buffers_put_back(network: Network) -> Iterator[None]:
    kept = kept_buffers(network.module)
    try:
        yield
    finally:
        with torch.no_grad():
            for _, buffer, values in kept:
                if not torch.equal(buffer, values):
                    buffer.copy_(values)


def kept_buffers(module: torch.nn.Module) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Name, buffer and a copy of its values, of every buffer; none when they are large in all.

    Values are compared later, not versions: BatchNorm writes its statistics without counting.
    """
    buffers = [(name, buffer) for name, buffer in module.named_buffers() if not buffer.is_inference()]
    if sum(buffer.nbytes for _, buffer in buffers) > KEPT_BUFFERS_BYTES:
        return []
    return [(name, buffer, buffer.detach().clone()) for name, buffer in buffers]
