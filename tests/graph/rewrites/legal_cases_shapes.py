"""Cases of rules about slicing, layout, ranks and types."""

from __future__ import annotations

from math import prod
from random import Random

import numpy as np

from pipeline.graph.bare import BareModel
from tests.graph.rewrites.legal_case import (
    OPSETS,
    Case,
    attributes,
    broadcast,
    build,
    ints,
    numbers,
    sizes,
)

UNARY = ("Relu", "Sigmoid", "Tanh", "Abs", "Exp", "HardSigmoid", "LeakyRelu", "Neg", "Sin", "Floor")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")


def shuffled(rng: Random, number: int) -> list[int]:
    axes = list(range(number))
    rng.shuffle(axes)
    return axes


def gather(rng: Random, *, image: bool = False) -> BareModel:
    shape = sizes(rng, 4 if image else rng.randint(1, 4), largest=9, ones=0.1)
    axis = rng.randrange(len(shape))
    size = shape[axis]
    if rng.random() < 0.5 and not image:
        index = np.asarray(rng.randrange(-size, size), np.int64)
    else:
        start, step = rng.randrange(size), rng.randint(1, 3)
        index = ints(*range(start, size, step)[: rng.randint(1, size)])
        if rng.random() < 0.3 and not image:
            index = index.reshape(1, -1, 1)
    return build({"x": ("float", shape)}, f"y = Gather {attributes(axis=axis)} (x, i)", {"i": index},
                 opset=rng.choice(OPSETS))  # fmt: skip


def gather_behind(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(5, 6), largest=4, ones=0.1)
    perm = shuffled(rng, len(shape))
    axis = rng.randrange(len(shape))
    index = rng.randrange(shape[perm[axis]])
    body = f"t = Transpose {attributes(perm=perm)} (x)\ny = Gather {attributes(axis=axis)} (t, i)"
    return build({"x": ("float", shape)}, body, {"i": np.asarray(index, np.int64)}, opset=rng.choice(OPSETS))


def split(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(1, 4), ones=0.1)
    axis = rng.randrange(len(shape))
    parts = [rng.randint(1, 4) for _ in range(rng.randint(2, 3))]
    parts[0] = parts[-1] + 1
    shape[axis] = sum(parts)
    opset = rng.choice(OPSETS)
    names = [f"p{index}" for index in range(len(parts))]
    where = attributes(axis=axis, split=parts if opset < 13 else None)
    body = f"{', '.join(names)} = Split {where} ({'x' if opset < 13 else 'x, s'})\n"
    body += f"y = Concat {attributes(axis=axis)} ({', '.join(reversed(names))})"
    return build({"x": ("float", shape)}, body, {"s": ints(*parts)} if opset >= 13 else {}, opset=opset)


def strided(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(1, 4), largest=10, ones=0.1)
    axes = sorted(rng.sample(range(len(shape)), rng.randint(1, min(2, len(shape)))))
    steps, starts, ends = [], [], []
    for axis in axes:
        step = rng.randint(2, 3)
        shape[axis] = step * rng.randint(1, 4) + (rng.randint(0, 1) if rng.random() < 0.2 else 0)
        steps.append(step)
        starts.append(rng.randrange(min(step, shape[axis])) - (shape[axis] if rng.random() < 0.2 else 0))
        ends.append(rng.choice([shape[axis], 2**63 - 1]))
    given = {"s": ints(*starts), "e": ints(*ends), "a": ints(*axes), "t": ints(*steps)}
    return build({"x": ("float", shape)}, "y = Slice (x, s, e, a, t)", given, opset=rng.choice(OPSETS))


