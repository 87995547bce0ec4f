"""Cases of rules about convolutions, pooling and Resize."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from pipeline.graph.bare import BareModel
from tests.graph.rewrites.legal_case import OPSETS, Case, attributes, build, image, ints, numbers, sizes


def conv(rng: Random, shape: list[int], *, plain: bool = False) -> tuple[str, dict[str, Any], list[int]]:
    """Text of a convolution of x into v, its weights, and sizes that fit."""
    group = rng.choice([1, 1, shape[1]])
    out = group * rng.randint(1, 4)
    kernel = [rng.randint(1, min(3, size)) for size in shape[2:]]
    pads = [] if plain else [rng.randint(0, 1) for _ in kernel] * 2
    strides = [rng.randint(1, 2) for _ in kernel]
    weights = {"w": numbers(rng, out, shape[1] // group, *kernel)}
    names = "x, w"
    if rng.random() < 0.6:
        weights["b"] = numbers(rng, out)
        names += ", b"
    return f"Conv {attributes(group=group, pads=pads or None, strides=strides)} ({names})", weights, [out]


def line(rng: Random) -> BareModel:
    shape = [rng.choice([1, 2]), rng.randint(1, 4), rng.randint(4, 12)]
    opset = rng.choice(OPSETS)
    which = rng.random()
    if which < 0.5:
        text, weights, _ = conv(rng, shape)
        return build({"x": ("float", shape)}, f"y = {text}", weights, opset=opset)
    if which < 0.7:
        text = (
            f"y = ConvTranspose {attributes(strides=[rng.randint(1, 2)], pads=[0, rng.randint(0, 1)])} (x, w)"
        )
        return build({"x": ("float", shape)}, text, {"w": numbers(rng, shape[1], 2, 3)}, opset=opset)
    op = rng.choice(["MaxPool", "AveragePool"])
    pool = attributes(kernel_shape=[3], strides=[rng.randint(1, 2)], pads=[rng.randint(0, 1), 1])
    return build({"x": ("float", shape)}, f"y = {op} {pool} (x)", opset=opset)


def behind_conv(rng: Random) -> BareModel:
    shape = image(rng, smallest=4)
    text, weights, (out,) = conv(rng, shape)
    kind = rng.choice(["Mul", "Add", "BatchNormalization"])
    if kind == "BatchNormalization":
        normal, more = batch_norm_of(rng, out, "v")
        return build(
            {"x": ("float", shape)}, f"v = {text}\n{normal}", weights | more, opset=rng.choice([11, 13, 17])
        )
    constant = numbers(rng, *rng.choice([[out, 1, 1], [1, out, 1, 1], [], [1]]))
    pair = rng.choice(["v, c", "c, v"])
    return build({"x": ("float", shape)}, f"v = {text}\ny = {kind} ({pair})", weights | {"c": constant},
                 opset=rng.choice(OPSETS))  # fmt: skip


def batch_norm_of(rng: Random, channels: int, name: str) -> tuple[str, dict[str, Any]]:
    constants = {
        "scale": numbers(rng, channels),
        "shift": numbers(rng, channels),
        "mean": numbers(rng, channels),
        "variance": numbers(rng, channels, low=0.1, high=3.0),
    }
    return f"y = BatchNormalization <epsilon = 0.001> ({name}, scale, shift, mean, variance)", constants


def batch_norm(rng: Random) -> BareModel:
    shape = image(rng)
    text, constants = batch_norm_of(rng, shape[1], "x")
    return build({"x": ("float", shape)}, text, constants, opset=rng.choice([11, 13, 17]))


def affine(rng: Random) -> BareModel:
    shape = image(rng)
    constant = numbers(rng, *rng.choice([[shape[1], 1, 1], [1, shape[1], 1, 1], [], [1]]))
    pair = rng.choice(["v, c", "c, v"])
    before = rng.choice(["Relu (p)", "Sigmoid (p)"])
    body = f"p = MaxPool <kernel_shape = [1, 1]> (x)\nv = {before}\n"
    if rng.random() < 0.4:
        body += f"m = Mul ({pair})\ny = Add ({rng.choice(['m, c', 'c, m'])})"
    else:
        body += f"y = {rng.choice(['Mul', 'Add'])} ({pair})"
    return build({"x": ("float", shape)}, body, {"c": constant}, opset=rng.choice(OPSETS))


def linear(rng: Random) -> BareModel:
    rows, depth, width = rng.choice([1, 1, 1, 3]), rng.randint(1, 24), rng.randint(1, 24)
    opset = rng.choice(OPSETS)
    inputs: dict[str, tuple[str, list[int]]] = {"x": ("float", [rows, depth])}
    before = ""
    if rng.random() < 0.4:
        inputs, before = {"i": ("float", [rows, depth, 1, 1])}, "x = Flatten (i)\n"
    if rng.random() < 0.3:
        return build(inputs, f"{before}y = MatMul (x, w)", {"w": numbers(rng, depth, width)}, opset=opset)
    transposed = rng.randint(0, 1)
    weights = {"w": numbers(rng, *([width, depth] if transposed else [depth, width]))}
    names = "x, w"
    if rng.random() < 0.7:
        weights["b"] = numbers(rng, *rng.choice([[width], [1, width], [1], []]))
        names += ", b"
    text = attributes(transB=transposed, alpha=rng.choice([1.0, 0.5]), beta=rng.choice([1.0, -2.0]))
    return build(inputs, f"{before}y = Gemm {text} ({names})", weights, opset=opset)


def gemm(rng: Random) -> BareModel:
    rows, depth, width = rng.randint(1, 5), rng.randint(1, 24), rng.randint(1, 24)
    transposed = rng.randint(0, 1)
    weights = {"w": numbers(rng, *([width, depth] if transposed else [depth, width]))}
    names = "x, w"
    if rng.random() < 0.7:
        weights["b"] = numbers(rng, *rng.choice([[width], [1, width], [rows, 1], []]))
        names += ", b"
    text = attributes(transB=transposed, alpha=rng.choice([1.0, 0.5]), beta=rng.choice([1.0, -2.0]))
    return build(
        {"x": ("float", [rows, depth])}, f"y = Gemm {text} ({names})", weights, opset=rng.choice(OPSETS)
    )


def unlike_ranks(rng: Random) -> BareModel:
    shape = [*sizes(rng, rng.randint(1, 2)), rng.randint(1, 5), rng.randint(1, 20)]
    if rng.random() < 0.7:
        body, weight = "y = MatMul (x, w)", numbers(rng, shape[-1], rng.randint(1, 30))
    else:
        body, weight = "y = MatMul (w, x)", numbers(rng, rng.randint(1, 30), shape[-2])
    return build({"x": ("float", shape)}, body, {"w": weight}, opset=rng.choice(OPSETS))


def dilated(rng: Random, dilations: list[int]) -> BareModel:
    shape = [1, rng.randint(1, 4), rng.randint(6, 14), rng.randint(6, 14)]
    kernel = [rng.choice([1, 3, 3]), 3]
    group = rng.choice([1, shape[1]])
    reach = [one * (size - 1) for one, size in zip(dilations, kernel, strict=True)]
    # At least so much that the window fits, mostly as much as keeps the sizes.
    pads = [
        max(one // 2, (one - size) // 2 + 1) + rng.randint(0, 1)
        for one, size in zip(reach, shape[2:], strict=True)
    ]
    text = attributes(dilations=dilations, pads=pads * 2, group=group, strides=[rng.randint(1, 2)] * 2)
    weights = {"w": numbers(rng, 2 * group, shape[1] // group, *kernel), "b": numbers(rng, 2 * group)}
    names = "x, w, b" if rng.random() < 0.5 else "x, w"
    return build({"x": ("float", shape)}, f"y = Conv {text} ({names})", weights, opset=rng.choice(OPSETS))


def channels_last(rng: Random) -> BareModel:
    shape = image(rng)
    body = "t = Transpose <perm = [0, 2, 3, 1]> (x)\ny = MatMul (t, w)"
    return build({"x": ("float", shape)}, body, {"w": numbers(rng, shape[1], rng.randint(1, 20))},
                 opset=rng.choice(OPSETS))  # fmt: skip


def padded_conv(rng: Random) -> BareModel:
    shape = image(rng, smallest=3)
    text, weights, _ = conv(rng, shape)
    half = [0, 0, rng.randint(0, 2), rng.randint(0, 2)]
    pads = half * 2
    if rng.random() < 0.2:
        pads[2] += 1
    return build({"i": ("float", shape)}, f"x = Pad (i, pads)\ny = {text}", weights | {"pads": ints(*pads)},
                 opset=rng.choice(OPSETS))  # fmt: skip


def uneven_conv(rng: Random) -> BareModel:
    shape = image(rng, smallest=4)
    pads = [rng.randint(0, 2) for _ in range(4)]
    pads[0] = pads[2] + 1
    text = f"y = Conv {attributes(pads=pads, strides=[rng.randint(1, 2)] * 2)} (x, w)"
    return build(
        {"x": ("float", shape)}, text, {"w": numbers(rng, 3, shape[1], 3, 3)}, opset=rng.choice(OPSETS)
    )


def large_kernel(rng: Random) -> BareModel:
    group = rng.choice([1, 1, 2])
    shape = [1, 2 * rng.randint(1, 2), rng.randint(24, 34), rng.randint(24, 34)]
    if even := rng.random() < 0.5:
        shape[2:] = [2 * rng.randint(12, 17), 2 * rng.randint(12, 17)]
    kernel = [rng.randint(8, 16), rng.randint(1, 16)]
    strides = [rng.choice([2, 4, 8, 16]) if even else rng.randint(1, 16) for _ in kernel]
    pads = [2 * rng.randint(0, 2) if even else rng.randint(0, 3) for _ in range(2)] + [rng.randint(0, 3), 0]
    weights = {"w": numbers(rng, 2 * group, shape[1] // group, *kernel), "b": numbers(rng, 2 * group)}
    names = rng.choice(["x, w", "x, w, b"])
    text = attributes(group=group, strides=strides, pads=pads)
    return build({"x": ("float", shape)}, f"y = Conv {text} ({names})", weights, opset=rng.choice(OPSETS))


def transposed(rng: Random) -> BareModel:
    names, block, out = rng.choice(["x, w", "x, w, b"]), rng.randint(1, 4), rng.randint(1, 3)
    if block > 1 and rng.random() < 0.6:
        shape, kernel, group, text = image(rng), [block, block], 1, attributes(strides=[block] * 2)
    else:
        group = rng.choice([1, 2])
        shape = image(rng, channels=2 * group, smallest=3)
        kernel, dilations = [rng.randint(1, 3), rng.randint(1, 3)], [rng.randint(1, 2), rng.randint(1, 2)]
        reach = [(size - 1) * by for size, by in zip(kernel, dilations, strict=True)] * 2
        pads = [rng.randint(0, min(size, 1)) for size in reach]
        text = attributes(group=group, dilations=dilations, pads=pads)
    weights = {"w": numbers(rng, shape[1], out, *kernel), "b": numbers(rng, out * group)}
    return build(
        {"x": ("float", shape)}, f"y = ConvTranspose {text} ({names})", weights, opset=rng.choice(OPSETS)
    )


EQUATIONS = (
    "bij,bjk->bik", "bhid,bhjd->bhij", "ij,ij->i", "i,j->ij", "bij->bji", "bij->b", "ijk,kl->ijl", "bijc,bkjc->bik",
    "bij,jk,kl->bil", "ii->i", "ii->", "bii->bi", "iji,jk->ik", "bhwc,hkc->bhwk", "ab,cb->",
)  # fmt: skip


def einsum(rng: Random) -> BareModel:
    equation = rng.choice(EQUATIONS)
    by_letter = {letter: rng.randint(1, 4) for letter in "abcdhijklw"}
    operands = equation.partition("->")[0].split(",")
    inputs = {
        f"x{index}": ("float", [by_letter[c] for c in letters]) for index, letters in enumerate(operands)
    }
    return build(inputs, f'y = Einsum <equation = "{equation}"> ({", ".join(inputs)})',
                 opset=rng.choice([13, 17, 20]))  # fmt: skip


def large_pool(rng: Random) -> BareModel:
    shape = [1, rng.randint(1, 3), rng.randint(24, 40), rng.randint(24, 40)]
    if rng.random() < 0.4:
        shape[2:] = [rng.randint(66, 80), rng.randint(3, 70)]
        kernel = [rng.randint(65, shape[2]), rng.randint(1, shape[3])]
        text = f"y = MaxPool {attributes(kernel_shape=kernel, strides=[rng.randint(1, 3), rng.randint(1, 3)])} (x)"
        return build({"x": ("float", shape)}, text, opset=rng.choice(OPSETS))
    kernel = [rng.choice([8, 9, 12, 14, 15, 16]) for _ in range(2)]
    strides = [rng.choice([size, size // 2, 2, 3, 4, 6]) for size in kernel]
    text = f"y = AveragePool {attributes(kernel_shape=kernel, strides=strides)} (x)"
    return build({"x": ("float", shape)}, text, opset=rng.choice(OPSETS))


def large_mean(rng: Random) -> BareModel:
    return build({"x": ("float", [1, 2, rng.choice([96, 100, 105, 128]), rng.choice([97, 112, 120])])},
                 "y = GlobalAveragePool (x)", opset=rng.choice(OPSETS))  # fmt: skip


def whole_window(rng: Random) -> BareModel:
    shape = image(rng)
    op = rng.choice(["AveragePool", "MaxPool"])
    text = f"y = {op} {attributes(kernel_shape=shape[2:], strides=[rng.randint(1, 3)] * 2)} (x)"
    return build({"x": ("float", shape)}, text, opset=rng.choice(OPSETS))


def counted_pool(rng: Random) -> BareModel:
    pads = [rng.randint(0, 1), 1, rng.randint(0, 1), rng.randint(0, 1)]
    text = attributes(kernel_shape=[3, 2], strides=[rng.randint(1, 2), 1], pads=pads, count_include_pad=1)
    return build(
        {"x": ("float", image(rng, smallest=3))}, f"y = AveragePool {text} (x)", opset=rng.choice(OPSETS)
    )


def one_place(rng: Random) -> BareModel:
    shape = [*sizes(rng, 2), 1, 1]
    return build({"x": ("float", shape)}, f"y = {rng.choice(['GlobalAveragePool', 'GlobalMaxPool'])} (x)",
                 opset=rng.choice(OPSETS))  # fmt: skip


def resize(rng: Random, *, by: str, mode: str | None = None, coordinates: str | None = None,
           whole: bool = False, nearest: str | None = None, same: bool = False) -> BareModel:  # fmt: skip
    shape = image(rng, smallest=2)
    target = [*shape[:2], *(size * rng.randint(1, 4) if whole else rng.randint(2, 20) for size in shape[2:])]
    if same:
        target = shape
    mode = mode or rng.choice(["nearest", "linear", "cubic"])
    text = attributes(
        mode=mode,
        coordinate_transformation_mode=coordinates or rng.choice(
            ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
        ),
        nearest_mode=nearest or rng.choice(["round_prefer_floor", "floor", "ceil", "round_prefer_ceil"])
        if mode == "nearest" else None,
    )  # fmt: skip
    opset = rng.choice(OPSETS)
    none = {"none": np.zeros(0, np.float32)}
    if by == "sizes":
        # From opset 13 on what is left out may be left out; before that it is an empty tensor.
        names = "x, none, none, to" if opset < 13 else "x, , , to"
        return build(
            {"x": ("float", shape)}, f"y = Resize {text} ({names})", none | {"to": ints(*target)}, opset=opset
        )
    scales = np.array([b / a for a, b in zip(shape, target, strict=True)], np.float32)
    names = "x, none, to" if opset < 13 else "x, , to"
    return build({"x": ("float", shape)}, f"y = Resize {text} ({names})", none | {"to": scales}, opset=opset)


IMAGE = {"x": ("float", [1, 2, 3, 4])}
CUBE = {"x": ("float", [1, 2, 12, 12])}
W = {"w": np.ones((2, 2, 1, 1), np.float32)}
CROP = '<mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize">'


def resize_to(attribute: str, *target: int) -> BareModel:
    return build(IMAGE, f"y = Resize <{attribute}> (x, , , to)", {"to": ints(1, 2, *target)})


CASES = (
    Case("line_to_image", line, lambda: build(
        {"x": ("float", [1, 2, 4]), "w": ("float", [2, 2, 1])}, "y = Conv (x, w)"), "weight is not constant"),
    Case("constants_into_conv", behind_conv, lambda: build(
        IMAGE | {"m": ("float", [2])}, "v = Conv (x, w)\ny = BatchNormalization (v, m, m, m, m)", W),
        "parameters are not constant"),
    Case("batch_norm_to_depthwise_conv", batch_norm, lambda: build(
        IMAGE | {"m": ("float", [2])}, "y = BatchNormalization (x, m, m, m, m)"), "parameters are not constant"),
    Case("constants_to_depthwise_conv", affine, lambda: build(
        IMAGE, "y = Mul (x, c)", {"c": np.ones((2, 1, 1), np.float32)}), "switch"),
    Case("linear_to_conv", linear, lambda: build(
        {"x": ("float", [2, 3]), "w": ("float", [3, 2])}, "y = Gemm (x, w)"), "no constant matrix"),
    Case("channels_last_matmul_to_conv", channels_last, lambda: build(
        IMAGE | {"w": ("float", [2, 2])}, "t = Transpose <perm = [0, 2, 3, 1]> (x)\ny = MatMul (t, w)"),
        "no constant matrix"),
    Case("gemm_to_matmul", gemm, lambda: build(
        {"x": ("float", [2, 3]), "w": ("float", [3, 2])}, "y = Gemm (x, w)"), "no constant matrix"),
    Case("matmul_ranks_alike", unlike_ranks, lambda: build(
        {"x": ("float", [2, 2, 3]), "w": ("float", [3, 2])}, "y = MatMul (x, w)"), "not constant"),
    Case("conv_taps_in_padding", lambda rng: dilated(rng, [rng.randint(9, 20), rng.randint(12, 20)]), lambda: build(
        IMAGE | {"w": ("float", [2, 2, 3, 3])}, "y = Conv <dilations = [9, 9], pads = [9, 9, 9, 9]> (x, w)"),
        "weight is not constant"),
    Case("dilated_conv_to_sum", lambda rng: dilated(rng, [rng.choice([3, 5, 6]), rng.choice([1, 2, 3])]), lambda: build(
        IMAGE | {"w": ("float", [2, 2, 3, 3])}, "y = Conv <dilations = [3, 3], pads = [3, 3, 3, 3]> (x, w)"),
        "weight is not constant"),
    Case("split_large_kernel", large_kernel, lambda: build(
        {"x": ("float", [1, 1, 40, 40])}, "y = Conv <dilations = [2, 2]> (x, w)", {"w": np.ones((1, 1, 8, 8), np.float32)}),
        "dilated as well"),
    Case("conv_transpose_to_conv", transposed, lambda: build(
        IMAGE, "y = ConvTranspose <strides = [2, 2]> (x, w)", {"w": np.ones((2, 2, 3, 3), np.float32)}),
        "windows overlap"),
    Case("einsum_to_matmul", einsum, lambda: build(
        {"x": ("float", ["n", "n"])}, 'y = Einsum <equation = "ii->i"> (x)'), "of which it takes the diagonal, is not known"),
    Case("pad_into_conv", padded_conv, lambda: build(
        IMAGE, "p = Pad (x, pads, one)\ny = Conv (p, w)",
        W | {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1), "one": np.asarray(1, np.float32)}), "zeros"),
    Case("uneven_conv_pads_apart", uneven_conv, lambda: build(IMAGE, "y = Conv <pads = [1, 1, 1, 1]> (x, w)", W), ""),
    Case("split_large_pool", large_pool, lambda: build(
        CUBE, "y = AveragePool <kernel_shape = [11, 11], strides = [1, 1]> (x)"), "no factor"),
    Case("split_global_average_pool", large_mean, lambda: build(
        {"x": ("float", [1, 1, 101, 103])}, "y = GlobalAveragePool (x)"), "neither"),
    Case("whole_window_to_global_pool", whole_window, lambda: build(
        IMAGE, "y, i = MaxPool <kernel_shape = [3, 4]> (x)\nj = Add (i, i)"), "indices are used"),
    Case("average_pool_pads_apart", counted_pool, lambda: build(
        CUBE, "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1, ceil_mode = 1> (x)"),
        "over the edge"),
    Case("global_pool_of_one_place", one_place, lambda: build(IMAGE, "y = GlobalMaxPool (x)"), ""),
    Case("resize_to_same_size", lambda rng: resize(rng, by=rng.choice(["sizes", "scales"]), same=True),
         lambda: build(IMAGE, f"y = Resize {CROP} (x, r, s)", {
             "r": np.array([0, 0, 0, 0, 1, 1, .5, .5], np.float32), "s": np.ones(4, np.float32)}), "region"),
    Case("resize_pytorch_half_pixel",
         lambda rng: resize(rng, by=rng.choice(["sizes", "scales"]), coordinates="pytorch_half_pixel"),
         lambda: resize_to('mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"', 1, 1),
         "one place"),
    Case("resize_nearest_asymmetric", lambda rng: resize(
        rng, by=rng.choice(["sizes", "scales"]), mode="nearest", whole=True,
        coordinates=rng.choice(["half_pixel", "pytorch_half_pixel"]),
        nearest=rng.choice(["round_prefer_floor", "round_prefer_ceil"])),
        lambda: resize_to('mode = "nearest"', 4, 4), "whole numbers"),
    Case("resize_sizes_to_scales", lambda rng: resize(rng, by="sizes"), lambda: build(
        {"x": ("float", [1, 2, "h", 4])}, "y = Resize <mode = \"linear\"> (x, , , to)", {"to": ints(1, 2, 8, 8)}),
        "sizes are not known"),
    Case("resize_scales_to_sizes", lambda rng: resize(rng, by="scales", whole=rng.random() < 0.5), lambda: build(
        IMAGE, "y = Resize <mode = \"linear\"> (x, , s)", {"s": np.array([1, 1, 1.5, 1.3], np.float32)}), "not those"),
)  # fmt: skip
