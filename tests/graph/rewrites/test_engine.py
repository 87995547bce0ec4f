"""The engine: scopes, names, subgraphs, weights, proofs, and what is said where the way ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
import pytest

from pipeline.errors import Refused, StageFailed
from pipeline.graph.bare import BareModel, HeldTensor
from pipeline.graph.check import check
from pipeline.graph.equivalence import compare_graphs
from pipeline.graph.rewrites import lower as lowering
from pipeline.graph.rewrites.engine import rewrite
from pipeline.graph.rewrites.families import rules_of
from pipeline.graph.rewrites.lower import LoweringFailed, lower
from pipeline.graph.rewrites.names import check_rules
from pipeline.graph.rewrites.prove import prove
from pipeline.graph.rewrites.rule import Declined, Rule
from tests.graph.graphs import bare, operators_of, perceptron, random

SHADOWED = """
    g (float[2,3] x, bool c) => (float[2,3] y)
    <float half = {9.0}>
    {
        y = If (c) <
            then_branch = t () => (float[2,3] a) <float sqrt_half = {5.0}> { b = Gelu(x) a = Mul(b, sqrt_half) },
            else_branch = e () => (float[2,3] d) { d = Add(x, half) }
        >
    }
"""


def relu_to_max(makes: float = 0.0) -> Rule:
    return Rule(
        "relu_to_max", "legalise", ("Relu",), ("Max",), "exact", "Relu becomes a Max",
        lambda node, context: [context.op("Max", [node.inputs[0], context.tensor(np.float32(makes), "zero")])],
    )  # fmt: skip


def test_a_weight_is_derived_lazily():
    read = []

    def turned(weight):
        read.append(weight.shape)
        return np.ascontiguousarray(weight.T)

    def gemm(node, context):
        weight = node.inputs[1]
        shape = tuple(reversed(context.static_shape(weight)))
        made = context.derived([weight], turned, weight.dtype, shape, f"{weight.name}_turned")
        return [context.op("Gemm", [node.inputs[0], made], transB=1)]

    rule = Rule("turned", "legalise", ("MatMul",), ("Gemm",), "exact", "MatMul becomes a Gemm", gemm)
    model = perceptron()
    made, rewriting = rewrite(model, [rule])
    assert not read
    assert rewriting.counts == {"turned": 2}
    assert list(made.held) == ["fc1.weight_turned", "fc2.weight_turned"]
    assert made.held["fc1.weight_turned"].derived_by == "rule turned"
    assert made.held["fc1.weight_turned"].origin is None
    check(made)
    assert compare_graphs(model, made, {"x": random(2, 32)}).difference is None
    assert read == [(32, 64), (64, 10)]


def test_weights_that_no_rule_asks_for_stay_the_same_objects():
    model = perceptron()
    made, _ = rewrite(model, [relu_to_max()])
    assert all(made.held[name] is tensor for name, tensor in model.held.items())
    assert made.derived == {"zero": "rule relu_to_max"}


def test_nothing_to_do_gives_the_model_back():
    model = perceptron()
    assert rewrite(model, [])[0] is model
    assert lower(model, 17)[0] is model


def test_origin_and_names_are_kept():
    made, rewriting = rewrite(perceptron(), [relu_to_max()])
    assert operators_of(made) == ["MatMul", "Max", "MatMul"]
    assert made.made_by == {"/act/Relu": "rule relu_to_max"}
    assert (made.scopes["/act/Relu"], made.lines["/act/Relu"]) == ("act", "net.py:8")
    [applied] = rewriting.applied
    assert (applied.node, applied.operator, applied.outputs, applied.scope) == (
        "/act/Relu",
        "Relu",
        ("b",),
        "act",
    )


def test_declined_nodes_are_listed_with_the_reason():
    rule = replace(relu_to_max(), check=lambda node, context: Declined("it is Tuesday"))
    made, rewriting = rewrite(perceptron(), [rule])
    assert made.proto == perceptron().proto
    [declined] = rewriting.declined
    assert (declined.rule, declined.node, declined.reason, declined.scope) == (
        "relu_to_max", "/act/Relu", "it is Tuesday", "act",
    )  # fmt: skip


def test_new_names_are_free_in_every_scope():
    """A constant of the main graph must not bear a name that a branch gives to something else."""
    model = bare(SHADOWED, opset=20)
    for target in (19, 11, 9):
        made, rewriting = lower(model, target)
        assert rewriting.counts["gelu"] == 1
        check(made)
        for condition in (True, False):
            values = {"x": random(2, 3), "c": np.array(condition)}
            assert compare_graphs(model, made, values).difference is None


def test_a_value_that_is_an_output_keeps_its_name():
    model = bare(
        "g (float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Dropout(x) z = Dropout(y) }", opset=13
    )
    made, _ = lower(model, 11)
    assert made.outputs == ("y", "z")
    check(made)
    assert compare_graphs(model, made, {"x": random(2, 3)}).difference is None


def test_held_weights_are_found_by_name_after_lowering():
    made, _ = lower(perceptron(), 9)
    assert [entry.version for entry in made.parsed().opset_import] == [9]
    assert made.parsed().ir_version == 4
    assert list(made.held) == ["fc1.weight", "fc2.weight"]


def test_what_needs_no_type_is_lowered_behind_a_custom_operator():
    text = (
        "g (float[2,3] x) => (float[2,1] y) <int64[1] a={1}> { f = com.example.Odd(x) y = ReduceMean(f, a) }"
    )
    model = bare(text, opset=18, imports=', "com.example" : 3')
    lowered, rewriting = lower(model, 17)
    assert rewriting.counts == {"reduction_axes": 1}
    assert operators_of(lowered) == ["Odd", "ReduceMean"]


def test_a_custom_operator_stays_and_is_named_where_it_hides_a_shape():
    imports = ', "com.example" : 3'
    text = "g (float[2,3] x) => (float[2,3] y) { a = com.example.Odd(x) y = Softmax<axis=1>(a) }"
    model = bare(text, opset=17, imports=imports)
    with pytest.raises(LoweringFailed) as caught:
        lower(model, 11)
    [blocker] = caught.value.blockers
    assert blocker.reason == "the rank of its input is not known: com.example.Odd before it says none"
    plain = bare("g (float[2,3] x) => (float[2,3] y) { y = com.example.Odd(x) }", opset=17, imports=imports)
    made, _ = lower(plain, 9)
    assert {one.domain: one.version for one in made.parsed().opset_import} == {"": 9, "com.example": 3}


def test_the_operators_in_the_way_and_the_nearest_opset():
    model = bare(
        "g (float[3,3] x, int32[3] a) => (float y, int32[3] z) { y = Det(x) z = BitwiseAnd(a, a) }", opset=18
    )
    with pytest.raises(LoweringFailed) as caught:
        lower(model, 9)
    failed = caught.value
    assert failed.nearest == 18
    assert failed.reason.code == "PL-430"
    assert failed.reason.message.startswith("no rule brings BitwiseAnd below opset 18: BitwiseAnd at node ")
    assert failed.reason.next_step == "Type export.opset=18"
    with pytest.raises(LoweringFailed) as caught:
        lower(bare("g (float[3,3] x) => (float y) { y = Det(x) }", opset=18), 9)
    assert caught.value.nearest == 11


def test_the_switch_of_a_rule_that_would_do_it_is_to_be_taken_away():
    """The sentence said that the rule is switched off, and then only to type another opset."""
    text = "g (float[3,3] x) => (float[3,3] z) { y = HardSwish(x) z = Mish(y) }"
    steps = {
        (16, "mish", "hard_swish"): "Take export.rules.mish=false away, or type export.opset=18",
        (13, "mish", "hard_swish"): "Take export.rules.hard_swish=false and export.rules.mish=false away, or type "
        "export.opset=18",
        (13, "hard_swish", "gelu"): "Take export.rules.hard_swish=false away, or type export.opset=14",
    }  # fmt: skip
    for (opset, *off), step in steps.items():
        with pytest.raises(LoweringFailed) as caught:
            lower(bare(text, opset=20), opset, off=off)
        assert caught.value.reason.next_step == step
    beside = "g (float[3,3] x) => (float y, float[3,3] z) { y = Det(x) z = HardSwish(x) }"
    for off, step in {
        "hard_swish": "Take export.rules.hard_swish=false away, which reaches opset 11, or type export.opset=14",
        "mish": "Type export.opset=11",
    }.items():
        with pytest.raises(LoweringFailed) as caught:
            lower(bare(beside, opset=18), 9, off=[off])
        assert caught.value.reason.next_step == step


def test_the_first_rule_that_breaks_something_is_named(monkeypatch):
    """A rule that is wrong on purpose stands before one that is right."""
    real = rules_of("lower")
    wrong = [
        replace(rule, rewrite=lambda node, context: [context.op("Neg", [node.inputs[0]])])
        if rule.name == "hard_swish"
        else rule
        for rule in real
    ]
    monkeypatch.setattr(lowering, "rules_of", lambda kind: tuple(wrong))
    model = bare(
        "g (float[2,3] x) => (float[2,3] y) { a = Mish(x) [\"act\"] b = HardSwish(a) c = Celu(b) y = Softmax<axis=0>(c) }",
        opset=18, scopes={"act": "net.act"},
    )  # fmt: skip
    made, rewriting = lower(model, 11)
    with pytest.raises(StageFailed) as caught:
        prove(model, made, rewriting, {"x": random(2, 3)}, key="export.rules")
    reason = caught.value.reason
    assert (reason.code, reason.where) == ("PL-431", "net.act")
    assert reason.message == "the rewrite rule hard_swish changed what the graph computes"
    assert "export.rules.hard_swish=false" in reason.next_step


def test_a_rule_that_writes_an_invalid_node_is_named():
    """The checker or the runtime complains of a node, and the node says who made it."""
    model = perceptron()

    def unsorted(node, context):
        made = context.op("Max", [node.inputs[0], node.inputs[0]])
        made.producer().op_type = "Nothing"
        return [made]

    made, rewriting = rewrite(model, [replace(relu_to_max(), rewrite=unsorted)])
    with pytest.raises(StageFailed) as caught:
        prove(model, made, rewriting, {"x": random(2, 32)}, key="target.rules")
    assert caught.value.reason.code == "PL-431"
    assert "Nothing" in caught.value.reason.found


@pytest.mark.parametrize(
    ("given", "key", "kind", "said"),
    [
        ({"gelu_": False}, "export.rules", "lower", "Did you mean gelu or celu? "),
        ({"gelu": 3}, "export.rules", "lower", "expected true or false"),
        ({"gelu": False}, "target.rules", "legalise", "Type export.rules.gelu=false"),
    ],
)
def test_names_that_are_refused(given, key, kind, said):
    with pytest.raises(Refused) as caught:
        check_rules(given, key=key, kind=kind)
    assert caught.value.reason.code == "PL-103"
    assert said in caught.value.reason.sentence()


def test_rules_that_are_switched_off():
    assert check_rules({"gelu": False, "mish": True}, key="export.rules", kind="lower") == ("gelu",)


def test_bfloat16_weights_become_float32_and_are_derived():
    import ml_dtypes

    model = bare(
        """
        g (bfloat16[2,32] x, bfloat16[32,64] w) => (bfloat16[2,64] y)
        <bfloat16[64] b>
        { a = MatMul(x, w) y = Add(a, a) }
        """.replace("<bfloat16[64] b>", ""),
        opset=18,
    )  # fmt: skip
    weight = random(32, 64).astype(ml_dtypes.bfloat16)
    tensor = HeldTensor("w", 16, (32, 64), lambda: weight.reshape(-1).view(np.uint8), "w")
    model = replace(model, inputs=("x",), held={"w": tensor})
    made, rewriting = lower(model, 17)
    assert rewriting.counts == {"bfloat16_to_float32": 1}
    [wide] = made.held.values()
    assert (wide.dtype, wide.derived_by, wide.origin) == (1, "rule bfloat16_to_float32", None)
    assert np.array_equal(
        np.frombuffer(bytes(wide.data()), np.float32).reshape(32, 64), weight.astype(np.float32)
    )
    assert operators_of(made) == ["Cast", "MatMul", "Add", "Cast"]
    assert (made.inputs, made.outputs) == (("x",), ("y",))
    check(made)
    with pytest.raises(LoweringFailed) as caught:
        lower(model, 11)
    assert "the input x is bfloat16, which opset 11 does not know" in caught.value.reason.message


def test_functions_of_the_model_are_opened():
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 20, "own" : 1]>
        g (float[2,3] x) => (float[2,3] y) { a = own.Bent(x) y = own.Bent(a) }
        <domain: "own", opset_import: ["" : 20]>
        Bent (x) => (y) { g = Gelu(x) y = Neg(g) }
        """
    )
    bent = BareModel.from_proto(model, scopes={"a": "net.act", "y": "net.act"})
    made, rewriting = lower(bent, 9)
    assert rewriting.counts["gelu"] == 2
    assert not made.parsed().functions
    assert [one.domain for one in made.parsed().opset_import] == [""]
    check(made)
    assert compare_graphs(bent, made, {"x": random(2, 3)}).difference is None


def test_scales_that_are_not_known_are_not_guessed_from_the_sizes():
    """5 rows by 1.5 are 7, and so are 5 by 1.4: the file's sizes do not say which."""
    text = """
        g (float[1,1,5,5] x, float[4] s) => (float[1,1,7,7] y)
        <float[0] r = {}>
        { y = Resize<mode="linear">(x, r, s) }
    """
    with pytest.raises(LoweringFailed) as caught:
        lower(bare(text, opset=11), 10)
    assert caught.value.blockers[0].reason == "the sizes that it makes are not known"
