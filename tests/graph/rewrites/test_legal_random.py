"""Random small graphs through the rules of whole profiles: equal within noise, or left alone with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from pipeline.graph.bare import BareModel
from pipeline.graph.equivalence import compare_graphs
from pipeline.graph.legalise import legalise
from pipeline.graph.rewrites.engine import ROUNDS, rewrite
from pipeline.graph.rewrites.families import rules_of
from pipeline.graph.rewrites.legal_types import frozen_values
from pipeline.targets.profile import load_profile
from tests.graph.rewrites import legal_cases_images, legal_cases_shapes, legal_cases_values
from tests.graph.rewrites.legal_case import OPSETS, attributes, build, ints, numbers, values
from tests.graph.rewrites.legal_cases_images import batch_norm_of

CASES = {
    case.rule: case
    for module in (legal_cases_values, legal_cases_images, legal_cases_shapes)
    for case in module.CASES
}
PROFILES = ("horizon_x3", "horizon_x5", "horizon_rdk_ultra", "ncnn")
QUICK, ALL = 300, 10_000
#: Shares that the issue asks for: of all graphs, and of each operator's.
REWRITTEN, REWRITTEN_EACH = 0.8, 0.5
#: Fewer graphs than this say nothing of a share.
ENOUGH = 20
#: Rules whose random graphs may need nothing: a Transpose that was none, elementwise work between none.
NOT_ALWAYS = (
    "transpose_to_reshape", "transpose_behind_elementwise", "split_large_pool", "conv_taps_in_padding"
)  # fmt: skip
#: Pairs of rules that undo one another are never wanted together.
OPPOSITE = {"clip_to_relu": "relu_to_clip", "resize_scales_to_sizes": "resize_sizes_to_scales"}


class Chain:
    """A random network of a few layers, built as text."""

    def __init__(self, rng: Random) -> None:
        self.rng, self.lines, self.constants = rng, [], {}
        self.name, self.number = "x", 0
        self.shape = [1, rng.randint(2, 6), rng.randint(6, 10), rng.randint(6, 10)]
        self.first = list(self.shape)

    def add(self, text: str, shape: list[int] | None = None, **constants: Any) -> None:
        """A line of text; {x} is the value so far, {name} a constant."""
        self.number += 1
        given = {key: f"{key}{self.number}" for key in constants}
        self.constants.update({given[key]: value for key, value in constants.items()})
        result = f"v{self.number}"
        lines = text.format(x=self.name, y=result, n=self.number, **given)
        self.lines.append(lines)
        self.name, self.shape = result, shape or self.shape

    def layer(self) -> None:
        rng, shape = self.rng, self.shape
        if len(shape) != 4 or min(shape[2:]) < 3:
            self.add(f"{{y}} = {rng.choice(['Relu', 'Sigmoid', 'Tanh', 'Neg'])} ({{x}})")
            return
        kind = rng.choice(["conv", "affine", "norm", "swish", "gate", "pool", "pad", "transpose", "slice", "gather",
                           "arithmetic", "mean", "split", "resize", "heads"])  # fmt: skip
        getattr(self, kind)()

    def conv(self) -> None:
        out, dilation = self.rng.randint(1, 6), self.rng.choice([1, 1, 2, 3])
        group = self.rng.choice([1, self.shape[1]])
        text = attributes(dilations=[dilation] * 2, pads=[dilation] * 4, group=group)
        self.add(f"{{y}} = Conv {text} ({{x}}, {{w}}, {{b}})", [self.shape[0], out * group, *self.shape[2:]],
                 w=numbers(self.rng, out * group, self.shape[1] // group, 3, 3), b=numbers(self.rng, out * group))  # fmt: skip

    def affine(self) -> None:
        constant = numbers(self.rng, self.shape[1], 1, 1)
        self.add(f"{{y}} = {self.rng.choice(['Mul', 'Add', 'Sub', 'Div'])} ({{x}}, {{c}})", c=constant + 3)

    def norm(self) -> None:
        text, constants = batch_norm_of(self.rng, self.shape[1], "{x}")
        names = {key: "{" + key + "}" for key in constants}
        text = text.replace("y =", "{y} =").replace("scale, shift, mean, variance", ", ".join(names.values()))
        self.add(text, **constants)

    def swish(self) -> None:
        self.add("h{n} = HardSigmoid <alpha = 0.166666667> ({x})\n{y} = Mul ({x}, h{n})")

    def gate(self) -> None:
        channels = self.shape[1]
        self.add("g{n} = GlobalAveragePool ({x})\nf{n} = Conv (g{n}, {w})\ns{n} = HardSigmoid (f{n})\n{y} = Mul (s{n}, {x})",
                 w=numbers(self.rng, channels, channels, 1, 1))  # fmt: skip

    def pool(self) -> None:
        text = attributes(kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
        self.add(f"{{y}} = AveragePool {text} ({{x}})")

    def pad(self) -> None:
        sides = [self.rng.randint(0, 2) for _ in range(4)]
        shape = [*self.shape[:2], self.shape[2] + sides[0] + sides[2], self.shape[3] + sides[1] + sides[3]]
        mode = self.rng.choice(["reflect", "edge", "constant"])
        self.add(
            f'{{y}} = Pad <mode = "{mode}"> ({{x}}, {{p}})', shape, p=ints(0, 0, *sides[:2], 0, 0, *sides[2:])
        )

    def transpose(self) -> None:
        self.add("t{n} = Transpose <perm = [0, 2, 3, 1]> ({x})\nm{n} = MatMul (t{n}, {w})\nu{n} = Add (m{n}, {b})\n"
                 "r{n} = Relu (u{n})\n{y} = Transpose <perm = [0, 3, 1, 2]> (r{n})", [self.shape[0], 4, *self.shape[2:]],
                 w=numbers(self.rng, self.shape[1], 4), b=numbers(self.rng, 4))  # fmt: skip

    def slice(self) -> None:
        even = self.shape[3] // 2 * 2
        start = self.rng.randint(0, 1)
        self.add("{y} = Slice ({x}, {s}, {e}, {a}, {t})", [*self.shape[:3], even // 2],
                 s=ints(start), e=ints(even), a=ints(3), t=ints(2))  # fmt: skip

    def gather(self) -> None:
        first = self.rng.randint(0, 1)
        index = ints(*range(first, first + self.shape[2] - 1))
        self.add("{y} = Gather <axis = 2> ({x}, {i})", [*self.shape[:2], len(index), self.shape[3]], i=index)

    def arithmetic(self) -> None:
        self.add(
            "n{n} = Neg ({x})\np{n} = Pow ({x}, {two})\n{y} = Sub (p{n}, n{n})", two=numbers(self.rng) * 0 + 2
        )

    def mean(self) -> None:
        axes = self.rng.choice([[2, 3], [3], [1]])
        if self.opset < 18:
            self.add(f"m{{n}} = ReduceMean {attributes(axes=axes)} ({{x}})\n{{y}} = Sub ({{x}}, m{{n}})")
        else:
            self.add("m{n} = ReduceMean ({x}, {a})\n{y} = Sub ({x}, m{n})", a=ints(*axes))

    def split(self) -> None:
        parts = [1, self.shape[1] - 1]
        if parts[1] < 1:
            return
        if self.opset < 13:
            text = f"a{{n}}, b{{n}} = Split {attributes(axis=1, split=parts)} ({{x}})\n"
            self.add(text + "{y} = Concat <axis = 1> (b{n}, a{n})")
        else:
            self.add(
                "a{n}, b{n} = Split <axis = 1> ({x}, {p})\n{y} = Concat <axis = 1> (b{n}, a{n})",
                p=ints(*parts),
            )

    def resize(self) -> None:
        target = [*self.shape[:2], self.shape[2] * 2, self.shape[3] * 2]
        mode = self.rng.choice(["nearest", "linear"])
        self.add(f'{{y}} = Resize <mode = "{mode}", coordinate_transformation_mode = "pytorch_half_pixel"> '
                 "({x}, {e}, {e}, {z})" if self.opset < 13 else
                 f'{{y}} = Resize <mode = "{mode}", coordinate_transformation_mode = "pytorch_half_pixel"> ({{x}}, , , {{z}})',
                 target, e=numbers(self.rng, 0), z=ints(*target))  # fmt: skip

    def heads(self) -> None:
        rows, channels, height, width = self.shape
        self.add("r{n} = Reshape ({x}, {s})\nt{n} = Transpose <perm = [3, 0, 1, 4, 2]> (r{n})\n"
                 "q{n} = Gather <axis = 0> (t{n}, {i})\n{y} = Transpose <perm = [0, 1, 3, 2]> (q{n})",
                 [rows, channels, height, width], s=ints(rows, channels, height, 1, width), i=ints(0).reshape(()))  # fmt: skip


def network(seed: int) -> BareModel:
    rng = Random(seed)
    chain = Chain(rng)
    chain.opset = rng.choice(OPSETS) if rng.random() < 0.5 else 11
    for _ in range(rng.randint(2, 6)):
        chain.layer()
    if rng.random() < 0.4 and len(chain.shape) == 4:
        depth = chain.shape[1]
        chain.add("g{n} = GlobalAveragePool ({x})\nf{n} = Flatten (g{n})\nl{n} = Gemm (f{n}, {w})\n{y} = HardSigmoid (l{n})",
                  [chain.shape[0], 5], w=numbers(rng, depth, 5))  # fmt: skip
    body = "\n".join([*chain.lines, f"y = Identity ({chain.name})"])
    return build({"x": ("float", chain.first)}, body, chain.constants, opset=chain.opset)


def graphs(number: int) -> Iterator[tuple[int, str, BareModel, tuple[str, ...], bool]]:
    """Seed, kind, graph, the rules that are wanted, whether one is made for it."""
    wants = {name: load_profile(name).wants for name in PROFILES}
    exact = [
        name
        for name in CASES
        if next(r for r in rules_of("legalise") if r.name == name).promise != "approximation"
    ]
    for seed in range(number):
        rng = Random(seed * 7919)
        if seed % 2:
            yield seed, "network", network(seed), wants[rng.choice(PROFILES)], False
            continue
        name = exact[seed // 2 % len(exact)]
        others = {*wants[rng.choice(PROFILES)]} - {OPPOSITE.get(name)} - {"pad_into_conv"}
        yield seed, name, CASES[name].taken(rng), tuple({*others, name}), True


def through(number: int) -> dict[str, Counter[str]]:
    """What became of every graph: kind to outcomes."""
    found: dict[str, Counter[str]] = {}
    for seed, kind, before, wants, made_for in graphs(number):
        after, rewriting = legalise(before, wants)
        counts = found.setdefault(kind, Counter())
        if not rewriting.applied:
            assert rewriting.declined or not made_for or kind in NOT_ALWAYS, (
                f"seed {seed} ({kind}): no reason"
            )
            counts["declined" if rewriting.declined else "nothing to do"] += 1
            continue
        counts["rewritten"] += 1
        feeds = values(before, seed)
        if any(one.rule == "freeze_batch" for one in rewriting.applied):
            feeds = frozen_values(before, feeds)
        equal = compare_graphs(before, after, feeds)
        assert equal.difference is None, f"seed {seed} ({kind}): {equal.difference}; {rewriting.counts}"
        # Rules come to an end: none takes its own result, or another's, for ever.
        rules = [rule for rule in rules_of("legalise") if rule.name in wants]
        assert not rewrite(after, rules)[1].applied, f"seed {seed} ({kind}): more than {ROUNDS} rounds"
    return found


def check(found: dict[str, Counter[str]], number: int) -> None:
    total: Counter[str] = sum(found.values(), Counter())
    print(f"\n{number} graphs: {dict(total)}")
    for kind, counts in sorted(found.items()):
        print(f"  {kind}: {dict(counts)}")
    assert total["rewritten"] >= REWRITTEN * number
    for kind, counts in found.items():
        if counts.total() >= ENOUGH:
            assert counts["rewritten"] >= REWRITTEN_EACH * counts.total(), f"{kind}: {dict(counts)}"


def test_random_graphs_through_whole_profiles() -> None:
    check(through(QUICK), QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_random_graphs_through_whole_profiles() -> None:
    check(through(ALL), ALL)
