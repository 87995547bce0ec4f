"""Every rule has four proofs: a graph that it rewrites, one that it leaves, random ones against ONNX Runtime, a network."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.graph.bare import BareModel
from pipeline.graph.equivalence import compare_graphs
from pipeline.graph.legalise import LARGEST_APPROXIMATION, legalise
from pipeline.graph.rewrites.families import rules_of
from pipeline.graph.rewrites.legal_types import frozen_values
from pipeline.graph.rewrites.lower import LoweringFailed, lower
from pipeline.graph.rewrites.prove import prove
from pipeline.graph.rewrites.rule import Rule, no_reason
from tests.graph.rewrites.legal_case import values
from tests.graph.rewrites.lower_cases import PAIRS
from tests.graph.rewrites.lower_networks import NETWORKS, exported
from tests.graph.rewrites.random_graphs import MAKERS, draw
from tests.graph.rewrites.random_oracle import against_reference
from tests.graph.rewrites.test_legal_networks import NEEDS, WITHOUT
from tests.graph.rewrites.test_legal_rules import CASES

LOWERING = {rule.name: rule for rule in rules_of("lower")}
RULES = LOWERING | {rule.name: rule for rule in rules_of("legalise")}
#: Which random graphs (`random_values` and its siblings) lowering rules are for.
RANDOM = {
    "brain_floats": "bfloat16_to_float32",
    "rms_normalization": "rms_normalization",
    "group_normalization": "group_normalization",
    "older_groups": "group_normalization_18",
    "layer_normalization": "layer_normalization",
    "swish": "swish",
    "activation": "gelu mish hard_swish celu thresholded_relu",
    "resize_symmetric": "resize_symmetric",
    "resize": "resize_antialias resize_roi resize_table",
    "resize_axes": "resize_axes resize_scales upsample",
    "affine_grid": "affine_grid",
    "grid_sample": "grid_sample_modes grid_sample",
    "regions": "roi_align_pixels",
    "split": "split_parts split_sizes",
    "reduction": "reduction_axes reduce_sum_axes",
    "squeeze": "squeeze_axes",
    "counted_from_the_end": "negative_indices",
    "moved": "negative_axes depth_to_space",
    "pad": "pad_wrap pad_axes pad_truth pad_amounts",
    "clip": "clip_integers clip_limits",
    "constants": "constant_numbers",
    "dropout": "dropout_inference",
    "recurrent": "recurrent_layout",
    "slicing": "slice_backwards slice_ranges",
    "top_k": "top_k_smallest top_k_count",
    "softmax": "softmax_axis",
    "small_extremes": "reduced_truth reduced_small_integers",
    "misplaced": "cast_like",
    "unary": "relu_integers round is_infinite",
    "arithmetic": "small_integers extremes_of_integers power_types or_equal equal_numbers modulo",
    "products": "gemm_without_bias",
    "shape_of": "shape_part",
    "reshape": "reshape_zero",
    "trilu": "triangle",
    "cumsum": "running_sum",
    "ranges": "range",
    "scatters": "scatter_extremes scatter_sums scatter_elements scatter_coordinates",
    "gathers": "gather_batches gather_elements gather_coordinates",
    "pools": "pool_beside pool_to_the_end",
    "einsum": "einsum",
    "fourier": "fourier_axis fourier short_fourier",
    "window": "windows",
    "quantization": "dequantize_channels quantize_channels dequantize quantize",
    "dynamic_quantize": "dynamic_quantize",
    "element": "sequence_element",
    "joined": "sequence_joined",
    "attention": "attention",
    "rotary": "rotary_embedding",
    "center_crop": "center_crop_pad",
    "loss": "losses",
}
MAKER_OF = {
    name: next(maker for maker in MAKERS if maker.__name__ == key)
    for key, names in RANDOM.items() for name in names.split()
}  # fmt: skip
#: Lowering rules without random graphs of their own, each with why.
UNPROVED = {
    "batch_normalization": "neither onnx nor ONNX Runtime reads the file that it is for (five outputs at inference)",
    "branch_sizes": "both branches of random graphs are alike; test_lower_branches has graphs of its own",
}
#: Lowering rules that no network of torch needs, each with why.
WITHOUT_NETWORK = {
    "group_normalization_18": "torch writes GroupNormalization from opset 21 on",
    "batch_normalization": "torch writes one output at inference; older tools wrote five",
    "swish": "torch writes SiLU as Sigmoid and Mul",
    "thresholded_relu": "torch writes thresholds as Where; Keras has the operator",
    "resize_symmetric": "torch has no such coordinates",
    "resize_axes": "torch names every axis",
    "pad_axes": "torch names every axis",
    "constant_numbers": "torch writes constants as tensors",
    "dropout_inference": "torch leaves it out of a network at inference",
    "reduced_truth": "torch casts before it reduces",
    "gather_batches": "torch indexes without batches",
    "windows": "torch folds windows into constants",
    "dynamic_quantize": "torch exports no dynamically quantized network",
    "sequence_joined": "torch joins lists by Concat",
    "recurrent_layout": "torch transposes around a layer with the batch first",
    "center_crop_pad": "torch crops by Slice and Pad",
    "branch_sizes": "networks with If are those of test_lower_branches and of docs/reach.md",
}
#: Random graphs a rule, and how many seeds are tried for one that is for it.
EXAMPLES, FARTHEST = 12, 400
#: More where few graphs of a maker need the rule: one mode, one attribute.
MORE = {"pad_wrap": 80, "resize_antialias": 80}
FIXED = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def rewritten(rule: Rule) -> bool:
    return bool(PAIRS[rule.name].rewritten) if rule.kind == "lower" else rule.name in CASES


def left_alone(rule: Rule) -> bool:
    """A rule whose check takes everything has nothing to decline."""
    if rule.kind == "legalise":
        return rule.name in CASES
    return bool(PAIRS[rule.name].declined) or rule.check is no_reason


def at_random(rule: Rule) -> bool:
    return rule.name in MAKER_OF or rule.name in UNPROVED or rule.name in CASES


def in_a_network(rule: Rule) -> bool:
    if rule.kind == "lower":
        needed = {name for made in NETWORKS.values() for name in made.needs.split()}
        return rule.name in needed or rule.name in WITHOUT_NETWORK
    return rule.name in {name for sets in NEEDS.values() for names in sets for name in names.split()} | set(
        WITHOUT
    )


PROOFS: dict[str, Callable[[Rule], bool]] = {
    "a graph that it rewrites": rewritten,
    "a graph that it leaves alone": left_alone,
    "random graphs": at_random,
    "a network": in_a_network,
}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_every_rule_has_its_proofs(rule: Rule) -> None:
    assert [proof for proof, has in PROOFS.items() if not has(rule)] == []


def test_exceptions_are_of_rules_that_are_there() -> None:
    assert {*UNPROVED, *WITHOUT_NETWORK} <= set(LOWERING)
    assert not set(UNPROVED) & set(MAKER_OF)
    assert not set(WITHOUT_NETWORK) & {name for made in NETWORKS.values() for name in made.needs.split()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(MAKER_OF))
def test_lowering_at_random(name: str) -> None:
    """One opset down, where the rule's form begins: it, or another of the same operator, is at work."""
    rule, maker = LOWERING[name], MAKER_OF[name]
    taken: list[bool] = []
    refused: list[bool] = []

    def suits(seed: int) -> bool:
        """Whether the maker draws a case of the rule at its opset or above."""
        drawn = maker(np.random.default_rng(seed))
        inside = {drawn.operator, *(node.op_type for node in drawn.before)}
        return rule.rewrite_graph is not None or (
            bool(inside & set(rule.takes)) and rule.from_opset <= drawn.opsets[1]
        )

    @settings(FIXED, max_examples=MORE.get(name, EXAMPLES))
    @given(st.integers(0, 2**32 - 1))
    def holds(seed: int) -> None:
        # The first seed from here on whose case is one of the rule's.
        seed = next(one for one in range(seed, seed + FARTHEST) if suits(one))
        opset = max(rule.from_opset, maker(np.random.default_rng(seed)).opsets[0])
        made = draw(np.random.default_rng(seed), maker, opset=opset, target=rule.from_opset - 1)
        error = None
        try:
            lowered, rewriting = lower(made.model, made.target)
        except LoweringFailed as failed:
            rewriting = failed.rewriting
            refused.append(bool(failed.blockers[0].reason and failed.reason.next_step))
        else:
            error = prove(made.model, lowered, rewriting, made.values, key="export.rules")
            assert error is not None or against_reference(made, lowered) is None
        taken.append(name in rewriting.counts)

    holds()
    assert any(taken), f"none of {len(taken)} needed it"
    assert all(refused), "refused without a reason"


