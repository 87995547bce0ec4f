"""Random small graphs: one operator of a random opset with random attributes, shapes and types.

Some stand behind or before another operator, some inside of a branch. Everything comes from one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.helper as h
import onnx.numpy_helper as nh
import onnxruntime
from onnx.reference import ReferenceEvaluator

from pipeline.graph.bare import BareModel
from pipeline.graph.split import hold_values, typed_input

Random = np.random.Generator
NEWEST = 25
OLDEST = 9


@dataclass
class Case:
    """One operator: `given` are fed, `known` are constants; None is an input that is left out."""

    operator: str
    inputs: list[str]
    given: dict[str, np.ndarray]
    known: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opsets: tuple[int, int] = (OLDEST + 1, NEWEST)


def floats(r: Random, *shape: int, dtype: str = "float32") -> np.ndarray:
    return r.standard_normal(shape).astype(dtype)


def sizes(r: Random, low: int = 1, high: int = 4, least: int = 1, most: int = 5) -> tuple[int, ...]:
    return tuple(int(one) for one in r.integers(least, most + 1, r.integers(low, high + 1)))


def values(r: Random, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype.startswith("float"):
        return floats(r, *shape, dtype=dtype)
    if dtype == "bool":
        return r.integers(0, 2, shape).astype(bool)
    low = 0 if dtype.startswith("u") else -9
    return r.integers(low, 10, shape).astype(dtype)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def pick(r: Random, *choices: Any) -> Any:
    return choices[int(r.integers(len(choices)))]


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


def squeeze(r: Random) -> Case:
    shape = list(sizes(r, 1, 3))
    places = sorted({int(one) for one in r.integers(0, len(shape) + 1, 2)})
    for place in places:
        shape.insert(place, 1)
    x = values(r, tuple(shape), pick(r, "float32", "int64", "bool"))
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    axes = [
        axis - (len(shape) if r.random() < 0.4 else 0) for axis in ones[: int(r.integers(1, len(ones) + 1))]
    ]
    if r.random() < 0.2:
        return Case("Squeeze", ["x"], {"x": x}, opsets=(13, NEWEST))
    return Case("Squeeze", ["x", "axes"], {"x": x}, {"axes": i64(*axes)}, opsets=(13, NEWEST))


def unsqueeze(r: Random) -> Case:
    x = values(r, sizes(r, 1, 3), pick(r, "float32", "int64", "bool"))
    count = int(r.integers(1, 3))
    rank = x.ndim + count
    axes = [int(a) - (rank if r.random() < 0.4 else 0) for a in r.permutation(rank)[:count]]
    return Case("Unsqueeze", ["x", "axes"], {"x": x}, {"axes": i64(*axes)}, opsets=(13, NEWEST))


def split(r: Random) -> Case:
    parts = [int(one) for one in r.integers(1, 4, r.integers(1, 4))]
    shape = list(sizes(r, 1, 3))
    axis = int(r.integers(len(shape)))
    shape[axis] = sum(parts)
    axis -= len(shape) if r.random() < 0.3 else 0
    x = floats(r, *shape)
    if r.random() < 0.5:
        count = int(r.integers(1, sum(parts) + 1))
        if -(-sum(parts) // count) * (count - 1) < sum(parts):
            return Case("Split", ["x"], {"x": x}, attributes={"axis": axis, "num_outputs": count}, outputs=count,
                        opsets=(18, NEWEST))  # fmt: skip
    return Case(
        "Split", ["x", "sizes"], {"x": x}, {"sizes": i64(*parts)}, {"axis": axis}, len(parts), (13, NEWEST)
    )


def slicing(r: Random) -> Case:
    x = values(r, sizes(r, 1, 4, 2, 7), pick(r, "float32", "int64"))
    count = int(r.integers(1, x.ndim + 1))
    axes = [int(a) for a in r.permutation(x.ndim)[:count]]
    steps = [int(pick(r, 1, 1, 2, 3, -1, -2)) for _ in axes]
    starts, ends = [], []
    for axis, step in zip(axes, steps, strict=True):
        size = x.shape[axis]
        low, high = sorted(int(one) for one in r.choice(size + 1, 2, replace=False))
        if step > 0:
            starts.append(low - (size if r.random() < 0.3 and low < size else 0))
            ends.append(pick(r, high, np.iinfo(np.int64).max) if r.random() < 0.7 else high)
        else:
            starts.append(pick(r, high - 1, np.iinfo(np.int64).max) if high else 0)
            ends.append(pick(r, low - 1 if low else -size - 1, np.iinfo(np.int64).min))
    axes = [axis - (x.ndim if r.random() < 0.3 else 0) for axis in axes]
    known = {"starts": i64(*starts), "ends": i64(*ends), "axes": i64(*axes)}
    if any(step != 1 for step in steps) or r.random() < 0.5:
        known["steps"] = i64(*steps)
    return Case("Slice", ["x", *known], {"x": x}, known)


def pad(r: Random) -> Case:
    mode = pick(r, "constant", "constant", "constant", "reflect", "edge", "wrap")
    dtype = pick(r, "float32", "float32", "int64", "bool") if mode == "constant" else "float32"
    x = values(r, sizes(r, 1, 4, 3), dtype)
    axes = list(range(x.ndim))
    low = 19 if mode == "wrap" else 13 if dtype == "bool" else 11
    if r.random() < 0.4:
        axes = [int(a) for a in r.permutation(x.ndim)[: int(r.integers(1, x.ndim + 1))]]
        low = max(low, 18)
    amounts = [int(one) for one in r.integers(0, 3, 2 * len(axes))]
    known = {"pads": i64(*amounts)}
    inputs = ["x", "pads", ""]
    if mode == "constant" and r.random() < 0.6:
        known["fill"] = values(r, (), dtype)
        inputs[2] = "fill"
    if low >= 18 and axes != list(range(x.ndim)):
        known["axes"] = i64(*axes)
        inputs.append("axes")
    while inputs[-1] == "":
        inputs.pop()
    return Case("Pad", inputs, {"x": x}, known, {"mode": mode}, opsets=(low, NEWEST))


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


def shape_of(r: Random) -> Case:
    x = floats(r, *sizes(r))
    attributes = {}
    if r.random() < 0.8:
        attributes = {"start": int(r.integers(-x.ndim, x.ndim))}
        if r.random() < 0.6:
            attributes["end"] = int(r.integers(-x.ndim, x.ndim + 1))
    return Case("Shape", ["x"], {"x": x}, attributes=attributes, opsets=(15, NEWEST))


def reshape(r: Random) -> Case:
    x = floats(r, *sizes(r, 1, 3))
    shape = pick(r, (-1,), (x.size,), (1, -1), (0, -1) if x.ndim > 1 else (-1, 1))
    attributes = {"allowzero": 1} if 0 not in shape and r.random() < 0.5 else {}
    return Case("Reshape", ["x", "shape"], {"x": x}, {"shape": i64(*shape)}, attributes, opsets=(14, NEWEST))


def trilu(r: Random) -> Case:
    x = values(r, sizes(r, 2, 4), pick(r, "float32", "int64", "bool"))
    known = {"k": np.array(int(r.integers(-3, 4)), np.int64)} if r.random() < 0.7 else {}
    return Case("Trilu", ["x", *known], {"x": x}, known, {"upper": int(r.integers(2))}, opsets=(14, NEWEST))


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


def top_k(r: Random) -> Case:
    dtype = pick(r, "float32", "float32", "int32", "int64")
    x = values(r, sizes(r, 1, 3, 2, 6), dtype)
    if dtype != "float32":
        x = r.permutation(x.size).reshape(x.shape).astype(dtype)
    axis = int(r.integers(-x.ndim, x.ndim))
    count = int(r.integers(1, x.shape[axis] + 1))
    return Case("TopK", ["x", "k"], {"x": x}, {"k": i64(count)}, {"axis": axis, "largest": int(r.integers(2))}, 2,
                (11, NEWEST))  # fmt: skip


def gathers(r: Random) -> Case:
    shape = sizes(r, 2, 3, 2)
    x = values(r, shape, pick(r, "float32", "int64"))
    operator = pick(r, "Gather", "GatherElements", "GatherND")
    attributes: dict[str, Any] = {}
    low = 11
    if operator == "Gather":
        axis = int(r.integers(-x.ndim, x.ndim))
        indices = r.integers(-x.shape[axis], x.shape[axis], sizes(r, 0, 2))
        attributes = {"axis": axis}
        low = 11
    elif operator == "GatherElements":
        axis = int(r.integers(-x.ndim, x.ndim))
        wanted = [int(r.integers(1, size + 1)) for size in shape]
        wanted[axis] = int(r.integers(1, 5))
        indices = r.integers(-x.shape[axis], x.shape[axis], wanted)
        attributes = {"axis": axis}
    else:
        batch = int(r.integers(0, 2)) if x.ndim > 1 else 0
        depth = int(r.integers(1, x.ndim - batch + 1))
        outer = (*shape[:batch], *sizes(r, 1, 2, 1, 3))
        indices = np.stack([r.integers(-shape[batch + i], shape[batch + i], outer) for i in range(depth)], -1)
        attributes = {"batch_dims": batch} if batch else {}
        low = 12 if batch else 11
    where = "known" if r.random() < 0.5 else "given"
    case = Case(operator, ["x", "indices"], {"x": x}, {}, attributes, opsets=(low, NEWEST))
    getattr(case, where)["indices"] = np.asarray(indices, np.int64)
    return case


def scatters(r: Random) -> Case:
    operator = pick(r, "ScatterND", "ScatterElements")
    shape = sizes(r, 1, 3, 2)
    x = floats(r, *shape)
    reduction = pick(r, "none", "none", "add", "mul", "max", "min")
    low = {"none": 11, "add": 16, "mul": 16}.get(reduction, 18)
    attributes: dict[str, Any] = {} if reduction == "none" else {"reduction": reduction}
    if operator == "ScatterND":
        depth = int(r.integers(1, x.ndim + 1))
        count = int(np.prod(shape[:depth]))
        chosen = r.permutation(count)[: int(r.integers(1, count + 1))]
        indices = np.stack(np.unravel_index(chosen, shape[:depth]), -1)
        updates = floats(r, len(chosen), *shape[depth:])
    else:
        axis = int(r.integers(-x.ndim, x.ndim))
        attributes["axis"] = axis
        wanted = list(shape)
        wanted[axis] = int(r.integers(1, shape[axis] + 1))
        indices = np.argsort(r.random(shape), axis=axis).take(range(wanted[axis]), axis=axis)
        updates = floats(r, *wanted)
    case = Case(operator, ["x", "indices", "updates"], {"x": x, "updates": updates}, {}, attributes,
                opsets=(low, NEWEST))  # fmt: skip
    (case.known if r.random() < 0.75 else case.given)["indices"] = np.asarray(indices, np.int64)
    return case


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


def moved(r: Random) -> Case:
    kind = int(r.integers(6))
    x = floats(r, *sizes(r, 2, 4))
    if kind == 0:
        return Case(
            "Transpose", ["x"], {"x": x}, attributes={"perm": [int(a) for a in r.permutation(x.ndim)]}
        )
    if kind == 1:
        axis = int(r.integers(-x.ndim, x.ndim))
        return Case(
            "Concat", ["x", "y"], {"x": x, "y": x + 1}, attributes={"axis": axis}, opsets=(11, NEWEST)
        )
    if kind == 2:
        return Case(
            "Flatten",
            ["x"],
            {"x": x},
            attributes={"axis": int(r.integers(-x.ndim, x.ndim))},
            opsets=(11, NEWEST),
        )
    if kind == 3:
        return Case("ArgMax", ["x"], {"x": x}, attributes={"axis": int(r.integers(-x.ndim, x.ndim)), "keepdims": int(r.integers(2))}, opsets=(11, NEWEST))  # fmt: skip
    if kind == 4:
        mode = pick(r, "DCR", "CRD")
        return Case("DepthToSpace", ["x"], {"x": floats(r, 1, 8, 2, 3)}, attributes={"blocksize": 2, "mode": mode}, opsets=(11, NEWEST))  # fmt: skip
    return Case("Expand", ["x", "shape"], {"x": floats(r, 3, 1)}, {"shape": i64(2, 3, 4)})


MAKERS: tuple[Callable[[Random], Case], ...] = (
    reduction, reduction, softmax, activation, swish, layer_normalization, rms_normalization, group_normalization,
    batch_normalization, instance_normalization, squeeze, unsqueeze, split, slicing, pad, clip, arithmetic,
    arithmetic, unary, shape_of, reshape, trilu, cumsum, ranges, top_k, gathers, scatters, resize, pools, convolution,
    products, einsum, grid_sample, attention, fourier, quantization, misplaced, moved,
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A random graph, where it should go, and what to feed."""

    case: Case
    model: BareModel
    target: int
    values: Mapping[str, np.ndarray]


