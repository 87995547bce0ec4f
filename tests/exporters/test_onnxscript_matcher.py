"""The optimizer's short way: the same matches and the same graph, less searching, put back afterwards."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from typing import Any

import onnx_ir as ir
import pytest
import torch
from onnxscript.optimizer import optimize_ir
from onnxscript.rewriter import _matcher
from onnxscript.rewriter._rewrite_rule import RewriteRule

from pipeline.exporters.onnxscript_matcher import _operator, first_node_first

GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
main (float[2,3] x) => (float[2,3] y, float[2,3] z) {
    a = Relu(x)
    b = Sigmoid(x)
    y = Neg(a)
    z = Abs(b)
}
"""


def two_outputs() -> RewriteRule:
    """Relu(x) and Sigmoid(x) together, whichever node comes first."""

    def target(op: Any, x: Any) -> Any:
        return op.Relu(x), op.Sigmoid(x)

    def replacement(op: Any, x: Any) -> Any:
        return op.Both(x, _domain="test", _outputs=2)

    return RewriteRule(target, replacement)


def matched(rule: RewriteRule) -> list[bool]:
    model = ir.from_onnx_text(GRAPH)
    return [bool(rule.match(model, model.graph, node)) for node in model.graph]


def test_a_pattern_with_two_outputs_matches_where_it_did() -> None:
    long = matched(two_outputs())
    with first_node_first() as taken:
        assert taken
        short = matched(two_outputs())
    assert long == short == [True, False, False, False]


def test_only_nodes_that_may_fit_are_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    real = _matcher.SimplePatternMatcher._multi_match

    def note(self: Any, candidate: Any, **more: Any) -> Any:
        tried.append(next(iter(candidate)).op_type)
        return real(self, candidate, **more)

    monkeypatch.setattr(_matcher.SimplePatternMatcher, "_multi_match", note)
    with first_node_first():
        matched(two_outputs())
    assert tried == ["Relu"]


def test_so_does_one_with_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def target(op: Any, x: Any) -> Any:
        return op.Neg(op.Relu(x))

    tried: list[str] = []
    real = _matcher.SimplePatternMatcher._match_single_output_node

    def note(self: Any, model: Any, graph: Any, node: Any, **more: Any) -> Any:
        tried.append(node.op_type)
        return real(self, model, graph, node, **more)

    monkeypatch.setattr(_matcher.SimplePatternMatcher, "_match_single_output_node", note)
    long = matched(RewriteRule(target, target))
    assert tried == ["Relu", "Sigmoid", "Neg", "Abs"]
    tried.clear()
    with first_node_first():
        short = matched(RewriteRule(target, target))
    assert long == short == [False, False, True, False]
    assert tried == ["Neg"]


class Encoder(torch.nn.Module):
    """Attention with its own projections, LayerNorm and GELU: what the fusion rules look for."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(16)
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.inner, self.outer = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = self.outer(torch.nn.functional.gelu(self.inner(x)))
        return torch.add(x, y)


@pytest.mark.slow
def test_both_ways_give_the_same_graph() -> None:
    torch.manual_seed(0)
    program = torch.onnx.export(
        Encoder().eval(),
        (torch.randn(1, 5, 16),),
        dynamo=True,
        opset_version=18,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    before = ir.to_proto(program.model)
    found = []
    for short in (True, False):
        model = ir.from_proto(before)
        if short:
            with first_node_first():
                optimize_ir(model)
        else:
            optimize_ir(model)
        found.append(ir.to_proto(model).SerializeToString(deterministic=True))
    assert found[0] == found[1] != before.SerializeToString(deterministic=True)


def test_it_is_put_back_when_the_export_fails() -> None:
    before = vars(_matcher.SimplePatternMatcher)["match"]
    with pytest.raises(ZeroDivisionError), first_node_first():
        raise ZeroDivisionError
    assert vars(_matcher.SimplePatternMatcher)["match"] is before


@pytest.mark.parametrize("short", [True, False])
def test_a_rule_forgets_the_graph_that_it_looked_at(short: bool) -> None:
    rule = two_outputs()
    model = ir.from_onnx_text(GRAPH)
    gone = weakref.ref(model.graph)
    with first_node_first() if short else nullcontext():
        assert rule.match(model, model.graph, model.graph[0])
    del model
    gc.collect()
    assert (gone() is None) == short  # onnxscript itself keeps it: once it does not, all of this may go
    with first_node_first():
        assert matched(rule) == [True, False, False, False]


def test_an_onnxscript_that_is_built_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_matcher, "SimplePatternMatcher")
    with first_node_first() as taken:
        assert not taken


@pytest.mark.parametrize("outputs", [None, (), (object(),)])
def test_a_pattern_of_another_kind_goes_the_long_way(outputs: object) -> None:
    odd = type("Odd", (), {"pattern": type("P", (), {"output_nodes": outputs})()})()
    assert _operator(odd)("Relu")