@pytest.mark.parametrize("name", sorted(CASES))
def test_legalising_at_random(name: str) -> None:
    """The rule alone."""
    taken: list[bool] = []

    @FIXED
    @given(st.randoms(use_true_random=False), st.integers(0, 99))
    def holds(rng: random.Random, seed: int) -> None:
        before = CASES[name].taken(rng)
        after, rewriting = legalise(before, [name])
        taken.append(bool(rewriting.applied))
        if not rewriting.applied:
            return
        feeds = values(before, seed)
        equal = compare_graphs(
            before, after, frozen_values(before, feeds) if name == "freeze_batch" else feeds
        )
        if RULES[name].promise == "approximation":
            assert equal.error < 3 * LARGEST_APPROXIMATION
        else:
            assert equal.difference is None, equal.difference

    holds()
    assert any(taken)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_that_need_lowering(name: str) -> None:
    made = NETWORKS[name]
    model, feeds = exported(made)
    lowered, rewriting = _as_far_as_it_goes(model)
    assert set(made.needs.split()) <= set(rewriting.counts), rewriting.counts
    error = prove(model, lowered, rewriting, feeds, key="export.rules")
    # ONNX Runtime has no convolution in bfloat16 on a CPU; its random graphs are compared with onnx.reference.
    assert error is not None or "bfloat16_to_float32" in made.needs
    assert error is None or error < 1e-5


def _as_far_as_it_goes(model: BareModel):
    """Down to opset 9, or to the nearest one that has its operators."""
    try:
        return lower(model, 9)
    except LoweringFailed as failed:
        return lower(model, failed.nearest)
