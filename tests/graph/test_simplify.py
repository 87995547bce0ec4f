"""Simplifying a bare graph: what goes, what must stay, and what happens when it cannot be proved."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from pipeline.errors import InternalError
from pipeline.graph import onnxsim_core
from pipeline.graph import simplify as module
from pipeline.graph.bare import BareModel
from pipeline.graph.equivalence import compare_graphs
from pipeline.graph.folding import DERIVED_BY
from pipeline.graph.onnxsim_core import run_onnxsim
from pipeline.graph.simplify import count_nodes, operators, simplify
from tests.graph.graphs import bare, operators_of, perceptron, random

X = {"x": random(2, 32, seed=5)}


def with_identities() -> BareModel:
    return bare(
        """
        net (float[2,32] x, float[64,32] "fc.weight") => (float[2,64] y)
        <int64[2] shape = {2, 32}>
        {
            ["i1"] a = Identity(x)
            ["s"] s = Shape(a)
            ["r"] r = Reshape(a, s)
            ["t"] w = Transpose<perm=[1,0]>("fc.weight")
            ["/fc/MatMul"] b = MatMul(r, w)
            ["i2"] y = Identity(b)
        }
        """,
        {"fc.weight": random(64, 32)},
        scopes={"b": "fc"},
    )


def test_it_goes_down_to_what_computes() -> None:
    model = with_identities()
    simplified, done = simplify(model, X, private_apis=True)
    assert operators_of(simplified) == ["MatMul"]
    assert (done.outcome, done.nodes_before, done.nodes_after) == ("simplified", 6, 1)
    assert done.error == 0.0
    assert (simplified.inputs, simplified.outputs) == (("x",), ("y",))


def test_what_was_computed_from_a_weight_is_held_again_and_listed_as_derived() -> None:
    simplified, _ = simplify(with_identities(), X, private_apis=True)
    (tensor,) = simplified.held.values()
    assert (tensor.origin, tensor.derived_by) == (None, DERIVED_BY)
    assert tensor.shape == (32, 64)
    np.testing.assert_array_equal(tensor.data().view(np.float32).reshape(32, 64), random(64, 32).transpose())


def test_nothing_holds_the_weights_afterwards() -> None:
    """Without waiting for a garbage collection, which the command line puts off."""
    model = with_identities()
    held_by = [weakref.ref(tensor) for tensor in model.held.values()]
    gc.disable()
    try:
        simplified, _ = simplify(model, X, private_apis=True)
        assert set(simplified.held).isdisjoint(model.held)
        del model
        assert [tensor() for tensor in held_by] == [None]
    finally:
        gc.enable()


def test_a_parameter_that_must_keep_its_name_is_not_folded() -> None:
    simplified, _ = simplify(with_identities(), X, private_apis=True, keep=("fc.weight",))
    assert set(simplified.held) == {"fc.weight"}
    assert operators_of(simplified) == ["Transpose", "MatMul"]


def test_a_shown_parameter_survives() -> None:
    model = replace(with_identities(), shown_parameters=("fc.weight",))
    simplified, _ = simplify(model, X, private_apis=True)
    assert simplified.shown_parameters == ("fc.weight",)
    assert set(simplified.held) == {"fc.weight"}


def test_held_tensors_that_nothing_uses_are_gone_and_real_inputs_stay() -> None:
    model = bare(
        """
        net (float[2,32] x, float[3] unused, float[64,64] w, float[64,65] nobody) => (float[2,32] y)
        {
            z = MatMul(w, w)
            y = Relu(x)
        }
        """,
        {"w": random(64, 64), "nobody": random(64, 65)},
    )
    simplified, _ = simplify(model, {**X, "unused": random(3)}, private_apis=True)
    assert simplified.inputs == ("x", "unused")
    assert not simplified.held
    simplified.check_invariant()


def test_symbolic_sizes_keep_their_names_inside_too() -> None:
    model = bare(
        """
        net (float[N,32] x, float[32,16] w) => (float[N,16] y)
        {
            i = Identity(x)
            a = MatMul(i, w)
            y = Relu(a)
        }
        """,
        {"w": random(32, 16)},
    )
    simplified, done = simplify(model, X, private_apis=True)
    graph = simplified.parsed().graph
    names = {
        dim.dim_param
        for value in (*graph.input, *graph.output, *graph.value_info)
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    }
    assert done.outcome == "simplified"
    assert names == {"N"}


def test_symbolic_sizes_that_the_simplifier_renames_get_their_names_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In some graphs onnxsim calls them unk__0 and the like."""

    def renames(proto: bytes, **options: Any) -> bytes:
        return run_onnxsim(proto, **options).replace(b"batch", b"unk_0")

    monkeypatch.setattr(module, "run_onnxsim", renames)
    model = bare(
        "net (float[batch,32] x, float[32,16] w) => (float[batch,16] y) "
        "{ i = Identity(x) a = MatMul(i, w) y = Relu(a) }",
        {"w": random(32, 16)},
    )
    simplified, done = simplify(model, X, private_apis=True)
    assert done.outcome == "simplified"
    assert simplified.parsed().graph.value_info[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b"unk_0" not in simplified.proto


def test_large_results_are_not_folded_into_the_file() -> None:
    model = bare(
        """
        net (float[1] x) => (float[4096,1024] y)
        <int64[2] shape = {4096, 1024}>
        {
            big = ConstantOfShape(shape)
            i = Identity(x)
            y = Add(big, i)
        }
        """
    )
    simplified, done = simplify(model, {"x": random(1)}, private_apis=True)
    assert operators_of(simplified) == ["ConstantOfShape", "Add"]
    assert done.outcome == "simplified"
    assert len(simplified.proto) < 4096


def test_many_results_that_are_small_each_are_not_folded_where_the_file_would_grow() -> None:
    shapes = " ".join(f"b{i} = ConstantOfShape<value = float[1] {{{i + 2}}}>(s)" for i in range(5))
    sums = " ".join(f"t{i} = Tanh(y{i}) y{i + 1} = Mul(t{i}, b{i})" for i in range(5))
    model = bare(
        f"""
        net (float[1] x) => (float[500,500] y5)
        <int64[2] s = {{500, 500}}>
        {{ y0 = Identity(x) {shapes} {sums} }}
        """
    )
    simplified, done = simplify(model, {"x": random(1)}, private_apis=True)
    assert done.outcome == "simplified"
    assert operators(simplified) == {"ConstantOfShape": 5, "Mul": 5, "Tanh": 5}
    assert not simplified.held


def test_a_weight_that_is_broadcast_to_something_large_is_not_folded() -> None:
    model = bare(
        """
        net (float[1] x, float[1,1024] w) => (float[4096,1024] y)
        <int64[2] shape = {4096, 1024}>
        {
            big = Expand(w, shape)
            y = Add(big, x)
        }
        """,
        {"w": random(1, 1024)},
    )
    simplified, done = simplify(model, {"x": random(1)}, private_apis=True)
    assert done.outcome == "unchanged"
    assert set(simplified.held) == {"w"}


def test_random_operators_are_left_alone() -> None:
    model = bare(
        """
        net (float[2,32] x, float[32,32] w) => (float[2,32] y)
        {
            r = RandomNormalLike(w)
            y = MatMul(x, r)
        }
        """,
        {"w": random(32, 32)},
    )
    simplified, _ = simplify(model, X, private_apis=True)
    assert "RandomNormalLike" in operators_of(simplified)


def test_a_graph_with_nothing_to_simplify_is_said_to_be_unchanged() -> None:
    simplified, done = simplify(perceptron(), X, private_apis=True)
    assert done.outcome == "unchanged"
    assert done.error is None
    assert simplified.held.keys() == perceptron().held.keys()


def test_equal_weights_are_merged_where_that_merges_nodes() -> None:
    weight = random(32, 64)
    model = bare(
        """
        net (float[2,32] x, float[32,64] one, float[32,64] two, float[32,64] three) => (float[2,64] y)
        {
            a = MatMul(x, one)
            b = MatMul(x, two)
            c = MatMul(x, three)
            ra = Relu(a)
            rb = Relu(b)
            s = Add(ra, rb)
            y = Add(s, c)
        }
        """,
        {"one": weight, "two": weight.copy(), "three": random(32, 64, seed=1)},
    )
    simplified, done = simplify(model, X, private_apis=True)
    assert set(simplified.held) == {"one", "three"}
    assert done.nodes_after == 5
    kept, _ = simplify(model, X, private_apis=True, keep=("two",))
    assert set(kept.held) == {"one", "two", "three"}


def test_scopes_lines_and_makers_follow_the_nodes() -> None:
    model = replace(with_identities(), lines={"b": "net.py:3", "gone": "net.py:4"})
    simplified, _ = simplify(model, X, private_apis=True)
    assert "gone" not in simplified.lines
    assert simplified.made_by == {}
    (node,) = simplified.parsed().graph.node
    assert node.name == "/fc/MatMul"


# what is not proved is not used


def test_a_result_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = perceptron()

    def wrong(proto: bytes, **options: Any) -> bytes:
        found = onnx.ModelProto.FromString(run_onnxsim(proto, **options))
        assert found.graph.node[1].op_type == "Relu"
        found.graph.node[1].op_type = "Abs"
        return found.SerializeToString()

    monkeypatch.setattr(module, "run_onnxsim", wrong)
    simplified, done = simplify(model, X, private_apis=True)
    assert done.outcome == "fell back"
    assert simplified.proto == model.proto
    assert done.nodes_after == 3
    assert done.error is not None
    assert done.error > 1e-2
    assert done.reason is not None
    assert done.reason.sentence().startswith(
        "simplify: the simplified graph was not used, the file holds the exported one; found output y: "
    )


@pytest.mark.parametrize("changed", ["input", "output"])
def test_a_result_with_another_interface_is_not_used(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    def without(proto: bytes, **options: Any) -> bytes:
        found = onnx.ModelProto.FromString(proto)
        getattr(found.graph, changed)[0].name += "1"
        return found.SerializeToString()

    monkeypatch.setattr(module, "run_onnxsim", without)
    _, done = simplify(with_identities(), X)
    assert done.reason is not None
    assert done.reason.found == f"onnxsim changed the graph's {changed}s"


def test_a_result_with_another_opset_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(proto: bytes, **options: Any) -> bytes:
        found = onnx.ModelProto.FromString(proto)
        found.opset_import[0].version = 18
        return found.SerializeToString()

    monkeypatch.setattr(module, "run_onnxsim", other)
    _, done = simplify(with_identities(), X)
    assert done.reason is not None
    assert done.reason.found == "onnxsim changed the operator set"


def test_a_result_that_grows_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def grown(proto: bytes, **options: Any) -> bytes:
        found = onnx.ModelProto.FromString(proto)
        data = np.zeros(1 << 20, np.float32)
        found.graph.initializer.append(onnx.numpy_helper.from_array(data, "ballast"))
        node = found.graph.node.add(op_type="Abs", input=["ballast"], output=["nothing"])
        assert node.op_type == "Abs"
        return found.SerializeToString()

    monkeypatch.setattr(module, "run_onnxsim", grown)
    monkeypatch.setattr(module, "fold_held", lambda model, keep, **_: model)
    _, done = simplify(with_identities(), X)
    assert done.reason is not None
    assert done.reason.found is not None
    assert done.reason.found.startswith("the file would grow from ")


def test_a_simplifier_that_fails_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(proto: bytes, **options: Any) -> bytes:
        raise RuntimeError("no such thing\nmore")

    monkeypatch.setattr(module, "run_onnxsim", fails)
    simplified, done = simplify(with_identities(), X)
    assert done.outcome == "fell back"
    assert done.reason is not None
    assert done.reason.found == "RuntimeError: no such thing"
    assert count_nodes(simplified) == 6


def test_our_own_broken_invariant_is_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> BareModel:
        raise InternalError("ours")

    monkeypatch.setattr(module, "merge_equal_tensors", broken)
    with pytest.raises(InternalError):
        simplify(with_identities(), X)


def test_an_operator_set_that_onnxruntime_does_not_know_is_said_so() -> None:
    text = "net (float[2,32] x) => (float[2,32] y) { a = Identity(x) y = Relu(a) }"
    simplified, done = simplify(bare(text, opset=30, ir_version=10), X, private_apis=True)
    assert done.outcome == "fell back"
    assert done.reason is not None
    assert "ONNX Runtime does not run the exported one" in done.reason.message
    assert done.reason.found is not None
    assert "opset" in done.reason.found
    assert count_nodes(simplified) == 2


def test_an_old_operator_set_that_onnxruntime_lacks_is_said_so() -> None:
    text = "net (float[2,32] x) => (float[2,32] y) { a = Identity(x) y = Relu(a) }"
    _, done = simplify(bare(text, opset=5, ir_version=3), X, private_apis=True)
    assert done.outcome == "fell back"
    assert done.reason is not None
    assert "ONNX Runtime does not run the exported one" in done.reason.message


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 17, 19, 21, 23])
def test_every_operator_set_is_kept(opset: int) -> None:
    text = "net (float[2,32] x) => (float[2,32] y) { a = Identity(x) y = Relu(a) }"
    simplified, done = simplify(bare(text, opset=opset), X, private_apis=True)
    assert done.outcome == "simplified"
    assert [(entry.domain, entry.version) for entry in simplified.parsed().opset_import] == [("", opset)]
    assert simplified.parsed().ir_version == 8


