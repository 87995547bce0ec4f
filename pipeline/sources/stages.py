"""The stage that makes the live network. No torch until it runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pipeline.config.canonical import names_file
from pipeline.config.code import parse_callable
from pipeline.errors import InternalError, Refused, StageFailed
from pipeline.samples.spec import InputSpecs
from pipeline.sources.config import ModelConfig
from pipeline.sources.identity import SourceIdentity, identify
from pipeline.stage import KeyParts, Verdict, Workspace


@dataclass(frozen=True)
class SourceStage:
    """Builds or loads the network.

    Attributes:
        model: `outputs` are the names in the graph.
        identity: of the same `model`.
        specs: named as in the graph.
        seed: of random weights.
        device: "cpu" or "cuda".
        private_apis: whether process-wide tricks may be used for speed.
    """

    model: ModelConfig
    identity: SourceIdentity
    specs: InputSpecs
    seed: int
    device: str
    private_apis: bool

    name: ClassVar[str] = "source"
    takes: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]] = ("network",)
    storable: ClassVar[bool] = False
    on_demand: ClassVar[bool] = True  #: made when a stage that really runs asks for it
    cyclic: ClassVar[bool] = True  #: what it makes may hold itself: a garbage collection lets go of it

    def key_parts(self) -> KeyParts:
        """Everything but paths: code and weights count by their digests."""
        extra = {"code": self.identity.code}
        if self.identity.weights is not None:
            extra["weights"] = self.identity.weights
        return KeyParts(
            config={
                "source": self.model.source,
                "name": self.identity.label if self.model.source == "torchvision" else None,
                "factory": _canonical(self.model.factory, "model.factory"),
                "prepare": _canonical(self.model.prepare, "model.prepare"),
                "args": self.model.args,
                "init": self.model.init if self.model.weights is None else None,
                "inputs": self.specs.data(),
                "outputs": list(self.model.outputs) if self.model.outputs is not None else None,
                "seed": self.seed,
                "device": self.device,
            },
            code=("pipeline.sources.load", "pipeline.sources.torchvision_source"),
            packages=self.identity.packages,
            extra=extra,
        )

    def requires(self, workspace: Workspace) -> None:
        """It takes nothing."""

    def run(self, workspace: Workspace) -> Verdict:
        """Put the network."""
        # No name for the network here: exceptions that were caught while modules were imported keep
        # this frame, and with it whatever it names.
        _import_modules(self.model, self.private_apis)
        return self._load(workspace)

    def _load(self, workspace: Workspace) -> Verdict:
        from pipeline.sources.load import load
        from pipeline.sources.read_files import OwnCode

        own = OwnCode(self.model, self.specs, self.private_apis)
        origin = Path.cwd(), tuple(sys.path)
        with own.at_work(self.name, workspace.emit):
            network = load(
                self.model,
                seed=self.seed,
                device=self.device,
                specs=self.specs,
                private_apis=self.private_apis,
                emit=workspace.emit,
            )
        refuse_changed = partial(self.refuse_changed, origin)
        refuse_changed()
        network.own_code, network.refuse_changed = own, refuse_changed
        workspace.put("network", network)
        parameters = sum(parameter.numel() for parameter in network.module.parameters())
        return Verdict(summary=f"{self.identity.label}, {_count(parameters)} parameters")

    def refuse_changed(self, origin: tuple[Path, Sequence[str]]) -> None:
        """Hold the user's files against the identity that the keys speak of.

        They are read long after the keys were made, some of them (imports inside forward) only when the
        network runs: what was made of others must neither bear these keys nor be cached under them.

        Args:
            origin: the working folder and the path of the time when the keys were made; the network's own
                code may have changed both.

        Raises:
            StageFailed: PL-234.
        """
        from pipeline.sources.user_modules import found_from

        if not (self.identity.files or names_file(self.model.weights or "")):
            return
        try:
            with found_from(*origin):
                now = identify(self.model, seed=self.seed)
        except Refused as error:
            raise changed("the network's code or weights", error.reason.sentence()) from error
        if now.code != self.identity.code:
            raise changed("the network's code", ", ".join(path.name for path in self.identity.files))
        if now.weights != self.identity.weights:
            raise changed("the weights", str(self.model.weights))

    def ensures(self, workspace: Workspace) -> None:
        """The network is in eval mode and whole in memory."""
        network: Any = workspace.get("network")
        training = [name for name, module in network.module.named_modules() if module.training]
        if training:
            raise InternalError(f"the network was handed over in training mode: {training[:3]}")


def changed(what: str, found: str) -> StageFailed:
    """The error for a file that is no longer what the keys speak of."""
    return StageFailed(
        "PL-234", f"{what} changed while the run was at work", found=found,
        next_step="Type the same command again: it takes what is there now",
    )  # fmt: skip


def _import_modules(model: ModelConfig, private_apis: bool) -> None:
    """Import what takes long, and keep it out of later garbage collections (0.15 s of processor time each)."""
    torchvision = model.source == "torchvision"
    with ExitStack() as stack:
        # Code of the user's may want torch as it is: only torchvision's own networks do with less.
        if private_apis and torchvision and model.prepare is None:
            from pipeline.sources.cuda_bindings import without_cuda_bindings
            from pipeline.sources.meta_kernels import import_torch_without_meta_kernels
            from pipeline.sources.module_lookup import frames_name_their_module

            stack.enter_context(frames_name_their_module())
            stack.enter_context(without_cuda_bindings())
            import_torch_without_meta_kernels()
        import pipeline.sources.load  # noqa: F401 - imported here to be frozen below, with torch

        if private_apis and torchvision:
            from pipeline.sources.imports import import_torchvision

            import_torchvision(private_apis=True)
    if private_apis:
        gc.freeze()


def _canonical(text: str | None, key: str) -> str | None:
    return parse_callable(text, key).canonical if text is not None else None


def _count(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
