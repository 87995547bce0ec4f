"""Why an exporter failed, in one sentence: the operator, where it comes from, and what to try. Imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import shorten
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import PipelineError, StageFailed
from pipeline.exporters.capture import plain
from pipeline.exporters.opsets import Exporter, first_opsets, newest
from pipeline.exporters.places import innermost_first, innermost_last, is_machinery, short_path, users_line
from pipeline.exporters.scopes import ModulePaths

if TYPE_CHECKING:
    from pipeline.sources.network import Network

SYMBOLICS: Final = "export.custom_symbolics"
#: The step when no exporter did it.
OWN_TRANSLATION: Final = f"Give a translation with {SYMBOLICS}, or replace the operation with model.prepare"
OTHER_CODE: Final = "Change the line so that it can be exported, for example with model.prepare"
#: Beginnings of what torch.export says when Python code depends on a tensor's value.
_DATA_DEPENDENT: Final = ("Could not guard on data-dependent", "Could not extract specialized integer",
                          "Data-dependent branching", "Dynamic control flow is not supported")  # fmt: skip
#: Characters of torch's own words in a sentence: a guard over ninety unknown sizes has two thousand.
LONGEST_SENTENCE: Final = 240
_AXIS_FIXED: Final = ("Constraints violated", "tracing inferred a static shape", "You marked")
_NO_FUNCTION: Final = re.compile(r"No ONNX function found for <OpOverload\(op='(?P<op>[\w.]+)'")
_UNSUPPORTED: Final = re.compile(r"Exporting the operator '(?P<op>[\w:]+)'")
_SYMBOLIC_OPERATOR: Final = re.compile(r"ONNX export of (?:operator )?(?P<op>\w+)")
_TRY_OPSET: Final = re.compile(r"opset(?: version)? (?P<opset>\d+)")
#: What torch adds to its sentences, and what helps nobody here.
_NOISE: Final = re.compile(
    r"\s*(?:\[Caused by the value|Please feel free to|\(unhinted:|For more information|Please open).*",
    re.DOTALL,
)
#: Functions of torch in whose frames the node stands that is being translated.
_TRANSLATING: Final = ("_run_symbolic_function", "_translate_fx_graph")


@dataclass(frozen=True)
class _Origin:
    """Where in the network a node comes from, and its operator."""

    operator: str | None = None
    module: str | None = None
    line: str | None = None

    @property
    def where(self) -> str | None:
        if self.module and self.line:
            return f"{self.module} ({self.line})"
        return self.module or self.line


def explained(
    error: Exception, exporter: Exporter, opset: int, asked: str, network: Network
) -> PipelineError:
    """The sentence for what an exporter raised.

    Args:
        error: what was raised; its text stays its `__cause__`.
        exporter: which one.
        opset: what it was asked for.
        asked: export.exporter, which decides what to try next.
        network: for the names of its modules.
    """
    for one in _chain(error):
        if isinstance(one, PipelineError):
            return one
    origin = _origin(error, network)
    if exporter == "torchscript":
        return _torchscript(error, origin, opset, asked)
    return _dynamo(error, origin, opset, asked)


def _torchscript(error: Exception, origin: _Origin, opset: int, asked: str) -> StageFailed:
    text = plain(str(error))
    unsupported = _UNSUPPORTED.search(text)
    symbolic = _SYMBOLIC_OPERATOR.search(text)
    # torch looks for the first opset of an operator whose last translation was taken back.
    emptied = isinstance(error, ValueError) and "empty" in text and origin.operator is not None
    if not unsupported and not symbolic and not emptied:
        return _other(error, origin, "torchscript", "dynamo" if asked == "torchscript" else None, opset)
    operator = unsupported["op"] if unsupported else origin.operator
    if operator is None and symbolic:
        operator = f"aten::{symbolic['op']}"
    operator = operator or "an operator"
    first = first_opsets().get(operator, 0)
    if not unsupported and (found := _TRY_OPSET.search(text.partition("Please try")[2])):
        first = int(found["opset"])
    can = first if first > opset else None
    sentence = f"TorchScript cannot write {operator} at opset {opset}"
    if symbolic and not unsupported:
        sentence += f": {_first_sentence(text)}"
    return StageFailed(
        "PL-310",
        sentence,
        where=origin.where,
        expected=f"opset {can}, the first that has it" if can else None,
        next_step=_next_step(can, asked, opset),
    )


def _dynamo(error: Exception, origin: _Origin, opset: int, asked: str) -> StageFailed:
    texts = [plain(str(one)) for one in _chain(error)]
    for text in texts:
        if match := _NO_FUNCTION.search(text):
            operator = match["op"].replace(".", "::")
            return StageFailed(
                "PL-310",
                f"dynamo has no translation of {operator}",
                where=origin.where,
                next_step=f"Type export.exporter=torchscript, or give a translation with {SYMBOLICS}"
                if asked == "dynamo"
                else None,
            )
    for text in texts:
        line = (
            users_line(innermost_last(text.partition("The following call raised this error")[2]))
            or origin.line
        )
        if any(text.lstrip().startswith(start) for start in _DATA_DEPENDENT):
            return StageFailed(
                "PL-313",
                "the network's Python code depends on the value of a tensor, which dynamo cannot follow",
                where=line,
                found=_first_sentence(text),
                expected="torch.where or torch.cond in place of a Python branch, tensors in place of numbers",
                next_step="Rewrite the line"
                + (
                    ", or type export.exporter=torchscript where the value never changes"
                    if asked == "dynamo"
                    else ""
                ),
            )
        if any(start in text[:200] for start in _AXIS_FIXED):
            return StageFailed(
                "PL-322",
                "the network does not take every size of a dynamic axis",
                where=line or "model.inputs",
                found=_first_sentence(text),
                next_step="Leave the axis out of dynamic, or narrow it with min, max and multiple_of",
            )
    return _other(
        list(_chain(error))[-1], origin, "dynamo", "torchscript" if asked == "dynamo" else None, opset
    )


def _other(
    error: BaseException, origin: _Origin, exporter: Exporter, other: Exporter | None, opset: int
) -> StageFailed:
    step = None
    if other == "dynamo":
        step = _next_step(None, "torchscript", opset)
    elif other == "torchscript":
        step = "Type export.exporter=torchscript"
    return StageFailed(
        "PL-311",
        f"{'TorchScript' if exporter == 'torchscript' else 'dynamo'} failed: {type(error).__name__}: "
        f"{_first_sentence(plain(str(error))) or 'no message'}",
        where=origin.where or _users_frame(error),
        next_step=step,
    )


def _next_step(first: int | None, asked: str, opset: int) -> str | None:
    """What to type; None where that depends on how the other exporter fared."""
    if first is not None and first <= newest():
        return f"Type export.opset={first}"
    if asked == "torchscript":
        # Rules lower what dynamo writes; where they end on the way, that failure names the nearest opset.
        return f"Type export.exporter=dynamo export.opset={opset}"
    return None


def _first_sentence(text: str) -> str:
    """The first line without what torch adds for its own developers."""
    line = (text.strip().splitlines() or [""])[0]
    return shorten(_NOISE.sub("", line).strip().rstrip("."), LONGEST_SENTENCE, placeholder=" ...")


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _origin(error: BaseException, network: Network) -> _Origin:
    """The node that was being translated, from the innermost frame of torch that holds one."""
    found = _Origin()
    for one in _chain(error):
        for frame in _frames(one):
            if frame.f_code.co_name in _TRANSLATING and (node := frame.f_locals.get("node")) is not None:
                found = _of_node(node, network)
    return found


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _of_node(node: Any, network: Network) -> _Origin:
    if hasattr(node, "scopeName"):  # a node of TorchScript's graph
        short = [part.rpartition("::")[2] for part in node.scopeName().split("/")]
        paths = ModulePaths(name for name, _ in network.module.named_modules())
        module = paths.of("/".join(["", *(part for part in short if part), ""]))
        kind = node.kind()
        line = users_line(innermost_first(node.sourceRange()))
        return _Origin(kind[:-1] if kind.endswith("_") else kind, module, line)
    meta = getattr(node, "meta", {})
    modules = [entry[0] for entry in (meta.get("nn_module_stack") or {}).values()]
    line = users_line(innermost_last(meta.get("stack_trace") or ""))
    return _Origin(str(getattr(node, "target", "")) or None, modules[-1] if modules else None, line)


def _users_frame(error: BaseException) -> str | None:
    """file:line of the innermost frame of the network's own code."""
    found = None
    trace = error.__traceback__
    while trace is not None:
        short = short_path(trace.tb_frame.f_code.co_filename)
        if not is_machinery(short) and not short.startswith("<"):
            found = f"{short}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found
