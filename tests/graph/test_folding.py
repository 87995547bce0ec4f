"""Folding what depends on held tensors, and merging equal ones: names, scopes, several outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.graph.bare import BareModel
from pipeline.graph.duplicates import merge_equal_tensors
from pipeline.graph.equivalence import compare_graphs
from pipeline.graph.folding import DERIVED_BY, fold_held
from tests.graph.graphs import bare, operators_of, random

LIMIT = 4096
X = {"x": random(2, 64, seed=9)}


def same(one: BareModel, other: BareModel, **more: object) -> None:
    other.check_invariant()
    assert compare_graphs(one, other, {**X, **more}).difference is None


def test_a_chain_is_folded_to_its_end() -> None:
    model = bare(
        """
        net (float[2,64] x, float[32,64] w) => (float[2,32] y)
        { a = Neg(w) b = Transpose<perm=[1,0]>(a) y = MatMul(x, b) }
        """,
        {"w": random(32, 64)},
    )
    folded = fold_held(model, largest_folded=LIMIT)
    assert operators_of(folded) == ["MatMul"]
    assert list(folded.held) == ["b"]
    assert folded.held["b"].derived_by == DERIVED_BY
    same(model, folded)


def test_a_tensor_that_is_used_as_it_is_too_stays_beside_its_result() -> None:
    model = bare(
        """
        net (float[2,64] x, float[64,64] w) => (float[2,64] y)
        { t = Transpose<perm=[1,0]>(w) a = MatMul(x, w) y = MatMul(a, t) }
        """,
        {"w": random(64, 64)},
    )
    folded = fold_held(model, largest_folded=LIMIT)
    assert set(folded.held) == {"w", "t"}
    same(model, folded)


def test_a_small_result_becomes_an_initializer() -> None:
    model = bare(
        """
        net (float[2,64] x, float[64,64] w) => (float[2,1] y)
        { m = ReduceSum(w) y0 = Mul(x, m) y = ReduceMax<axes=[1]>(y0) }
        """,
        {"w": random(64, 64)},
    )
    folded = fold_held(model, largest_folded=LIMIT)
    assert not folded.held
    assert folded.derived == {"m": DERIVED_BY}
    same(model, folded)


def split(large: bool) -> BareModel:
    """A node with two outputs, one of which may be too large to fold."""
    rows = 4000 if large else 2
    return bare(
        f"""
        net (float[2,64] x, float[2,64] w) => (float[{rows},64] y)
        <int64[2] shape = {{{rows}, 64}}, int64[2] parts = {{1, 1}}>
        {{
            a, b = Split<axis=0>(w, parts)
            big = Expand(b, shape)
            p = Add(x, a)
            q = ReduceMax<axes=[0]>(p)
            y = Add(big, q)
        }}
        """,
        {"w": random(2, 64)},
    )


@pytest.mark.parametrize("large", [False, True])
def test_a_node_with_several_outputs(large: bool) -> None:
    model = split(large)
    folded = fold_held(model, largest_folded=LIMIT)
    same(model, folded)
    assert ("Expand" in operators_of(folded)) is large


def test_outputs_of_one_node_are_folded_together_or_not_at_all() -> None:
    model = bare(
        """
        net (float[2,64] x, float[100,64] w) => (float[2,64] y, float[99,64] z)
        <int64[2] parts = {1, 99}>
        { a, b = Split<axis=0>(w, parts) y = Add(x, a) z = Neg(b) }
        """,
        {"w": random(100, 64)},
    )
    folded = fold_held(model, largest_folded=LIMIT)
    same(model, folded)


def test_a_quantization_is_not_undone() -> None:
    model = bare(
        """
        net (float[2,64] x, int8[64,2000] w) => (float[2,2000] y)
        <float scale = {0.1}>
        { d = DequantizeLinear(w, scale) y = MatMul(x, d) }
        """,
        {"w": np.ones((64, 2000), np.int8)},
    )
    assert fold_held(model, largest_folded=1 << 30) is model


def test_an_output_that_is_constant_stays_with_its_node() -> None:
    model = bare(
        "net (float[2,64] x, float[64,64] w) => (float[64,64] y, float[2,64] z) { y = Neg(w) z = Relu(x) }",
        {"w": random(64, 64)},
    )
    assert fold_held(model, largest_folded=LIMIT) is model


def test_what_only_a_branch_uses_is_folded_for_it() -> None:
    model = bare(
        """
        net (float[2,64] x, bool flag, float[64,64] w) => (float[2,64] y)
        {
            t = Transpose<perm=[1,0]>(w)
            y = If(flag) <
                then_branch = yes () => (float[2,64] a) { a = MatMul(x, t) },
                else_branch = no () => (float[2,64] b) { b = MatMul(x, w) }
            >
        }
        """,
        {"w": random(64, 64)},
    )
    folded = fold_held(model, largest_folded=LIMIT)
    assert set(folded.held) == {"w", "t"}
    for flag in (True, False):
        same(model, folded, flag=np.array(flag))


# equal tensors


def twins(**fields: object) -> BareModel:
    weight = random(64, 64)
    return bare(
        """
        net (float[2,64] x, float[64,64] one, float[64,64] two) => (float[2,64] y)
        { a = MatMul(x, one) b = MatMul(x, two) y = Add(a, b) }
        """,
        {"one": weight, "two": weight.copy()},
        **fields,
    )


def test_equal_tensors_of_equal_nodes_are_merged() -> None:
    merged = merge_equal_tensors(twins())
    assert set(merged.held) == {"one"}
    same(twins(), merged)


def test_tensors_with_a_name_to_keep_are_not_merged() -> None:
    assert set(merge_equal_tensors(twins(), keep=("two",)).held) == {"one", "two"}
    shown = twins(shown_parameters=("two",))
    assert set(merge_equal_tensors(shown).held) == {"one", "two"}


def test_tensors_that_differ_in_one_element_are_not_merged() -> None:
    model = twins()
    other = random(64, 64)
    other[-1, -1] += 1e-6
    held = dict(model.held)
    from tests.graph.graphs import Fixed

    held["two"] = replace(held["two"], data=Fixed(other))
    model = replace(model, held=held)
    assert merge_equal_tensors(model) is model


def test_merging_goes_on_along_equal_branches() -> None:
    first, second = random(64, 64), random(64, 64, seed=1)
    model = bare(
        """
        net (float[2,64] x, float[64,64] a1, float[64,64] a2, float[64,64] b1, float[64,64] b2) => (float[2,64] y)
        {
            p = MatMul(x, a1) q = Relu(p) r = MatMul(q, b1)
            s = MatMul(x, a2) t = Relu(s) u = MatMul(t, b2)
            y = Sub(r, u)
        }
        """,
        {"a1": first, "a2": first.copy(), "b1": second, "b2": second.copy()},
    )
    merged = merge_equal_tensors(model)
    assert set(merged.held) == {"a1", "b1"}
    same(model, merged)


def test_a_name_that_a_branch_defines_for_itself_is_not_given_to_an_outer_value() -> None:
    """A rename into a name that a branch uses passes the checker and computes something else."""
    weight = random(64, 64)
    model = bare(
        """
        net (float[2,64] x, bool flag, float[64,64] one, float[64,64] two) => (float[2,64] y)
        {
            a = MatMul(x, one)
            b = MatMul(x, two)
            c = Add(a, b)
            y = If(flag) <
                then_branch = yes () => (float[2,64] t) { one = Neg(two) t = MatMul(c, two) },
                else_branch = no () => (float[2,64] e) { e = Abs(c) }
            >
        }
        """,
        {"one": weight, "two": weight.copy()},
    )
    merged = merge_equal_tensors(model)
    assert set(merged.held) == {"one", "two"}


def test_random_numbers_drawn_twice_are_not_one() -> None:
    weight = random(64, 64)
    model = bare(
        """
        net (float[2,64] x, float[64,64] one, float[64,64] two) => (float[64,64] y)
        { a = RandomNormalLike(one) b = RandomNormalLike(two) y = Sub(a, b) }
        """,
        {"one": weight, "two": weight.copy()},
    )
    assert merge_equal_tensors(model) is model
