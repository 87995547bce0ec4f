"""Cases of rules about activations, arithmetic, reductions and normalisation."""

from __future__ import annotations

from random import Random

import numpy as np

from pipeline.graph.bare import BareModel
from tests.graph.rewrites.legal_case import (
    NUMPY,
    OPSETS,
    Case,
    attributes,
    broadcast,
    build,
    image,
    ints,
    numbers,
    sizes,
)


def unary(rng: Random, body: str, *, rank: int | None = None, opset: int | None = None, kind: str | None = None,
          **constants: object) -> BareModel:  # fmt: skip
    double = rng.random() < 0.3 and not any(
        name in body for name in ("Hard", "Clip", "Min")
    )  # of which ONNX Runtime has no float64 at every opset
    kind = kind or ("double" if double else "float")
    shape = sizes(rng, rng.randint(1, 4) if rank is None else rank)
    typed = {name: np.asarray(value, NUMPY[kind]) if isinstance(value, float) else value
             for name, value in constants.items()}  # fmt: skip
    return build({"x": (kind, shape)}, body, typed, opset=opset or rng.choice(OPSETS), output=kind)


def hard_sigmoid(rng: Random) -> BareModel:
    alpha, beta = rng.uniform(0.05, 1.5), rng.choice([0.5, 0.0, rng.uniform(-1, 1)])
    return unary(rng, f"y = HardSigmoid {attributes(alpha=alpha, beta=beta)} (x)")


def hard_swish(rng: Random) -> BareModel:
    if rng.random() < 0.4:
        return unary(rng, "y = HardSwish (x)", opset=rng.choice([14, 17, 20]))
    pair = rng.choice(["x, h", "h, x"])
    return unary(rng, f"h = HardSigmoid <alpha = 0.166666667> (x)\ny = Mul ({pair})")


def clip(rng: Random, low: float | None, high: float | None) -> BareModel:
    names = ["x"] + ([] if low is None else ["low"]) + ([] if high is None else ["high"])
    given = {key: value for key, value in (("low", low), ("high", high)) if value is not None}
    return unary(rng, f"y = Clip ({', '.join(names)})", **given)


def prelu(rng: Random, *, one: bool) -> BareModel:
    shape = image(rng)
    slope = np.full([shape[1], 1, 1], 0.3, np.float32) if one else numbers(rng, shape[1], 1, 1)
    if not one and rng.random() < 0.3:
        slope = numbers(rng, *shape[1:])
    return build({"x": ("float", shape)}, "y = PRelu (x, slope)", {"slope": slope}, opset=rng.choice(OPSETS))


def softmax(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 5))
    op = rng.choice(["Softmax", "LogSoftmax"])
    axis = rng.randrange(len(shape) - 1) - len(shape) * rng.randint(0, 1)
    text = f"y = {op} {attributes(axis=axis)} (x)"
    return build({"x": ("float", shape)}, text, opset=rng.choice([13, 17, 20]))


def batches(rng: Random) -> BareModel:
    shape = [rng.randint(2, 4), *sizes(rng, rng.randint(1, 3))]
    op = rng.choice(["Softmax", "LogSoftmax"])
    return build(
        {"x": ("float", shape)}, f"y = {op} {attributes(axis=len(shape) - 1)} (x)", opset=rng.choice(OPSETS)
    )


GELU = """
    d = {scale} (x, root)
    e = Erf (d)
    a = Add ({add})
    p = Mul ({first})
    y = Mul ({second})
"""


def gelu(rng: Random) -> BareModel:
    if rng.random() < 0.3:
        return unary(rng, "y = Gelu (x)", opset=20, kind="float")
    division = rng.random() < 0.5
    half_first = rng.random() < 0.5
    body = GELU.format(
        scale="Div" if division else "Mul",
        add=rng.choice(["e, one", "one, e"]),
        first="x, half" if half_first else rng.choice(["x, a", "a, x"]),
        second="p, a" if half_first else "p, half",
    )
    return unary(rng, body, kind="float", root=2**0.5 if division else 0.5**0.5, one=1.0, half=0.5)


