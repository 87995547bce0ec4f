"""Sizes of an If's branches below opset 11, where onnx takes those of one branch for those of both."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest

from pipeline.graph.rewrites.lower import lower
from pipeline.graph.rewrites.prove import prove
from pipeline.graph.walk import nodes
from tests.graph.rewrites.lower_cases import PAIRS
from tests.graph.rewrites.test_lower_rules import model_of, values_of


def test_a_size_that_only_one_branch_has_is_hidden():
    model = model_of(PAIRS["branch_sizes"].rewritten, 11)
    model = replace(model, scopes={**model.scopes, "p": "net.layer.first"})
    with pytest.raises(onnx.shape_inference.InferenceError, match=r"\(0\) vs \(3\)"):
        onnx.checker.check_model(lower(model, 10, off=["branch_sizes"])[0].parsed(), full_check=True)
    lowered, rewriting = lower(model, 10)
    assert prove(model, lowered, rewriting, values_of(model), key="export.rules") == 0
    onnx.checker.check_model(lowered.parsed(), full_check=True)
    made = [node for node in nodes(lowered.parsed().graph) if node.op_type in ("Shape", "Reshape")]
    assert len(made) == 2
    for node in made:
        assert lowered.made_by[node.name] == "rule branch_sizes"
        assert lowered.scopes[node.name] == "net.layer.first"


def test_branches_of_one_size_are_left_alone():
    model = model_of(
        "float[3] x, bool c => float[3] y || y = If (c) <"
        " then_branch = a () => (float[3] p) { p = Neg(x) },"
        " else_branch = b () => (float[3] q) { q = Abs(x) } >",
        11,
    )
    _, rewriting = lower(model, 10)
    assert "branch_sizes" not in rewriting.counts
