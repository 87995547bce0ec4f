"""What an exporter says through warnings and logging, caught without touching the streams. Imports torch."""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import torch

from pipeline.events import Emit, LogLine
from pipeline.exporters.attempts import FrozenPlace
from pipeline.exporters.places import place

STAGE: Final = "export"
#: Loggers of the exporters and of what they call.
LOGGERS: Final = ("torch", "onnxscript", "onnx_ir")
#: torch.jit.TracerWarning, which is public but not in torch's list of typed names.
TRACER_WARNING: Final[type[Warning]] = vars(torch.jit)["TracerWarning"]
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

#: What a tracer warning says (its beginning), and what became a constant there.
_KINDS: Final = (
    (re.compile(r"Converting a tensor to a Python boolean"), "a Python boolean"),
    (re.compile(r"Converting a tensor to a Python (integer|index)"), "a Python integer"),
    (re.compile(r"Converting a tensor to a Python float"), "a Python float"),
    (re.compile(r"Converting a tensor to a Python list"), "a Python list"),
    (re.compile(r"Converting a tensor to a NumPy array"), "a NumPy array"),
    (re.compile(r"Iterating over a tensor|Using len to get tensor shape"), "the length of a tensor"),
    (re.compile(r"torch\.(tensor|from_numpy|as_tensor) results are registered as constants"), "a new tensor"),
    (re.compile(r".*in-place|.*inplace|.*mutation"), "a change in place"),
)
_OTHER_KIND: Final = "a value"


@dataclass
class Captured:
    """What was caught, ready when the block has ended."""

    frozen: tuple[FrozenPlace, ...] = ()
    lines: list[str] = field(default_factory=list)


@contextmanager
def captured(emit: Emit) -> Iterator[Captured]:
    """Catch warnings and log records of the exporters; each different one becomes a line of the log.

    Filters, handlers and levels are as before afterwards, also when the block raises.
    """
    found = Captured()
    with warnings.catch_warnings(record=True) as caught, _logged_to(_Lines(found.lines)):
        warnings.simplefilter("always")
        try:
            yield found
        finally:
            found.frozen = _frozen(caught)
            for text in dict.fromkeys([*_texts(caught), *found.lines]):
                emit(LogLine(STAGE, text))


@contextmanager
def _logged_to(handler: logging.Handler) -> Iterator[None]:
    """Every record of LOGGERS and what is below them goes to the handler, and nowhere else.

    torch gives many of its loggers a handler of their own, which writes to stderr.
    """
    below = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.split(".")[0] in LOGGERS
    ]
    tops = [logging.getLogger(name) for name in LOGGERS]
    before = {logger: (list(logger.handlers), logger.propagate) for logger in {*below, *tops}}
    for logger in before:
        logger.handlers = []
        logger.propagate = logger not in tops
    for logger in tops:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (handlers, propagate) in before.items():
            added = [one for one in logger.handlers if one is not handler and one not in handlers]
            logger.handlers = [*handlers, *added]
            logger.propagate = propagate


def plain(text: str) -> str:
    """A message without the colours of a terminal."""
    return _COLOUR.sub("", text)


def _frozen(caught: list[warnings.WarningMessage]) -> tuple[FrozenPlace, ...]:
    counts = Counter(
        (place(warning.filename, warning.lineno), _kind(str(warning.message)))
        for warning in caught
        if issubclass(warning.category, TRACER_WARNING)
    )
    return tuple(FrozenPlace(where, kind, count) for (where, kind), count in sorted(counts.items()))


def _kind(message: str) -> str:
    return next((kind for pattern, kind in _KINDS if pattern.match(message)), _OTHER_KIND)


def _texts(caught: list[warnings.WarningMessage]) -> Iterator[str]:
    for warning in caught:
        first = plain(str(warning.message)).strip().splitlines() or [""]
        yield f"{place(warning.filename, warning.lineno)}: {warning.category.__name__}: {first[0]}"


class _Lines(logging.Handler):
    """Keeps what is logged, as plain text."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.INFO)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {plain(record.getMessage())}")
