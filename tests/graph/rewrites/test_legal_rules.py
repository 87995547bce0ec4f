"""Every legalisation rule: a graph that it must rewrite, one that it must leave, and random ones against ONNX Runtime."""

from __future__ import annotations

from random import Random

import pytest

from pipeline.graph.equivalence import TOLERANCES, compare_graphs
from pipeline.graph.legalise import legalise
from pipeline.graph.rewrites.families import rule, rules_of
from pipeline.graph.rewrites.legal_types import frozen_values
from tests.graph.rewrites import legal_cases_images, legal_cases_shapes, legal_cases_values
from tests.graph.rewrites.legal_case import values

CASES = {
    case.rule: case
    for module in (legal_cases_values, legal_cases_images, legal_cases_shapes)
    for case in module.CASES
}
#: Random graphs a rule.
QUICK = 12
#: An approximation of Gelu is off by 0.0203 at most (x * sigmoid(1.702 x) at |x| = 2.27); outputs here may be
#: as small as a tenth of that.
APPROXIMATION = 0.3
#: Rules of which fewer graphs are taken: they decline where float32 rounding stands in the way.
SELDOM = {"resize_scales_to_sizes": 0.3, "split_large_pool": 0.4}


def test_every_rule_has_a_case() -> None:
    assert {one.name for one in rules_of("legalise")} == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_random_graphs_compute_the_same(name: str) -> None:
    case, found = CASES[name], rule(name)
    taken = 0
    for seed in range(QUICK):
        before = case.taken(Random(seed))
        after, rewriting = legalise(before, [name])
        if not rewriting.applied:
            assert (
                rewriting.declined
                or name in SELDOM
                or name in ("transpose_to_reshape", "transpose_behind_elementwise")
            ), f"seed {seed}: neither rewritten nor declined"
            continue
        taken += 1
        made = {after.made_by.get(node.name) for node in after.parsed().graph.node} - {None}
        assert made <= {f"rule {name}"}
        assert {node.op_type for node in after.parsed().graph.node if node.name in after.made_by} <= {
            *found.makes,
            "Identity",
        }
        feeds = values(before, seed)
        if name == "freeze_batch":
            feeds = frozen_values(before, feeds)
        equal = compare_graphs(before, after, feeds)
        if found.promise == "approximation":
            assert equal.error < APPROXIMATION
        else:
            assert equal.difference is None, f"seed {seed}: {equal.difference}"
            assert found.promise != "exact" or equal.error < TOLERANCES["float32"] / 10
    assert taken >= QUICK * SELDOM.get(name, 0.5), f"{taken} of {QUICK}"


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_a_rule_leaves_alone(name: str) -> None:
    case = CASES[name]
    before = case.declined()
    after, rewriting = legalise(before, [name])
    assert not rewriting.applied and after is before
    if case.reason:
        assert [one.rule for one in rewriting.declined] == [name]
        assert case.reason in rewriting.declined[0].reason


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_rule_that_is_off_does_nothing(name: str) -> None:
    before = CASES[name].taken(Random(1))
    after, rewriting = legalise(before, [name], off=[name])
    assert after is before and not rewriting.applied and not rewriting.declined


@pytest.mark.parametrize("name", sorted(set(CASES) - {"freeze_batch", "narrow_float64"}))
def test_origins_are_kept(name: str) -> None:
    before = CASES[name].taken(Random(3))
    after, rewriting = legalise(before, [name])
    for node in after.parsed().graph.node if rewriting.applied else ():
        if node.name in after.made_by:
            assert after.scopes[node.name].startswith("part.n") and after.lines[node.name] == "net.py:7"


def test_case_lists_no_rule_twice() -> None:
    assert len(CASES) == sum(
        len(m.CASES) for m in (legal_cases_values, legal_cases_images, legal_cases_shapes)
    )