def test_a_wrong_size_stated_for_a_branch_is_left_open() -> None:
    text = """
        net (float[A,B,C] x, bool flag) => (float y)
        {
            r = If(flag) <
                then_branch = yes () => (float[1,40] t) <int64[1] axes = {1}> { t = Squeeze(x, axes) },
                else_branch = no () => (float[1,1,40] e) { e = Identity(x) }
            >
            y = Relu(r)
        }
    """
    values = {"x": random(1, 1, 8), "flag": np.array(True)}
    model = bare(text)
    with pytest.raises(Exception, match="has shape"):
        compare_graphs(model, model, values)
    simplified, done = simplify(model, values, private_apis=True)
    assert done.outcome in ("simplified", "unchanged")
    assert compare_graphs(simplified, simplified, values).difference is None


def test_metadata_and_nodes_of_the_simplifier_do_not_stay() -> None:
    simplified, _ = simplify(with_identities(), X, private_apis=True)
    assert not simplified.parsed().metadata_props


# both roads


GRAPHS = {
    "identities": with_identities,
    "perceptron": perceptron,
}


@pytest.mark.parametrize("name", GRAPHS)
def test_both_roads_give_the_same_bytes(name: str) -> None:
    model = GRAPHS[name]()
    through_core, one = simplify(model, X, private_apis=True)
    through_package, other = simplify(model, X, private_apis=False)
    assert through_core.proto == through_package.proto
    assert one == other


