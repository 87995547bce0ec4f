"""Random cases: reductions, activations, normalisation, arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.graph.rewrites.random_case import NEWEST, Case, Random, floats, i64, pick, sizes, values


def reduction(r: Random) -> Case:
    operator = pick(r, "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")  # fmt: skip
    x = values(r, sizes(r, 1, 4), pick(r, "float32", "float32", "int32"))
    if operator.startswith("ReduceLog"):
        x = np.abs(x.astype("float32")) + 1
    count = int(r.integers(0, x.ndim + 1))
    axes = [int(a) - (x.ndim if r.random() < 0.4 else 0) for a in r.permutation(x.ndim)[:count]]
    attributes: dict[str, Any] = {"keepdims": int(r.integers(2))}
    if r.random() < 0.3:
        attributes["noop_with_empty_axes"] = int(r.integers(2))
    low = 13 if operator == "ReduceSum" else 18
    if r.random() < 0.3 and not count:
        return Case(operator, ["x"], {"x": x}, attributes=attributes, opsets=(low, NEWEST))
    return Case(operator, ["x", "axes"], {"x": x}, {"axes": i64(*axes)}, attributes, opsets=(low, NEWEST))


def softmax(r: Random) -> Case:
    x = floats(r, *sizes(r, 1, 4))
    axis = int(r.integers(-x.ndim, x.ndim))
    attributes = {} if r.random() < 0.2 else {"axis": axis}
    return Case(
        pick(r, "Softmax", "LogSoftmax", "Hardmax"),
        ["x"],
        {"x": x},
        attributes=attributes,
        opsets=(13, NEWEST),
    )


def activation(r: Random) -> Case:
    operator, low, attributes = pick(
        r, ("Gelu", 20, {"approximate": pick(r, "none", "tanh")}), ("HardSwish", 14, {}), ("Mish", 18, {}),
        ("Celu", 12, {"alpha": float(r.uniform(0.3, 2))}), ("ThresholdedRelu", 10, {"alpha": float(r.uniform(0, 1))}),
        ("Elu", 10, {"alpha": 0.7}), ("HardSigmoid", 10, {}), ("Erf", 10, {}), ("Softplus", 10, {}),
        ("LeakyRelu", 10, {"alpha": 0.2}),
    )  # fmt: skip
    return Case(operator, ["x"], {"x": floats(r, *sizes(r))}, attributes=attributes, opsets=(low, NEWEST))


def swish(r: Random) -> Case:
    return Case("Swish", ["x"], {"x": floats(r, *sizes(r))}, attributes={"alpha": float(r.uniform(0.3, 2))},
                opsets=(24, NEWEST))  # fmt: skip


def layer_normalization(r: Random) -> Case:
    x = floats(r, *sizes(r, 1, 4, 2))
    axis = int(r.integers(-x.ndim, x.ndim))
    shape = x.shape[axis % x.ndim :]
    known = {"scale": floats(r, *shape)}
    if r.random() < 0.7:
        known["bias"] = floats(r, *shape)
    return Case("LayerNormalization", ["x", *known], {"x": x}, known,
                {"axis": axis, "epsilon": float(r.uniform(1e-5, 1e-2))}, opsets=(17, NEWEST))  # fmt: skip


def rms_normalization(r: Random) -> Case:
    x = floats(r, *sizes(r, 1, 4, 2))
    axis = int(r.integers(-x.ndim, x.ndim))
    return Case("RMSNormalization", ["x", "scale"], {"x": x}, {"scale": floats(r, *x.shape[axis % x.ndim :])},
                {"axis": axis, "epsilon": 1e-4}, opsets=(23, NEWEST))  # fmt: skip


def group_normalization(r: Random) -> Case:
    groups, per = int(r.integers(1, 4)), int(r.integers(1, 4))
    x = floats(r, int(r.integers(1, 3)), groups * per, *sizes(r, 1, 2, 2))
    return Case("GroupNormalization", ["x", "scale", "bias"], {"x": x},
                {"scale": floats(r, groups * per), "bias": floats(r, groups * per)},
                {"num_groups": groups, "epsilon": 1e-3}, opsets=(21, NEWEST))  # fmt: skip


def batch_normalization(r: Random) -> Case:
    x = floats(r, 2, int(r.integers(1, 5)), *sizes(r, 1, 2))
    known = {name: floats(r, x.shape[1]) for name in ("scale", "bias", "mean")}
    known["var"] = np.abs(floats(r, x.shape[1])) + 0.1
    return Case("BatchNormalization", ["x", *known], {"x": x}, known, {"epsilon": 1e-3}, opsets=(14, NEWEST))


def instance_normalization(r: Random) -> Case:
    x = floats(r, 2, int(r.integers(1, 5)), *sizes(r, 1, 2, 2))
    known = {name: floats(r, x.shape[1]) for name in ("scale", "bias")}
    return Case("InstanceNormalization", ["x", *known], {"x": x}, known, {"epsilon": 1e-3})


def clip(r: Random) -> Case:
    dtype = pick(r, "float32", "float32", "int64", "int32")
    x = values(r, sizes(r), dtype)
    known: dict[str, np.ndarray] = {}
    given = {"x": x}
    inputs = ["x", "", ""]
    for place, (name, low) in enumerate((("low", True), ("high", False)), 1):
        if r.random() < 0.75:
            limit = np.array(-1 if low else 1, dtype)
            (known if r.random() < 0.7 else given)[name] = limit
            inputs[place] = name
    while inputs[-1] == "":
        inputs.pop()
    return Case("Clip", inputs, given, known, opsets=(12 if dtype.startswith("int") else 11, NEWEST))


def arithmetic(r: Random) -> Case:
    shape = sizes(r)
    operator = pick(r, "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Mod", "Equal", "Greater", "Less",
                    "GreaterOrEqual", "LessOrEqual", "PRelu")  # fmt: skip
    dtype = pick(r, "float32", "float32", "int32", "int64")
    low = 12 if operator in ("Max", "Min", "Pow", "GreaterOrEqual", "LessOrEqual") else 11
    if operator in ("Add", "Sub", "Mul") and r.random() < 0.3:
        dtype, low = pick(r, "int8", "uint8"), 14
    x, y = values(r, shape, dtype), values(r, shape[int(r.integers(len(shape))) :], dtype)
    if operator in ("Div", "Mod"):
        y = np.where(y == 0, np.ones_like(y), y)
    if operator in ("Equal", "GreaterOrEqual", "LessOrEqual") and x.size:
        x = np.where(r.random(shape) < 0.4, np.broadcast_to(y, shape), x).astype(dtype)
        if dtype == "float32" and r.random() < 0.3:
            x.reshape(-1)[0] = np.nan
    if operator == "Pow":
        if dtype.startswith("int"):
            y = np.array(int(r.integers(1, 4)), dtype)
            return Case("Pow", ["x", "y"], {"x": x}, {"y": y}, opsets=(low, NEWEST))
        x = np.abs(x) + 0.1
        y = y.astype(pick(r, "float32", "int32", "int64"))
    if operator == "PRelu":
        x, y = x.astype("float32"), y.astype("float32")
    attributes = {}
    if operator == "Mod" and (dtype == "float32" or r.random() < 0.3):
        attributes["fmod"] = 1
    return Case(operator, ["x", "y"], {"x": x, "y": y}, attributes=attributes, opsets=(low, NEWEST))


def unary(r: Random) -> Case:
    operator, dtype, low = pick(
        r, ("Relu", "int32", 14), ("Relu", "float32", 10), ("Round", "float32", 11), ("IsInf", "float32", 10),
        ("IsNaN", "float32", 10), ("Abs", "float32", 10), ("Neg", "int32", 10), ("Sqrt", "float32", 10), ("Floor", "float32", 10),
        ("Sign", "float32", 10), ("Not", "bool", 10), ("Identity", "int64", 10), ("Size", "float32", 10),
        ("Reciprocal", "float32", 10), ("Sigmoid", "float32", 10), ("Tanh", "float32", 10), ("Exp", "float32", 10),
        ("Cos", "float32", 10), ("NonZero", "float32", 10), ("GlobalAveragePool", "float32", 10), ("GlobalMaxPool", "float32", 10),
    )  # fmt: skip
    x = values(r, sizes(r), dtype)
    attributes: dict[str, Any] = {}
    if operator == "Round":
        x = np.where(r.random(x.shape) < 0.5, np.round(x * 4) / 2, x * 5).astype("float32")
    if operator in ("IsInf", "IsNaN", "Round") and x.size:
        x.reshape(-1)[0] = pick(r, np.inf, -np.inf, np.nan)
    if operator == "IsInf":
        attributes = {"detect_positive": int(r.integers(2)), "detect_negative": int(r.integers(2))}
    if operator == "Sqrt":
        x = np.abs(x)
    if operator.startswith("Global"):
        x = floats(r, 2, 3, *sizes(r, 1, 2, 2))
    return Case(operator, ["x"], {"x": x}, attributes=attributes, opsets=(low, NEWEST))


def cumsum(r: Random) -> Case:
    x = values(r, sizes(r), pick(r, "float32", "int64"))
    axis = np.array(int(r.integers(-x.ndim, x.ndim)), np.int64)
    return Case("CumSum", ["x", "axis"], {"x": x}, {"axis": axis},
                {"exclusive": int(r.integers(2)), "reverse": int(r.integers(2))}, opsets=(11, NEWEST))  # fmt: skip


def ranges(r: Random) -> Case:
    if r.random() < 0.5:
        start, limit, delta = (
            np.array(int(one), np.int64) for one in (r.integers(-3, 3), r.integers(3, 9), 1)
        )
        return Case("Range", ["start", "limit", "delta"], {"start": start, "limit": limit}, {"delta": delta},
                    opsets=(11, NEWEST))  # fmt: skip
    dtype = pick(r, "float32", "int64")
    known = {
        "start": np.array(-2, dtype),
        "limit": np.array(int(r.integers(0, 7)), dtype),
        "delta": np.array(2, dtype),
    }
    x = np.array(0, dtype)
    return Case("Range", ["start", "limit", "delta"], {"unused": x}, known, opsets=(11, NEWEST))


def quantization(r: Random) -> Case:
    channels = r.random() < 0.5
    scale = np.abs(floats(r, 3)) + 0.1 if channels else np.float32(0.2)
    zero = values(r, (3,) if channels else (), pick(r, "int8", "uint8"))
    known = {"scale": np.asarray(scale, np.float32), "zero": zero}
    low = 13 if channels else 10
    attributes = {"axis": 1} if channels else {}
    if r.random() < 0.5:
        return Case(
            "QuantizeLinear",
            ["x", *known],
            {"x": floats(r, 2, 3, 4) * 9},
            known,
            attributes,
            opsets=(low, NEWEST),
        )
    x = values(r, (2, 3, 4), str(zero.dtype))
    return Case("DequantizeLinear", ["x", *known], {"x": x}, known, attributes, opsets=(low, NEWEST))


MAKERS = (
    reduction, reduction, softmax, activation, swish, layer_normalization, rms_normalization,
    group_normalization, batch_normalization, instance_normalization, clip, arithmetic, arithmetic,
    unary, cumsum, ranges, quantization,
)  # fmt: skip
