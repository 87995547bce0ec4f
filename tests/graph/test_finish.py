"""What the finished graph says, and what it no longer says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx
import pytest

from pipeline.errors import StageFailed
from pipeline.graph.bare import BareModel
from pipeline.graph.finish import MODULE_KEY, PRODUCER, finish
from pipeline.graph.places import places
from pipeline.graph.source_map import mapped_share, source_map
from pipeline.graph.walk import nodes
from pipeline.version import __version__
from tests.graph.graphs import bare, perceptron, random


def finished(model: BareModel, **options: Any) -> onnx.ModelProto:
    return finish(model, metadata=options.get("metadata", {}), ir_version=options.get("ir_version"))


def talkative() -> BareModel:
    """A graph that says on every level where and how it was made."""
    model = perceptron()
    proto = model.parsed()
    proto.producer_name, proto.producer_version = "pytorch", "2.14.1+cu130"
    proto.domain, proto.model_version, proto.doc_string = "org", 3, "made on a machine"
    proto.metadata_props.add(key="onnxsim.version", value="0.8")
    proto.opset_import.add(domain="pkg.onnxscript.torch_lib", version=1)
    graph = proto.graph
    graph.doc_string = "graph"
    values = (*graph.input, *graph.output, *graph.node)
    for message in (graph, *values):
        message.doc_string = "somewhere"
        message.metadata_props.add(key="stack", value="File net.py")
    graph.node[0].attribute.add(name="a", type=onnx.AttributeProto.INT, i=1, doc_string="attribute")
    graph.value_info.add(name="a", doc_string="value").type.tensor_type.elem_type = 1
    graph.value_info.add(name="nobody").type.tensor_type.elem_type = 1
    return replace(model, proto=proto.SerializeToString())


def test_nothing_stays_that_says_how_the_file_came_about() -> None:
    proto = finished(talkative(), metadata={"request": "abc"})
    assert (proto.producer_name, proto.producer_version) == (PRODUCER, __version__)
    assert (proto.domain, proto.model_version) == ("", 0)
    assert [(entry.key, entry.value) for entry in proto.metadata_props] == [("request", "abc")]
    text = str(proto)
    for word in ("doc_string", "somewhere", "net.py", "onnxsim", "pytorch", "torch_lib", "nobody"):
        assert word not in text


def test_what_the_exporter_said_does_not_change_the_bytes() -> None:
    plain = finished(perceptron())
    noisy = finished(talkative())
    del noisy.graph.value_info[:]
    noisy.graph.node[0].ClearField("attribute")
    assert noisy.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


def test_held_tensors_are_no_inputs_unless_shown() -> None:
    assert [value.name for value in finished(perceptron()).graph.input] == ["x"]
    shown = perceptron(shown_parameters=("fc2.weight",))
    assert [value.name for value in finished(shown).graph.input] == ["x", "fc2.weight"]


def test_a_graph_without_a_name_gets_one() -> None:
    model = perceptron()
    proto = model.parsed()
    proto.graph.name = ""
    assert finished(replace(model, proto=proto.SerializeToString())).graph.name == "main_graph"


def test_opsets_of_domains_that_nodes_use_stay_and_ai_onnx_is_first() -> None:
    model = bare(
        "net (float[2] x) => (float[2] y) { a = zz.Foo(x) y = Relu(a) }", imports=', "zz" : 3, "unused" : 1'
    )
    found = [(entry.domain, entry.version) for entry in finished(model).opset_import]
    assert found == [("", 17), ("zz", 3)]


@pytest.mark.parametrize(
    ("opset", "ir_version"),
    [(7, 4), (9, 4), (10, 5), (11, 6), (13, 7), (15, 8), (17, 8), (18, 8), (19, 9), (21, 10), (23, 11)],
)
def test_the_ir_version_is_the_one_that_the_opset_brought(opset: int, ir_version: int) -> None:
    text = "net (float[2,32] x, float[32,64] w) => (float[2,64] y) { y = MatMul(x, w) }"
    model = bare(text, {"w": random(32, 64)}, opset=opset)
    assert finished(model).ir_version == ir_version


def test_an_ir_version_that_is_too_old_is_refused() -> None:
    with pytest.raises(StageFailed) as caught:
        finished(perceptron(), ir_version=3)
    assert (caught.value.reason.code, caught.value.reason.where) == ("PL-402", "export.ir_version")
    assert finished(perceptron(), ir_version=4).ir_version == 4


def test_modules_stand_in_metadata_from_ir_version_10_on() -> None:
    old = finished(perceptron())
    assert not any(node.metadata_props for node in old.graph.node)
    new = finished(perceptron(), ir_version=10)
    found = [{entry.key: entry.value for entry in node.metadata_props} for node in new.graph.node]
    assert found == [{MODULE_KEY: "fc1"}, {MODULE_KEY: "act"}, {MODULE_KEY: "fc2"}]


# names


def test_a_name_that_shows_its_module_stays() -> None:
    names = [node.name for node in finished(perceptron()).graph.node]
    assert names == ["/fc1/MatMul", "/act/Relu", "/fc2/MatMul"]


def test_other_names_are_made_from_the_module() -> None:
    model = bare(
        """
        net (float[2] x) => (float[2] y)
        {
            ["node_Relu_0"] a = Relu(x)
            ["node_Relu_1"] b = Relu(a)
            c = Relu(b)
            ["same"] d = Relu(c)
            ["same"] y = Relu(d)
        }
        """,
        scopes={"a": "net.act", "b": "net.act", "c": "", "d": "last"},
    )
    assert [node.name for node in finished(model).graph.node] == [
        "/net.act/Relu", "/net.act/Relu_1", "/Relu", "/last/Relu", "/last/Relu_1",
    ]  # fmt: skip


def test_names_are_unique_in_all_scopes() -> None:
    model = bare(
        """
        net (float[2] x, bool flag) => (float[2] y)
        {
            ["/Relu"] a = Relu(x)
            y = If(flag) <
                then_branch = t () => (float[2] b) { b = Relu(a) },
                else_branch = e () => (float[2] c) { ["/Relu"] c = Relu(a) }
            >
        }
        """
    )
    names = [node.name for node in nodes(finished(model).graph)]
    assert len(set(names)) == len(names) == 4
    assert all(names)


def test_sizes_stated_for_results_of_branches_are_left_open() -> None:
    model = bare(
        """
        net (float[2] x, bool flag, int64 n) => (float[2] y, float[2] z)
        {
            y = If(flag) <
                then_branch = t () => (float[7] b) { b = Relu(x) },
                else_branch = e () => (float[2] c) { c = Abs(x) }
            >
            z = Loop(n, flag, x) <
                body = l (int64 i, bool go, float[2] s) => (bool go2, float[2] s2) { go2 = Identity(go) s2 = Relu(s) }
            >
        }
        """
    )
    branches, loop = finished(model).graph.node
    for attribute in branches.attribute:
        assert not attribute.g.output[0].type.tensor_type.HasField("shape")
        assert attribute.g.output[0].type.tensor_type.elem_type == 1
    # The state of a loop has the same shape in every round: that is said, not guessed.
    assert loop.attribute[0].g.output[1].type.tensor_type.HasField("shape")


# places


def test_a_node_between_two_of_one_module_belongs_to_it() -> None:
    model = bare(
        """
        net (float[2] x) => (float[2] y)
        {
            a = Relu(x)
            b = Neg(a)
            c = Abs(b)
            d = Relu(c)
            y = Exp(d)
        }
        """,
        scopes={"a": "layer.1", "d": "layer.1", "y": "layer.2"},
    )
    found = places(model.parsed().graph, model)
    assert [place and (place.module, place.found_by) for place in found] == [
        ("layer.1", "output"), ("layer.1", "neighbours"), ("layer.1", "neighbours"),
        ("layer.1", "output"), ("layer.2", "output"),
    ]  # fmt: skip


def test_a_node_between_two_modules_belongs_to_what_holds_both() -> None:
    model = bare(
        "net (float[2] x) => (float[2] y) { a = Relu(x) b = Neg(a) y = Exp(b) }",
        scopes={"a": "features.1.conv", "y": "features.1.norm"},
    )
    place = places(model.parsed().graph, model)[1]
    assert place is not None
    assert (place.module, place.found_by) == ("features.1", "neighbours")


def test_a_parameter_that_one_node_uses_says_where_it_belongs() -> None:
    model = perceptron(scopes={}, lines={})
    found = places(model.parsed().graph, model)
    assert [place and (place.module, place.found_by) for place in found] == [
        ("fc1", "parameter"), ("", "neighbours"), ("fc2", "parameter"),
    ]  # fmt: skip


def test_a_parameter_that_two_nodes_use_says_nothing() -> None:
    model = bare(
        "net (float[2,64] x, float[64,64] w) => (float[2,64] y) { a = MatMul(x, w) y = MatMul(a, w) }",
        {"w": random(64, 64)},
    )
    assert places(model.parsed().graph, model) == [None, None]
    assert mapped_share(model) == 0.0


def test_a_node_inside_a_branch_belongs_where_the_branch_stands() -> None:
    model = bare(
        """
        net (float[2] x, bool flag) => (float[2] y)
        {
            y = If(flag) <
                then_branch = t () => (float[2] b) { b = Relu(x) },
                else_branch = e () => (float[2] c) { c = Abs(x) }
            >
        }
        """,
        scopes={"y": "gate", "c": "gate.other"},
        lines={"y": "net.py:3"},
    )
    rows = source_map(model)["nodes"]
    assert [(row["module"], row["found_by"], row["line"]) for row in rows.values()] == [
        ("gate", "output", 3), ("gate", "around", 3), ("gate.other", "output", None),
    ]  # fmt: skip


# the source map


def test_the_source_map_names_every_final_node_and_initializer(tmp_path: Any) -> None:
    model = perceptron(made_by={"/act/Relu": "simplify"})
    mapped = source_map(model)
    assert list(mapped["nodes"]) == [node.name for node in finished(model).graph.node]
    assert mapped["nodes"]["/fc1/MatMul"] == {
        "op_type": "MatMul", "module": "fc1", "found_by": "output", "file": "net.py", "line": 7,
        "made_by": "export",
    }  # fmt: skip
    assert mapped["nodes"]["/act/Relu"]["made_by"] == "simplify"
    assert mapped["initializers"] == {
        "fc1.weight": {"origin": "fc1.weight"},
        "fc2.weight": {"origin": "fc2.weight"},
    }


def test_files_are_named_from_where_python_imports_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["/venv/lib/site-packages", "/home/somebody/project"])
    lines = {
        "a": "/venv/lib/site-packages/torchvision/models/alexnet.py:48",
        "b": "/home/somebody/project/net.py:7",
        "y": "/elsewhere/net.py:8",
    }
    rows = source_map(perceptron(lines=lines))["nodes"].values()
    assert [(row["file"], row["line"]) for row in rows] == [
        ("torchvision/models/alexnet.py", 48), ("net.py", 7), ("/elsewhere/net.py", 8),
    ]  # fmt: skip


def test_a_constant_without_an_origin_is_listed_with_its_maker() -> None:
    model = bare(
        """
        net (float[2] x) => (float[2] y)
        <float[1] a = {1}, float[1] b = {2}, float[1] c = {3}>
        { p = Add(x, a) q = Add(p, b) y = Add(q, c) }
        """,
        origins={"a": "scale"},
        derived={"b": "simplify: constant folding"},
    )
    assert source_map(model)["initializers"] == {
        "a": {"origin": "scale"},
        "b": {"derived_by": "simplify: constant folding"},
        "c": {"derived_by": "export"},
    }
