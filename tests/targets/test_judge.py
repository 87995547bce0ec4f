"""Findings: whole graphs, origins, bodies inside nodes, what is not known, and files that are none."""

from __future__ import annotations

import json
import random
from pathlib import Path

import onnx
import pytest

from pipeline.errors import Refused
from pipeline.targets.causes import causes, where_of
from pipeline.targets.judge import Finding, Judgement, judge, requested_nodes
from pipeline.targets.profile import load_profile
from tests.targets.judging import judged, model, one_node, shipped

NET = (
    "f (float[1,8,8,8] x, float[8,8,9,9] w) => (float[1,8] y) "
    "{ c = Conv <pads = [4, 4, 4, 4]> (x, w) h = HardSwish (c) m = GlobalAveragePool (h) y = Flatten (m) }"
)


def whole(found: Judgement) -> list[tuple[str, str, str]]:
    return [(one.limit, one.found, one.verdict) for one in found.findings if one.node is None]


def test_a_finding_says_what_where_and_how_to_mend_it() -> None:
    made = model(NET, opset=14)
    for node, name in zip(made.graph.node, ("conv", "swish", "mean", "flat"), strict=True):
        node.name = name
    found = judge(
        shipped("horizon_x3"),
        made,
        held={"w"},
        modules={"swish": "features.1"},
        lines={"swish": "net.py:12"},
    )
    by_node = {one.node: one for one in found.findings}
    swish = by_node["swish"]
    assert (swish.operator, swish.verdict, swish.module, swish.line) == (
        "HardSwish",
        "refused",
        "features.1",
        "net.py:12",
    )
    assert "hard_swish_to_clip" in (swish.mend or "")
    assert where_of(swish) == "node swish, module features.1, net.py:12"
    conv = by_node["conv"]
    assert (conv.limit, conv.found, conv.verdict) == (
        "kernel_h in 1..7; kernel_w in 1..7", "kernel_h = 9, kernel_w = 9", "limited-to-cpu",
    )  # fmt: skip
    assert conv.mend == "several smaller kernels in a row instead of a large one"
    assert by_node["flat"].verdict == "limited-to-cpu"
    assert [one.place for one in found.placements] == ["cpu", "unsupported", "accelerator", "cpu"]
    assert found.switches == 1  # the mean's output goes to the CPU; nothing known comes to the mean
    assert not found.passed


def test_the_whole_graph() -> None:
    made = model(NET, opset=14, ir_version=8)
    assert whole(judged("horizon_x3", made, frozenset("w"))) == [
        ("opset 10 to 11", "opset 14", "refused"),
        ("IR version up to 7", "IR version 8", "refused"),
        ("at least 1 Conv on BPU", "0 of 1", "refused"),
    ]
    mends = [one.mend for one in judged("horizon_x3", made, frozenset("w")).findings if one.node is None]
    assert mends[:2] == ["export.opset=11", "export.ir_version=7"]
    inputs = model(
        "f (double[2,n] a, float[1,3,4,4] b) => (double[2,n] c, float[1,3,4,4] d) { c = Abs (a) d = Abs (b) }"
    )
    assert whole(judged("horizon_x3", inputs)) == [
        ("fixed shapes only", "a [2, ?]", "refused"),
        ("inputs of rank 4", "a [2, ?]", "refused"),
        ("batch 1", "a [2, ?]", "refused"),
        ("inputs and outputs of float32", "a is float64", "refused"),
        ("inputs and outputs of float32", "c is float64", "refused"),
        ("at least 1 Conv on BPU", "0 of 0", "refused"),
    ]
    many = ", ".join(f"float[1,1,1,1] y{index}" for index in range(33))
    body = " ".join(f"y{index} = Abs (x)" for index in range(33))
    assert ("at most 32 outputs", "33 outputs", "refused") in whole(
        judged("horizon_x3", model(f"f (float[1,1,1,1] x) => ({many}) {{ {body} }}"))
    )
    deep = model(f"f (float[{','.join('1' * 11)}] x) => (float[{','.join('1' * 11)}] y) {{ y = Abs (x) }}")
    assert whole(judged("horizon_s100", deep)) == [
        ("tensors of at most rank 10", "x has rank 11 (2 in all)", "refused")
    ]