def test_the_core_is_loaded_without_the_package_and_found_by_it_later() -> None:
    script = """
import sys
from pipeline.graph.onnxsim_core import run_onnxsim
import onnx.parser
model = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { a = Identity(x) y = Relu(a) }'
).SerializeToString()
core = run_onnxsim(model, private_apis=True, largest_folded=1000)
loaded = {"onnxsim", "onnxsim.onnx_simplifier", "torch"} & set(sys.modules)
assert not loaded, loaded
assert run_onnxsim(model, private_apis=False, largest_folded=1000) == core
import onnxsim.onnx_simplifier
assert onnxsim.onnx_simplifier.C is sys.modules["onnxsim.onnxsim_cpp2py_export"]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_without_the_core_the_public_road_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []

    def public(model: bytes, largest_folded: int) -> bytes:
        taken.append(model)
        return model

    monkeypatch.setattr(onnxsim_core, "_through_package", public)
    monkeypatch.setitem(sys.modules, "onnxsim.onnxsim_cpp2py_export", type(sys)("empty"))
    assert run_onnxsim(b"model", private_apis=True, largest_folded=1) == b"model"
    assert taken == [b"model"]


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    name = "ONNXSIM_GEMM_FUSION_BACKEND"
    run_onnxsim(perceptron().proto, private_apis=True, largest_folded=1)
    assert name not in os.environ
    monkeypatch.setenv(name, "unrestricted")
    run_onnxsim(perceptron().proto, private_apis=True, largest_folded=1)
    assert os.environ[name] == "unrestricted"


def test_operators_are_counted() -> None:
    assert operators(perceptron()) == {"MatMul": 2, "Relu": 1}


# linear layers


def linear(before: str, after: str, x: str = "float[2,3,4,32]", y: str = "float[24,64]") -> BareModel:
    return bare(
        f"""
        net ({x} x, float[32,64] w) => ({y} y)
        <float[64] b = {{{", ".join(str(i) for i in range(64))}}}, int64[3] s = {{2, 12, 32}},
         int64[2] r = {{24, 64}}, int64[4] q = {{2, 3, 4, -1}}, int64[3] keep = {{0, 3, -1}}>
        {{
            {before}
            ["/fc/MatMul"] m = MatMul(a, w)
            ["/fc/Add"] c = Add(b, m)
            {after}
        }}
        """,
        {"w": random(32, 64)},
        scopes={"c": "fc"},
    )


SEQUENCE = {"x": random(2, 3, 4, 32)}


def test_a_linear_layer_between_two_reshapes_is_one_gemm() -> None:
    model = linear("a = Reshape(x, s)", "y = Reshape(c, r)")
    simplified, done = simplify(model, SEQUENCE, private_apis=True)
    assert operators_of(simplified) in (["Reshape", "Gemm", "Reshape"], ["Reshape", "Gemm"])
    assert done.error is not None
    assert done.error < 1e-6
    gemm = simplified.parsed().graph.node[1]
    assert gemm.name == "/fc/Add"
    assert simplified.made_by["/fc/Add"] == "simplify"
    assert set(simplified.held) == {"w"}


def test_a_linear_layer_on_a_matrix_is_one_gemm() -> None:
    model = linear("a = Relu(x)", "y = Relu(c)", x="float[24,32]")
    simplified, _ = simplify(model, {"x": random(24, 32)}, private_apis=True)
    assert operators_of(simplified) == ["Relu", "Gemm", "Relu"]


@pytest.mark.parametrize(
    ("before", "after", "y"),
    [
        ("a = Relu(x)", "y = Reshape(c, r)", "float[24,64]"),
        ("a = Reshape(x, s)", "y = Relu(c)", "float[2,12,64]"),
        ("a = Reshape(x, s)", "y = Reshape(c, keep)", "float[2,3,256]"),
        (
            "a = Reshape(x, s)",
            "d = Relu(c) e = Reshape(c, r) f = Reshape(d, r) y = Add(e, f)",
            "float[24,64]",
        ),
        ("a = Reshape(x, s)", "d = Reshape(m, r) e = Reshape(c, r) y = Add(d, e)", "float[24,64]"),
    ],
)
def test_a_linear_layer_that_would_take_more_nodes_stays(before: str, after: str, y: str) -> None:
    simplified, _ = simplify(linear(before, after, y=y), SEQUENCE, private_apis=True)
    assert "Gemm" not in operators_of(simplified)
    assert "MatMul" in operators_of(simplified)


def test_a_new_constant_gets_a_name_that_is_free_in_every_scope() -> None:
    model = bare(
        """
        net (float[2,3,4,32] x, bool flag, float[32,64] w) => (float[24,64] z)
        <float[64] b, int64[3] s = {2, 12, 32}, int64[2] r = {24, 64}>
        {
            a = Reshape(x, s)
            m = MatMul(a, w)
            c = Add(m, b)
            y = Reshape(c, r)
            z = If(flag) <
                then_branch = yes () => (float[24,64] t) { rows_of_32 = Relu(y) t = Relu(rows_of_32) },
                else_branch = no () => (float[24,64] e) { e = Abs(y) }
            >
        }
        """.replace("float[64] b,", "float[64] b = {" + ", ".join(["1"] * 64) + "},"),
        {"w": random(32, 64)},
    )
    values = {**SEQUENCE, "flag": np.array(True)}
    simplified, done = simplify(model, values, private_apis=True)
    assert "Gemm" in operators_of(simplified)
    assert done.reason is None
    assert "rows_of_32_1" in {tensor.name for tensor in simplified.parsed().graph.initializer}
