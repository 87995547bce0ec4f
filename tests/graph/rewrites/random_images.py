"""Random cases: Resize, pooling, convolutions, products, sampling, attention, spectra."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.graph.rewrites.random_case import NEWEST, OLDEST, Case, Random, floats, i64, pick, sizes, values


def resize(r: Random) -> Case:
    mode = pick(r, "nearest", "linear", "cubic")
    coordinates = pick(r, "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    x = floats(r, 1, 2, int(r.integers(2, 7)), int(r.integers(2, 7)))
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    low = 11
    if mode == "nearest":
        attributes["nearest_mode"] = pick(r, "round_prefer_floor", "floor", "ceil", "round_prefer_ceil")
    if mode == "cubic":
        attributes["cubic_coeff_a"] = pick(r, -0.75, -0.5)
        attributes["exclude_outside"] = int(r.integers(2))
    if mode != "nearest" and r.random() < 0.3 and coordinates != "align_corners":
        attributes["antialias"], low = 1, 18
        attributes.pop("exclude_outside", None)
    if r.random() < 0.5:
        scale = pick(r, 2.0, 3.0, 0.5, 1.5)
        known = {"scales": np.array([1, 1, scale, pick(r, scale, 2.0)], np.float32)}
        inputs = ["x", "", "scales"]
    else:
        known = {"sizes": i64(1, 2, int(r.integers(1, 12)), int(r.integers(1, 12)))}
        inputs = ["x", "", "", "sizes"]
    return Case("Resize", inputs, {"x": x}, known, attributes, opsets=(max(low, 13), NEWEST))


def pools(r: Random) -> Case:
    operator = pick(r, "MaxPool", "AveragePool")
    axes = int(r.integers(1, 3))
    x = floats(r, 1, 2, *(int(one) for one in r.integers(5, 10, axes)))
    kernel = [int(one) for one in r.integers(1, 4, axes)]
    attributes = {"kernel_shape": kernel, "strides": [int(one) for one in r.integers(1, 4, axes)],
                  "pads": [int(r.integers(0, size)) for size in (*kernel, *kernel)], "ceil_mode": int(r.integers(2))}  # fmt: skip
    if operator == "AveragePool":
        attributes["count_include_pad"] = int(r.integers(2))
    elif r.random() < 0.2:
        attributes["dilations"] = [1] * axes
    # Before opset 22 onnx counts a window that lies in the padding alone: such a file is no valid one.
    pads, strides, beside = attributes["pads"], attributes["strides"], False
    for axis, size in enumerate(x.shape[2:]):
        padded = size + pads[axis]
        count = -(-(padded + pads[axis + axes] - kernel[axis]) // strides[axis]) + 1
        beside = beside or (count - 1) * strides[axis] >= padded
    low = 22 if beside and attributes["ceil_mode"] else OLDEST + 1
    return Case(operator, ["x"], {"x": x}, attributes=attributes, opsets=(low, NEWEST))


def convolution(r: Random) -> Case:
    x = floats(r, 1, 4, 7, 7)
    group = pick(r, 1, 2)
    known = {"w": floats(r, 4, 4 // group, 3, 3), "b": floats(r, 4)}
    return Case(pick(r, "Conv", "Conv"), ["x", *known], {"x": x}, known,
                {"group": group, "pads": [1, 1, 1, 1], "strides": [int(r.integers(1, 3))] * 2})  # fmt: skip


def products(r: Random) -> Case:
    operator = pick(r, "MatMul", "Gemm")
    if operator == "Gemm":
        given = {"x": floats(r, 3, 4), "y": floats(r, 4, 5)}
        known = {"c": floats(r, 5)} if r.random() < 0.5 else {}
        return Case("Gemm", [*given, *known], given, known, {"alpha": 0.5}, opsets=(11, NEWEST))
    batch = sizes(r, 0, 2)
    return Case("MatMul", ["x", "y"], {"x": floats(r, *batch, 3, 4), "y": floats(r, *batch, 4, 5)})


def einsum(r: Random) -> Case:
    equation = pick(r, "bij,bjk->bik", "bhid,bhjd->bhij", "bhij,bhjd->bhid", "ij,ij->i", "i,j->ij", "bij->bji",
                    "bij->b", "ijk,kl->ijl", "bijc,bkjc->bik", "...ij,...jk->...ik", "bij,jk,kl->bil", "ij,jk", "ii->i",
                    "bhwc,hkc->bhwk", "ab,cb->", "abc,c->ab")  # fmt: skip
    letters: dict[str, int] = {}
    given = {}
    for place, part in enumerate(equation.partition("->")[0].split(",")):
        shape = [letters.setdefault(one, int(r.integers(1, 5))) for one in part.replace("...", "XY")]
        given[f"x{place}"] = floats(r, *shape)
    return Case("Einsum", list(given), given, attributes={"equation": equation}, opsets=(12, NEWEST))


def grid_sample(r: Random) -> Case:
    x = floats(r, 2, 3, int(r.integers(2, 6)), int(r.integers(2, 6)))
    grid = (r.random((2, 3, 4, 2)) * 2.6 - 1.3).astype("float32")
    opset = int(r.integers(16, 26))
    newer = opset >= 20
    mode = pick(r, "linear" if newer else "bilinear", "nearest", "cubic" if newer else "bicubic")
    return Case("GridSample", ["x", "grid"], {"x": x, "grid": grid}, attributes={
        "mode": mode, "padding_mode": pick(r, "zeros", "border", "reflection"), "align_corners": int(r.integers(2))},
        opsets=(opset, opset))  # fmt: skip


def attention(r: Random) -> Case:
    heads, size = int(r.integers(1, 4)), int(r.integers(1, 5))
    length, other = int(r.integers(1, 5)), int(r.integers(1, 5))
    attributes: dict[str, Any] = {}
    if r.random() < 0.3:
        attributes["scale"] = 0.4
    if r.random() < 0.4:
        attributes["is_causal"] = 1
        other = length
    if r.random() < 0.3:
        attributes["softcap"] = 2.0
    if r.random() < 0.5:
        shapes = [(2, heads, length, size), (2, heads, other, size), (2, heads, other, size)]
    else:
        shapes = [(2, length, heads * size), (2, other, heads * size), (2, other, heads * size)]
        attributes |= {"q_num_heads": heads, "kv_num_heads": heads}
    given = {name: floats(r, *shape) for name, shape in zip("qkv", shapes, strict=True)}
    known = {}
    if r.random() < 0.4:
        mask = r.random((length, other)) < 0.7
        mask[:, 0] = True
        known["mask"] = mask if r.random() < 0.5 else np.where(mask, 0, -5).astype("float32")
    return Case("Attention", [*given, *known], given, known, attributes, opsets=(23, NEWEST))


def fourier(r: Random) -> Case:
    if r.random() < 0.5:
        x = floats(r, 2, 16, 1)
        known = {"step": np.array(int(r.integers(1, 5)), np.int64), "window": floats(r, 6)}
        known["length"] = np.array(6, np.int64)
        return Case(
            "STFT", ["x", *known], {"x": x}, known, {"onesided": int(r.integers(2))}, opsets=(17, NEWEST)
        )
    inverse = int(r.integers(2))
    x = floats(r, 2, int(r.integers(3, 9)), 2 if inverse else int(pick(r, 1, 2)))
    onesided = int(r.integers(2)) if not inverse and x.shape[-1] == 1 else 0
    if r.random() < 0.5:
        return Case(
            "DFT",
            ["x"],
            {"x": x},
            attributes={"axis": 1, "inverse": inverse, "onesided": onesided},
            opsets=(17, 19),
        )
    return Case("DFT", ["x", "", "axis"], {"x": x}, {"axis": np.array(pick(r, 1, -2), np.int64)},
                {"inverse": inverse, "onesided": onesided}, opsets=(20, NEWEST))  # fmt: skip


def misplaced(r: Random) -> Case:
    """What older opsets have in another form and no constant tells: rules have to decline."""
    kind = int(r.integers(6))
    x = floats(r, 3, 4)
    if kind == 0:
        return Case("ReduceMean", ["x", "axes"], {"x": x, "axes": i64(1)}, opsets=(18, NEWEST))
    if kind == 1:
        return Case("Squeeze", ["x", "axes"], {"x": x.reshape(3, 1, 4), "axes": i64(1)}, opsets=(13, NEWEST))
    if kind == 2:
        return Case(
            "BitwiseAnd",
            ["x", "y"],
            {"x": values(r, (3,), "int32"), "y": values(r, (3,), "int32")},
            opsets=(18, NEWEST),
        )
    if kind == 3:
        return Case("Det", ["x"], {"x": floats(r, 3, 3)}, opsets=(11, NEWEST))
    if kind == 4:
        return Case("CastLike", ["x", "y"], {"x": x, "y": values(r, (1,), "int32")}, opsets=(15, NEWEST))
    return Case("Dropout", ["x"], {"x": x}, opsets=(12, NEWEST))


MAKERS = (
    resize, pools, convolution, products, einsum, grid_sample, attention, fourier, misplaced,
)  # fmt: skip
