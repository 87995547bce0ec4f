"""onnxscript's library asked for domains without parsing: the same answers, and put back afterwards."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from onnxscript import FLOAT, values

from pipeline.exporters import torchlib
from pipeline.exporters.torchlib import domains_at_once


def function() -> values.TracedOnnxFunction:
    def twice(x: FLOAT, alpha: float = 2.0) -> FLOAT:
        return x

    if __name__ not in sys.modules:  # tests imported by path may have no entry, and onnxscript asks for it
        stand_in = ModuleType(__name__)
        vars(stand_in).update(globals())
        sys.modules[__name__] = stand_in
    return values.TracedOnnxFunction(values.Opset("some.domain", 3), twice)


def test_the_domain_is_there_and_the_rest_when_it_is_asked_for() -> None:
    real = function().function_ir
    with domains_at_once() as taken:
        assert taken
        quick = function().function_ir
        assert quick.domain == real.domain == "some.domain"
        assert isinstance(quick, torchlib._Later)
        assert (quick.name, [one.name for one in quick.inputs]) == (
            real.name,
            [one.name for one in real.inputs],
        )
    assert not isinstance(function().function_ir, torchlib._Later)


def test_it_is_put_back_when_the_export_fails() -> None:
    before = vars(values.TracedOnnxFunction)["function_ir"]
    with pytest.raises(ZeroDivisionError), domains_at_once():
        raise ZeroDivisionError
    assert vars(values.TracedOnnxFunction)["function_ir"] is before


@pytest.mark.parametrize("change", ["gone", "no property", "another domain"])
def test_an_onnxscript_that_is_built_otherwise_is_left_alone(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change == "gone":
        monkeypatch.delattr(values, "TracedOnnxFunction")
    elif change == "no property":
        monkeypatch.setattr(values.TracedOnnxFunction, "function_ir", None)
    else:
        monkeypatch.setattr(
            values.TracedOnnxFunction, "function_ir", property(lambda self: type("F", (), {"domain": "x"}))
        )
    with domains_at_once() as taken:
        assert not taken


def test_every_function_of_the_library_says_the_same() -> None:
    from onnxscript.function_libs.torch_lib import ops, registration

    del ops
    every = [
        one for entry in registration.default_registry.values() for one in (*entry.overloads, *entry.complex)
    ]
    assert len(every) > 300
    with domains_at_once():
        quick = [one.function_ir.domain for one in every]
    assert quick == [one.function_ir.domain for one in every]
