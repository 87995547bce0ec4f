"""The networks that rules are for: every rule is needed by one of them, and what it makes computes the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.graph.bare import BareModel
from pipeline.graph.equivalence import compare_graphs
from pipeline.graph.legalise import LARGEST_APPROXIMATION, legalise
from pipeline.graph.rewrites.families import rules_of
from pipeline.graph.rewrites.legal_types import frozen_values
from pipeline.graph.session import array_value, held_value, run_bare
from pipeline.graph.simplify import simplify
from tests.graph.rewrites.legal_case import values
from tests.graph.rewrites.legal_networks import NETWORKS

#: Network to sets of rules that are wanted together, each with those of them that it must need.
NEEDS: dict[str, list[str]] = {
    "mobilenet_v3_small": [
        "hard_sigmoid_to_clip constants_to_depthwise_conv constants_into_conv larger_operand_first",
        "linear_to_conv reshape_behind_elementwise hard_swish_to_clip",
        "hard_swish_to_clip gemm_to_matmul",
        "flatten_to_reshape",
    ],
    "deeplabv3": ["conv_taps_in_padding dilated_conv_to_sum", "resize_sizes_to_scales"],
    "shufflenet": ["transpose_to_rank_4 reduce_to_global_pool"],
    "densenet121": ["batch_norm_to_depthwise_conv"],
    "swin_t 11": [
        "sub_to_add pow_to_mul div_by_constant_to_mul reduce_last_axis_to_global_pool gemm_to_matmul",
        "reduce_last_axis_to_matmul narrow_int64_indices matmul_ranks_alike",
    ],
    "swin_t 17": [
        "gather_before_transpose gather_to_slice transpose_to_rank_4 axis_to_rank_4 elementwise_to_rank_4",
        "strided_slice_to_reshape transpose_to_rank_4 merge_reshapes",
        "layer_norm_to_primitives softmax_of_one_batch",
        "merge_transposes transpose_to_reshape gather_before_transpose",
    ],
    "convnext_tiny": ["transpose_behind_elementwise"],
    "inception_v3": ["average_pool_pads_apart whole_window_to_global_pool global_pool_of_one_place"],
    "style": [
        "pad_to_concat instance_norm_to_primitives reduce_to_global_pool",
        "relu_to_clip",
        "resize_scales_to_sizes",
    ],
    "super_resolution": ["prelu_to_leaky_relu", "prelu_to_relus"],
    "audio": ["line_to_image reduce_keepdims"],
    "pyramid": ["split_large_pool reduce_l2_to_sqrt", "reduce_one_axis_at_a_time"],
    "channels last": ["channels_last_matmul_to_conv"],
    "limits": ["clip_from_zero clip_to_relu", "min_of_relu_to_clip"],
    "colours": ["image_gather_to_slice"],
    "cropped": ["negative_pad_to_slice"],
    "same size": ["resize_to_same_size"],
    "volume": ["unary_to_rank_4"],
    "same padding": ["uneven_conv_pads_apart"],
    "uneven": ["uneven_split_to_slices"],
    "large mean": ["split_global_average_pool"],
    "gelu": ["gelu_to_tanh", "gelu_to_sigmoid", "sigmoid_to_reciprocal"],
    "any batch": ["freeze_batch"],
    "double": ["narrow_float64"],
    "large kernel": ["split_large_kernel"],
    "grown": ["conv_transpose_to_conv"],
    "products": ["einsum_to_matmul"],
    "as exported": ["pad_into_conv"],
    "rotary": ["neg_to_mul where_to_mul_add softmax_on_last_axis"],
}
#: Operators that neither exporter of torch writes; they come in files of other tools.
WITHOUT = {
    "lp_normalization_to_div": "torch writes its norms as reductions and divisions",
    "many_to_pairs": "torch.maximum takes two operands",
    "mean_to_add": "torch writes a mean of a list as Concat and ReduceMean",
    "resize_pytorch_half_pixel": "torch writes half_pixel",
    "resize_nearest_asymmetric": "torch writes nearest by asymmetric and floor, or as a gather",
    "sum_to_add": "torch writes a sum of a list as pairs",
}
PROMISES = {rule.name: rule.promise for rule in rules_of("legalise")}
#: An output that moves by less than this share with its input would prove nothing.
DEPENDS = 1e-3


def test_every_rule_has_a_network_or_is_said_to_have_none() -> None:
    needed = {name for sets in NEEDS.values() for names in sets for name in names.split()}
    assert needed | set(WITHOUT) == {rule.name for rule in rules_of("legalise")}
    assert not needed & set(WITHOUT)
    assert set(NEEDS) == set(NETWORKS)


def outputs(model: BareModel, seed: int) -> list[np.ndarray]:
    feeds = {name: array_value(array) for name, array in values(model, seed).items()}
    feeds |= {name: held_value(tensor) for name, tensor in model.held.items()}
    return run_bare(model.proto, feeds)


@pytest.fixture(params=sorted(NEEDS))
def network(
    request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> Iterator[tuple[str, BareModel]]:
    name = request.param
    model = NETWORKS[name]()
    simplified = model
    if name != "as exported":
        simplified, _ = simplify(model, values(model, 0), private_apis=True)
    yield name, simplified
    capfd.readouterr()  # onnxsim says a line for every node that it does not fold


@pytest.mark.slow
def test_networks_that_need_rules(network: tuple[str, BareModel]) -> None:
    name, before = network
    one, other = outputs(before, 0)[0], outputs(before, 1)[0]
    assert np.abs(one - other).max() > DEPENDS * np.abs(one).max(), "the output does not depend on the input"
    for names in NEEDS[name]:
        after, rewriting = legalise(before, names.split())
        assert set(rewriting.counts) == set(names.split()), f"{name}: {rewriting.counts}"
        feeds = values(before, 2)
        equal = compare_graphs(before, after, frozen_values(before, feeds) if "freeze" in names else feeds)
        if any(PROMISES[rule] == "approximation" for rule in names.split()):
            assert 0 < equal.error < LARGEST_APPROXIMATION
        else:
            assert equal.difference is None, f"{name}: {equal.difference}"
        print(f"{name}: {rewriting.counts}, error {equal.error:.1e}", file=sys.__stderr__)
