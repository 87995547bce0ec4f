"""For every lowering rule a small graph that it must rewrite and one that it must decline.

A graph is written as "inputs => outputs | constants | nodes" at the opset that the rule starts from.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """A graph to rewrite, and one to decline with a part of the reason.

    `declined` is None for a rule that takes every node of its operators, or all that need it.
    """

    rewritten: str
    declined: str | None = None
    reason: str = ""


_DYNAMIC = "float[2,3] x, int64[1] a => float[b,c] y"
_SLICE = "float[5,6] x => float[a,b] y | int64[1] s={1}, int64[1] e={4}, int64[1] a={-1}, int64[1] t={2} |"

PAIRS: dict[str, Pair] = {
    "bfloat16_to_float32": Pair(
        "float[1,2,5] x => float[1,2,3] y | float[2,2,3] w0={1,0,-1,2,1,0,0,1,2,1,1,1} |"
        " a=Cast<to=16>(x) w=Cast<to=16>(w0) b=Conv(a, w) y=Cast<to=1>(b)",
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
    "swish": Pair("float[2,3] x => float[2,3] y || y = Swish<alpha=1.5>(x)"),
    "gelu": Pair('float[2,3] x => float[2,3] y || y = Gelu<approximate="tanh">(x)'),
    "mish": Pair("float[2,3] x => float[2,3] y || y = Mish(x)"),
    "hard_swish": Pair("float[2,3] x => float[2,3] y || y = HardSwish(x)"),
    "celu": Pair("float[2,3] x => float[2,3] y || y = Celu<alpha=0.5>(x)"),
    "thresholded_relu": Pair("float[2,3] x => float[2,3] y || y = ThresholdedRelu<alpha=0.5>(x)"),
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
        'float[1,1,4,4] x => float[1,1,8,8] y | float[4] s={1,1,2,2} | y = Resize<mode="nearest">(x,,s)'
    ),
    "resize_scales": Pair(
        'float[1,1,4,4] x => float[1,1,8,8] y | float[0] r={}, float[4] s={1,1,2,2} | y = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">(x,r,s)'
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
    "pad_truth": Pair("bool[2,3] x => bool[2,5] y | int64[4] p={0,1,0,1}, bool f={1} | y = Pad(x, p, f)"),
    "clip_integers": Pair("int64[4] x => int64[4] y | int64 l={-1}, int64 h={3} | y = Clip(x, l, h)"),
    "clip_limits": Pair("float[4] x, float h => float[4] y | float l={0} | y = Clip(x, l, h)"),
    "pad_amounts": Pair(
        "int64[2,3] x => int64[3,5] y | int64[4] p={1,1,0,1}, int64 f={7} | y = Pad(x, p, f)",
        "float[2,3] x, int64[4] p => float[a,b] y || y = Pad(x, p)",
        "its amounts are computed",
    ),
    # slices and their like
    "constant_numbers": Pair(
        "float[3] x => float[3] y || c = Constant<value_floats=[1.0, 2.0, 3.0]>() y = Add(x, c)"
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
    # arithmetic
    "reduced_truth": Pair("bool[2,3] x => bool[2,1] y | int64[1] a={1} | y = ReduceMax(x, a)"),
    "cast_like": Pair("float[3] x, int32[1] l => int32[3] y || y = CastLike(x, l)"),
    "relu_integers": Pair("int32[4] x => int32[4] y || y = Relu(x)"),
    "small_integers": Pair("int8[4] x, int8[4] z => int8[4] y || y = Mul(x, z)"),
    "extremes_of_integers": Pair("int64[4] x, int64[4] z => int64[4] y || y = Max(x, z, x)"),
    "power_types": Pair(
        "int32[4] x => int32[4] y | int64 p={3} | y = Pow(x, p)",
        "int32[4] x, int32[4] p => int32[4] y || y = Pow(x, p)",
        "the power of an integer is not a small positive constant",
    ),
    "or_equal": Pair("float[4] x, float[4] z => bool[4] y || y = GreaterOrEqual(x, z)"),
    "reduced_small_integers": Pair("int8[2,3] x => int8[2,1] y || y = ReduceMax<axes=[1]>(x)"),
    "equal_numbers": Pair(
        "float[4] x, float[4] z => bool[4] y || y = Equal(x, z)",
    ),
    "round": Pair("float[6] x => float[6] y || y = Round(x)"),
    "gemm_without_bias": Pair("float[2,3] x, float[3,4] w => float[2,4] y || y = Gemm(x, w)"),
    "modulo": Pair(
        "int64[6] x => int64[6] y | int64[6] z={3,-3,2,5,-4,1} | y = Mod(x, z)",
        "float[6] x, float[6] z => float[6] y || y = Mod<fmod=1>(x, z)",
        "the remainder of floating numbers",
    ),
    "is_infinite": Pair("float[4] x => bool[4] y || y = IsInf(x)"),
    # shapes
    "shape_part": Pair("float[2,3,n] x => int64[1] y || y = Shape<start=1,end=-1>(x)"),
    "reshape_zero": Pair(
        "float[2,3] x => float[6] y | int64[1] s={-1} | y = Reshape<allowzero=1>(x, s)",
        "float[2,3] x, int64[1] s => float[n] y || y = Reshape<allowzero=1>(x, s)",
        "allowzero",
    ),
    "triangle": Pair(
        "float[3,4] x => float[3,4] y || y = Trilu<upper=0>(x)",
        "float[n,4] x => float[n,4] y || y = Trilu(x)",
        "its sizes or its diagonal are not known",
    ),
    "running_sum": Pair(
        "float[3,4] x => float[3,4] y | int64 a={0} | y = CumSum<reverse=1>(x, a)",
        "float[n,4] x => float[n,4] y | int64 a={0} | y = CumSum(x, a)",
        "its axis or the size of it",
    ),
    "range": Pair(
        "int64 n => int64[m] y | int64 s={-2}, int64 d={1} | y = Range(s, n, d)",
        "float n => float[m] y | float s={0}, float d={1} | y = Range(s, n, d)",
        "computed from floating numbers",
    ),
    "depth_to_space": Pair(
        'float[1,8,2,3] x => float[1,2,4,6] y || y = DepthToSpace<blocksize=2,mode="CRD">(x)',
        'float[n,8,2,3] x => float[n,2,4,6] y || y = DepthToSpace<blocksize=2,mode="CRD">(x)',
        "the sizes of its input",
    ),
    # indices
    "scatter_extremes": Pair(
        'float[4] x, float[2] u => float[4] y | int64[2] i={3,1} | y = ScatterElements<reduction="max">(x, i, u)',
        'float[4] x, float[2] u => float[4] y | int64[2] i={1,1} | y = ScatterElements<reduction="max">(x, i, u)',
        "several of its updates meet",
    ),
    "scatter_sums": Pair(
        'float[4,2] x, float[2,2] u => float[4,2] y | int64[2,1] i={3,1} | y = ScatterND<reduction="add">(x, i, u)',
        'float[4] x, float[2] u, int64[2] i => float[4] y || y = ScatterElements<reduction="add">(x, i, u)',
        "its indices are computed while it runs and may meet",
    ),
    "gather_batches": Pair(
        "float[2,3,4] x => float[2,2,4] y | int64[2,2,1] i={0,2,-1,1} | y = GatherND<batch_dims=1>(x, i)",
        "float[n,3,4] x => float[n,2,4] y | int64[2,2,1] i={0,2,1,1} | y = GatherND<batch_dims=1>(x, i)",
        "the sizes of its data or indices",
    ),
    "gather_elements": Pair(
        "float[3,4] x => float[2,4] y | int64[2,4] i={0,1,2,-1,1,1,0,0} | y = GatherElements(x, i)",
        "float[n,4] x => float[2,4] y | int64[2,4] i={0,1,2,1,1,1,0,0} | y = GatherElements(x, i)",
        "the sizes of its data or indices",
    ),
    "gather_coordinates": Pair(
        "float[3,4] x => float[2] y | int64[2,2] i={0,1,2,-1} | y = GatherND(x, i)",
        "float[n,4] x => float[2] y | int64[2,2] i={0,1,2,1} | y = GatherND(x, i)",
        "the sizes of its data or indices",
    ),
    "scatter_elements": Pair(
        "float[4] x, float[2] u => float[4] y | int64[2] i={3,1} | y = ScatterElements(x, i, u)"
    ),
    "scatter_coordinates": Pair(
        "float[4,2] x, float[2,2] u => float[4,2] y | int64[2,1] i={3,1} | y = ScatterND(x, i, u)",
        "float[4,2] x, float[2,2] u, int64[2,1] i => float[4,2] y || y = ScatterND(x, i, u)",
        "its indices are computed",
    ),
    # pools
    "pool_beside": Pair(
        "float[1,2,9] x => float[1,2,5] y || y = MaxPool<kernel_shape=[2],strides=[2],pads=[1,1],ceil_mode=1>(x)",
        "float[1,2,6] x => float[1,2,2] y || y = AveragePool<kernel_shape=[2],strides=[4],pads=[1,1],ceil_mode=1,count_include_pad=1>(x)",
        "it counts padding",
    ),
    "pool_to_the_end": Pair(
        "float[1,2,8] x => float[1,2,4] y || y = MaxPool<kernel_shape=[3],strides=[2],ceil_mode=1>(x)",
        "float[1,2,n] x => float[1,2,m] y || y = MaxPool<kernel_shape=[3],strides=[2],ceil_mode=1>(x)",
        "how far its last window reaches",
    ),
    "einsum": Pair(
        'float[2,3,4] x, float[2,5,4] z => float[2,3,5] y || y = Einsum<equation="bid,bjd->bij">(x, z)',
        'float[n,n] x => float[n] y || y = Einsum<equation="ii->i">(x)',
        "of which it takes the diagonal, is not known",
    ),
    # spectra
    "fourier_axis": Pair(
        "float[2,8,1] x => float[2,8,2] y | int64 a={1} | y = DFT(x,,a)",
        "float[2,8,1] x, int64 a => float[p,q,2] y || y = DFT(x,,a)",
        "its axis is computed",
    ),
    "fourier": Pair(
        "float[2,8,2] x => float[2,8,2] y || y = DFT<axis=1,inverse=1>(x)",
        "float[2,n,1] x => float[2,n,2] y || y = DFT<axis=1>(x)",
        "the length of its signal is not known",
    ),
    "short_fourier": Pair(
        "float[1,16,1] x => float[1,4,4,2] y | int64 s={3}, int64 l={6} | y = STFT(x, s,, l)",
        "float[1,n,1] x => float[1,f,4,2] y | int64 s={3}, int64 l={6} | y = STFT(x, s,, l)",
        "the lengths of its signal and frames",
    ),
    "windows": Pair(
        "float[5] x => float[5] y | int64 n={5} | w = BlackmanWindow<periodic=0>(n) y = Mul(x, w)",
        "int64 n => float[m] y || y = HannWindow(n)",
        "its length is computed",
    ),
    # quantization
    "dequantize_channels": Pair(
        "int8[2,3] x => float[2,3] y | float[3] s={0.1,0.2,0.3}, int8[3] z={1,0,-1} | y = DequantizeLinear<axis=1>(x, s, z)",
        "int8[2,3] x, float[n] s => float[2,3] y || y = DequantizeLinear<axis=1>(x, s)",
        "its sizes are not known",
    ),
    "quantize_channels": Pair(
        "float[2,3] x => uint8[2,3] y | float[3] s={0.1,0.2,0.3}, uint8[3] z={1,128,255} | y = QuantizeLinear<axis=1>(x, s, z)",
        "float[2,3] x, float[n] s => uint8[2,3] y || y = QuantizeLinear<axis=1>(x, s)",
        "its sizes are not known",
    ),
    "dequantize": Pair(
        "uint8[2,3] x => float[2,3] y | float s={0.1}, uint8 z={3} | y = DequantizeLinear(x, s, z)"
    ),
    "quantize": Pair(
        "float[2,3] x => uint8[2,3] y | float s={0.1}, uint8 z={128} | y = QuantizeLinear(x, s, z)"
    ),
    # sequences
    "sequence_element": Pair(
        "float[7] x => float[2] y | int64[3] s={2,2,3}, int64 p={1} | l = SplitToSequence(x, s) y = SequenceAt(l, p)",
        "float[7] x, int64 p => float[a] y | int64[3] s={2,2,3} | l = SplitToSequence(x, s) y = SequenceAt(l, p)",
        "its position is computed",
    ),
    "sequence_joined": Pair(
        "float[2] x, float[2] z => float[2,2] y || l = SequenceConstruct(x, z) y = ConcatFromSequence<axis=-1,new_axis=1>(l)",
        "float[4] x => float[4] y || l = SplitToSequence(x) y = ConcatFromSequence<axis=0>(l)",
        "its sequence is not made from a list",
    ),
    # branches: the empty vector of the first one would be taken for the size of both
    "branch_sizes": Pair(
        "float[3] x, bool c => int64[3] y || z = If (c) <"
        " then_branch = a () => (int64[0] p) <int64[0] none={}> { p = Identity(none) },"
        " else_branch = b () => (int64[n] q) { t = Equal(x, x) places = NonZero(t) q = Squeeze(places) } > y = Identity(z)",
    ),
    # operators that the standard defines by others
    "attention": Pair(
        "float[1,2,3,4] q, float[1,2,3,4] k, float[1,2,3,4] v => float[1,2,3,4] y || y = Attention<is_causal=1>(q, k, v)"
    ),
    "rotary_embedding": Pair(
        "float[1,2,3,4] x => float[1,2,3,4] y | float[1,3,2] c={1,0.5,0.2,0.3,0.1,0}, float[1,3,2] s={0,0.5,0.8,0.7,0.9,1} | y = RotaryEmbedding(x, c, s)"
    ),
    "center_crop_pad": Pair(
        "float[4,6] x => float[4,3] y | int64[1] s={3} | y = CenterCropPad<axes=[1]>(x, s)",
        "float[4,n] x => float[4,3] y | int64[1] s={3} | y = CenterCropPad<axes=[1]>(x, s)",
        "it pads some of its axes",
    ),
    "losses": Pair(
        "float[2,3] x => float y | int64[2] t={0,2} | y = NegativeLogLikelihoodLoss(x, t)",
        "float[2,3] x => float y | int64[2] t={0,2} | y = SoftmaxCrossEntropyLoss(x, t)",
        "its definition needs NegativeLogLikelihoodLoss",
    ),
    "dynamic_quantize": Pair(
        "float[2,3] x => uint8[2,3] y, float s, uint8 z || y, s, z = DynamicQuantizeLinear(x)"
    ),
}
