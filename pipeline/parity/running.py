"""Running the network for its reference: states put back, random draws seen. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import PipelineError, StageFailed
from pipeline.parity.float64 import Declined, Watching, run_in_float64
from pipeline.parity.randomness import drawing_modules, generator_state, same_again, training_modules

if TYPE_CHECKING:
    from pipeline.sources.network import Network

Arrays = Mapping[str, NDArray[Any]]

#: Buffers up to this size in all are kept so that they can be put back.
KEPT_BUFFERS_BYTES: Final = 64 * 1024 * 1024
#: How many modules or tensors a sentence names.
NAMED: Final = 3


class NetworkRuns:
    """Runs a network that stays as it is.

    Buffers that `forward` writes to (batch statistics, counters, caches) are put back after every
    run: each run starts from the state that the export sees.
    """

    def __init__(self, network: Network, after_run: Callable[[], None]) -> None:
        self.network = network
        self.after_run = after_run
        self.tensors = {
            name: tensor for name, tensor in network.tensors().items() if not tensor.is_inference()
        }
        self.versions = {name: tensor._version for name, tensor in self.tensors.items()}
        self.kept = self._keep()
        self.drew = False
        self.value_dependent = False  #: as far as runs have been watched

    def run(self, values: Arrays, *, watch: bool = False) -> dict[str, NDArray[Any]]:
        """The outputs, owning their memory."""
        before = generator_state()
        watching = Watching()
        try:
            with watching if watch else nullcontext():
                found = self.network.run(values)
        except PipelineError:
            raise
        except (Exception, SystemExit) as error:
            raise _fails(error) from error
        outputs = {name: np.array(array) for name, array in found.items()}
        self.value_dependent |= watching.value_dependent
        self.drew |= generator_state() != before
        self._put_back()
        self.after_run()
        return outputs

    def run_exactly(self, values: Arrays) -> tuple[dict[str, NDArray[Any]], str | None]:
        """The float64 outputs and None, or nothing and the reason."""
        found = run_in_float64(self.network, values)
        self._put_back()
        self.after_run()
        if isinstance(found, Declined):
            return {}, found.reason
        return found, None

    def refuse_random(self, values: Arrays, outputs: Arrays) -> None:
        """StageFailed when random numbers were drawn since it was asked last and another run gives something else."""
        if self.drew:
            self.refuse_unsteady(values, outputs)
            self.drew = False

    def refuse_unsteady(self, values: Arrays, outputs: Arrays) -> None:
        """StageFailed when another run on the same input gives something else."""
        if same_again(self.network, values, outputs):
            return
        drawing = drawing_modules(self.network, values)
        training = training_modules(self.network)
        where = _some(drawing or training)
        raise StageFailed(
            "PL-501",
            "the network is random at inference: the same input gave two different outputs",
            where=where or None,
            found=f"{len(training)} modules in training mode" if training else None,
            expected="the same output for the same input",
            next_step="Call .eval() on it in model.factory or model.prepare; where randomness is meant, "
            "nothing can be proved and only parity=none exports it",
        )

    def _keep(self) -> dict[str, torch.Tensor]:
        parameters = {id(parameter) for parameter in self.network.module.parameters()}
        buffers = {name: tensor for name, tensor in self.tensors.items() if id(tensor) not in parameters}
        if sum(tensor.nbytes for tensor in buffers.values()) > KEPT_BUFFERS_BYTES:
            return {}
        return {name: tensor.detach().clone() for name, tensor in buffers.items()}

    def _put_back(self) -> None:
        changed = [name for name, tensor in self.tensors.items() if tensor._version != self.versions[name]]
        lost = [name for name in changed if name not in self.kept]
        if lost:
            raise StageFailed(
                "PL-502",
                "the network changes its own tensors while it runs, so that its outputs depend on what ran before",
                where=_some(lost),
                next_step="Move the change out of forward, for example with model.prepare",
            )
        with torch.no_grad():
            for name in changed:
                self.tensors[name].copy_(self.kept[name])
                self.versions[name] = self.tensors[name]._version


def _fails(error: BaseException) -> StageFailed:
    lines = str(error).strip().splitlines() or ["no message"]
    return StageFailed(
        "PL-503",
        f"the network fails on its inputs: {type(error).__name__}: {lines[0]}",
        where=_place(error),
        next_step=_step(error),
    )


def _step(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"Install {error.name}, or put it beside the file that imports it"
    if isinstance(error, ImportError):
        return "Mend the import, or install the version of the package that has what is imported"
    return "Compare model.inputs with what the network's forward takes"


def _place(error: BaseException) -> str | None:
    """file:line of the innermost frame outside of torch."""
    place, trace = None, error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.split(".")[0] not in ("torch", "pipeline"):
            place = f"{code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _some(names: tuple[str, ...] | list[str]) -> str:
    text = ", ".join(names[:NAMED])
    return text + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
