"""onnxscript's library of operators, asked for its domains without parsing its sources. Imports onnxscript.

For every export torch collects the library's functions, and onnxscript says the domain of each by
finding its source text, tokenising, parsing and translating it: several hundred times, a tenth of
the processor time of exporting a small network. The domain is the operator set's own. While this
is active, what onnxscript gives for a traced function (`function_ir`) knows the domain at once and
does the rest when anything else of it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from onnxscript import FLOAT, values

_CLASS: Final = "TracedOnnxFunction"
_PROPERTY: Final = "function_ir"


class _Later:
    """A function's signature, translated when it is asked for anything but its domain."""

    def __init__(self, function: Any, real: property) -> None:
        self._function = function
        self._real = real
        self.domain = function.opset.domain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real.__get__(self._function), name)


@contextmanager
def domains_at_once() -> Iterator[bool]:
    """Yields whether the short way is taken: not where onnxscript is built otherwise than expected."""
    owner = getattr(values, _CLASS, None)
    real = vars(owner).get(_PROPERTY) if owner is not None else None
    if owner is None or not isinstance(real, property) or not _behaves(owner, real):
        yield False
        return
    setattr(owner, _PROPERTY, property(lambda function: _Later(function, real)))
    try:
        yield True
    finally:
        setattr(owner, _PROPERTY, real)


def _behaves(owner: Any, real: property) -> bool:
    """The probe: on one function of ours, the short way gives what the long one does."""
    try:
        function = owner(values.Opset("pipeline.probe", 1), _probe)
        return bool(_Later(function, real).domain == real.__get__(function).domain == "pipeline.probe")
    except Exception:  # noqa: BLE001 - whatever a library does when it is not as expected: the long way works
        return False


def _probe(x: FLOAT) -> FLOAT:
    return x
