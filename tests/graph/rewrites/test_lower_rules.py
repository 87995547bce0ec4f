"""Every lowering rule: a graph that it must rewrite, one that it must decline; origin, maker and names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from pipeline.graph.bare import BareModel
from pipeline.graph.dtypes import element_type
from pipeline.graph.rewrites.families import rules_of
from pipeline.graph.rewrites.lower import LoweringFailed, lower
from pipeline.graph.rewrites.names import LOWERING, NAMES
from pipeline.graph.rewrites.prove import prove
from pipeline.graph.rewrites.rule import Rule
from tests.graph.graphs import bare
from tests.graph.rewrites.lower_cases import PAIRS
from tests.graph.rewrites.random_case import NOISE, Case
from tests.graph.rewrites.random_oracle import Sample, against_reference

#: Two roundings to 8 bits.
BFLOAT16_NOISE = 2**-7
RULES = {rule.name: rule for rule in rules_of("lower")}


def model_of(text: str, opset: int) -> BareModel:
    """The bare model of a line of `lower_cases`; nodes are named n0, n1 ... and have an origin."""
    signature, constants, nodes = (part.strip() for part in text.split("|"))
    inputs, _, outputs = signature.partition("=>")
    known = f"<{constants}>" if constants else ""
    model = bare(f"g ({inputs}) => ({outputs})\n{known}\n{{ {nodes} }}", opset=opset, ir_version=11)
    proto = model.parsed()
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
    names = {node.name for node in proto.graph.node} | {
        name for node in proto.graph.node for name in node.output
    }
    return replace(
        model,
        proto=proto.SerializeToString(),
        scopes=dict.fromkeys(sorted(names), "net.layer"),
        lines=dict.fromkeys(sorted(names), "net.py:7"),
    )


def values_of(model: BareModel, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    values = {}
    for value in model.parsed().graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value or 3 for dim in kind.shape.dim]
        name = element_type(kind.elem_type).name
        if name.startswith("float"):
            values[value.name] = (random.standard_normal(shape) * 2).astype(name)
        elif name == "bool":
            values[value.name] = random.integers(0, 2, shape).astype(bool)
        else:
            values[value.name] = random.integers(0 if name.startswith("u") else -9, 9, shape).astype(name)
    return values


def test_every_rule_has_a_case():
    assert set(PAIRS) == set(RULES)


def test_names_and_families_agree():
    assert [rule.name for rule in rules_of("lower")] == [
        name for names in LOWERING.values() for name in names
    ]
    assert len(NAMES) == sum(map(len, LOWERING.values())) + sum(
        1 for kind, _ in NAMES.values() if kind != "lower"
    )
    for rule in RULES.values():
        assert rule.kind == "lower"
        assert rule.promise in ("exact", "float noise")
        assert rule.from_opset > 9
        assert rule.summary
        assert not rule.summary.endswith(".")


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_rewritten(rule: Rule):
    model = model_of(PAIRS[rule.name].rewritten, rule.from_opset)
    lowered, rewriting = lower(model, rule.from_opset - 1)
    assert rule.name in rewriting.counts
    assert lowered.outputs == model.outputs
    assert lowered.inputs == model.inputs
    made = [
        node for node in lowered.parsed().graph.node if lowered.made_by.get(node.name) == f"rule {rule.name}"
    ]
    assert made or rule.rewrite_graph is not None
    written = {node.op_type for node in made}
    if rule.makes[0] in RULES or not rule.makes[0].startswith("operators"):
        assert written <= {*rule.makes, "Identity"}, "the rule writes operators that it does not name"
    for node in made:
        assert lowered.scopes[node.name] == "net.layer"
        assert lowered.lines[node.name] == "net.py:7"
    exact = rule.promise == "exact"
    for seed in range(3):
        values = values_of(model, seed)
        error = prove(model, lowered, rewriting, values, key="export.rules")
        if error is None:
            case = Case(rule.takes[0], [], values)
            noise = BFLOAT16_NOISE if rule.name == "bfloat16_to_float32" else NOISE
            made_sample = Sample(case, model, rule.from_opset - 1, values)
            assert against_reference(made_sample, lowered, noise) is None
        elif exact:
            assert error < 1e-6


@pytest.mark.parametrize("name", [name for name, pair in PAIRS.items() if pair.declined and not pair.reason])
def test_left_alone(name: str):
    rule = RULES[name]
    model = model_of(PAIRS[name].declined, rule.from_opset)
    _, rewriting = lower(model, rule.from_opset - 1)
    assert name not in rewriting.counts


@pytest.mark.parametrize(
    "name", [name for name, pair in PAIRS.items() if pair.reason and RULES[name].rewrite_graph is None]
)
def test_declined(name: str):
    rule, pair = RULES[name], PAIRS[name]
    model = model_of(pair.declined, rule.from_opset)
    with pytest.raises(LoweringFailed) as caught:
        lower(model, rule.from_opset - 1)
    assert caught.value.nearest == rule.from_opset
    [blocker] = [one for one in caught.value.blockers if one.operator in rule.takes]
    assert pair.reason in blocker.reason
    assert (blocker.scope, blocker.line) == ("net.layer", "net.py:7")
    assert caught.value.reason.next_step == f"Type export.opset={rule.from_opset}"


@pytest.mark.parametrize(
    "name", [name for name, pair in PAIRS.items() if pair.reason and RULES[name].rewrite_graph is not None]
)
def test_declined_for_the_whole_graph(name: str):
    """Such a rule is applied on the way down; whether it can be depends on the opset that is asked for."""
    with pytest.raises(LoweringFailed) as caught:
        lower(model_of(PAIRS[name].declined, RULES[name].from_opset), 9)
    [blocker] = caught.value.blockers
    assert (blocker.rule, PAIRS[name].reason in blocker.reason) == (name, True)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_switched_off(rule: Rule):
    """Without the rule the way ends, or another rule of the same operator is found."""
    model = model_of(PAIRS[rule.name].rewritten, rule.from_opset)
    try:
        _, rewriting = lower(model, rule.from_opset - 1, off=[rule.name])
        nearest, used = rule.from_opset, rewriting.counts
    except LoweringFailed as failed:
        nearest, used = failed.nearest, failed.rewriting.counts
    assert nearest == rule.from_opset
    assert rule.name not in used


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_the_same_bytes_every_time(rule: Rule):
    model = model_of(PAIRS[rule.name].rewritten, rule.from_opset)
    first, second = (lower(model, rule.from_opset - 1)[0] for _ in range(2))
    assert first.proto == second.proto
    assert onnx.ModelProto.FromString(first.proto).opset_import[0].version == rule.from_opset - 1
