"""For every lowering rule a small graph that it must rewrite and one that it must decline.

A graph is written as "inputs => outputs | constants | nodes" at the opset that the rule starts from.
"""

from __future__ import annotations

from tests.graph.rewrites import lower_cases_values
from tests.graph.rewrites.lower_case import Pair

_DYNAMIC = "float[2,3] x, int64[1] a => float[b,c] y"
_SLICE = "float[5,6] x => float[a,b] y | int64[1] s={1}, int64[1] e={4}, int64[1] a={-1}, int64[1] t={2} |"

PAIRS: dict[str, Pair] = {
    "bfloat16_to_float32": Pair(
        "float[1,2,5] x => float[1,2,3] y | float[2,2,3] w0={1,0,-1,2,1,0,0,1,2,1,1,1} |"
        " a=Cast<to=16>(x) w=Cast<to=16>(w0) b=Conv(a, w) y=Cast<to=1>(b)",
        "float[3] x => bfloat16[3] y || y=Cast<to=16>(x)",
        "is bfloat16, which opset",
    ),
    # normalization
    "rms_normalization": Pair(
        "float[2,3,4] x => float[2,3,4] y | float[4] s={1,2,3,4} | y = RMSNormalization(x, s)",
        "float[] x0, int64[r] n => float y | float[4] s={1,2,3,4} | x=Reshape(x0,n) y = RMSNormalization<axis=1>(x, s)",
        "the rank of its input is not known",
    ),
    "group_normalization": Pair(
        "float[2,4,5] x => float[2,4,5] y | float[4] s={1,2,3,4}, float[4] b={0,1,0,1} | y = GroupNormalization<num_groups=2>(x, s, b)",
        "float[2,c,5] x => float[2,c,5] y | float[4] s={1,2,3,4}, float[4] b={0,1,0,1} | y = GroupNormalization<num_groups=2>(x, s, b)",
        "the number of channels",
    ),
    "group_normalization_18": Pair(
        "float[2,4,5] x => float[2,4,5] y | float[2] s={1,2}, float[2] b={0,1} | y = GroupNormalization<num_groups=2>(x, s, b)",
        "float[2,c,5] x => float[2,c,5] y | float[2] s={1,2}, float[2] b={0,1} | y = GroupNormalization<num_groups=2>(x, s, b)",
        "the number of channels",
    ),
    "layer_normalization": Pair(
        "float[2,3,4] x => float[2,3,4] y | float[4] s={1,2,3,4} | y = LayerNormalization(x, s)",
        "float[2,3] x => float[2,3] y, float[2,1] m | float[3] s={1,2,3} | y, m = LayerNormalization(x, s)",
        "its statistics are taken too",
    ),
    "batch_normalization": Pair(
        "float[2,3] x => float[2,3] y | float[3] s={1,2,3}, float[3] b={0,1,0}, float[3] m={1,0,1}, float[3] v={1,2,1} | y, p, q = BatchNormalization(x, s, b, m, v)",
        "float[2,3] x => float[2,3] y | float[3] s={1,2,3}, float[3] b={0,1,0}, float[3] m={1,0,1}, float[3] v={1,2,1} | y, p, q = BatchNormalization<training_mode=1>(x, s, b, m, v)",
        "it is in training mode",
    ),
    # activations
    "swish": Pair(
        "float[2,3] x => float[2,3] y || y = Swish<alpha=1.5>(x)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Swish(a)",
        "the element type",
    ),
    "gelu": Pair(
        'float[2,3] x => float[2,3] y || y = Gelu<approximate="tanh">(x)',
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Gelu(a)",
        "the element type",
    ),
    "mish": Pair(
        "float[2,3] x => float[2,3] y || y = Mish(x)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Mish(a)",
        "the element type",
    ),
    "hard_swish": Pair(
        "float[2,3] x => float[2,3] y || y = HardSwish(x)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = HardSwish(a)",
        "the element type",
    ),
    "celu": Pair(
        "float[2,3] x => float[2,3] y || y = Celu<alpha=0.5>(x)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Celu(a)",
        "the element type",
    ),
    "thresholded_relu": Pair(
        "float[2,3] x => float[2,3] y || y = ThresholdedRelu<alpha=0.5>(x)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = ThresholdedRelu(a)",
        "the element type",
    ),
    # resize and sampling
    "resize_symmetric": Pair(
        'float[1,1,4,4] x => float[1,1,6,6] y | float[4] s={1,1,1.6,1.6} | y = Resize<mode="linear",coordinate_transformation_mode="half_pixel_symmetric">(x,,s)',
        'float[1,1,4,4] x => float[1,1,6,6] y | int64[4] s={1,1,6,6} | y = Resize<mode="linear",keep_aspect_ratio_policy="not_larger">(x,,,s)',
        "keeps the aspect ratio",
    ),
    "resize_antialias": Pair(
        'float[1,1,8,8] x => float[1,1,3,5] y | int64[4] s={1,1,3,5} | y = Resize<mode="cubic",antialias=1>(x,,,s)',
        'float[1,1,h,8] x => float[1,1,3,5] y | int64[4] s={1,1,3,5} | y = Resize<mode="linear",antialias=1>(x,,,s)',
        "the sizes that it makes are not known",
    ),
    "resize_axes": Pair(
        'float[1,1,4,4] x => float[1,1,8,8] y | float[2] s={2,2} | y = Resize<mode="nearest",axes=[2,3]>(x,,s)',
        'float[n,1,4,4] x => float[n,1,8,8] y | int64[2] s={8,8} | y = Resize<mode="nearest",axes=[2,3]>(x,,,s)',
        "the sizes of the other axes are not known",
    ),
    "resize_roi": Pair(
        'float[1,1,4,4] x => float[1,1,8,8] y | float[4] s={1,1,2,2} | y = Resize<mode="nearest">(x,,s)',
        'float[1,1,4,4] x => float[1,1,8,8] y | float[8] r={0,0,0,0,1,1,1,1}, float[4] s={1,1,2,2} | y = Resize<mode="linear",coordinate_transformation_mode="tf_crop_and_resize">(x,r,s)',
    ),
    "resize_scales": Pair(
        'float[1,1,4,4] x => float[1,1,8,8] y | float[0] r={}, float[4] s={1,1,2,2} | y = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">(x,r,s)',
        'float[1,1,4,4] x => float[1,1,8,8] y | float[0] r={}, float[4] s={1,1,2,2} | y = Resize<mode="linear">(x,r,s)',
    ),
    "resize_table": Pair(
        'float[1,1,4,4] x => float[1,1,8,8] y | float[0] r={}, float[4] s={1,1,2,2} | y = Resize<mode="linear">(x,r,s)',
        'float[1,1,h,w] x => float[1,1,p,q] y | float[0] r={}, float[4] s={1,1,2,2} | y = Resize<mode="linear">(x,r,s)',
        "the sizes that it makes are not known",
    ),
    "upsample": Pair(
        'float[1,1,4,4] x => float[1,1,8,8] y | float[4] s={1,1,2,2} | y = Resize<mode="nearest">(x,s)',
        'float[1,1,4,4] x => float[1,1,2,2] y | float[4] s={1,1,0.5,0.5} | y = Resize<mode="nearest">(x,s)',
        "it makes an axis smaller",
    ),
    "affine_grid": Pair(
        "float[2,2,3] x => float[2,4,5,2] y | int64[4] s={2,3,4,5} | y = AffineGrid<align_corners=1>(x, s)",
        "float[2,2,3] x, int64[4] s => float[a,b,c,2] y || y = AffineGrid(x, s)",
        "the size of its grid is computed",
    ),
    "grid_sample_modes": Pair(
        'float[1,2,4,4] x, float[1,3,3,2] g => float[1,2,3,3] y || y = GridSample<mode="cubic">(x, g)',
        "float[1,2,4,4,4] x, float[1,3,3,3,3] g => float[1,2,3,3,3] y || y = GridSample(x, g)",
        "it samples more than two axes",
    ),
    "grid_sample": Pair(
        'float[1,2,4,4] x, float[1,3,3,2] g => float[1,2,3,3] y || y = GridSample<padding_mode="reflection">(x, g)',
        "float[n,2,4,4] x, float[n,3,3,2] g => float[n,2,3,3] y || y = GridSample(x, g)",
        "the sizes of its input or its grid are not known",
    ),
    "roi_align_pixels": Pair(
        "float[1,2,6,6] x => float[2,2,3,3] y | float[2,4] r={0,0,4,5,1,1,1.5,1.25}, int64[2] b={0,0} |"
        ' y = RoiAlign<coordinate_transformation_mode="output_half_pixel",output_height=3,output_width=3>(x, r, b)',
        "float[1,2,6,6] x => float[2,2,3,3] y | float[2,4] r={0,0,4,5,1,1,1.5,1.25}, int64[2] b={0,0} |"
        " y = RoiAlign<output_height=3,output_width=3>(x, r, b)",
        "half a pixel off",
    ),
    # axes
    "split_parts": Pair(
        "float[7,2] x => float[3,2] y, float[3,2] z, float[1,2] w || y, z, w = Split<num_outputs=3>(x)",
        "float[n,2] x => float[a,2] y, float[b,2] z || y, z = Split<num_outputs=2>(x)",
        "the size of the axis that it splits",
    ),
    "reduction_axes": Pair(
        "float[2,3] x => float[2,1] y | int64[1] a={-1} | y = ReduceMean(x, a)",
        f"{_DYNAMIC} || y = ReduceMean(x, a)",
        "its axes are computed",
    ),
    "reduce_sum_axes": Pair(
        "float[2,3] x => float[2,1] y | int64[1] a={-1} | y = ReduceSum(x, a)",
        f"{_DYNAMIC} || y = ReduceSum(x, a)",
        "its axes are computed",
    ),
    "squeeze_axes": Pair(
        "float[2,1,3] x => float[2,3] y | int64[1] a={1} | y = Squeeze(x, a)",
        "float[2,3] x, int64[1] a => float[b,c,d] y || y = Unsqueeze(x, a)",
        "its axes are computed",
    ),
    "split_sizes": Pair(
        "float[5] x => float[2] y, float[3] z | int64[2] s={2,3} | y, z = Split(x, s)",
        "float[5] x, int64[2] s => float[a] y, float[b] z || y, z = Split(x, s)",
        "its sizes are computed",
    ),
    "negative_axes": Pair(
        "float[2,3] x => float[2,6] y || y = Concat<axis=-1>(x, x)",
        "float[2,3] x0, int64[r] n => float y || x=Reshape(x0,n) y = Concat<axis=-1>(x, x)",
        "the rank of its input is not known",
    ),
    "negative_indices": Pair(
        "float[4,3] x => float[2,3] y | int64[2] i={-1,0} | y = Gather(x, i)",
        "float[n,3] x => float[2,3] y | int64[2] i={-1,0} | y = Gather(x, i)",
        "an axis of unknown size",
    ),
    # pads and clips
    "pad_wrap": Pair(
        'float[2,3] x => float[3,5] y | int64[4] p={1,1,0,1} | y = Pad<mode="wrap">(x, p)',
        'float[n,3] x => float[m,5] y | int64[4] p={1,1,0,1} | y = Pad<mode="wrap">(x, p)',
        "mode wrap",
    ),
    "pad_axes": Pair(
        "float[2,3] x => float[2,5] y | int64[2] p={1,1}, int64[1] a={-1} | y = Pad(x, p,, a)",
        "float[2,3] x, int64[1] a => float[b,c] y | int64[2] p={1,1} | y = Pad(x, p,, a)",
        "its axes or amounts are computed",
    ),
    "pad_truth": Pair(
        "bool[2,3] x => bool[2,5] y | int64[4] p={0,1,0,1}, bool f={1} | y = Pad(x, p, f)",
        "float[2,3] x => float[2,5] y | int64[4] p={0,1,0,1} | y = Pad(x, p)",
    ),
    "clip_integers": Pair(
        "int64[4] x => int64[4] y | int64 l={-1}, int64 h={3} | y = Clip(x, l, h)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Clip(a)",
        "the element type",
    ),
    "clip_limits": Pair("float[4] x, float h => float[4] y | float l={0} | y = Clip(x, l, h)"),
    "pad_amounts": Pair(
        "int64[2,3] x => int64[3,5] y | int64[4] p={1,1,0,1}, int64 f={7} | y = Pad(x, p, f)",
        "float[2,3] x, int64[4] p => float[a,b] y || y = Pad(x, p)",
        "its amounts are computed",
    ),
    # slices and their like
    "constant_numbers": Pair(
        "float[3] x => float[3] y || c = Constant<value_floats=[1.0, 2.0, 3.0]>() y = Add(x, c)",
        'float[3] x => float[3] y, string z || z = Constant<value_string="a">() y = Identity(x)',
        "is no number",
    ),
    "dropout_inference": Pair(
        "float[2,3] x => float[2,3] y || y = Dropout(x)",
        "float[2,3] x => float[2,3] y | float r={0.5}, bool t={1} | y = Dropout(x, r, t)",
        "it is in training mode",
    ),
    "slice_backwards": Pair(
        "float[5] x => float[2] y | int64[1] s={4}, int64[1] e={0}, int64[1] a={0}, int64[1] t={-2} | y = Slice(x, s, e, a, t)",
        "float[n] x => float[m] y | int64[1] s={4}, int64[1] e={0}, int64[1] a={0}, int64[1] t={-2} | y = Slice(x, s, e, a, t)",
        "steps along an axis of unknown size",
    ),
    "top_k_smallest": Pair(
        "int32[2,5] x => int32[2,2] y, int64[2,2] i | int64[1] k={2} | y, i = TopK<largest=0>(x, k)",
        "int64[2,5] x => int64[2,2] y, int64[2,2] i | int64[1] k={2} | y, i = TopK(x, k)",
        "no older TopK takes int64",
    ),
    "slice_ranges": Pair(
        f"{_SLICE} y = Slice(x, s, e, a, t)",
        "float[5,6] x, int64[1] s, int64[1] e => float[a,b] y || y = Slice(x, s, e)",
        "where it begins or ends is computed",
    ),
    "top_k_count": Pair(
        "float[2,5] x => float[2,2] y, int64[2,2] i | int64[1] k={2} | y, i = TopK(x, k)",
        "float[2,5] x, int64[1] k => float[2,a] y, int64[2,a] i || y, i = TopK(x, k)",
        "its k is computed",
    ),
    "softmax_axis": Pair(
        "float[2,3,4] x => float[2,3,4] y || y = Softmax<axis=1>(x)",
        "float[2,3] x0, int64[r] n => float y || x=Reshape(x0,n) y = Softmax<axis=0>(x)",
        "the rank of its input is not known",
    ),
    **lower_cases_values.PAIRS,
}