def test_the_opset_is_refused_and_every_node_is_judged_all_the_same() -> None:
    found = judged("horizon_x3", model(NET, opset=20), frozenset("w"))
    assert len(found.placements) == 4
    assert {one.place for one in found.placements} == {"cpu", "unsupported", "accelerator"}


def test_a_requirement_that_cannot_be_told_is_unknown() -> None:
    made = model("f (float[1,8,n,8] x, float[8,8,3,3] w) => (float[1,8,m,6] y) { y = Conv (x, w) }")
    profile = load_profile("horizon_x5", {"shapes": "dynamic"})
    found = judge(profile, made, held={"w"})
    assert found.placements[0].place == "unknown"
    assert whole(found) == [("at least 1 Conv on BPU", "0 of 1", "unknown")]


def test_other_domains() -> None:
    text = "f (float[1,8] x) => (float[1,8] y) { g = com.microsoft.Gelu (x) y = vendor.Magic (g) }"
    made = model(text)
    assert [one.place for one in judged("horizon_x3", made).placements] == ["unsupported", "unsupported"]
    found = judged("onnxruntime", made).placements
    assert [(one.operator, one.place) for one in found] == [
        ("com.microsoft::Gelu", "accelerator"),
        ("vendor::Magic", "unsupported"),
    ]
    mine = load_profile(
        "horizon_x3", {"domains": ["ai.onnx", "vendor"], "operators": {"vendor::Magic": {"cpu": "full"}}}
    )
    assert judge(mine, made).placements[1].place == "cpu"


def test_functions_of_the_model_are_looked_into() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    f (float[1,8] x) => (float[1,8] y) { y = local.twice (x) }
    <domain: "local", opset_import: ["" : 17]>
    twice (a) => (c) { b = Det (a) c = Add (a, a) }
    """
    found = judged("tvm", onnx.parser.parse_model(text))
    assert [(one.operator, one.place) for one in found.placements] == [
        ("Det", "unsupported"),
        ("Add", "accelerator"),
    ]


BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
f (bool b, float[1,3,3] x) => (float[1] y)
{
  k = Constant <value = float[1] {2.0}> ()
  y = If (b) <
    then_branch = t () => (float[1] u) { d = Det (x) u = Mul (d, k) },
    else_branch = e () => (float[1] v) { v = Mul (k, k) }
  >
}
"""


def test_bodies_inside_nodes_are_judged_with_what_is_around_them() -> None:
    found = judged("tvm", onnx.parser.parse_model(BRANCHES))
    rows = [(one.node, one.operator, one.place) for one in found.placements]
    assert rows[0][1:] == ("Constant", "folded")
    assert rows[1][1:] == ("If", "unknown")
    assert [row[1:] for row in rows[2:]] == [
        ("Det", "unsupported"),
        ("Mul", "accelerator"),
        ("Mul", "folded"),
    ]
    assert rows[2][0] == "If(y).then_branch/Det(d)"
    assert len({row[0] for row in rows}) == len(rows)


def test_nodes_without_and_with_equal_names_stay_apart() -> None:
    made = model("f (float[1,3] x) => (float[1,3] y) { a = Abs (x) b = Abs (a) y = Abs (b) }")
    for node in list(made.graph.node)[:2]:
        node.name = "same"
    assert [one.node for one in judged("onnxruntime", made).placements] == ["same", "same#2", "Abs(y)"]


def test_constants_and_shapes_of_fixed_sizes_disappear() -> None:
    text = (
        "f (float[1,{0},8] x) => (float[1,{0},8] y) "
        "{{ s = Shape (x) k = Constant <value = int64[1] {{1}}> () t = Mul (s, k) y = Expand (x, t) }}"
    )
    fixed = [one.place for one in judged("horizon_x5", model(text.format(8))).placements]
    assert fixed == ["folded", "folded", "folded", "cpu"]  # Expand changes no axis
    dynamic = [one.place for one in judged("onnxruntime", model(text.format("n"))).placements]
    assert dynamic == ["accelerator", "folded", "accelerator", "accelerator"]
    random_text = "f (float[1,8] x) => (float[1,8] y) { r = RandomNormal <shape = [1, 8]> () y = Add (x, r) }"
    assert judged("onnxruntime", model(random_text)).placements[0].place == "accelerator"