def pad(rng: Random, *, mode: str | None = None, negative: bool = False) -> BareModel:
    shape = sizes(rng, rng.randint(1, 4), largest=6, ones=0)
    chosen = mode or rng.choice(["reflect", "edge"])
    begin = [rng.randint(0, size - 1) if rng.random() < 0.6 else 0 for size in shape]
    end = [rng.randint(0, size - 1) if rng.random() < 0.6 else 0 for size in shape]
    opset = rng.choice(OPSETS)
    if negative:
        begin, end = [rng.randint(-1, 2) for _ in shape], [rng.randint(0, 1) for _ in shape]
        begin[0] = -1
    elif chosen == "edge" and rng.random() < 0.3:
        begin = [size + 1 for size in shape]
    elif opset >= 19 and rng.random() < 0.5:
        chosen = "wrap"
    given = {"p": ints(*begin, *end), "f": np.asarray(rng.uniform(-1, 1), np.float32)}
    names = "x, p, f" if chosen == "constant" else "x, p"
    return build({"x": ("float", shape)}, f"y = Pad {attributes(mode=chosen)} ({names})", given, opset=opset)


def flatten(rng: Random) -> BareModel:
    shape, opset = sizes(rng, rng.randint(2, 5)), rng.choice(OPSETS)
    kind = rng.choice(["Flatten", "Squeeze", "Unsqueeze"])
    if kind == "Flatten":
        text, given = f"y = Flatten {attributes(axis=rng.randint(0, len(shape)))} (x)", {}
    else:
        axis = rng.randrange(len(shape))
        shape[axis] = 1 if kind == "Squeeze" else shape[axis]
        given = {"a": ints(axis)} if opset >= 13 else {}
        text = f"y = {kind} {attributes(axes=None if opset >= 13 else [axis])} ({'x, a' if opset >= 13 else 'x'})"
    return build({"x": ("float", shape)}, text, given, opset=opset)


def head(rng: Random) -> BareModel:
    rows, channels = rng.randint(1, 3), rng.randint(1, 8)
    inputs = {"i": ("float", [rows, channels, 1, 1])}
    which = rng.random()
    body = f"x = {rng.choice(['Flatten (i)', 'Reshape (i, s)'])}\n"
    given = {"s": ints(rows, channels), "c": numbers(rng, *rng.choice([[], [1], [channels], [1, channels]]))}
    if which < 0.4:
        return build(inputs, f"{body}y = {rng.choice(UNARY)} (x)", given, opset=rng.choice(OPSETS))
    if which < 0.6:
        return build(inputs, f"{body}y = {rng.choice(BINARY)} (x, x)", given, opset=rng.choice(OPSETS))
    if which < 0.8:
        return build(inputs, f"{body}y = {rng.choice(BINARY)} (x, c)", given, opset=rng.choice(OPSETS))
    inputs["j"] = ("float", [rows, channels, 1, 1])
    return build(
        inputs, f"{body}z = Flatten (j)\ny = {rng.choice(BINARY)} (x, z)", given, opset=rng.choice(OPSETS)
    )


def reshapes(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 4))
    first = [prod(shape[:1]), prod(shape[1:])]
    second = rng.choice([shape, [prod(shape)], [*reversed(shape)]])
    first_text = rng.choice(["Reshape (x, a)", "Flatten (x)"])
    return build({"x": ("float", shape)}, f"r = {first_text}\ny = Reshape (r, b)",
                 {"a": ints(*first), "b": ints(*second)}, opset=rng.choice(OPSETS))  # fmt: skip


def transposes(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 5))
    one, other = shuffled(rng, len(shape)), shuffled(rng, len(shape))
    if rng.random() < 0.3:
        other = [one.index(axis) for axis in range(len(one))]
    body = f"t = Transpose {attributes(perm=one)} (x)\ny = Transpose {attributes(perm=other)} (t)"
    return build({"x": ("float", shape)}, body, opset=rng.choice(OPSETS))


def narrow_transpose(rng: Random) -> BareModel:
    shape = [1, rng.randint(1, 5), 1, rng.randint(1, 5)]
    perm = rng.choice([[1, 0, 2, 3], [2, 1, 0, 3], [0, 2, 1, 3]])
    return build(
        {"x": ("float", shape)}, f"y = Transpose {attributes(perm=perm)} (x)", opset=rng.choice(OPSETS)
    )


