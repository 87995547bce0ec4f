"""Random cases: axes, slices, pads, indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.graph.rewrites.random_case import NEWEST, Case, Random, floats, i64, pick, sizes, values


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


MAKERS = (
    squeeze, unsqueeze, split, slicing, pad, shape_of, reshape, trilu, top_k, gathers, scatters, moved,
)  # fmt: skip