def sample(seed: int, maker: Callable[[Random], Case] | None = None) -> Sample:
    """The graph of a seed."""
    r = np.random.default_rng(seed)
    case = (maker or MAKERS[int(r.integers(len(MAKERS)))])(r)
    opset = int(r.integers(case.opsets[0], case.opsets[1] + 1))
    # Half of them go the whole way, the others stop somewhere.
    target = OLDEST if r.random() < 0.5 else int(r.integers(OLDEST, opset))
    branch, around = r.random() < 0.15, r.random() < 0.3
    how = r.random()
    if how < 0.1 and case.operator not in FLOAT32_ALONE:
        case = _halved(case)
    free = r.random(64) < 0.5 if 0.1 <= how < 0.25 else None
    model = build(case, opset, branch=branch, around=around, free=free)
    if 0.25 <= how < 0.45:
        model = _held(model)
    return Sample(case, model, target, case.given)


#: Operators that want float32 in one place or another (scales, windows), that took no float16 in some
#: opset, or that no CPU has in float16.
FLOAT32_ALONE = {
    "DFT", "DequantizeLinear", "Einsum", "GridSample", "QuantizeLinear", "Range", "Resize", "STFT", "CumSum", "Celu", "IsInf",
    "ScatterElements", "ScatterND",
}  # fmt: skip