def sandwich(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 4))
    perm = shuffled(rng, len(shape))
    back = [perm.index(axis) for axis in range(len(perm))]
    moved = [shape[axis] for axis in perm]
    body, name = f"t = Transpose {attributes(perm=perm)} (x)\n", "t"
    given = {}
    inputs = {"x": ("float", shape)}
    for step in range(rng.randint(1, 3)):
        kind, after = rng.random(), f"s{step}"
        if kind < 0.5:
            body += f"{after} = {rng.choice(UNARY)} ({name})\n"
        elif kind < 0.8:
            given[f"c{step}"] = numbers(rng, *broadcast(rng, moved))
            body += f"{after} = {rng.choice(BINARY)} ({name}, c{step})\n"
        else:
            inputs[f"z{step}"] = ("float", shape)
            body += f"u{step} = Transpose {attributes(perm=perm)} (z{step})\n"
            body += f"{after} = {rng.choice(BINARY)} ({name}, u{step})\n"
        name = after
    return build(
        inputs, f"{body}y = Transpose {attributes(perm=back)} ({name})", given, opset=rng.choice(OPSETS)
    )


def high_transpose(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(5, 7), largest=4)
    return build({"x": ("float", shape)}, f"y = Transpose {attributes(perm=shuffled(rng, len(shape)))} (x)",
                 opset=rng.choice(OPSETS))  # fmt: skip


def high_binary(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(5, 6), largest=3)
    other = broadcast(rng, shape)
    if rng.random() < 0.4:
        return build({"x": ("float", shape)}, f"y = {rng.choice(BINARY)} (x, c)", {"c": numbers(rng, *other)})
    return build({"x": ("float", shape), "z": ("float", other)}, f"y = {rng.choice(BINARY)} (x, z)",
                 opset=rng.choice(OPSETS))  # fmt: skip


def high_axis(rng: Random) -> BareModel:
    shape, opset = sizes(rng, rng.randint(5, 6), largest=4), rng.choice(OPSETS)
    axis = rng.randrange(len(shape))
    kind = rng.choice(["Softmax", "Concat", "Slice"])
    if kind == "Softmax":
        axis = len(shape) - 1 if opset < 13 else axis
        return build({"x": ("float", shape)}, f"y = Softmax {attributes(axis=axis)} (x)", opset=opset)
    if kind == "Concat":
        other = [*shape[:axis], rng.randint(1, 3), *shape[axis + 1 :]]
        return build({"x": ("float", shape), "z": ("float", other)},
                     f"y = Concat {attributes(axis=axis)} (x, z, x)", opset=opset)  # fmt: skip
    start = rng.randrange(shape[axis])
    given = {"s": ints(start), "e": ints(rng.randint(start + 1, shape[axis])), "a": ints(axis)}
    return build({"x": ("float", shape)}, "y = Slice (x, s, e, a)", given, opset=opset)


def indexed(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(1, 3))
    axis = rng.randrange(len(shape))
    if rng.random() < 0.5:
        index = np.random.default_rng(1).integers(0, shape[axis], [2, 3]).astype(np.int64)
        return build({"x": ("float", shape)}, f"y = Gather {attributes(axis=axis)} (x, i)", {"i": index})
    index = np.random.default_rng(2).integers(0, shape[axis], shape).astype(np.int64)
    return build({"x": ("float", shape)}, f"y = GatherElements {attributes(axis=axis)} (x, i)", {"i": index},
                 opset=rng.choice(OPSETS))  # fmt: skip


def doubles(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(1, 3))
    body = f"w = Cast <to = 11> (x)\nm = Mul (w, c)\ns = {rng.choice(['Tanh', 'Sigmoid'])} (m)\ny = Cast <to = 1> (s)"
    return build({"x": ("float", shape)}, body, {"c": numbers(rng, *broadcast(rng, shape), kind="float64")})


def dynamic(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 4))
    body = f"s = {rng.choice(UNARY)} (x)\ny = Concat {attributes(axis=len(shape) - 1)} (s, x)"
    return build({"x": ("float", ["n", *shape[1:]])}, body, opset=rng.choice(OPSETS))


FIVE = [2, 3, 2, 3, 2]

