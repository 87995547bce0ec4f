"""Errors, and the table of their stable codes.

Two roots, and nothing else is raised on purpose:

* `PipelineError` -- a user's mistake or a failed stage. One sentence, a stable code, where it
  was, what was found, what was expected and what to type next. No traceback is shown for it.
    * `Refused`      -- refused before work; exit code 2, no directory is left.
    * `StageFailed`  -- a stage failed; exit code 1, the failed run keeps its record.
* `InternalError` -- our own broken invariant. The traceback is shown, with "please report".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final

EXIT_MADE: Final = 0
EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2
EXIT_SIGINT: Final = 130
EXIT_SIGTERM: Final = 143

#: Every code that the product can show, with what it means in general. Ranges belong to rooms:
#: 1xx config, 2xx sources and samples, 3xx exporters, 4xx graph, 5xx parity, 6xx targets,
#: 7xx run directory, cache and processes, 8xx commands. A code is never reused.
CODES: Final[dict[str, str]] = {
    # 1xx config
    "PL-100": "the configuration could not be composed",
    "PL-101": "a key that there is not",
    "PL-102": "a value of the wrong type",
    "PL-103": "a value that the key does not take",
    "PL-104": "a configuration file that there is not",
    "PL-105": "an override that cannot be read or applied",
    "PL-106": "several values without -m",
    "PL-107": "a key that cannot be taken away",
    "PL-108": "a configuration file or folder that is missing or damaged",
    "PL-109": "a reference between keys that cannot be resolved",
    "PL-110": "a key that has to be given",
    "PL-111": "keys that contradict each other",
    "PL-112": "a flag that there is not, or that has no effect here",
    "PL-113": "a choice that could mean two files",
    "PL-114": "code named in the configuration that cannot be found or read",
    "PL-115": "a file named in the configuration that cannot be read",
    "PL-116": "a sweep that cannot be laid out",
    # 2xx sources and samples
    "PL-200": "an input's description cannot be read",
    "PL-201": "an input's shape does not fit",
    "PL-202": "an input's element type or fill does not fit",
    "PL-203": "an input's dynamic axis does not fit",
    "PL-204": "two inputs or axes contradict each other by name",
    "PL-205": "the file of an input cannot be used",
    "PL-206": "no input was given",
    "PL-220": "no network was named, or the model's keys contradict each other",
    "PL-221": "torchvision has no such model",
    "PL-222": "torchvision has no such weights for the model",
    "PL-223": "the weights file is missing or cannot be used",
    "PL-224": "the weights file is not safe to load",
    "PL-225": "the weights do not fit the network",
    "PL-226": "the weights could not be fetched",
    "PL-227": "a callable that the configuration names cannot be found or imported",
    "PL-228": "a callable that the configuration names failed",
    "PL-229": "a callable that the configuration names gave no network",
    "PL-230": "the inputs do not fit the network",
    "PL-231": "the network's outputs cannot be named",
    "PL-232": "the device is not there",
    "PL-233": "a callable that the configuration names loads code of its own that is in no key",
    "PL-234": "code, weights or inputs changed while the run was at work",
    "PL-240": "the .onnx file or its data cannot be read",
    "PL-241": "the .onnx file is damaged, or no ONNX model",
    "PL-242": "the .onnx file asks for more than it holds, or for something outside its folder",
    "PL-243": "something in the .onnx file cannot be served as it stands",
    # 3xx exporters
    "PL-300": "an opset that nothing installed knows",
    "PL-301": "fewer names than inputs",
    "PL-302": "one name for two things",
    "PL-303": "an empty name",
    "PL-304": "more names than inputs and parameters",
    "PL-305": "a parameter of the export that the chosen exporter cannot serve",
    "PL-306": "the operator sets cannot be stated as they were asked",
    "PL-307": "the custom symbolics cannot be used",
    "PL-310": "the exporter does not know an operator",
    "PL-311": "the exporter failed",
    "PL-312": "the exporter left another opset than was asked",
    "PL-313": "the exporter cannot follow the network's Python code",
    "PL-314": "a converter could not bring the graph to the asked opset",
    "PL-315": "the exporter wrote a graph that does not run, or does not compute what the network does",
    "PL-320": "the network gives other outputs while it is exported",
    "PL-321": "the exporter gives other inputs or outputs than the network has",
    "PL-322": "the exporter fixed a dynamic axis",
    "PL-323": "an operator set was asked for that no node uses",
    # 4xx graph
    "PL-400": "external data cannot be read",
    "PL-401": "the file would pass the limit of protobuf",
    "PL-402": "the graph needs a newer IR version than was asked",
    "PL-410": "the simplified graph was not used",
    "PL-411": "the graph is not valid ONNX",
    "PL-412": "the checker does not know the graph's operator set",
    "PL-420": "the finished file is damaged",
    "PL-421": "the finished file has another operator set or IR version than was asked",
    "PL-422": "the finished file has other inputs or outputs than were asked",
    "PL-423": "the finished file is in another mode (training, inference) than was asked",
    "PL-424": "the finished file holds other weights than the network",
    "PL-425": "the finished file has other parameters or metadata than were asked",
    "PL-430": "no rule brings an operator to the asked opset",
    "PL-431": "a rewrite rule changed what the graph computes",
    # 5xx parity
    "PL-500": "the network's outputs are not finite",
    "PL-501": "the network is random at inference",
    "PL-502": "the network changes its own tensors while it runs",
    "PL-503": "the network fails on its inputs",
    "PL-504": "the network's outputs have no fixed structure",
    "PL-510": "ONNX Runtime does not load the file",
    "PL-511": "ONNX Runtime fails while it runs the file",
    "PL-512": "the inputs do not fit the file",
    "PL-513": "the file's outputs are not named like the network's",
    "PL-520": "the file does not compute what the network computes",
    "PL-521": "the comparison proves nothing",
    # 6xx targets
    "PL-600": "there is no such target",
    "PL-601": "a target's profile is damaged",
    "PL-602": "a profile names an operator that there is not",
    "PL-603": "a limit of a profile cannot be read",
    "PL-604": "a profile extends itself",
    "PL-605": "the request asks for what the target does not take",
    "PL-606": "a dynamic axis on a target that takes fixed shapes only",
    "PL-607": "a precision that the target does not have",
    "PL-608": "the target does not take the graph",
    "PL-609": "the file cannot be judged",
    "PL-610": "a target needs a comparison with the network",
    "PL-620": "the folder of calibration data cannot be used",
    "PL-621": "a file of the calibration data cannot be used",
    "PL-622": "the vendor's compiler does not take an option",
    "PL-623": "the vendor's compiler cannot be handed the file",
    "PL-624": "a dynamic axis without a largest size on a target that builds for a range",
    "PL-640": "there is no such backend",
    "PL-641": "a package that the target needs is missing",
    "PL-642": "a precision or an option that the target does not take",
    "PL-643": "the target's compiler cannot compile the file",
    "PL-644": "the target's time limit was reached",
    "PL-645": "the process of the target's tool died",
    "PL-646": "the compiled model cannot be loaded or run",
    "PL-647": "the target's tool did not keep what it promised",
    "PL-648": "the target runs in another precision than was asked",
    "PL-649": "the target does not compute what the network computes",
    "PL-650": "the bundle's program does not reproduce the outputs",
    "PL-651": "the interpreter for the target cannot be used",
    "PL-652": "the inputs or outputs of the file do not fit the target",
    # 7xx run directory, cache and processes
    "PL-700": "a size that cannot be read",
    "PL-701": "the output folder cannot be written",
    "PL-702": "another run of the same request is at work",
    "PL-703": "the disk is full",
    "PL-704": "the process that did the work died",
    "PL-705": "the time limit of the point was reached",
    "PL-706": "the memory limit of the point was reached",
    "PL-707": "interrupted",
    "PL-708": "made again, but different",
    "PL-709": "an earlier run directory is damaged",
    "PL-710": "a tool failed in a way that no stage knows",
    "PL-711": "the machine's memory is exhausted",
    # 8xx commands
    "PL-800": "a command was called wrongly",
    "PL-801": "not a run directory",
    "PL-802": "it cannot be made again",
}


@dataclass(frozen=True)
class Reason:
    """Why a verdict or an error is what it is: data, which terminal, JSON and pages only render."""

    code: str
    message: str  #: one sentence, ends without a full stop
    where: str | None = None  #: config key, node, module path, file:line
    found: str | None = None
    expected: str | None = None
    next_step: str | None = None  #: what to type or to change

    def sentence(self) -> str:
        """The reason as the user reads it: message, then where, found, expected and the next step."""
        text = self.message
        if self.where and self.where not in text:
            text = f"{self.where}: {text}"
        if self.found:
            text += f"; found {self.found}"
        if self.expected:
            text += f", expected {self.expected}"
        if self.next_step:
            text += f". {self.next_step}"
        # What was typed or read may hold line breaks, or codes that a terminal obeys.
        return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)

    def to_json(self) -> dict[str, str]:
        """Only what is known: keys without a value are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class PipelineError(Exception):
    """A user's mistake or a failed stage; `reason` holds everything that is shown.

    Args:
        code: a key of `CODES`.
        message: one sentence that says what is wrong.
        where, found, expected, next_step: see `Reason`.
    """

    exit_code: ClassVar[int] = EXIT_FAILED
    measured: Mapping[str, Any] = MappingProxyType({})  #: figures for run.json
    recorded: Mapping[str, Any] = MappingProxyType({})  #: facts for manifest.json

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        found: str | None = None,
        expected: str | None = None,
        next_step: str | None = None,
    ) -> None:
        if code not in CODES:
            raise InternalError(f"error code {code} is not in pipeline.errors.CODES")
        self.reason = Reason(code, message, where, found, expected, next_step)
        super().__init__(f"{code}: {self.reason.sentence()}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.reason))


def _rebuild(kind: type[PipelineError], reason: Reason) -> PipelineError:
    return kind(
        reason.code,
        reason.message,
        where=reason.where,
        found=reason.found,
        expected=reason.expected,
        next_step=reason.next_step,
    )


class Refused(PipelineError):  # noqa: N818 - the word that the product uses for exit code 2
    """Refused before work: nothing was made and no directory is left."""

    exit_code = EXIT_REFUSED


class StageFailed(PipelineError):  # noqa: N818 - the word that the product uses for exit code 1
    """A stage failed: the run ends, what is known up to here is kept."""


class InternalError(Exception):
    """A broken invariant of the pipeline itself; never the user's fault."""
