"""From the configuration to the live network. Imports torch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from pipeline.config.canonical import names_file
from pipeline.errors import PipelineError, Refused
from pipeline.events import Emit, Event, Finding
from pipeline.heap import keep_freed_memory
from pipeline.locations import is_packaged
from pipeline.parity.float64 import one_thread
from pipeline.samples.make import make_samples
from pipeline.samples.spec import InputSpecs
from pipeline.sources.config import ModelConfig
from pipeline.sources.device import refuse_missing_device, refuse_unusable_device
from pipeline.sources.live import calibrate, make_live
from pipeline.sources.network import Network, inputs_do_not_fit
from pipeline.sources.user_code import call, find_callable, neighbours_found, own_callables

_STAGE: Final = "source"
#: How a network that does not take its inputs is refused: it may take them after `model.prepare`.
FAILS_AGAIN: Final = ("PL-230",)
#: Elements of a tensor that are looked at to see whether it depends on the seed.
_LOOKED_AT: Final = 256


def nobody(event: Event) -> None:
    """Findings that nobody asked for."""


def load(
    config: ModelConfig,
    *,
    seed: int,
    device: str,
    specs: InputSpecs,
    private_apis: bool = True,
    emit: Emit = nobody,
) -> Network:
    """Build the network, load or draw its weights, prepare it.

    Args:
        config: the section `model`.
        seed: of random weights.
        device: "cpu" or "cuda".
        specs: the inputs, which random weights are calibrated on.
        private_apis: whether process-wide tricks may be used for speed.
        emit: gets findings.

    Raises:
        Refused: the device is not there, a callable fails or gives no network, the weights cannot
            be loaded or do not fit, or the inputs do not fit.
    """
    refuse_missing_device(device)
    refuse_unusable_device(device)
    live = config.weights is None and config.init == "live"
    built = None
    build = partial(_build, config, private_apis)
    # Some of what factories call (orthogonal_, dot) gives other bits on another number of threads. And whoever has
    # started no thread yet can be forked, for a stage that works beside the others.
    with one_thread():
        if live and not _is_known_to_be_random(config):
            own, built = _has_weights_of_its_own(build, seed, emit)
            live = not own
        if built is None:
            with seeded(seed):
                built = build()
        return _make(
            config, built, seed=seed, device=device, specs=specs, private_apis=private_apis, live=live, emit=emit
        )  # fmt: skip


def _make(
    config: ModelConfig,
    module: torch.nn.Module,
    *,
    seed: int,
    device: str,
    specs: InputSpecs,
    private_apis: bool,
    live: bool,
    emit: Emit,
) -> Network:
    """The network of a module that has just been built; the same at every call with the same arguments."""
    if any(map(is_lazy, (*module.parameters(), *module.buffers()))):  # torch.nn.LazyLinear and the like
        _use(module, config, specs, seed)
    if config.weights is not None and names_file(config.weights):
        from pipeline.sources.checkpoint import load_weights

        load_weights(module, config.weights, trust_pickle=config.trust_pickle, emit=emit)
    if private_apis:
        keep_freed_memory()  # not earlier: what becomes of weights must go back as soon as it is free
    training = frozenset(name for name, inner in module.named_modules() if inner.training)
    network = Network(module.eval(), specs, config.outputs, training_modules=training)
    if config.source == "factory":
        _use_quietly(module, config, specs, seed)
    if live:
        with seeded(seed), neighbours_found(own_callables(config)):
            _calibrate_if_it_fits(network, config, seed, emit)
    if config.prepare is not None:
        with seeded(seed):
            module = _prepared(config, module)
        _use_quietly(module.eval(), config, specs, seed)
    network.module = module.eval().to(device)
    network.device = device
    network.refuse_unfitting_call()
    return network


def _calibrate_if_it_fits(network: Network, config: ModelConfig, seed: int, emit: Emit) -> None:
    """Before `model.prepare`, which may fold the batch statistics into other weights."""
    # What a user's factory set to a constant (a temperature, a mask) is the user's: only batch
    # statistics that nobody has set are measured there.
    ours = _is_known_to_be_random(config)
    if ours:
        make_live(network.module.cpu(), seed=seed)
    try:
        network.refuse_unfitting_call()
        calibrate(network, seed=seed, only_statistics=not ours)
    except Refused as error:
        if config.prepare is None:
            raise
        emit(
            Finding(
                _STAGE,
                "warning",
                "the random weights were not calibrated, because the network takes its inputs only after "
                f"model.prepare ({error.reason.message})",
            )
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators of torch, numpy and Python begin from `seed`; afterwards they are as before."""
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])


