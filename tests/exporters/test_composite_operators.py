"""The list of composite operators is asked for once an export, and the table is the same."""

from __future__ import annotations

import pytest
import torch._export.utils as utils
from torch.export import default_decompositions

from pipeline.exporters.composite_operators import composite_operators_once


def test_the_table_is_the_same_and_the_operators_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = utils._materialize_cpp_cia_ops
    monkeypatch.setattr(utils, "_materialize_cpp_cia_ops", lambda: (asked.append(1), real())[1])
    long = set(utils._collect_all_valid_cia_ops())
    assert len(asked) > 10
    asked.clear()
    with composite_operators_once() as taken:
        assert taken
        short = set(utils._collect_all_valid_cia_ops())
        table = set(default_decompositions())
    assert len(asked) == 1
    assert short == long
    assert table == set(default_decompositions())


def test_it_is_put_back_when_the_export_fails() -> None:
    before = utils._materialize_cpp_cia_ops
    with pytest.raises(ZeroDivisionError), composite_operators_once():
        raise ZeroDivisionError
    assert utils._materialize_cpp_cia_ops is before


def test_a_torch_that_is_built_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(utils, "_materialize_cpp_cia_ops")
    with composite_operators_once() as taken:
        assert not taken
