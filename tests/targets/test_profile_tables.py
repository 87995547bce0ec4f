"""Vendors' tables against the profiles made of them: every row and every clause, and what they come to."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
import yaml

from pipeline.locations import CONF_DIR
from pipeline.targets.limit_parser import parse_limit
from pipeline.targets.onnx_operators import TABLES, names_of
from pipeline.targets.predicates import Joined, Node, Unknown
from tests.targets.judging import judged, model, placed, shipped

HORIZON = ("horizon_x3", "horizon_x5", "horizon_rdk_ultra")
VENDORS = (*HORIZON, "ti_tidl", "axera_ax650", "deepx", "rockchip_rknn2")


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_targets", CONF_DIR / "target" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generator()


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (CONF_DIR / "target" / "operators").glob("*.yaml"))
)
def test_operators_are_what_the_generator_makes_of_the_table(name: str) -> None:
    table, source = ALL_TABLES[name]
    text = (CONF_DIR / "target" / "operators" / f"{name}.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    assert found["operators"] == table
    assert found["citation"] == GENERATE.citation(source)
    assert f"tables/{source}.csv" in text.splitlines()[0]


ALL_TABLES: dict[str, tuple[dict[str, Any], str]] = GENERATE.all_tables()


@pytest.mark.parametrize(
    "name", [*VENDORS, "kneron", "tensorrt", "onnxruntime", "openvino", "tvm", "mnn", "ncnn"]
)
def test_a_table_says_where_it_comes_from(name: str) -> None:
    head = [
        line
        for line in (TABLES / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    ]
    assert any("Source: " in line for line in head)


@pytest.mark.parametrize(
    ("name", "rows"), [("horizon_x3", 160), ("horizon_x5", 159), ("horizon_rdk_ultra", 159)]
)
def test_every_row_of_the_restricted_vendor_is_in_the_profile(name: str, rows: int) -> None:
    table = {row["operator"]: row for row in GENERATE.rows(name)}
    assert len(table) == rows
    profile = shipped(name)
    for operator, row in table.items():
        rule = profile.operators[operator]
        for side, given in (("bpu", rule.accelerator), ("cpu", rule.cpu)):
            if row[side] == "none":
                assert given == "none", operator
            elif row[side] == "limited":
                assert given in ("limited", "full"), operator
                limited = rule.accelerator_limits if side == "bpu" else rule.cpu_limits
                assert (given == "limited") == bool(limited)
            else:
                assert given in ("limited", "full"), operator  # a general rule may limit a full row
                if side == "cpu":
                    assert given == "full", operator
    added = set(profile.operators) - set(table)
    assert all(
        (profile.operators[name].accelerator, profile.operators[name].cpu) == ("none", "none")
        for name in added
    )


def _clauses(name: str) -> list[tuple[str, str, str, object]]:
    """Every clause of a table: operator, side, clause, meaning."""
    file = "clauses_horizon.yaml" if name in HORIZON else "clauses_other.yaml"
    meanings = GENERATE.Meanings(file, name)
    found = []
    for row in GENERATE.rows(name):
        for side in ("bpu", "cpu"):
            text = row[f"{side}_constraints"] if row[side] != "none" else ""
            for clause, _ in GENERATE.split_clauses(text, meanings.contexts):
                found.append((row["operator"], side, clause, meanings.meaning(row["operator"], clause)))
    return found


def _class(operator: str, meaning: object) -> str:
    """predicate, partly (an unknown among predicates), unknown, or data (limits no file)."""
    if isinstance(meaning, dict) and "limit" not in meaning:
        return "predicate" if "same_as" in meaning or "part_of" in meaning else "data"
    limits = meaning["limit"] if isinstance(meaning, dict) else meaning
    kinds = set()
    for text in limits if isinstance(limits, list) else [limits]:
        node = parse_limit(str(text), names_of(operator)).node
        kinds.add("unknown" if isinstance(node, Unknown) else "partly" if _has_unknown(node) else "predicate")
    return "unknown" if kinds == {"unknown"} else "predicate" if kinds == {"predicate"} else "partly"


def _has_unknown(node: Node) -> bool:
    if isinstance(node, Unknown):
        return True
    parts = node.parts if isinstance(node, Joined) else [getattr(node, key, None) for key in ("part", "then")]
    return any(_has_unknown(part) for part in parts if part is not None)


@pytest.mark.parametrize("name", VENDORS)
def test_no_clause_is_dropped_and_most_can_be_checked(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    profile = shipped(name)
    counts: Counter[str] = Counter()
    for operator, side, clause, meaning in _clauses(name):
        kind = _class(operator, meaning)
        counts[kind] += 1
        rule = profile.operators[operator]
        limits = rule.accelerator_limits if side == "bpu" else rule.cpu_limits
        if isinstance(meaning, dict) and "part_of" in meaning:
            assert any(limit.says == meaning["part_of"] for limit in limits), (operator, clause)
        elif isinstance(meaning, dict) and "same_as" in meaning:
            other = profile.operators[meaning["same_as"]]
            theirs = other.accelerator_limits if side == "bpu" else other.cpu_limits
            wanted = {limit.text for limit in theirs if limit.says not in meaning.get("without", ())}
            general = {
                limit.text for limit in theirs if (limit.says or "").endswith("unless the row says otherwise")
            }
            assert wanted - general <= {limit.text for limit in limits}, (operator, clause)
        elif kind != "data":
            shown = {limit.says or limit.text for limit in limits}
            assert clause in shown or any(text.endswith(f": {clause}") for text in shown), (operator, clause)
    total = sum(counts.values())
    with capsys.disabled():
        print(f"\n{name}: {total} clauses: {dict(counts)}", end="")
    if name in HORIZON:
        assert counts["unknown"] <= 1
        assert counts["partly"] <= 16
        assert counts["predicate"] / (total - counts["data"]) > 0.9


def test_every_meaning_is_used() -> None:
    for file, names in (
        ("clauses_horizon.yaml", HORIZON),
        ("clauses_other.yaml", ("ti_tidl", "axera_ax650", "deepx", "rockchip_rknn2")),
    ):
        data = yaml.safe_load((TABLES / file).read_text(encoding="utf-8"))
        used = {key for name in names for operator, _, clause, _ in _clauses(name)
                for key in (f"{name}/{operator} :: {clause}", f"{operator} :: {clause}", clause)}  # fmt: skip
        if file == "clauses_other.yaml":
            text = "\n".join(
                (TABLES / f"{name}.csv").read_text(encoding="utf-8") for name in ("kneron", "tensorrt")
            )
            used |= {key for key in data["clauses"] if key.rpartition(" :: ")[2] in text}
        assert set(data["clauses"]) <= used
        assert set(data.get("mends", {})) <= used


def test_kneron_has_its_exclusions_per_chip() -> None:
    table = {row["operator"]: row for row in GENERATE.rows("kneron")}
    for chip in GENERATE.KNERON:
        profile = shipped(f"kneron_{chip}")
        for operator, row in table.items():
            assert (profile.operators[operator].accelerator == "none") == (row[chip] == "none"), (
                chip,
                operator,
            )
    text = {
        chip: [one.text for one in shipped(f"kneron_{chip}").operators["Conv"].accelerator_limits]
        for chip in ("kl520", "kl720", "kl730")
    }
    assert text["kl520"] == ["rank <= 4", "kernels <= 12", "stride_w<=16", "stride_h<=4"]
    assert text["kl720"] == ["rank <= 4", "stride_w<=16", "stride_h<=4"]
    assert text["kl730"] == ["rank <= 4"]


def test_tensorrt_has_every_row_and_nothing_else() -> None:
    table = {row["operator"]: row for row in GENERATE.rows("tensorrt")}
    profile = shipped("tensorrt")
    assert set(table) == set(profile.operators)
    for operator, row in table.items():
        assert (profile.operators[operator].accelerator != "none") == (row["supported"] == "Y")
        if row["types"]:
            assert len(re.findall(r"\w+", profile.operators[operator].accelerator_limits[0].text)) == 2 + len(
                row["types"].split()
            )


def test_the_tables_of_installed_tools_are_theirs() -> None:
    pytest.importorskip("onnxruntime")
    if _installed("onnxruntime") in (TABLES / "onnxruntime.csv").read_text().splitlines()[0]:
        rows = [
            (row["operator"], row["support"], row["limits"], row["notes"])
            for row in GENERATE.rows("onnxruntime")
        ]
        assert rows == GENERATE.onnxruntime_rows()
    else:
        pytest.skip("another version of onnxruntime than the table is of")


def _installed(package: str) -> str:
    from importlib.metadata import version

    return version(package)


IMAGE = (1, 64, 28, 28)
CONV = {"weights": {1: (64, 64, 3, 3)}}


def conv(
    kernel: int, *, cin: int = 64, cout: int = 64, text: str = "", size: int = 56
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    weights = {1: (cout, cin, kernel, kernel)}
    return "Conv", ((1, cin, size, size),), {"weights": weights, "attributes": text}


#: (profile, operator, shapes, more of `one_node`, place): read off the vendors' tables by hand.
CASES: list[tuple[str, str, tuple[Any, ...], dict[str, Any], str]] = [
    # -- X3
    ("horizon_x3", *conv(3), "accelerator"),
    ("horizon_x3", *conv(7), "accelerator"),
    ("horizon_x3", *conv(9), "cpu"),
    ("horizon_x3", *conv(1, cin=4096), "accelerator"),
    ("horizon_x3", *conv(1, cin=4097), "cpu"),
    ("horizon_x3", *conv(3, text="dilations = [2, 2]"), "accelerator"),
    ("horizon_x3", *conv(3, text="dilations = [3, 3]"), "cpu"),  # no power of 2
    ("horizon_x3", *conv(3, text="dilations = [4, 2]"), "cpu"),  # dilation_h <= dilation_w
    ("horizon_x3", *conv(3, text="dilations = [2, 2], strides = [3, 3]"), "cpu"),  # 2 % 3
    ("horizon_x3", *conv(7, cin=1024), "cpu"),  # 7 * 7 * 1024 > 32768
    ("horizon_x3", *conv(9, text="pads = [0, 1, 1, 1]"), "unsupported"),  # neither kernel nor even padding
    ("horizon_x3", "Conv", ((1, 64, 28),), {"weights": {1: (64, 64, 3)}}, "unsupported"),  # rank 4 on both
    ("horizon_x3", "Add", (IMAGE, IMAGE), {}, "accelerator"),
    ("horizon_x3", "Add", (IMAGE, (1, 64, 1, 1)), {}, "accelerator"),
    ("horizon_x3", "Add", (IMAGE, (1, 1, 28, 28)), {}, "cpu"),
    ("horizon_x3", "Add", (IMAGE,), {"weights": {1: IMAGE}}, "cpu"),  # both must be activations
    ("horizon_x3", "Add", ((1, 4, 4, 4, 4, 4), (1, 4, 4, 4, 4, 4)), {}, "unsupported"),  # CPU: rank <= 5
    ("horizon_x3", "Add", ((1, 4096, 7, 7), (1, 4096, 7, 7)), {}, "cpu"),  # C <= 2048
    ("horizon_x3", "Mul", (IMAGE, (1, 1, 28, 28)), {}, "cpu"),
    ("horizon_x3", "Mul", (IMAGE, IMAGE), {}, "unknown"),  # input values must not be 0
    ("horizon_x3", "Relu", (IMAGE,), {}, "cpu"),  # behind no Conv
    ("horizon_x3", "Relu", (IMAGE,), {"dtypes": {0: "float64"}}, "unsupported"),
    ("horizon_x3", "Sigmoid", ((1, 8, 32, 32),), {}, "accelerator"),  # 8 * 32 * 32 = 8192
    ("horizon_x3", "Sigmoid", ((1, 8, 33, 32),), {}, "cpu"),
    ("horizon_x3", "Sigmoid", ((1, 3, 32, 60),), {}, "accelerator"),  # ceil4(3) * 32 * ceil8(60) = 8192
    ("horizon_x3", "Tanh", ((1, 8, 32, 32),), {}, "accelerator"),
    ("horizon_x3", "Tanh", ((1, 8, 32, 33),), {}, "cpu"),
    ("horizon_x3", "Transpose", (IMAGE,), {"attributes": "perm = [0, 2, 3, 1]"}, "cpu"),
    ("horizon_x3", "Transpose", (IMAGE,), {"attributes": "perm = [1, 0, 2, 3]", "dtypes": {0: "float64"}}, "unsupported"),
    ("horizon_x3", "ReduceMean", (IMAGE,), {"attributes": "axes = [2, 3]"}, "accelerator"),
    ("horizon_x3", "ReduceMean", (IMAGE,), {"attributes": "axes = [1]"}, "cpu"),
    ("horizon_x3", "ReduceMean", (IMAGE,), {"attributes": "axes = [3]"}, "unknown"),  # the rule reads two ways
    ("horizon_x3", "GlobalAveragePool", ((1, 8, 90, 91),), {}, "accelerator"),  # 8190
    ("horizon_x3", "GlobalAveragePool", ((1, 8, 91, 91),), {}, "cpu"),
    ("horizon_x3", "Softmax", ((1, 8, 1, 1),), {"attributes": "axis = 1"}, "cpu"),  # only by run_on_bpu
    ("horizon_x3", "Split", (IMAGE,), {"attributes": "axis = 1", "outputs": 2}, "accelerator"),
    ("horizon_x3", "Split", (IMAGE,), {"attributes": "axis = 1, split = [24, 40]", "outputs": 2}, "cpu"),
    ("horizon_x3", "ConvTranspose", (IMAGE,), {"weights": {1: (64, 64, 4, 4)}, "attributes": "strides = [2, 2], pads = [1, 1, 1, 1]"}, "accelerator"),
    ("horizon_x3", "ConvTranspose", (IMAGE,), {"weights": {1: (64, 64, 4, 4)}, "attributes": "strides = [3, 3], pads = [1, 1, 1, 1]"}, "cpu"),
    ("horizon_x3", "Resize", (IMAGE,), {"constants": {1: "float[0] = {}", 2: "float[4] = {1, 1, 2, 2}"}}, "accelerator"),
    ("horizon_x3", "Resize", (IMAGE,), {"constants": {1: "float[0] = {}", 2: "float[4] = {1, 1, 3, 3}"}}, "cpu"),
    ("horizon_x3", "Resize", (IMAGE,), {"constants": {1: "float[0] = {}", 2: "float[4] = {1, 1, 3, 3}"}, "attributes": 'mode = "linear"'}, "accelerator"),
    ("horizon_x3", "Gemm", ((1, 512),), {"weights": {1: (512, 1000)}}, "accelerator"),
    ("horizon_x3", "Gemm", ((1, 16388),), {"weights": {1: (16388, 10)}}, "cpu"),
    ("horizon_x3", "MatMul", ((1, 1, 197, 64),), {"weights": {1: (64, 32)}}, "accelerator"),  # 1xBxMxK.KxN, B=1
    ("horizon_x3", "MatMul", ((1, 1, 1, 197, 64),), {"weights": {1: (64, 32)}}, "cpu"),
    ("horizon_x3", "MatMul", ((1, 197, 64),), {"weights": {1: (64, 32)}}, "accelerator"),
    ("horizon_x3", "MatMul", ((1, 12, 197, 64), (1, 12, 64, 197)), {}, "cpu"),
    ("horizon_x3", "Pow", (IMAGE,), {"constants": {1: "float = {2}"}}, "accelerator"),
    ("horizon_x3", "Pad", (IMAGE,), {"constants": {1: "int64[8] = {0, 0, 1, 1, 0, 0, 1, 1}"}}, "accelerator"),
    ("horizon_x3", "Pad", (IMAGE,), {"constants": {1: "int64[8] = {0, 2, 1, 1, 0, 0, 1, 1}"}}, "unsupported"),
    ("horizon_x3", "Celu", (IMAGE,), {"opset": 12}, "unsupported"),
    ("horizon_x3", "Einsum", (IMAGE,), {"attributes": 'equation = "abcd->abcd"', "opset": 12}, "unsupported"),
    ("horizon_x3", "HardSwish", (IMAGE,), {"opset": 14}, "unsupported"),
    ("horizon_x3", "TopK", (IMAGE,), {"constants": {1: "int64[1] = {3}"}, "outputs": 2, "opset": 10}, "cpu"),
    ("horizon_x3", "TopK", (IMAGE,), {"constants": {1: "int64[1] = {3}"}, "outputs": 2}, "unsupported"),
    # -- X5
    ("horizon_x5", *conv(9), "accelerator"),
    ("horizon_x5", *conv(32), "cpu"),
    ("horizon_x5", *conv(31, cin=64), "cpu"),  # 64 * 31 * 31 > 32767
    ("horizon_x5", *conv(3, text="dilations = [2, 2], strides = [2, 2]"), "cpu"),
    ("horizon_x5", *conv(3, text="dilations = [2, 2]"), "accelerator"),
    ("horizon_x5", *conv(3, text="dilations = [17, 17]", size=68), "cpu"),
    ("horizon_x5", "Conv", ((1, 8, 9, 9, 9),), {"weights": {1: (8, 8, 3, 3, 3)}, "attributes": "strides = [1, 2, 2]"}, "accelerator"),
    ("horizon_x5", "Conv", ((1, 8, 9, 9, 9),), {"weights": {1: (8, 8, 3, 3, 3)}, "attributes": "strides = [1, 2, 1]"}, "cpu"),
    ("horizon_x5", "Conv", ((1, 8, 9),), {"weights": {1: (8, 8, 3)}}, "cpu"),
    ("horizon_x5", "Add", ((1, 4, 5, 6), (1, 1, 5, 6)), {}, "accelerator"),
    ("horizon_x5", "Add", ((2, 3, 2, 3, 2), (1, 3, 1, 3, 1)), {}, "cpu"),  # five axes are left
    ("horizon_x5", "Add", ((2, 3, 2, 3, 2), (2, 3, 2, 3, 1)), {}, "accelerator"),
    ("horizon_x5", "Add", ((1,) * 9, (1,) * 9), {}, "accelerator"),
    ("horizon_x5", "Equal", (IMAGE, IMAGE), {}, "cpu"),  # default CPU
    ("horizon_x5", "Gather", (IMAGE,), {"constants": {1: "int64[2] = {0, 1}"}}, "accelerator"),
    ("horizon_x5", "Gather", (IMAGE, (2,)), {"dtypes": {1: "int64"}}, "cpu"),
    ("horizon_x5", "Gather", (IMAGE, (2,)), {"dtypes": {1: "int32"}}, "accelerator"),
    ("horizon_x5", "ReduceMax", (IMAGE,), {"attributes": "axes = [1]"}, "accelerator"),
    ("horizon_x5", "ReduceMax", (IMAGE,), {"attributes": "axes = [1], keepdims = 0"}, "cpu"),
    ("horizon_x5", "ReduceMean", (IMAGE,), {"attributes": "axes = [2, 3]"}, "accelerator"),
    ("horizon_x5", "ReduceSum", (IMAGE,), {"attributes": "axes = [0, 1, 2, 3]"}, "unknown"),
    ("horizon_x5", "MatMul", ((1, 12, 197, 64), (1, 12, 64, 197)), {}, "accelerator"),
    ("horizon_x5", "MatMul", ((1, 197, 64),), {"weights": {1: (64, 32)}}, "cpu"),
    ("horizon_x5", "MatMul", ((4, 1, 5, 6), (1, 3, 6, 7)), {}, "cpu"),
    ("horizon_x5", "Tile", (IMAGE,), {"constants": {1: "int64[4] = {1, 1, 2, 1}"}}, "accelerator"),
    ("horizon_x5", "Tile", (IMAGE,), {"constants": {1: "int64[4] = {1, 1, 2, 2}"}}, "cpu"),
    ("horizon_x5", "Relu", ((1, 64),), {}, "cpu"),  # rank 4 unless the row says otherwise
    ("horizon_x5", "Abs", ((3, 4, 5),), {}, "accelerator"),
    ("horizon_x5", "Concat", (IMAGE, IMAGE), {"attributes": "axis = 0"}, "cpu"),
    ("horizon_x5", "AveragePool", (IMAGE,), {"attributes": "kernel_shape = [1, 1]"}, "cpu"),
    ("horizon_x5", "AveragePool", (IMAGE,), {"attributes": "kernel_shape = [2, 2]"}, "accelerator"),
    ("horizon_x5", "Sigmoid", ((1, 64, 64, 64),), {}, "accelerator"),
    # -- Ultra
    ("horizon_rdk_ultra", *conv(31, cin=64), "accelerator"),  # 64 * 31 * 31 = 61504 <= 65535
    ("horizon_rdk_ultra", "Add", ((2, 8, 4, 4), (1, 8, 4, 4)), {}, "cpu"),  # not on axis 0
    ("horizon_rdk_ultra", "Add", ((1, 8, 4, 4), (1, 1, 4, 4)), {}, "accelerator"),
    ("horizon_rdk_ultra", "Div", (IMAGE,), {"weights": {1: IMAGE}}, "cpu"),
    ("horizon_rdk_ultra", "Div", (IMAGE, IMAGE), {}, "accelerator"),
    ("horizon_rdk_ultra", "Erf", (IMAGE,), {}, "cpu"),
    ("horizon_rdk_ultra", "ArgMax", (IMAGE,), {"attributes": "axis = 1"}, "accelerator"),
    ("horizon_rdk_ultra", "ArgMax", ((1, 65, 8, 8),), {"attributes": "axis = 1"}, "cpu"),
    ("horizon_rdk_ultra", "Mod", (IMAGE, IMAGE), {}, "unsupported"),
    ("horizon_x5", "Mod", (IMAGE, IMAGE), {}, "cpu"),
    # -- S100: nothing is known of its operators
    ("horizon_s100", *conv(3), "unknown"),
    # -- the others
    ("tensorrt", "Det", ((2, 3, 3),), {}, "unsupported"),
    ("tensorrt", "Relu", (IMAGE,), {"dtypes": {0: "float64"}}, "unsupported"),
    ("tensorrt", "Swish", (IMAGE,), {"opset": 24}, "unknown"),  # no row: not known, not refused
    ("tensorrt", "TopK", (IMAGE,), {"constants": {1: "int64[1] = {3840}"}, "outputs": 2}, "unsupported"),
    ("tensorrt", "TopK", (IMAGE,), {"constants": {1: "int64[1] = {3839}"}, "outputs": 2}, "accelerator"),
    ("tensorrt", "MaxPool", (IMAGE,), {"attributes": "kernel_shape = [2, 2]", "outputs": 2}, "unsupported"),
    ("kneron_kl520", "Mul", (IMAGE, IMAGE), {}, "unsupported"),
    ("kneron_kl720", "Mul", (IMAGE, IMAGE), {}, "accelerator"),
    ("kneron_kl520", *conv(13), "unsupported"),
    ("kneron_kl720", *conv(13), "accelerator"),
    ("kneron_kl520", "MaxPool", (IMAGE,), {"attributes": "kernel_shape = [3, 3], strides = [2, 2]"}, "accelerator"),
    ("kneron_kl520", "MaxPool", (IMAGE,), {"attributes": "kernel_shape = [2, 2], strides = [3, 3]"}, "unsupported"),
    ("ti_tidl", "Einsum", (IMAGE,), {"attributes": 'equation = "abcd->abcd"', "opset": 12}, "cpu"),
    ("ti_tidl", "GlobalAveragePool", ((1, 8, 32, 32),), {}, "accelerator"),
    ("ti_tidl", "GlobalAveragePool", ((1, 8, 33, 32),), {}, "cpu"),
    ("ti_tidl", "Erf", (IMAGE,), {}, "unknown"),
    ("ti_tidl", "Dropout", (IMAGE,), {}, "cpu"),
    ("axera_ax650", "ConvTranspose", (IMAGE,), {"weights": {1: (64, 64, 4, 4)}, "attributes": "dilations = [2, 2]"}, "unsupported"),
    ("axera_ax650", "Gather", (IMAGE,), {"constants": {1: "int64 = {0}"}}, "unsupported"),
    ("axera_ax650", "Gather", (IMAGE,), {"constants": {1: "int64[1] = {0}"}}, "accelerator"),
    ("deepx", *conv(15), "accelerator"),
    ("deepx", *conv(16), "unsupported"),
    ("deepx", "Softmax", ((1, 4081),), {"attributes": "axis = 1"}, "unsupported"),
    ("rockchip_rknn2", "TopK", (IMAGE,), {"constants": {1: "int64[1] = {3}"}, "outputs": 2}, "unsupported"),
    ("rockchip_rknn2", "Softmax", ((2, 8),), {"opset": 13}, "unsupported"),
    ("rknn", "Softmax", ((1, 8),), {"opset": 13}, "accelerator"),
    # -- known to be computed wrongly (measured)
    *((name, "Resize", (IMAGE,), {"constants": {1: "float[0] = {}", 2: "float[4] = {1, 1, 0.5, 0.5}"},
       "attributes": 'mode = "linear", antialias = 1', "opset": 18}, "unsupported")
      for name in ("openvino", "tvm", "mnn", "ncnn", "tensorrt", "rknn")),
    ("onnxruntime", "Resize", (IMAGE,), {"constants": {1: "float[0] = {}", 2: "float[4] = {1, 1, 0.5, 0.5}"},
     "attributes": 'mode = "linear", antialias = 1', "opset": 18}, "accelerator"),
    ("mnn", "GridSample", (IMAGE, (1, 8, 8, 2)), {"attributes": 'mode = "bicubic"', "opset": 16}, "unsupported"),
    ("mnn", "GridSample", (IMAGE, (1, 8, 8, 2)), {"attributes": 'mode = "bilinear"', "opset": 16}, "accelerator"),
    *((name, "Det", ((2, 3, 3),), {}, "unsupported") for name in ("openvino", "tvm", "ncnn")),
    ("onnxruntime", "Det", ((2, 3, 3),), {}, "accelerator"),
    ("onnxruntime", *conv(3)[:2], {"weights": {1: (64, 64, 3, 3)}, "dtypes": {0: "float64", 1: "float64"}}, "unsupported"),
    ("ncnn", "Slice", (IMAGE,), {"constants": {1: "int64[1] = {0}", 2: "int64[1] = {28}", 3: "int64[1] = {2}", 4: "int64[1] = {2}"}}, "unsupported"),
    ("ncnn", "Slice", (IMAGE,), {"constants": {1: "int64[1] = {0}", 2: "int64[1] = {28}", 3: "int64[1] = {2}", 4: "int64[1] = {1}"}}, "accelerator"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "operator", "shapes", "given", "place"), CASES)
def test_where_the_tables_put_a_node(
    profile: str, operator: str, shapes: tuple[Any, ...], given: dict[str, Any], place: str
) -> None:
    found = placed(profile, operator, *shapes, **given)
    assert (found.place, found.operator) == (place, operator), found.why
    assert found.why


def test_what_stands_behind_a_convolution_is_fused_into_it() -> None:
    text = (
        "f (float[1,8,8,8] x, float[8,8,1,1] w, float[8] s) => (float[1,8,8,8] y) "
        "{ c = Conv (x, w) b = BatchNormalization (c, s, s, s, s) r = Relu (b) a = Add (r, c) y = Relu (a) }"
    )
    found = judged("horizon_x3", model(text), frozenset("ws"))
    assert [(one.operator, one.place) for one in found.placements] == [
        ("Conv", "accelerator"), ("BatchNormalization", "accelerator"), ("Relu", "accelerator"),
        ("Add", "accelerator"), ("Relu", "accelerator"),
    ]  # fmt: skip
    strided = text.replace("Conv (x, w)", "Conv <strides = [3, 3]> (x, w)").replace(
        "[1,8,8,8] y", "[1,8,3,3] y"
    )
    first = judged("horizon_x3", model(strided), frozenset("ws")).placements[0]
    assert (first.place, "if followed by residual Add: stride in {1,2}" in first.why) == ("cpu", True)