def _build(config: ModelConfig, private_apis: bool) -> torch.nn.Module:
    if config.source == "torchvision":
        from pipeline.sources.torchvision_source import build_torchvision

        return build_torchvision(config, private_apis=private_apis)
    assert config.factory is not None
    build = find_callable(config.factory, "model.factory")
    found = call(config.factory, "model.factory", build, **config.args)
    return _module(found, config.factory, "model.factory")


def _use(module: torch.nn.Module, config: ModelConfig, specs: InputSpecs, seed: int) -> None:
    """Let a user's network make what it makes at its first use: sizes of lazy layers, layers, buffers, tables.

    Its export would be another one before that use and after it, and which it is would depend on what was cached.

    Raises:
        Refused: it fails.
    """
    training = [inner for inner in module.modules() if inner.training]
    network = Network(module.eval(), specs, config.outputs)
    network.refuse_unfitting_call()
    values = make_samples(specs, seed=0, stream="calibration")
    failed: BaseException | None = None
    with (
        seeded(seed),
        neighbours_found(own_callables(config)),
    ):  # code that no key has seen is refused in any case
        try:
            network.run_first(values)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a network may raise anything
            failed = error
    for inner in training:
        inner.training = True
    if isinstance(failed, PipelineError):
        raise failed
    if failed is not None:
        raise inputs_do_not_fit(failed, values) from failed


def _use_quietly(module: torch.nn.Module, config: ModelConfig, specs: InputSpecs, seed: int) -> None:
    """The same, of networks of a user's; what fails here fails again in the reference, which tells it."""
    if not own_callables(config):
        return
    try:
        _use(module, config, specs, seed)
    except Refused as error:
        if error.reason.code not in FAILS_AGAIN:
            raise


def _prepared(config: ModelConfig, module: torch.nn.Module) -> torch.nn.Module:
    assert config.prepare is not None
    prepare = find_callable(config.prepare, "model.prepare", again=config.source != "factory")
    found = call(config.prepare, "model.prepare", prepare, module)
    # A preparation may change the network in place and return nothing.
    return module if found is None else _module(found, config.prepare, "model.prepare")


def _module(found: object, text: str, key: str) -> torch.nn.Module:
    if isinstance(found, torch.nn.Module):
        return found
    if isinstance(found, type) and issubclass(found, torch.nn.Module):
        step = "Return an instance: call the class"
    else:
        step = "Return the network that the callable builds"
    raise Refused(
        "PL-229", f"{key} gave no network", where=key, found=f"{type(found).__name__} from {text}",
        expected="a torch.nn.Module", next_step=step,
    )  # fmt: skip


def _is_known_to_be_random(config: ModelConfig) -> bool:
    """Whether it is a network of torchvision without weights, or one that ships with the pipeline."""
    return config.source == "torchvision" or (config.factory is not None and is_packaged(config.factory))


def _has_weights_of_its_own(
    build: Callable[[], torch.nn.Module], seed: int, emit: Emit
) -> tuple[bool, torch.nn.Module]:
    """Whether the factory loads weights (a parameter is then the same whatever the seed is), and the network.

    Such a network is left alone, whole: nobody wants trained weights to be changed. The other seed's
    network is let go before the one that is kept is built: two would not fit where one is large.
    """
    with seeded((seed + 1) % 2**32):
        other = _look(build())
    with seeded(seed):
        module = build()
    own = _look(module)
    fixed = sorted(name for name in own if own[name] == other.get(name))
    if fixed:
        emit(Finding(_STAGE, "info", f"the factory's weights do not depend on the seed ({fixed[0]} and "
                     f"{len(fixed) - 1} more), so they are left as they are"))  # fmt: skip
    return bool(fixed), module


def _look(module: torch.nn.Module) -> dict[str, str]:
    """Name to a digest of some elements of every parameter, and running statistic, that is no constant."""
    looks = {}
    tensors = [*module.named_parameters(), *((n, b) for n, b in module.named_buffers() if "running_" in n)]
    for name, tensor in tensors:
        if is_lazy(tensor):
            continue
        flat = tensor.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // _LOOKED_AT)][: _LOOKED_AT + 1].cpu().double()
        if some.numel() and bool((some != some[0]).any()):
            looks[name] = hashlib.sha256(some.numpy().tobytes()).hexdigest()
    return looks
