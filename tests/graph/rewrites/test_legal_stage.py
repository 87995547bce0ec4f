"""The stage that applies a target's rules: proof, the first rule that breaks, what the simplifier may not undo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.helper
import pytest

from pipeline.errors import InternalError, StageFailed
from pipeline.events import Finding
from pipeline.graph import legalise as legalise_module
from pipeline.graph.legalise import legalise, legalise_and_prove, wanted_rules
from pipeline.graph.legalise_stage import LegaliseStage
from pipeline.graph.rewrites.families import rules_of
from pipeline.graph.rewrites.names import LEGALISATION
from pipeline.graph.rewrites.rewriting import names_of
from pipeline.graph.rewrites.rule import Rule
from pipeline.graph.simplify import operators
from pipeline.graph.source_map import source_map
from pipeline.stage import Stage
from tests.graph.graphs import bare, held, random
from tests.graph.rewrites.legal_case import build, ints, values
from tests.graph.test_stages import Bench

NAMES = [name for family in LEGALISATION.values() for name in family]


def gated() -> Any:
    """HardSwish as opset 11 has it, between two convolutions."""
    body = """
        v = Conv (x, w)
        h = HardSigmoid <alpha = 0.166666667> (v)
        m = Mul (v, h)
        y = Conv <pads = [0, 0, 1, 1]> (m, z)
    """
    return build(
        {"x": ("float", [1, 3, 6, 6])}, body, {"w": random(4, 3, 1, 1), "z": random(2, 4, 3, 3)}, opset=11
    )


WANTED = (
    "hard_sigmoid_to_clip",
    "constants_to_depthwise_conv",
    "constants_into_conv",
    "uneven_conv_pads_apart",
)


def stage_of(folder: Path, rules: tuple[str, ...], before: Any) -> tuple[Bench, Any]:
    bench = Bench(folder, {"simplified": before, "export_inputs": values(before, 0)})
    stage: Stage = LegaliseStage(rules, private_apis=True)
    stage.requires(bench)
    verdict = stage.run(bench)
    stage.ensures(bench)
    return bench, verdict


def test_the_stage_rewrites_proves_and_says_what_it_did(tmp_path: Path) -> None:
    bench, verdict = stage_of(tmp_path, WANTED, gated())
    after = bench.values["legalised"]
    assert operators(after) == {"Conv": 3, "Clip": 1, "Mul": 1, "Pad": 1}
    assert verdict.status == "passed" and verdict.measured["error"] < 1e-5
    assert verdict.measured["applied"]["hard_sigmoid_to_clip"] == 1
    assert verdict.measured["nodes_before"] == 4
    assert verdict.summary == (
        "6 nodes, 3 rewritten by constants_to_depthwise_conv, hard_sigmoid_to_clip, uneven_conv_pads_apart"
    )
    made_by = {row["made_by"] for row in source_map(after)["nodes"].values()}
    assert {"export", "rule hard_sigmoid_to_clip", "rule constants_to_depthwise_conv"} <= made_by


def test_a_line_names_the_rules_that_replaced_most() -> None:
    """The line of the stage said "72 rewritten" and no rule; that of the export listed them all."""
    counts = {"einsum": 1, "gelu": 4, "mish": 2, "round": 1, "swish": 9}
    assert names_of(counts) == "swish, gelu, mish and 2 more"
    assert names_of({"gelu": 1, "einsum": 1}) == "einsum, gelu"


def test_nothing_to_do_hands_the_same_graph_on(tmp_path: Path) -> None:
    before = gated()
    bench, verdict = stage_of(tmp_path, ("neg_to_mul",), before)
    assert bench.values["legalised"] is before and verdict.summary == "nothing to rewrite"


def test_what_the_simplifier_undoes_is_done_again(tmp_path: Path) -> None:
    # onnxsim fuses a Pad before a convolution into it.
    bench, _ = stage_of(tmp_path, ("uneven_conv_pads_apart",), gated())
    for node in bench.values["legalised"].parsed().graph.node:
        for attribute in node.attribute:
            if attribute.name == "pads":
                assert list(attribute.ints[:2]) == list(attribute.ints[2:])


def wrong(name: str) -> tuple[Rule, ...]:
    """Every rule, and one of them computes something else."""

    def rewrite(node: Any, context: Any) -> list[Any]:
        return [context.op("Tanh", [node.inputs[0]])]

    return tuple(replace(one, rewrite=rewrite) if one.name == name else one for one in rules_of("legalise"))


def test_the_first_rule_that_breaks_something_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rules = wrong("hard_sigmoid_to_clip")
    monkeypatch.setattr(legalise_module, "rules_of", lambda kind: rules)
    with pytest.raises(StageFailed) as caught:
        stage_of(tmp_path, WANTED, gated())
    reason = caught.value.reason
    assert reason.code == "PL-431" and "rule hard_sigmoid_to_clip changed" in reason.message
    assert "target.rules.hard_sigmoid_to_clip=false" in (reason.next_step or "")
    stage_of(tmp_path, tuple(name for name in WANTED if name != "hard_sigmoid_to_clip"), gated())


def test_an_approximation_is_said_and_the_exact_rules_are_still_proved(tmp_path: Path) -> None:
    before = build({"x": ("float", [2, 3, 4, 4])}, "g = Gelu (x)\ny = Neg (g)", opset=20)
    bench, verdict = stage_of(tmp_path, ("gelu_to_tanh", "neg_to_mul"), before)
    assert 0 < verdict.measured["approximation"] < 5e-3
    assert verdict.measured["error"] == 0
    assert "Tanh" in operators(bench.values["legalised"])
    (finding,) = [event for event in bench.events if isinstance(event, Finding)]
    assert "approximate" in finding.message


def test_gelu_forms_are_as_close_as_published() -> None:
    line = np.linspace(-6, 6, 4001, dtype=np.float32)
    before = build({"x": ("float", [4001])}, "y = Gelu (x)", opset=20)
    # Hendrycks and Gimpel; largest distances of the two forms from the exact function.
    for name, largest in (("gelu_to_tanh", 4.8e-4), ("gelu_to_sigmoid", 2.04e-2)):
        done = legalise_and_prove(before, [name], {"x": line}, private_apis=True)
        assert done.approximation is not None
        assert 0.5 * largest / 6 < done.approximation < largest / 6  # the largest output is 6


def test_approximations_are_in_no_profile() -> None:
    from pipeline.targets.profile import load_profile
    from pipeline.targets.profile_file import profile_names

    only_asked = {rule.name for rule in rules_of("legalise") if rule.promise == "approximation"}
    wants = {name: set(load_profile(name).wants) for name in profile_names()}
    for name, wanted in wants.items():
        assert not wanted & only_asked, name
        assert wanted <= set(NAMES), name
        # Rules that undo one another would take turns.
        assert not {"clip_to_relu", "relu_to_clip"} <= wanted
        assert not {"resize_sizes_to_scales", "resize_scales_to_sizes"} <= wanted


def test_a_dynamic_batch_is_frozen_and_sizes_are_folded(tmp_path: Path) -> None:
    body = """
        r = Relu (x)
        s = Shape (r)
        b = Gather <axis = 0> (s, zero)
        u = Unsqueeze <axes = [0]> (b)
        to = Concat <axis = 0> (u, rest)
        y = Reshape (r, to)
    """
    before = build({"x": ("float", ["batch", 3, 4])}, body,
                   {"zero": ints(0).reshape(()), "rest": ints(12)}, opset=11, result="batch,12")  # fmt: skip
    bench, verdict = stage_of(tmp_path, ("freeze_batch", "neg_to_mul"), before)
    after = bench.values["legalised"].parsed().graph
    assert [dim.dim_value for dim in after.input[0].type.tensor_type.shape.dim] == [1, 3, 4]
    assert {node.op_type for node in after.node} == {"Relu", "Reshape"}
    assert verdict.measured["applied"] == {"freeze_batch": 1}


def test_float64_inside_is_narrowed_and_the_interface_stays(tmp_path: Path) -> None:
    before = build({"x": ("double", [2, 3])}, "m = Mul (x, c)\ny = Cast <to = 1> (m)",
                   {"c": np.arange(3, dtype=np.float64)})  # fmt: skip
    bench, _ = stage_of(tmp_path, ("narrow_float64",), before)
    graph = bench.values["legalised"].parsed().graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    assert {tensor.data_type for tensor in graph.initializer} <= {onnx.TensorProto.FLOAT}


def test_names_are_switched_on_and_off() -> None:
    assert wanted_rules(["neg_to_mul"], {"neg_to_mul": False, "sub_to_add": True}) == ("sub_to_add",)
    order = wanted_rules(reversed(NAMES))
    assert list(order) == NAMES
    with pytest.raises(InternalError, match="no_such_rule"):
        wanted_rules(["no_such_rule"])
    with pytest.raises(InternalError, match="opset 11, not 13"):
        legalise(gated(), WANTED, opset=13)


def test_keys_tell_rules_apart() -> None:
    one, other = (
        LegaliseStage(("neg_to_mul",), True).key_parts(),
        LegaliseStage(("sub_to_add",), True).key_parts(),
    )
    assert one != other and "pipeline.graph.rewrites.legal_activations" in one.code
    assert "pipeline.graph.rewrites.legal_arithmetic" in other.code
    # Another order, or the road that the simplifier takes, is the same request.
    assert LegaliseStage(("a_b", "c_d"), True).rules and (
        LegaliseStage(WANTED, True).key_parts() == LegaliseStage(WANTED[::-1], False).key_parts()
    )


class _Unreadable:
    """Weights that must not be read."""

    def __call__(self) -> Any:
        raise AssertionError("a weight was read")


def test_rules_that_change_a_weight_read_it_only_when_the_file_is_written() -> None:
    weight = random(40, 50)
    before = bare(
        "g (float[1,40] x, float[40,50] w) => (float[1,50] y) { y = MatMul (x, w) }", {"w": weight}, opset=13
    )
    locked = replace(before, held={"w": replace(held("w", weight), data=_Unreadable())})
    after, rewriting = legalise(locked, ["linear_to_conv"])
    assert rewriting.counts == {"linear_to_conv": 1}
    (name,) = after.held
    assert after.held[name].shape == (50, 40, 1, 1) and after.held[name].derived_by == "rule linear_to_conv"
    opened, _ = legalise(before, ["linear_to_conv"])
    assert np.array_equal(opened.held[name].data().view(np.float32).reshape(50, 40), weight.T)


def test_parameters_that_the_user_sees_stay_what_they_are(tmp_path: Path) -> None:
    weight = random(40, 50)
    text = "g (float[1,40] x, float[40,50] w) => (float[1,50] y) { y = MatMul (x, w) }"
    shown = bare(text, {"w": weight}, opset=13, shown_parameters=("w",))
    after, rewriting = legalise(shown, ["linear_to_conv"])
    assert after is shown and "no constant matrix" in rewriting.declined[0].reason
    # A parameter that was named is not one that a rule may put another in the place of.
    named = LegaliseStage(("linear_to_conv",), True, keep=("w",))
    bench = Bench(tmp_path, {"simplified": bare(text, {"w": weight}, opset=13), "export_inputs": {}})
    named.run(bench)
    named.ensures(bench)
    assert tuple(bench.values["legalised"].held) == ("w",)


def test_an_infinite_factor_is_not_folded() -> None:
    before = build({"x": ("float", [1, 2, 3, 3])}, "v = Conv (x, w)\ny = Mul (v, c)",
                   {"w": random(2, 2, 1, 1), "c": np.asarray(np.inf, np.float32)})  # fmt: skip
    assert not legalise(before, ["constants_into_conv", "constants_to_depthwise_conv"])[1].applied


def test_rules_reach_into_branches() -> None:
    text = """
        g (bool c, float[2,3] x) => (float[2,3] y) {
            y = If (c) <
                then_branch = a () => (float[2,3] p) { p = Neg (x) },
                else_branch = b () => (float[2,3] q) { q = Relu (x) }
            >
        }
    """
    before = bare(text, opset=13)
    after, rewriting = legalise(before, ["neg_to_mul"])
    assert rewriting.counts == {"neg_to_mul": 1}
    for condition in (True, False):
        feeds = {"c": np.asarray(condition), "x": random(2, 3)}
        assert legalise_module.compare_graphs(before, after, feeds).difference is None


def test_every_rule_states_what_it_is() -> None:
    for rule in rules_of("legalise"):
        assert rule.kind == "legalise" and rule.from_opset == 0
        assert rule.summary and not rule.summary.endswith(".")
        assert rule.makes or rule.name == "freeze_batch"