def _halved(case: Case) -> Case:
    """The same in float16."""

    def half(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: one.astype(np.float16) if one.dtype == np.float32 else one for name, one in values.items()
        }

    return replace(case, given=half(case.given), known=half(case.known))


def _held(model: BareModel) -> BareModel:
    """Floating constants are held aside, however small: a rule may not count on their values."""
    proto = model.parsed()
    held, kept = dict(model.held), []
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            held[tensor.name] = hold_values(tensor, origin=tensor.name, derived_by=None)
            proto.graph.input.append(typed_input(held[tensor.name]))
        else:
            kept.append(onnx.TensorProto.FromString(tensor.SerializeToString()))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    made = replace(model, proto=proto.SerializeToString(), held=held, origins={})
    made.check_invariant()
    return made


def build(
    case: Case, opset: int, *, branch: bool = False, around: bool = False, free: np.ndarray | None = None
) -> BareModel:
    """The model of a case: alone, behind another operator, or inside a branch.

    `free` says of each size of the inputs whether the file leaves it open.
    """
    given = {name: h.make_tensor_value_info(name, h.np_dtype_to_tensor_dtype(v.dtype), v.shape)
             for name, v in case.given.items()}  # fmt: skip
    if free is not None:
        every = [dim for value in given.values() for dim in value.type.tensor_type.shape.dim]
        for number, (dim, is_free) in enumerate(zip(every, free, strict=False)):
            if is_free:
                dim.dim_param = f"size{number}"
    known = [nh.from_array(np.asarray(v), name) for name, v in case.known.items()]
    names = list(case.inputs)
    nodes = []
    if around:
        nodes.append(
            h.make_node("Identity", [names[0]], ["before"], name="before") if names[0] in given else None
        )
        nodes = [node for node in nodes if node is not None]
        if nodes:
            names[0] = "before"
    outputs = [f"y{index}" for index in range(case.outputs)]
    nodes.append(h.make_node(case.operator, names, outputs, name="core", **case.attributes))
    used = {name for node in nodes for name in node.input}
    for name in given:
        if name not in used:
            nodes.append(h.make_node("Identity", [name], ["unused_out"], name="unused"))
    shown = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = h.make_graph(nodes, "g", list(given.values()), shown, known)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=10)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    types = {value.name: value for value in (*typed.graph.value_info, *typed.graph.output)}
    del model.graph.output[:]
    model.graph.output.extend(
        types[name] if _is_typed(types[name]) else _seen(model, name, case) for name in outputs
    )
    if branch:
        model = _in_branch(model)
    return BareModel.from_proto(model, scopes={"core": "net.core"}, lines={"core": "net.py:1"})


