"""Whether a network draws random numbers while it runs, and which module does. Imports torch.

A draw is seen in the state of the random generators, which costs no second run of the network.
"""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from pipeline.sources.network import Network


def generator_state() -> str:
    """A digest of the states of torch's, numpy's and Python's global generators."""
    digest = hashlib.sha256(torch.default_generator.get_state().numpy().tobytes())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for state in torch.cuda.get_rng_state_all():
            digest.update(state.numpy().tobytes())
    # The global generators are what is watched.
    digest.update(pickle.dumps(np.random.get_state()))
    digest.update(pickle.dumps(random.getstate()))
    return digest.hexdigest()


def same_again(network: Network, values: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    """Whether another run on the same input gives the same bytes."""
    again = network.run(values)
    return all(
        np.array_equal(again[name], outputs[name], equal_nan=_has_nan(outputs[name])) for name in outputs
    )


def drawing_modules(network: Network, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules that draw random numbers, as "classifier.0 (Dropout)"; the innermost ones only."""
    entered: list[str] = []
    drawing: list[str] = []
    hooks = []

    def before(module: torch.nn.Module, args: Any) -> None:
        entered.append(generator_state())

    def after(name: str) -> Callable[..., None]:
        def check(module: torch.nn.Module, args: Any, outputs: Any) -> None:
            drew = entered.pop() != generator_state()
            inner = any(other.startswith(f"{name}." if name else "") for other in drawing)
            if drew and not inner:
                drawing.append(f"{name or 'the network itself'} ({type(module).__name__})")

        return check

    try:
        for name, module in network.module.named_modules():
            hooks.append(module.register_forward_pre_hook(before))
            hooks.append(module.register_forward_hook(after(name)))
        network.run(values)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(drawing)


def training_modules(network: Network) -> tuple[str, ...]:
    """Modules in training mode whose behaviour depends on it, as "features.1 (BatchNorm2d)"."""
    return tuple(
        f"{name} ({type(module).__name__})"
        for name, module in network.module.named_modules()
        if module.training and not any(module.children())
    )


def _has_nan(array: Any) -> bool:
    return bool(array.dtype.kind in "fc" and np.isnan(array).any())
