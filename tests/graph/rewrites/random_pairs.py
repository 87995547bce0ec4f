"""Random cases that need more than one operator, or an operator that few networks have."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper as h

from tests.graph.rewrites.random_case import NEWEST, Case, Random, floats, i64, pick, sizes, values

#: Some roundings to the 8 bits of bfloat16.
BFLOAT16_NOISE = 2**-6


def brain_floats(r: Random) -> Case:
    """float32 outside, bfloat16 inside; of operators that ONNX Runtime has not on a CPU in bfloat16."""
    operator, number, low = pick(
        r, ("Add", 2, 13), ("Mul", 2, 13), ("Sub", 2, 13), ("Relu", 1, 14), ("Sigmoid", 1, 13), ("Tanh", 1, 13),
        ("MatMul", 2, 13), ("Softmax", 1, 13),
    )  # fmt: skip
    shape = (3, 3) if operator == "MatMul" else sizes(r)
    given = {name: floats(r, *shape) for name in ("x", "z")[:number]}
    return Case(
        operator, [f"{name}_low" for name in given], given, opsets=(low, NEWEST),
        before=[h.make_node("Cast", [name], [f"{name}_low"], f"to_{name}", to=onnx.TensorProto.BFLOAT16) for name in given],
        after=[h.make_node("Cast", ["y0"], ["z0"], "back", to=onnx.TensorProto.FLOAT)], shown=("z0",),
        noise=BFLOAT16_NOISE,
    )  # fmt: skip


def constants(r: Random) -> Case:
    """A constant that is written as numbers."""
    name, kind = pick(r, ("value_float", "float32"), ("value_floats", "float32"), ("value_int", "int64"),
                      ("value_ints", "int64"))  # fmt: skip
    x = values(r, (2, 3), kind)
    numbers = values(r, (3,), kind).tolist()
    made = h.make_node(
        "Constant", [], ["c"], "constant", **{name: numbers if name.endswith("s") else numbers[0]}
    )
    return Case(pick(r, "Add", "Mul", "Sub"), ["x", "c"], {"x": x}, opsets=(12, NEWEST), before=[made])


def window(r: Random) -> Case:
    size, operator = int(r.integers(3, 9)), pick(r, "HannWindow", "HammingWindow", "BlackmanWindow")
    made = h.make_node(operator, ["size"], ["window"], "window", periodic=int(r.integers(2)))
    return Case("Mul", ["x", "window"], {"x": floats(r, size)}, {"size": np.array(size, np.int64)},
                opsets=(17, NEWEST), before=[made])  # fmt: skip


def element(r: Random) -> Case:
    parts = [int(one) for one in r.integers(1, 4, 3)]
    made = h.make_node("SplitToSequence", ["x", "parts"], ["sequence"], "sequence", axis=0)
    known = {"parts": i64(*parts), "place": np.array(int(r.integers(-3, 3)), np.int64)}
    return Case("SequenceAt", ["sequence", "place"], {"x": floats(r, sum(parts), 2)}, known, opsets=(11, NEWEST),
                before=[made])  # fmt: skip


def joined(r: Random) -> Case:
    given = {name: floats(r, 2, 3) for name in ("x", "z", "w")[: int(r.integers(1, 4))]}
    made = h.make_node("SequenceConstruct", list(given), ["sequence"], "sequence")
    new = int(r.integers(2))
    attributes = {"axis": int(r.integers(-2 - new, 2 + new)), "new_axis": new}
    return Case(
        "ConcatFromSequence", ["sequence"], given, attributes=attributes, opsets=(11, NEWEST), before=[made]
    )


def older_groups(r: Random) -> Case:
    """GroupNormalization with a scale a group."""
    groups, each = int(r.integers(1, 4)), int(r.integers(1, 4))
    x = floats(r, int(r.integers(1, 3)), groups * each, *sizes(r, 1, 2, 2))
    return Case("GroupNormalization", ["x", "scale", "bias"], {"x": x},
                {"scale": floats(r, groups), "bias": floats(r, groups)}, {"num_groups": groups, "epsilon": 1e-3},
                opsets=(18, 20), below=18)  # fmt: skip


def resize_axes(r: Random) -> Case:
    x = floats(r, 1, 2, int(r.integers(2, 7)), int(r.integers(2, 7)))
    attributes = {"mode": pick(r, "nearest", "linear"), "axes": pick(r, [2, 3], [3, 2], [-1, -2])}
    if r.random() < 0.5:
        known, inputs = {"scales": np.array([2.0, pick(r, 2.0, 3.0)], np.float32)}, ["x", "", "scales"]
    else:
        known, inputs = {"sizes": i64(int(r.integers(1, 12)), int(r.integers(1, 12)))}, ["x", "", "", "sizes"]
    return Case("Resize", inputs, {"x": x}, known, attributes, opsets=(18, NEWEST))


def resize_symmetric(r: Random) -> Case:
    x = floats(r, 1, 2, int(r.integers(2, 7)), int(r.integers(2, 7)))
    scales = np.array([1, 1, pick(r, 1.6, 2.0, 0.7), pick(r, 1.6, 1.3, 0.6)], np.float32)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}
    return Case("Resize", ["x", "", "scales"], {"x": x}, {"scales": scales}, attributes, opsets=(19, NEWEST))


def affine_grid(r: Random) -> Case:
    flat = r.random() < 0.7
    size = [2, 3, *(int(one) for one in r.integers(2, 5, 2 if flat else 3))]
    theta = floats(r, 2, len(size) - 2, len(size) - 1)
    return Case("AffineGrid", ["theta", "size"], {"theta": theta}, {"size": i64(*size)},
                {"align_corners": int(r.integers(2))}, opsets=(20, NEWEST))  # fmt: skip


def counted_from_the_end(r: Random) -> Case:
    shape = sizes(r, 1, 3, 2)
    axis = int(r.integers(len(shape)))
    indices = -r.integers(1, shape[axis] + 1, sizes(r, 0, 2))
    axis -= len(shape) if r.random() < 0.4 else 0
    return Case("Gather", ["x", "indices"], {"x": floats(r, *shape)}, {"indices": np.asarray(indices, np.int64)},
                {"axis": axis}, opsets=(11, NEWEST))  # fmt: skip


def small_extremes(r: Random) -> Case:
    """The largest of booleans or bytes."""
    kind, low = pick(r, ("bool", 20), ("int8", 18), ("uint8", 18))
    x = values(r, sizes(r, 1, 3), kind)
    axis = int(r.integers(-x.ndim, x.ndim))
    return Case(pick(r, "ReduceMax", "ReduceMin"), ["x", "axes"], {"x": x}, {"axes": i64(axis)},
                {"keepdims": int(r.integers(2))}, opsets=(low, NEWEST))  # fmt: skip


def dynamic_quantize(r: Random) -> Case:
    return Case("DynamicQuantizeLinear", ["x"], {"x": floats(r, *sizes(r))}, outputs=3, opsets=(11, NEWEST))


def rotary(r: Random) -> Case:
    heads, length, half = int(r.integers(1, 4)), int(r.integers(1, 5)), int(r.integers(1, 4))
    angles = r.random((2, length, half)) * 3
    known = {"cos": np.cos(angles).astype("float32"), "sin": np.sin(angles).astype("float32")}
    attributes: dict[str, Any] = {"interleaved": int(r.integers(2))}
    return Case("RotaryEmbedding", ["x", *known], {"x": floats(r, 2, heads, length, 2 * half)}, known, attributes,
                opsets=(23, NEWEST))  # fmt: skip


def center_crop(r: Random) -> Case:
    x = floats(r, *sizes(r, 2, 3, 1, 6))
    axes = [int(axis) for axis in r.permutation(x.ndim)[: int(r.integers(1, x.ndim + 1))]]
    known = {"shape": i64(*(int(one) for one in r.integers(1, 8, len(axes))))}
    return Case("CenterCropPad", ["x", "shape"], {"x": x}, known, {"axes": axes}, opsets=(18, NEWEST))


def loss(r: Random) -> Case:
    classes, rows = int(r.integers(2, 5)), int(r.integers(1, 4))
    given = {"x": floats(r, rows, classes), "target": r.integers(0, classes, rows)}
    attributes = {"reduction": pick(r, "mean", "sum", "none")}
    return Case(pick(r, "NegativeLogLikelihoodLoss", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
                ["x", "target"], given, attributes=attributes, opsets=(12, NEWEST))  # fmt: skip


def regions(r: Random) -> Case:
    x, count = floats(r, 2, 3, 6, 7), int(r.integers(1, 4))
    corners = np.sort(r.random((count, 2, 2)) * 5, axis=1).reshape(count, 4).astype("float32")
    known = {"batches": r.integers(0, 2, count)}
    attributes = {"output_height": int(r.integers(1, 4)), "output_width": int(r.integers(1, 4)), "sampling_ratio": 2,
                  "spatial_scale": float(pick(r, 1.0, 0.5)), "mode": pick(r, "avg", "max"),
                  "coordinate_transformation_mode": pick(r, "half_pixel", *["output_half_pixel"] * 4)}  # fmt: skip
    return Case("RoiAlign", ["x", "corners", "batches"], {"x": x, "corners": corners}, known, attributes,
                opsets=(16, NEWEST))  # fmt: skip


def recurrent(r: Random) -> Case:
    """With the batch first, which ONNX Runtime does not run: what onnx.reference computes is the measure."""
    batch, length, depth, hidden = (int(one) for one in r.integers(2, 5, 4))
    operator, gates = pick(r, ("RNN", 1), ("GRU", 3), ("LSTM", 4))
    given = {"x": floats(r, batch, length, depth)}
    known = {"w": floats(r, 1, gates * hidden, depth) / 3, "r": floats(r, 1, gates * hidden, hidden) / 3}
    return Case(operator, ["x", *known], given, known, {"hidden_size": hidden, "layout": 1},
                outputs=2, opsets=(14, NEWEST), below=14)  # fmt: skip


def dropout(r: Random) -> Case:
    known = {"ratio": np.array(0.4, np.float32)} if r.random() < 0.5 else {}
    return Case("Dropout", ["x", *known], {"x": floats(r, *sizes(r))}, known, opsets=(12, NEWEST))


MAKERS = (
    brain_floats, constants, window, element, joined, older_groups, resize_axes,
    resize_symmetric, affine_grid, counted_from_the_end, small_extremes, dynamic_quantize, rotary,
    center_crop, loss, dropout, regions, recurrent,
)  # fmt: skip
