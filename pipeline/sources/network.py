"""A network as every later stage sees it: a module, its inputs, its outputs by name. Imports torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import PipelineError, Refused
from pipeline.events import Emit
from pipeline.samples.spec import InputSpecs
from pipeline.sources.attributes import attributes_put_back, settle
from pipeline.sources.outputs import flatten_outputs
from pipeline.sources.user_code import neighbours_found, own_callables

if TYPE_CHECKING:
    from pipeline.sources.read_files import OwnCode

#: What a network raises when it is called with something that it does not take.
DOES_NOT_FIT: Final = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    AssertionError,
)


@dataclass
class Network:
    """A network, ready to run.

    Attributes:
        module: in eval mode.
        specs: its inputs; a leaf's name is the name of the graph input.
        output_names: names of the flattened outputs; None: keys of a dict, else `output1...`.
        device: "cpu" or "cuda".
        training_modules: names of the modules that were in training mode when they were built;
            for an export that is to preserve it.
        own_code: the user's code behind it.
        refuse_changed: raises when that code or the weights are no longer what they were.
    """

    module: torch.nn.Module
    specs: InputSpecs
    output_names: tuple[str, ...] | None = None
    device: str = "cpu"
    training_modules: frozenset[str] = field(default=frozenset(), repr=False)
    own_code: OwnCode | None = field(default=None, repr=False)
    refuse_changed: Callable[[], None] | None = field(default=None, repr=False)
    _ran: bool = field(default=False, init=False, repr=False)

    def arguments(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`(args, kwargs)` of the call: tensors of their own on the device, in the structure of the specs.

        Args:
            values: leaf name to array.
        """

        def tensor(array: NDArray[Any]) -> torch.Tensor:
            # A copy: a network that writes into its input must not change the samples.
            return torch.from_numpy(np.array(array)).to(self.device)

        return self.specs.call_arguments(values, tensor)

    def run(self, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The flattened outputs by name, computed without gradients.

        Args:
            values: leaf name to array.

        Raises:
            Refused: the very first call fails (the inputs do not fit), or the outputs cannot be
                named. What a later call raises goes through as it is.
        """
        with attributes_put_back(self.module):  # among which may be what it returns
            outputs = self._call(values)
            return {name: _array(tensor) for name, tensor in self.flatten(outputs).items()}

    def run_first(self, values: Mapping[str, Any]) -> None:
        """Run it as its user would: layers, buffers and sizes that it makes at first use are there then.

        Raises:
            Refused: the inputs do not fit.
        """
        settle(self.module, partial(self._call, values))

    def _call(self, values: Mapping[str, Any]) -> Any:
        args, kwargs = self.arguments(values)
        try:
            with torch.no_grad():
                outputs = self.module(*args, **kwargs)
        except PipelineError:
            raise
        except DOES_NOT_FIT as error:
            if self._ran:
                raise
            raise inputs_do_not_fit(error, values) from error
        self._ran = True
        return outputs

    def flatten(self, outputs: Any) -> dict[str, torch.Tensor]:
        """Name to tensor, in flattened order (see `pipeline.sources.outputs`).

        Raises:
            Refused: something is no tensor, or the names do not fit.
        """
        return flatten_outputs(outputs, self.output_names)

    @contextmanager
    def at_work(self, stage: str, emit: Emit | None = None) -> Iterator[None]:
        """To be held while it runs: imports inside forward find their neighbours.

        Args:
            stage: that runs it.
            emit: gets a warning of files that no key sees; modules that none sees are refused then.

        Raises:
            StageFailed: PL-234, code that it imported meanwhile is not what the keys speak of.
        """
        with ExitStack() as stack:
            if self.own_code is not None:
                callables = own_callables(self.own_code.model)
                if emit is not None:
                    stack.enter_context(self.own_code.at_work(stage, emit))
                stack.enter_context(neighbours_found(callables, refuse=emit is not None))
            yield
        if self.refuse_changed is not None:
            self.refuse_changed()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by qualified name; a shared tensor stands under its first name."""
        return {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}

    def refuse_unfitting_call(self) -> None:
        """Hold number and names of the inputs against the signature of forward.

        Raises:
            Refused: too many, too few, or a keyword that forward does not have.
        """
        forward = self.module.forward
        try:
            signature = inspect.signature(forward)
        except (TypeError, ValueError):
            return  # a compiled forward says nothing of itself
        args, kwargs = self.specs.call_arguments(
            {leaf.name: None for leaf in self.specs.leaves}, lambda _: None
        )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            names = ", ".join(
                f"{one.name} ({one.passing})" if one.passing == "keyword" else one.name
                for one in self.specs.arguments
            )
            raise Refused(
                "PL-230", f"the inputs do not fit the network: {error}", where="model.inputs", found=names,
                expected=f"what {type(self.module).__name__}.forward{signature} takes",
                next_step="Type 'model.inputs={NAME: {shape: [...]}}' with one entry for each argument",
            ) from error  # fmt: skip


def inputs_do_not_fit(error: BaseException, values: Mapping[str, Any]) -> Refused:
    """The sentence for a call that failed on the inputs of the configuration."""
    lines = str(error).strip().splitlines() or ["no message"]
    found = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in values.items())
    return Refused(
        "PL-230",
        f"the inputs do not fit the network: {type(error).__name__}: {lines[0].rstrip('.')}",
        where=_place(error) or "model.inputs",
        found=found,
        next_step="Compare model.inputs with what the network's forward takes",
    )


def _place(error: BaseException) -> str | None:
    """file:line of the innermost frame outside of torch and of the pipeline."""
    place, trace = None, error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.split(".")[0] not in ("torch", "pipeline", "inspect"):
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()  # numpy has no such type; every bfloat16 is a float32
    return tensor.numpy()