CASES = (
    Case("image_gather_to_slice", lambda rng: gather(rng, image=True), lambda: build(
        {"x": ("float", [1, 4, 3, 3])}, "y = Gather <axis = 1> (x, i)", {"i": ints(0, 3, 1)}), "not evenly spaced"),
    Case("gather_to_slice", gather, lambda: build({"x": ("float", [4])}, "y = Gather (x, i)", {"i": ints(0, 3, 1)}),
         "not evenly spaced"),
    Case("gather_before_transpose", gather_behind, lambda: build(
        {"x": ("float", FIVE), "i": ("int64", [])}, "t = Transpose <perm = [4, 3, 2, 1, 0]> (x)\ny = Gather (t, i)"),
        "index is not constant"),
    Case("uneven_split_to_slices", split, lambda: build(
        {"x": ("float", [4]), "s": ("int64", [2])}, "y, z = Split (x, s)"), "sizes are not known"),
    Case("strided_slice_to_reshape", strided, lambda: build(
        {"x": ("float", [4])}, "y = Slice (x, s, e, a, t)",
        {"s": ints(-1), "e": ints(-9), "a": ints(0), "t": ints(-1)}), "backwards"),
    Case("pad_to_concat", pad, lambda: build(
        {"x": ("float", [4]), "p": ("int64", [2])}, "y = Pad <mode = \"edge\"> (x, p)"), "pads are not constant"),
    Case("negative_pad_to_slice", lambda rng: pad(rng, mode="constant", negative=True), lambda: build(
        {"x": ("float", [4]), "p": ("int64", [2])}, "y = Pad (x, p)"), "pads are not constant"),
    Case("flatten_to_reshape", flatten, lambda: build({"x": ("float", ["n", 2])}, "y = Flatten (x)"), "sizes"),
    Case("reshape_behind_elementwise", head, lambda: build(
        {"i": ("float", [2, 3, 1, 1]), "z": ("float", [2, 3])}, "x = Flatten (i)\ny = Add (x, z)"), "second operand"),
    Case("merge_reshapes", reshapes, lambda: build({"x": ("float", [2, 3])}, "y = Flatten (x)"), ""),
    Case("merge_transposes", transposes, lambda: build(
        {"x": ("float", [2, 3])}, "y = Transpose <perm = [1, 0]> (x)"), ""),
    Case("transpose_to_reshape", narrow_transpose, lambda: build(
        {"x": ("float", ["n", 3])}, "y = Transpose <perm = [1, 0]> (x)"), "sizes are not known"),
    Case("transpose_behind_elementwise", sandwich, lambda: build({"x": ("float", [2, 3])}, "y = Relu (x)"), ""),
    Case("transpose_to_rank_4", high_transpose, lambda: build(
        {"x": ("float", ["n", 2, 2, 2, 2])}, "y = Transpose <perm = [4, 3, 2, 1, 0]> (x)"), "sizes are not known"),
    Case("elementwise_to_rank_4", high_binary, lambda: build(
        {"x": ("float", FIVE), "z": ("float", [2, 1, 2, 1, 2])}, "y = Add (x, z)"), "do not join"),
    Case("unary_to_rank_4", lambda rng: build(
        {"x": ("float", sizes(rng, rng.randint(5, 6), largest=4))}, f"y = {rng.choice(UNARY)} (x)",
        opset=rng.choice(OPSETS)),
        lambda: build({"x": ("float", ["n", 2, 2, 2, 2])}, "y = Relu (x)"), "sizes are not known"),
    Case("axis_to_rank_4", high_axis, lambda: build(
        {"x": ("float", FIVE)}, "y = Softmax <axis = 1> (x)", opset=11), "every axis"),
    Case("narrow_int64_indices", indexed, lambda: build(
        {"x": ("float", [2]), "i": ("int32", [2])}, "y = Gather (x, i)"), ""),
    Case("narrow_float64", doubles, lambda: build(
        {"x": ("double", [2])}, "y = Neg (x)", output="double"), "output is float64"),
    Case("freeze_batch", dynamic, lambda: build({"x": ("float", [2])}, "y = Neg (x)"), ""),
)  # fmt: skip