def binary(rng: Random, op: str, *, constant: bool, kind: str = "float", **nodes: str) -> BareModel:
    shape = sizes(rng, rng.randint(1, 4))
    if constant:
        other = numbers(rng, *broadcast(rng, shape), kind=NUMPY[kind], low=0.2, high=3.0)
        flip = rng.random() < 0.3 and op == "Sub"
        return build({"x": (kind, shape)}, f"y = {op} ({'c, x' if flip else 'x, c'})", {"c": other},
                     opset=rng.choice(OPSETS), output=kind)  # fmt: skip
    return build({"x": (kind, shape), "z": (kind, broadcast(rng, shape))}, f"y = {op} (x, z)",
                 opset=rng.choice(OPSETS), output=kind)  # fmt: skip


def power(rng: Random) -> BareModel:
    exponent = rng.choice([2.0, 2.0, 3.0, 1.0, -1.0, 0.5, -0.5])
    if abs(exponent) == 0.5 or exponent == -1:
        return unary(rng, "s = Mul (x, x)\nt = Add (s, e)\ny = Pow (t, p)", p=exponent, e=0.01)
    if rng.random() < 0.3:
        return unary(rng, "y = Pow (x, p)", p=np.asarray(int(exponent), np.int64), opset=rng.choice([13, 17]))
    return unary(rng, "y = Pow (x, p)", p=exponent)


def several(rng: Random, op: str, least: int) -> BareModel:
    shape = sizes(rng, rng.randint(1, 4))
    names = [f"x{index}" for index in range(rng.randint(least, 5))]
    inputs = {
        name: ("float", shape if index == 0 else broadcast(rng, shape)) for index, name in enumerate(names)
    }
    return build(inputs, f"y = {op} ({', '.join(names)})", opset=rng.choice(OPSETS))


def where(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(1, 4))
    constants: dict[str, object] = {"high": np.asarray(rng.uniform(-9, 9), np.float32)}
    inputs: dict[str, tuple[str, list[int]]] = {"x": ("float", shape)}
    if rng.random() < 0.5:
        constants["mask"] = numbers(rng, *shape) > 0
    else:
        inputs["mask"] = ("bool", broadcast(rng, shape))
    bounded = rng.choice(["Sigmoid", "Tanh"])
    pair = rng.choice(["b, high", "high, b", "b, b"])
    return build(inputs, f"b = {bounded} (x)\ny = Where (mask, {pair})", constants, opset=rng.choice(OPSETS))


def smaller_first(rng: Random) -> BareModel:
    shape = sizes(rng, 4, ones=0)
    op = rng.choice(["Mul", "Add"])
    if rng.random() < 0.3:
        return build({"x": ("float", shape)}, f"y = {op} (c, x)", {"c": numbers(rng, *broadcast(rng, shape))})
    small = [*shape[:2], 1, 1] if rng.random() < 0.7 else shape[2:]
    return build({"x": ("float", shape), "z": ("float", small)}, f"y = {op} (z, x)", opset=rng.choice(OPSETS))


def reduction(rng: Random, op: str, shape: list[int], axes: list[int] | None, keepdims: int) -> BareModel:
    since = 13 if op == "ReduceSum" else 18
    opset = rng.choice(OPSETS)
    if rng.random() < 0.3 and axes:
        axes = [axis - len(shape) for axis in axes]
    if opset >= since and axes is not None:
        body, constants = f"y = {op} {attributes(keepdims=keepdims)} (x, axes)", {"axes": ints(*axes)}
    else:
        body, constants = f"y = {op} {attributes(axes=axes, keepdims=keepdims)} (x)", {}
    return build({"x": ("float", shape)}, body, constants, opset=opset)


def global_mean(rng: Random) -> BareModel:
    return reduction(rng, rng.choice(["ReduceMean", "ReduceMax"]), image(rng), [2, 3], rng.randint(0, 1))


def norm(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 4))
    axes = sorted(rng.sample(range(len(shape)), rng.randint(1, len(shape))))
    op = rng.choice(["ReduceL2", "ReduceL2", "ReduceSumSquare", "ReduceL1"])
    return reduction(rng, op, shape, axes if rng.random() < 0.8 else None, rng.randint(0, 1))


def lp(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 4))
    text = f"y = LpNormalization {attributes(axis=rng.randrange(len(shape)), p=rng.choice([1, 2]))} (x)"
    return build({"x": ("float", shape)}, text, opset=rng.choice(OPSETS))


