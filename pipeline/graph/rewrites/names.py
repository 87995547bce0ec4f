"""Every rule by name: where it stands. Imported without onnx and numpy, so that a misspelt name is refused early."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from pipeline.errors import Refused

_ROOM: Final = "pipeline.graph.rewrites"
#: Family module of lowering rules -> the names of its rules (its `RULES`, in their order).
LOWERING: Final[dict[str, tuple[str, ...]]] = {
    "lower_bfloat16": ("bfloat16_to_float32",),
    "lower_normalization": ("rms_normalization", "group_normalization", "group_normalization_18",
        "layer_normalization", "batch_normalization",),
    "lower_activation": ("swish", "gelu", "mish", "hard_swish", "celu", "thresholded_relu",),
    "lower_resize": ("resize_symmetric", "resize_antialias", "resize_axes", "resize_roi", "resize_scales",
        "resize_table", "upsample",),
    "lower_sampling": ("affine_grid", "grid_sample_modes", "grid_sample", "roi_align_pixels",),
    "lower_axes": ("split_parts", "reduction_axes", "reduce_sum_axes", "squeeze_axes", "split_sizes",
        "negative_indices", "negative_axes",),
    "lower_pad": ("pad_wrap", "pad_axes", "pad_truth", "clip_integers", "clip_limits", "pad_amounts",),
    "lower_slice": ("constant_numbers", "dropout_inference", "slice_backwards", "top_k_smallest",
        "slice_ranges", "top_k_count",),
    "lower_softmax": ("softmax_axis",),
    "lower_arithmetic": ("reduced_truth", "cast_like", "relu_integers", "small_integers",
        "extremes_of_integers", "power_types", "or_equal", "reduced_small_integers", "equal_numbers",
        "round", "gemm_without_bias", "modulo", "is_infinite",),
    "lower_shapes": ("shape_part", "reshape_zero", "triangle", "running_sum", "range", "depth_to_space",),
    "lower_index": ("scatter_extremes", "scatter_sums", "gather_batches", "gather_elements",
        "gather_coordinates", "scatter_elements", "scatter_coordinates",),
    "lower_pooling": ("pool_beside", "pool_to_the_end",),
    "lower_einsum": ("einsum",),
    "lower_fourier": ("fourier_axis", "fourier", "short_fourier", "windows",),
    "lower_quantization": ("dequantize_channels", "quantize_channels", "dynamic_quantize", "dequantize",
        "quantize",),
    "lower_sequences": ("sequence_element", "sequence_joined",),
    "lower_branches": ("branch_sizes",),
    "lower_recurrent": ("recurrent_layout",),
    "lower_function": ("attention", "rotary_embedding", "center_crop_pad", "losses",),
}  # fmt: skip
#: Family module of legalisation rules -> the names of its rules (its `RULES`, in their order).
LEGALISATION: Final[dict[str, tuple[str, ...]]] = {
    "legal_types": ("narrow_int64_indices", "narrow_float64", "freeze_batch",),
    "legal_resize": (
        "resize_to_same_size", "resize_pytorch_half_pixel", "resize_nearest_asymmetric",
        "resize_sizes_to_scales", "resize_scales_to_sizes",
    ),
    "legal_slicing": (
        "gather_before_transpose", "image_gather_to_slice", "gather_to_slice", "uneven_split_to_slices",
        "strided_slice_to_reshape", "pad_to_concat", "negative_pad_to_slice", "pad_into_conv",
        "uneven_conv_pads_apart",
    ),
    "legal_pooling": (
        "global_pool_of_one_place", "whole_window_to_global_pool", "split_large_pool",
        "split_global_average_pool", "average_pool_pads_apart",
    ),
    "legal_normalisation": ("layer_norm_to_primitives", "instance_norm_to_primitives",),
    "legal_activations": (
        "hard_swish_to_clip", "hard_sigmoid_to_clip", "min_of_relu_to_clip", "clip_to_relu",
        "clip_from_zero", "relu_to_clip", "prelu_to_leaky_relu", "prelu_to_relus", "neg_to_mul",
        "softmax_on_last_axis", "softmax_of_one_batch", "gelu_to_tanh", "gelu_to_sigmoid",
    ),
    "legal_reductions": (
        "reduce_to_global_pool", "reduce_l2_to_sqrt", "lp_normalization_to_div", "reduce_keepdims",
        "reduce_one_axis_at_a_time", "reduce_last_axis_to_global_pool", "reduce_last_axis_to_matmul",
    ),
    "legal_arithmetic": (
        "sub_to_add", "div_by_constant_to_mul", "pow_to_mul", "mean_to_add", "sum_to_add",
        "many_to_pairs", "where_to_mul_add", "larger_operand_first", "sigmoid_to_reciprocal",
    ),
    "legal_convolution": (
        "line_to_image", "constants_into_conv", "batch_norm_to_depthwise_conv",
        "constants_to_depthwise_conv",
    ),
    "legal_linear": ("linear_to_conv", "gemm_to_matmul", "channels_last_matmul_to_conv", "matmul_ranks_alike",),
    "legal_dilation": ("conv_taps_in_padding", "dilated_conv_to_sum",),
    "legal_kernels": ("split_large_kernel", "conv_transpose_to_conv",),
    "legal_einsum": ("einsum_to_matmul",),
    "legal_layout": (
        "flatten_to_reshape", "reshape_behind_elementwise", "merge_reshapes", "merge_transposes",
        "transpose_to_reshape", "transpose_behind_elementwise",
    ),
    "legal_ranks": ("transpose_to_rank_4", "elementwise_to_rank_4", "unary_to_rank_4", "axis_to_rank_4",),
}  # fmt: skip
#: Rule -> (kind, family module).
NAMES: Final[dict[str, tuple[str, str]]] = {
    **{name: ("lower", f"{_ROOM}.{module}") for module, names in LOWERING.items() for name in names},
    **{name: ("legalise", f"{_ROOM}.{module}") for module, names in LEGALISATION.items() for name in names},
}
#: How many near names a refusal offers.
_OFFERED: Final = 3


def check_rules(given: Mapping[str, Any], *, key: str, kind: str) -> tuple[str, ...]:
    """The rules that a request switches off.

    Args:
        given: rule name to true or false.
        key: "export.rules" or "target.rules".
        kind: "lower" or "legalise"; a rule of the other kind has no effect under this key.

    Raises:
        Refused: PL-103, there is no such rule, it is of the other kind, or the value is no boolean.
    """
    known = sorted(name for name, (its_kind, _) in NAMES.items() if its_kind == kind)
    for name, value in given.items():
        if name not in known:
            raise _unknown(name, key, known)
        if not isinstance(value, bool):
            raise Refused(
                "PL-103", "a rule is switched on or off", where=f"{key}.{name}", found=repr(value),
                expected="true or false", next_step=f"Type {key}.{name}=false",
            )  # fmt: skip
    return tuple(sorted(name for name, value in given.items() if not value))


def _unknown(name: str, key: str, known: list[str]) -> Refused:
    if name in NAMES:
        other = {"export.rules": "target.rules", "target.rules": "export.rules"}[key]
        return Refused(
            "PL-103", f"{name} is no rule of {key}", where=f"{key}.{name}",
            expected=f"{other}.{name}", next_step=f"Type {other}.{name}=false",
        )  # fmt: skip
    near = get_close_matches(name, known, n=_OFFERED, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return Refused(
        "PL-103", "there is no such rule", where=f"{key}.{name}",
        next_step=f"{hint}Type python -m pipeline rules to see them",
    )  # fmt: skip