def _is_typed(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.HasField("shape")


def _seen(model: onnx.ModelProto, name: str, case: Case) -> onnx.ValueInfoProto:
    """The type of an output that onnx does not infer, as ONNX Runtime or the reference implementation has it."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.ValueInfoProto(name=name))
    try:
        found = onnxruntime.InferenceSession(shown.SerializeToString()).run([name], dict(case.given))[0]
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        found = ReferenceEvaluator(shown).run([name], dict(case.given))[0]
    return h.make_tensor_value_info(name, h.np_dtype_to_tensor_dtype(found.dtype), found.shape)


def _in_branch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The nodes in both branches of an If whose condition is a constant."""
    inner = {name: onnx.GraphProto() for name in ("then_branch", "else_branch")}
    for name, graph in inner.items():
        graph.name = name
        for node in model.graph.node:
            copied = graph.node.add()
            copied.CopyFrom(node)
            copied.name = f"{name}_{node.name}"
            copied.output[:] = [f"{name}_{out}" if out else "" for out in node.output]
            own = {out for other in model.graph.node for out in other.output}
            copied.input[:] = [f"{name}_{one}" if one in own else one for one in node.input]
        for value in model.graph.output:
            out = graph.output.add()
            out.CopyFrom(value)
            out.name = f"{name}_{value.name}"
    outer = h.make_node("If", ["condition"], [value.name for value in model.graph.output], name="If", **inner)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.append(outer)
    made.graph.initializer.append(nh.from_array(np.array(True), "condition"))
    return made


#: Relative to the largest magnitude: a thousand roundings of float32.
NOISE = 1e-4
#: How much coarser float16 is judged, as in pipeline.graph.equivalence.
HALF_OVER_SINGLE = 100


def against_reference(given: Sample, lowered: BareModel, noise: float = NOISE) -> str | None:
    """What is wrong with a lowered graph whose source ONNX Runtime does not run: onnx.reference is the oracle.

    The lowered graph runs on ONNX Runtime where it can, else on the reference too.
    """
    expected = ReferenceEvaluator(_whole(given.model)).run(None, dict(given.values))
    try:
        session = onnxruntime.InferenceSession(_whole(lowered).SerializeToString())
        found = session.run(None, {one.name: given.values[one.name] for one in session.get_inputs()})
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        found = ReferenceEvaluator(_whole(lowered)).run(None, dict(given.values))
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"{other.dtype}{other.shape} instead of {one.dtype}{one.shape}"
        scale = max(float(np.abs(one.astype(np.float64)).max(initial=0)), 1e-9)
        scale *= HALF_OVER_SINGLE if one.dtype == np.float16 else 1
        if not np.allclose(
            one.astype(np.float64), other.astype(np.float64), rtol=0, atol=noise * scale, equal_nan=True
        ):
            return f"{other} instead of {one}"
    return None


def _whole(model: BareModel) -> onnx.ModelProto:
    """The full model: held tensors stand in it as initializers."""
    proto = model.parsed()
    for name, tensor in model.held.items():
        full = proto.graph.initializer.add(name=name, dims=tensor.shape, data_type=tensor.dtype)
        full.raw_data = b"".join(tensor.pieces())
    kept = [value for value in proto.graph.input if value.name not in model.held]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return proto
