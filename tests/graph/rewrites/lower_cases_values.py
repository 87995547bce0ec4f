"""Cases of lowering rules about arithmetic, indices, pooling, spectra, quantization and sequences."""

from __future__ import annotations

from tests.graph.rewrites.lower_case import Pair

PAIRS: dict[str, Pair] = {
    # arithmetic
    "reduced_truth": Pair(
        "bool[2,3] x => bool[2,1] y | int64[1] a={1} | y = ReduceMax(x, a)",
        "float[2,3] x => float[2,1] y | int64[1] a={1} | y = ReduceMax(x, a)",
    ),
    "cast_like": Pair(
        "float[3] x, int32[1] l => int32[3] y || y = CastLike(x, l)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = CastLike(x, a)",
        "the type that it casts to is not known",
    ),
    "relu_integers": Pair(
        "int32[4] x => int32[4] y || y = Relu(x)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Relu(a)",
        "the element type",
    ),
    "small_integers": Pair(
        "int8[4] x, int8[4] z => int8[4] y || y = Mul(x, z)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Mul(a, a)",
        "the element type",
    ),
    "extremes_of_integers": Pair(
        "int64[4] x, int64[4] z => int64[4] y || y = Max(x, z, x)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Max(a, a)",
        "the element type",
    ),
    "power_types": Pair(
        "int32[4] x => int32[4] y | int64 p={3} | y = Pow(x, p)",
        "int32[4] x, int32[4] p => int32[4] y || y = Pow(x, p)",
        "the power of an integer is not a small positive constant",
    ),
    "or_equal": Pair(
        "float[4] x, float[4] z => bool[4] y || y = GreaterOrEqual(x, z)",
        "float[2,3] x => bool[2,3] y || a=com.example.Foo(x) y = GreaterOrEqual(a, a)",
        "the element type",
    ),
    "reduced_small_integers": Pair(
        "int8[2,3] x => int8[2,1] y || y = ReduceMax<axes=[1]>(x)",
        "float[2,3] x => float[2,1] y || y = ReduceMax<axes=[1]>(x)",
    ),
    "equal_numbers": Pair(
        "float[4] x, float[4] z => bool[4] y || y = Equal(x, z)",
        "float[2,3] x => bool[2,3] y || a=com.example.Foo(x) y = Equal(a, a)",
        "the element type",
    ),
    "round": Pair(
        "float[6] x => float[6] y || y = Round(x)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Round(a)",
        "the element type",
    ),
    "gemm_without_bias": Pair(
        "float[2,3] x, float[3,4] w => float[2,4] y || y = Gemm(x, w)",
        "float[2,3] x => float[2,3] y || a=com.example.Foo(x) y = Gemm(a, a)",
        "the element type",
    ),
    "modulo": Pair(
        "int64[6] x => int64[6] y | int64[6] z={3,-3,2,5,-4,1} | y = Mod(x, z)",
        "float[6] x, float[6] z => float[6] y || y = Mod<fmod=1>(x, z)",
        "the remainder of floating numbers",
    ),
    "is_infinite": Pair(
        "float[4] x => bool[4] y || y = IsInf(x)",
        "float[2,3] x => bool[2,3] y || a=com.example.Foo(x) y = IsInf(a)",
        "the element type",
    ),
    # shapes
    "shape_part": Pair(
        "float[2,3,n] x => int64[1] y || y = Shape<start=1,end=-1>(x)",
        "float[2,3] x => int64[2] y || y = Shape(x)",
    ),
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
        "float[4] x, float[2] u => float[4] y | int64[2] i={3,1} | y = ScatterElements(x, i, u)",
        "float[4] x0, int64[r] n, float[2] u => float y | int64[2] i={3,1} | x=Reshape(x0,n) y = ScatterElements<axis=-1>(x, i, u)",
        "the rank of its input is not known",
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
        "uint8[2,3] x => float[2,3] y | float s={0.1}, uint8 z={3} | y = DequantizeLinear(x, s, z)",
        "uint8[2,3] x, float[n] s => float[2,3] y || y = DequantizeLinear(x, s)",
        "its sizes are not known",
    ),
    "quantize": Pair(
        "float[2,3] x => uint8[2,3] y | float s={0.1}, uint8 z={128} | y = QuantizeLinear(x, s, z)",
        "float[2,3] x, float[n] s => uint8[2,3] y || y = QuantizeLinear(x, s)",
        "its sizes are not known",
    ),
    "recurrent_layout": Pair(
        "float[2,3,1] x => float[2,3,1,2] y, float[2,1,2] h | float[1,2,1] w={0.5,-0.3}, float[1,2,2] r={0.1,0.2,-0.4,0.3} | y, h = RNN<hidden_size=2,layout=1>(x, w, r)",
        "float[3,2,1] x => float[3,1,2,2] y | float[1,2,1] w={0.5,-0.3}, float[1,2,2] r={0.1,0.2,-0.4,0.3} | y = RNN<hidden_size=2>(x, w, r)",
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
        "float[1,2,3,4] q, float[1,2,3,4] k, float[1,2,3,4] v => float[1,2,3,4] y || y = Attention<is_causal=1>(q, k, v)",
        "float[1,2,3,4] x => float[1,2,3,4] y || a=com.example.Foo(x) y = Attention(a, a, a)",
        "the element type",
    ),
    "rotary_embedding": Pair(
        "float[1,2,3,4] x => float[1,2,3,4] y | float[1,3,2] c={1,0.5,0.2,0.3,0.1,0}, float[1,3,2] s={0,0.5,0.8,0.7,0.9,1} | y = RotaryEmbedding(x, c, s)",
        "float[1,2,3,4] x => float[1,2,3,4] y | float[1,3,2] c={1,0.5,0.2,0.3,0.1,0}, float[1,3,2] s={0,0.5,0.8,0.7,0.9,1} | a=com.example.Foo(x) y = RotaryEmbedding(a, c, s)",
        "the element type",
    ),
    "center_crop_pad": Pair(
        "float[4,6] x => float[4,3] y | int64[1] s={3} | y = CenterCropPad<axes=[1]>(x, s)",
        "float[4,n] x => float[4,3] y | int64[1] s={3} | y = CenterCropPad<axes=[1]>(x, s)",
        "it pads some of its axes",
    ),
    "losses": Pair(
        "float[2,3] x => float y | int64[2] t={0,2} | y = SoftmaxCrossEntropyLoss(x, t)",
        "float[2,3] x => float y | int64[2] t={0,2} | a=com.example.Foo(x) y = NegativeLogLikelihoodLoss(a, t)",
        "the element type",
    ),
    "dynamic_quantize": Pair(
        "float[2,3] x => uint8[2,3] y, float s, uint8 z || y, s, z = DynamicQuantizeLinear(x)"
    ),
}
