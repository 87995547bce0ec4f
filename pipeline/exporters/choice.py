"""Which exporter is asked, in which order, and what came of it. Imports torch."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx.printer

from pipeline.config.code import public_version
from pipeline.errors import InternalError, PipelineError, StageFailed
from pipeline.events import Emit, Finding, LogLine
from pipeline.exporters.attempts import Attempt, Attempts
from pipeline.exporters.boundary import Boundary
from pipeline.exporters.capture import STAGE, captured
from pipeline.exporters.conversion import TENDED_FROM, lowered, raised, refuse_unrunnable, refuse_wrong
from pipeline.exporters.failures import OTHER_CODE, OWN_TRANSLATION, explained
from pipeline.exporters.flat import leaves, prepared
from pipeline.exporters.holding import Exported, Held, hold, opset_of
from pipeline.exporters.names import check_against_network
from pipeline.exporters.opsets import Exporter, roads, torchscript_newest
from pipeline.exporters.parameters import exporters
from pipeline.exporters.symbolics import registered, translations
from pipeline.exporters.weights import Origins, state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.exporters.config import ExportConfig
    from pipeline.graph.bare import BareModel
    from pipeline.parity.signature import Signature
    from pipeline.sources.network import Network

#: What the system says when there is no room: no space, or a quota that is used up.
DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
#: torch's exporters keep their state in globals: one export at a time in a process.
_ONE_AT_A_TIME: Final = threading.Lock()


def export(
    network: Network,
    values: Mapping[str, NDArray[Any]],
    signature: Signature,
    config: ExportConfig,
    *,
    opset: int,
    parameter_names: Sequence[str],
    emit: Emit,
    private_apis: bool,
    scratch: Path,
    first: Exporter | None = None,
) -> tuple[BareModel, Attempts]:
    """Export a network to a bare model.

    Args:
        network: as it runs; afterwards it is as before.
        values: export inputs, leaf name to array.
        signature: the outputs and their dimensions.
        config: what was asked.
        opset: of ai.onnx; within `opsets.check_opset`.
        parameter_names: names for the first tensors of the network's state
            (`export.input_names` beyond the inputs).
        emit: gets log lines and findings.
        private_apis: whether hooks inside torch may be used for speed; the bytes are the same.
        scratch: an existing empty folder that lives at least as long as the bare model.
        first: the exporter that the target prefers, where the request leaves the choice.

    Returns:
        The graph with its weights held aside, and every attempt.

    Raises:
        Refused: names that contradict the network's own.
        StageFailed: no exporter could; the reason is that of the exporter that was asked first, or
            was asked for.
    """
    _check_names(network, signature, parameter_names)
    with _ONE_AT_A_TIME:
        job = _Job(
            network,
            values,
            signature,
            config,
            opset,
            tuple(parameter_names),
            emit,
            private_apis,
            scratch,
            first,
        )
        return job.run()


@dataclass(frozen=True)
class _Job:
    network: Network
    values: Mapping[str, NDArray[Any]]
    signature: Signature
    config: ExportConfig
    opset: int
    parameter_names: tuple[str, ...]
    emit: Emit
    private_apis: bool
    scratch: Path
    first: Exporter | None = None

    def run(self) -> tuple[BareModel, Attempts]:
        attempts: list[Attempt] = []
        failures: list[StageFailed] = []
        for exporter, asked in roads(self.opset, exporters(self.config, self.opset, self.first)):
            if self._is_hopeless(exporter, asked, failures):
                continue
            converted = asked if asked != self.opset else None
            try:
                held, attempt = self._try(exporter, asked)
            except StageFailed as failed:
                failures.append(failed)
                attempts.append(Attempt(exporter, self.opset, "failed", failed.reason, converted))
                continue
            attempts.append(attempt)
            self._report(attempts, held)
            return held.model, Attempts(tuple(attempts), held.frozen, held.parameters)
        raise self._none(attempts, failures)

    def _is_hopeless(self, exporter: Exporter, asked: int, failures: Sequence[StageFailed]) -> bool:
        """Whether a newer opset cannot help TorchScript: it failed for another reason than an operator's."""
        if exporter != "torchscript" or asked <= self.opset or not failures:
            return False
        first = (
            failures[0]
            if exporters(self.config, self.opset, self.first)[0] == "torchscript"
            else failures[-1]
        )
        return first.reason.code not in ("PL-310", "PL-315")

    def _try(self, exporter: Exporter, asked: int) -> tuple[Held, Attempt]:
        folder = self.scratch / f"{exporter}-{asked}"
        folder.mkdir(exist_ok=True)
        with captured(self.emit) as caught:
            try:
                with prepared(self.network, self.config.training):
                    exported = self._ask(exporter, asked, folder)
            except (PipelineError, InternalError, MemoryError):
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno in DISK_FULL:
                    raise
                raise explained(error, exporter, asked, self.config.exporter, self.network) from error
        exported.frozen = (*caught.frozen, *exported.frozen)
        self._settle_opset(exported, exporter, asked)
        held = hold(
            exported,
            Boundary(self.network.specs.leaves, self.signature),
            Origins(self.network.tensors()),
            self.config,
            producer_version=public_version("torch"),
        )
        if exporter == "torchscript" and self.config.exporter == "auto":
            self._refuse_bad(held, asked)
        if asked == self.opset:
            return held, Attempt(exporter, self.opset, "passed")
        if asked < self.opset:
            newer = raised(held.model, self.opset, self.values)
            return replace(held, model=newer), Attempt(exporter, self.opset, "passed", converted_from=asked)
        model, rewriting = lowered(
            held.model, self.opset, self.values, self.config.rules,
            private_apis=self.private_apis, keep=self.parameter_names,
        )  # fmt: skip
        attempt = Attempt(exporter, self.opset, "passed", converted_from=asked, rules=rewriting.counts)
        return replace(held, model=model), attempt

    def _refuse_bad(self, held: Held, asked: int) -> None:
        """What TorchScript is known to write badly, while another road is left."""
        if asked >= TENDED_FROM:
            refuse_unrunnable(held.model, self.values, held.parameters)
            return
        comparable = self.config.training == "eval" and not self.signature.value_dependent
        refuse_wrong(held.model, self.values, held.parameters, self.network if comparable else None)

    def _ask(self, exporter: Exporter, opset: int, folder: Path) -> Exported:
        tensors = leaves(self.network, self.values)
        found = translations(
            self.config.custom_symbolics, exporter, opset, required=self.config.exporter != "auto"
        )
        if exporter == "torchscript":
            from pipeline.exporters import torchscript

            with registered(found, opset):
                return torchscript.export(
                    self.network, tensors, self.signature.names, self.config, opset=opset,
                    parameter_names=self.parameter_names, private_apis=self.private_apis, scratch=folder,
                    say=self._say,
                )  # fmt: skip
        from pipeline.exporters import dynamo

        return dynamo.export(
            self.network, tensors, self.signature.names, self.config, opset=opset,
            parameter_names=self.parameter_names, translations=found, private_apis=self.private_apis,
        )  # fmt: skip

    def _settle_opset(self, exported: Exported, exporter: Exporter, asked: int) -> None:
        """The graph has the opset that the exporter was asked for."""
        written = opset_of(exported.model)
        if written != asked:
            raise StageFailed(
                "PL-312",
                f"the exporter left opset {written}",
                where=f"export.exporter={exporter}",
                found=f"opset {written}",
                expected=f"opset {asked}",
                next_step=f"Type export.opset={written}"
                + (", or export.exporter=torchscript" if asked <= torchscript_newest() else ""),
            )

    def _report(self, attempts: Sequence[Attempt], held: Held) -> None:
        for attempt in attempts:
            if attempt.reason is not None:
                self._say(f"{attempt.exporter} did not export the network, so another exporter was asked: "
                          f"{attempt.reason.sentence()}")  # fmt: skip
        if self.config.verbose and attempts[-1].exporter == "dynamo":
            # TorchScript prints its graph itself.
            self.emit(LogLine(STAGE, onnx.printer.to_text(held.model.parsed())))

    def _say(self, text: str) -> None:
        self.emit(Finding(STAGE, "info", text))

    def _none(self, attempts: Sequence[Attempt], failures: Sequence[StageFailed]) -> StageFailed:
        """The failure that says most, with the step that the others leave open; attempts are recorded."""
        # Rules bring onnx_ir and with it sympy: 0.3 s that an export which succeeds does not need.
        from pipeline.graph.rewrites.lower import LoweringFailed

        lowering = [one for one in failures if isinstance(one, LoweringFailed)]
        first: StageFailed = min(lowering, key=lambda one: one.nearest) if lowering else failures[0]
        reason = first.reason
        if reason.next_step is None:
            step = OWN_TRANSLATION if reason.code == "PL-310" else OTHER_CODE
            names = dict.fromkeys(attempt.exporter for attempt in attempts)
            others = " and ".join(name for name in names if name != attempts[0].exporter)
            failed = StageFailed(
                reason.code,
                reason.message + (f", and {others} failed too" if others else ""),
                where=reason.where,
                found=reason.found,
                expected=reason.expected,
                next_step=step,
            )
            failed.__cause__ = first.__cause__
            first = failed
        first.recorded = {"attempts": [attempt.to_json() for attempt in attempts]}
        return first


def _check_names(network: Network, signature: Signature, parameter_names: Sequence[str]) -> None:
    own = [name for name, _ in state(network.module)]
    others = [name for name in network.tensors() if name not in set(own)]
    inputs = [leaf.name for leaf in network.specs.leaves]
    check_against_network(inputs, signature.names, parameter_names, own, others)