def test_the_request_may_ask_for_the_accelerator_by_name() -> None:
    made = one_node("Softmax", (1, 8, 1, 1), attributes="axis = 1")
    made.graph.node[0].name = "head"
    profile = shipped("horizon_x3")
    assert judge(profile, made).placements[0].place == "cpu"
    assert judge(profile, made, requested=["head"]).placements[0].place == "accelerator"
    assert requested_nodes({"run_on_bpu": "a; head"}) == {"a", "head"}
    assert requested_nodes({"run_on_bpu": ["a"], "node_info": {"b": {"ON": "BPU"}, "c": {"ON": "CPU"}}}) == {
        "a",
        "b",
    }
    assert requested_nodes({"node_info": "b:int16"}) == frozenset()


def test_unknown_is_said_with_what_is_missing() -> None:
    found = judged("horizon_x3", one_node("Mul", (1, 8, 4, 4), (1, 8, 4, 4)))
    (finding,) = [one for one in found.findings if one.node is not None]
    assert (finding.verdict, finding.limit) == ("unknown", "input values must not be 0")
    assert finding.mend
    assert found.placements[0].why.endswith("else CPU")
    assert not found.passed
    s100 = judged("horizon_s100", one_node("Relu", (1, 3)))
    assert [one.verdict for one in s100.findings] == ["unknown"]
    assert "target.limits.operators" in (s100.findings[0].mend or "")


def test_findings_of_one_cause_stand_together() -> None:
    rows = [
        Finding(name, "Mul", "rank == 4", f"rank = {rank}", "limited-to-cpu")
        for name, rank in (("a", 2), ("b", 3))
    ]
    rows += [
        Finding(None, None, "opset", "9", "refused"),
        Finding("c", "Mul", "C <= 3", "C = 4", "unknown", mend="less"),
    ]
    found = causes(rows)
    assert [(one.verdict, one.operator, len(one.findings)) for one in found] == [
        ("refused", None, 1), ("unknown", "Mul", 1), ("limited-to-cpu", "Mul", 2),
    ]  # fmt: skip
    assert (found[1].mend, found[2].mend, found[2].first.node) == ("less", None, "a")


def test_judgement_is_json_and_the_same_every_time() -> None:
    first, second = (judged("horizon_x3", model(NET, opset=14), frozenset("w")) for _ in range(2))
    assert first == second
    data = json.loads(json.dumps(first.to_json()))
    assert data["predicted"] is True
    assert data["profile_digest"] == shipped("horizon_x3").digest
    assert len(data["findings"]) == len(first.findings)


def test_files_that_are_no_model(tmp_path: Path) -> None:
    profile = shipped("onnxruntime")
    path = tmp_path / "x.onnx"
    for content in (b"", b"\x00" * 100, b"no model at all", b"\x08\x07\x3a\x05abc"):
        path.write_bytes(content)
        with pytest.raises(Refused) as error:
            judge(profile, path)
        assert error.value.reason.code == "PL-609"
        assert error.value.reason.where in (str(path), None)
    with pytest.raises(Refused, match="cannot be read"):
        judge(profile, tmp_path / "nowhere.onnx")
    with pytest.raises(Refused, match="cannot be read"):
        judge(profile, tmp_path)


def test_damaged_files_are_refused_or_judged_and_nothing_else(tmp_path: Path) -> None:
    """Every byte of a small file may be wrong; nothing but one sentence comes of it."""
    profile = shipped("horizon_x3")
    whole_file = model(BRANCHES.partition(">")[2].strip(), opset=17).SerializeToString()
    source = random.Random(0)
    path = tmp_path / "x.onnx"
    judged_count = 0
    codes = set()
    for _ in range(500):
        data = bytearray(whole_file)
        for _ in range(source.randint(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        path.write_bytes(data[: source.randint(1, len(data))] if source.random() < 0.3 else data)
        try:
            judge(profile, path)
            judged_count += 1
        except Refused as refused:
            codes.add(refused.reason.code)
    assert codes == {"PL-609"}
    assert judged_count > 10
