"""Rules are weighed: one that makes nothing better on the target is left out, unless the user asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.graph.bare import BareModel
from pipeline.graph.legalise_stage import LegaliseStage
from pipeline.graph.rewrites.engine import rewrite
from pipeline.graph.rewrites.families import rule
from pipeline.graph.rewrites.weighing import weigh
from pipeline.graph.simplify import operators
from pipeline.targets.placement_cost import cost_on
from pipeline.targets.profile import load_profile
from tests.graph.graphs import random
from tests.graph.rewrites.legal_case import build, values
from tests.graph.test_stages import Bench


@dataclass(frozen=True)
class Prices:
    """A price for every operator; the sum is what a graph costs."""

    prices: Mapping[str, int] = field(default_factory=dict)
    counted: ClassVar[tuple[str, ...]] = ("price", "nodes")
    code: ClassVar[tuple[str, ...]] = ()

    def of(self, model: BareModel) -> tuple[int, ...]:
        found = operators(model)
        return sum(self.prices.get(name, 1) * number for name, number in found.items()), sum(found.values())

    def key(self) -> Mapping[str, Any]:
        return dict(self.prices)


def chain() -> BareModel:
    """Neg becomes Mul, Sub becomes Add of Neg, which becomes Mul."""
    return build({"x": ("float", [2, 3]), "z": ("float", [2, 3])}, "n = Neg (x)\ny = Sub (n, z)")


RULES = [rule("sub_to_add"), rule("neg_to_mul")]


def names(model: BareModel, cost: Prices, **more: Any) -> tuple[list[str], list[str]]:
    kept, undone = weigh(model, RULES, cost, **more)
    return [one.name for one in kept], [one.rule for one in undone]


def test_a_rule_that_pays_is_kept() -> None:
    assert names(chain(), Prices({"Neg": 9, "Sub": 9})) == (["sub_to_add", "neg_to_mul"], [])


def test_a_rule_that_only_costs_is_undone_and_the_other_stays() -> None:
    assert names(chain(), Prices({"Neg": 9})) == (["neg_to_mul"], ["sub_to_add"])


def test_rules_that_change_nothing_are_undone() -> None:
    kept, undone = weigh(chain(), RULES, Prices({"Sub": 2}))
    # Sub is as dear as the Neg and the Add that stand for it; so is Neg as Mul.
    assert kept == []
    assert {one.rule: one.reason for one in undone} == {
        "neg_to_mul": "it makes no node's place better",
        "sub_to_add": "nodes: 3 with it, 2 without",
    }


def test_what_mends_another_rule_goes_with_it() -> None:
    """neg_to_mul is only wanted for the Neg of sub_to_add, and sub_to_add is not."""
    model = build({"x": ("float", [2, 3]), "z": ("float", [2, 3])}, "y = Sub (x, z)")
    kept, undone = names(model, Prices({"Neg": 9}))
    assert undone == ["sub_to_add"]
    assert rewrite(model, [rule(name) for name in kept])[0] is model


def test_a_rule_that_the_user_asked_for_is_not_weighed() -> None:
    assert names(chain(), Prices({"Mul": 9}), asked=("neg_to_mul",))[0] == ["neg_to_mul"]


def dense() -> BareModel:
    """One convolution, within every limit."""
    return build({"x": ("float", [1, 3, 8, 8])}, "y = Conv (x, w)", {"w": random(4, 3, 3, 3)}, opset=11)


def test_a_target_with_one_place_has_no_cost() -> None:
    assert cost_on(load_profile("ncnn"), {}) is None
    assert cost_on(load_profile("horizon_x3"), {}) is not None


def test_the_cost_of_an_x3_counts_what_leaves_the_accelerator() -> None:
    cost = cost_on(load_profile("horizon_x3"), {})
    assert cost is not None
    refused, *rest = cost.of(dense())
    assert rest == [0, 0, 0, 0, 0, 1]
    body = "v = Conv (x, w)\ne = Erf (v)\ny = Conv (e, z)"
    mixed = build(
        {"x": ("float", [1, 3, 8, 8])}, body, {"w": random(4, 3, 3, 3), "z": random(2, 4, 3, 3)}, opset=11
    )
    assert cost.of(mixed) == (refused, 0, 0, 2, 1, 0, 3)
    # A kernel of 11 is on the CPU: its multiply-accumulates are off the accelerator, and nothing is left on it.
    large = build({"x": ("float", [1, 3, 22, 22])}, "y = Conv (x, w)", {"w": random(4, 3, 11, 11)}, opset=11)
    assert cost.of(large)[:3] == (refused + 1, 0, 12 * 12 * 4 * 3 * 11 * 11)


def test_the_stage_says_what_it_undid(tmp_path: Path) -> None:
    before = build(
        {"x": ("float", [1, 3, 8, 8])}, "v = Conv (x, w)\ny = Sub (v, v)", {"w": random(4, 3, 3, 3)}, opset=11
    )
    cost = cost_on(load_profile("horizon_x3"), {})
    stage = LegaliseStage(("sub_to_add", "neg_to_mul"), True, cost=Prices(), asked=())
    bench = Bench(tmp_path, {"simplified": before, "export_inputs": values(before, 0)})
    verdict = stage.run(bench)
    assert bench.values["legalised"] is before and verdict.summary == "nothing to rewrite"
    assert [one["rule"] for one in verdict.measured["undone"]] == ["sub_to_add"]
    # What it is weighed by is part of the key.
    assert stage.key_parts() != LegaliseStage(stage.rules, True, cost=cost).key_parts()
    assert stage.key_parts() != LegaliseStage(stage.rules, True).key_parts()


@pytest.mark.parametrize("name", ["horizon_x3", "horizon_x5", "horizon_rdk_ultra"])
def test_weighed_rules_never_cost_more_than_none(name: str) -> None:
    from pipeline.graph.legalise import legalise

    profile = load_profile(name)
    cost = cost_on(profile, {})
    assert cost is not None
    rules = [rule(one) for one in profile.wants if one not in ("freeze_batch", "narrow_float64")]
    body = "v = Conv (x, w)\nh = HardSigmoid (v)\nm = Mul (v, h)\ng = GlobalAveragePool (m)\nf = Flatten (g)\ny = Gemm (f, u)"
    before = build(
        {"x": ("float", [1, 3, 8, 8])}, body, {"w": random(4, 3, 3, 3), "u": random(4, 5)}, opset=11
    )
    kept, _ = weigh(before, rules, cost)
    after, _ = legalise(before, [one.name for one in kept])
    assert cost.of(after) <= cost.of(before)