def dropped_axes(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 4))
    axes = sorted(rng.sample(range(len(shape)), rng.randint(1, len(shape))))
    return reduction(rng, rng.choice(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"]), shape, axes, 0)


def many_axes(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 4))
    axes = sorted(rng.sample(range(len(shape)), rng.randint(2, len(shape))))
    op = rng.choice(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"])
    return reduction(rng, op, shape, axes, rng.randint(0, 1))


def last_axis(rng: Random, *others: str) -> BareModel:
    shape = sizes(rng, rng.randint(2, 4), largest=9)
    return reduction(rng, rng.choice(["ReduceMean", *others]), shape, [len(shape) - 1], rng.randint(0, 1))


def layer_norm(rng: Random) -> BareModel:
    shape = sizes(rng, rng.randint(2, 4), ones=0)
    axis = rng.randint(1, len(shape) - 1)
    inside = shape[axis:]
    bias = rng.random() < 0.7
    text = f"y = LayerNormalization {attributes(axis=axis - len(shape) * rng.randint(0, 1), epsilon=1e-3)}"
    constants = {"scale": numbers(rng, *inside)} | ({"bias": numbers(rng, *inside)} if bias else {})
    return build({"x": ("float", shape)}, f"{text} (x, scale{', bias' if bias else ''})", constants,
                 opset=rng.choice([17, 20]))  # fmt: skip


def instance_norm(rng: Random) -> BareModel:
    shape = image(rng, smallest=3) if rng.random() < 0.7 else sizes(rng, 3, ones=0)
    constants = {"scale": numbers(rng, shape[1]), "bias": numbers(rng, shape[1])}
    text = f"y = InstanceNormalization {attributes(epsilon=1e-3)} (x, scale, bias)"
    return build({"x": ("float", shape)}, text, constants, opset=rng.choice(OPSETS))


IMAGE = {"x": ("float", [1, 2, 3, 4])}

CASES = (
    Case("hard_swish_to_clip", hard_swish, lambda: build(IMAGE, "h = HardSigmoid (x)\ny = Mul (x, h)"), ""),
    Case("hard_sigmoid_to_clip", hard_sigmoid,
         lambda: build({"x": ("bfloat16", [2])}, "y = HardSigmoid (x)", output="bfloat16", opset=22),
         "floating-point type"),
    Case("min_of_relu_to_clip", lambda rng: unary(rng, "r = Relu (x)\ny = Min (r, six)", six=rng.uniform(0, 8)),
         lambda: build(IMAGE, "r = Relu (x)\ny = Min (r, c)", {"c": np.asarray(-1, np.float32)}), ""),
    Case("clip_to_relu", lambda rng: clip(rng, 0.0, None), lambda: build(
        IMAGE | {"low": ("float", [])}, "y = Clip (x, low)"), "bounds are not constant"),
    Case("clip_from_zero", lambda rng: clip(rng, rng.uniform(-3, -0.5), rng.uniform(0, 3)),
         lambda: build(IMAGE, "y = Clip (x, low)", {"low": np.asarray(-1, np.float32)}), "two finite bounds"),
    Case("relu_to_clip", lambda rng: unary(rng, "s = Sigmoid (x)\ny = Relu (s)"), lambda: build(
        {"x": ("bfloat16", [2])}, "y = Relu (x)", output="bfloat16"), "floating-point type"),
    Case("prelu_to_leaky_relu", lambda rng: prelu(rng, one=True), lambda: prelu(Random(4), one=False), "one constant"),
    Case("prelu_to_relus", lambda rng: prelu(rng, one=rng.random() < 0.3), lambda: build(
        IMAGE | {"s": ("float", [2, 1, 1])}, "y = PRelu (x, s)"), "slope is not constant"),
    Case("neg_to_mul", lambda rng: unary(rng, "y = Neg (x)", kind=rng.choice(["float", "double", "int64"])),
         lambda: build({"x": ("bfloat16", [2])}, "y = Neg (x)", output="bfloat16"), "floating-point type"),
    Case("softmax_on_last_axis", softmax, lambda: build(IMAGE, "y = Softmax <axis = 1> (x)", opset=11), "every axis"),
    Case("softmax_of_one_batch", batches, lambda: build(
        {"x": ("float", [2, 3, 4])}, "y = Softmax <axis = 1> (x)", opset=13), "last axis"),
    Case("gelu_to_tanh", gelu, lambda: build(IMAGE, "y = Gelu <approximate = \"tanh\"> (x)", opset=20), ""),
    Case("gelu_to_sigmoid", gelu, lambda: build(IMAGE, "y = Gelu <approximate = \"tanh\"> (x)", opset=20), ""),
    Case("sub_to_add", lambda rng: binary(rng, "Sub", constant=rng.random() < 0.6,
                                          kind=rng.choice(["float", "float", "double"])),
         lambda: build({"x": ("uint8", [2]), "z": ("uint8", [2])}, "y = Sub (x, z)", output="uint8"), "type"),
    Case("div_by_constant_to_mul", lambda rng: binary(rng, "Div", constant=True),
         lambda: build(IMAGE, "y = Div (x, c)", {"c": np.asarray([1, 0, 2, 3], np.float32)}), "is zero"),
    Case("pow_to_mul", power, lambda: build(IMAGE, "y = Pow (x, p)", {"p": np.asarray(0.5, np.float32)}), "negative"),
    Case("mean_to_add", lambda rng: several(rng, "Mean", 1), lambda: build(
        {"x": ("bfloat16", [2])}, "y = Mean (x, x)", output="bfloat16"), "type"),
    Case("sum_to_add", lambda rng: several(rng, "Sum", 1), lambda: build(IMAGE, "y = Add (x, x)"), ""),
    Case("many_to_pairs", lambda rng: several(rng, rng.choice(["Max", "Min"]), 3),
         lambda: build(IMAGE, "y = Max (x, x)"), ""),
    Case("where_to_mul_add", where, lambda: build(
        {"x": ("float", [2, 3]), "m": ("bool", [2, 3])}, "y = Where (m, x, z)",
        {"z": np.asarray(-np.inf, np.float32)}), "may be infinite"),
    Case("larger_operand_first", smaller_first, lambda: build(IMAGE, "y = Add (x, x)"), ""),
    Case("sigmoid_to_reciprocal", lambda rng: unary(rng, "y = Sigmoid (x)"), lambda: build(
        {"x": ("bfloat16", [2])}, "y = Sigmoid (x)", output="bfloat16"), "type"),
    Case("reduce_to_global_pool", global_mean, lambda: build(
        IMAGE | {"axes": ("int64", [2])}, "y = ReduceMean (x, axes)", opset=18), "axes are not constant"),
    Case("reduce_l2_to_sqrt", norm, lambda: build(
        IMAGE | {"axes": ("int64", [2])}, "y = ReduceL2 (x, axes)", opset=18), "axes are not constant"),
    Case("lp_normalization_to_div", lp, lambda: build(
        {"x": ("bfloat16", [2, 3])}, "y = LpNormalization (x)", output="bfloat16", opset=22), "type"),
    Case("reduce_keepdims", dropped_axes, lambda: build(
        IMAGE | {"axes": ("int64", [2])}, "y = ReduceMean <keepdims = 0> (x, axes)", opset=18), "axes"),
    Case("reduce_one_axis_at_a_time", many_axes, lambda: build(
        IMAGE | {"axes": ("int64", [2])}, "y = ReduceMean (x, axes)", opset=18), "axes are not constant"),
    Case("reduce_last_axis_to_global_pool", last_axis, lambda: build(
        {"x": ("float", ["n", 2])}, "y = ReduceMean <axes = [1]> (x)"), "sizes are not known"),
    Case("reduce_last_axis_to_matmul", lambda rng: last_axis(rng, "ReduceSum"), lambda: build(
        {"x": ("float", [2, "n"])}, "y = ReduceMean <axes = [1]> (x)"), "sizes are not known"),
    Case("layer_norm_to_primitives", layer_norm, lambda: build(
        {"x": ("float16", [2, 3])}, "y = LayerNormalization (x, s)", {"s": np.ones(3, np.float16)}, output="float16"),
        "another type"),
    Case("instance_norm_to_primitives", instance_norm, lambda: build(
        IMAGE | {"s": ("float", [2])}, "y = InstanceNormalization (x, s, s)"), "parameters are not constant"),
)  # fmt: skip
