"""Multiply-accumulates, shares and switches; and a verdict for every node of real files from every profile."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import onnx
import pytest

from pipeline.targets.judge import judge
from pipeline.targets.placement import PLACES
from pipeline.targets.profile_file import profile_names
from tests.targets.judging import held, judged, model, one_node, placed, shipped

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
FILES = sorted(LIGHT.glob("*.onnx"))
NAMES = profile_names()
#: Folder below which the packages rapidocr-onnxruntime, nudenet, silero-vad, magika and basic-pitch are
#: unpacked (pip download --no-deps, unzip); they are no dependencies.
REAL = os.environ.get("PIPELINE_REAL_ONNX_FILES")


@pytest.mark.parametrize(
    ("operator", "shapes", "given", "expected"),
    [
        ("Conv", ((2, 8, 10, 12),), {"weights": {1: (16, 8, 3, 3)}}, 2 * 16 * 8 * 10 * 8 * 9),
        ("Conv", ((1, 8, 10, 12),), {"weights": {1: (8, 1, 3, 3)}, "attributes": "group = 8"}, 8 * 8 * 10 * 9),
        ("Conv", ((1, 8, 10),), {"weights": {1: (4, 8, 3)}}, 4 * 8 * 8 * 3),
        ("ConvTranspose", ((1, 8, 5, 5),), {"weights": {1: (8, 4, 2, 2)}, "attributes": "strides = [2, 2]"}, 8 * 25 * 4 * 4),
        ("Gemm", ((3, 8),), {"weights": {1: (8, 5)}}, 3 * 8 * 5),
        ("Gemm", ((8, 3),), {"weights": {1: (5, 8)}, "attributes": "transA = 1, transB = 1"}, 3 * 8 * 5),
        ("MatMul", ((2, 3, 4, 5), (5, 6)), {}, 2 * 3 * 4 * 5 * 6),
        ("LSTM", ((7, 2, 4),), {"weights": {1: (1, 12, 4), 2: (1, 12, 3)}, "attributes": "hidden_size = 3", "outputs": 3},
         7 * 2 * (12 * 4 + 12 * 3)),
        ("Relu", ((1, 8),), {}, None),
        ("Conv", (("n", 8, 10, 12),), {"weights": {1: (16, 8, 3, 3)}}, None),
    ],
)  # fmt: skip
def test_multiply_accumulates(
    operator: str, shapes: tuple[object, ...], given: dict[str, object], expected: int | None
) -> None:
    assert placed("onnxruntime", operator, *shapes, **given).macs == expected


def test_shares_and_switches() -> None:
    text = (
        "f (float[1,8,8,8] x, float[8,8,3,3] w, float[8,8,9,9] v) => (float[1,8,6,6] y, float[1,8,6,6] z) "
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Neg (a) c = Conv (b, w) e = Sub (a, b) y = Exp (c) z = Exp (c) }"
    )
    found = judged("horizon_x3", model(text), frozenset("wv"))
    places = [one.place for one in found.placements]
    assert places == ["accelerator", "cpu", "accelerator", "cpu", "accelerator", "accelerator"]
    # a goes to the CPU (once, for Neg and Sub), b comes back; e stays there.
    assert found.switches == 2
    figures = found.figures()
    assert figures["placed"] == {"accelerator": 4, "cpu": 2}
    assert figures["nodes_on_accelerator"] == round(4 / 6, 4)
    assert figures["macs"] == 8 * 64 * 72 + 8 * 36 * 72
    assert figures["macs_on_accelerator"] == 1.0
    assert figures["predicted"] is True


def test_shapes_that_are_not_known_are_not_counted_as_nothing() -> None:
    made = one_node("Conv", ("n", 8, 8, 8), weights={1: (8, 8, 3, 3)})
    figures = judge(shipped("onnxruntime"), made, held=held({1: 1})).figures()
    assert (figures["macs"], figures["macs_not_known"], figures["macs_on_accelerator"]) == (0, 1, None)


def test_there_are_nine_light_files() -> None:
    assert len(FILES) == 9


@pytest.mark.parametrize("name", NAMES)
def test_every_node_of_the_light_files_gets_a_verdict(name: str) -> None:
    profile = shipped(name)
    for file in FILES:
        nodes = list(onnx.load(file).graph.node)
        found = judge(profile, file)
        assert [one.operator for one in found.placements] == [node.op_type for node in nodes]
        assert all(one.place in PLACES and one.why for one in found.placements)
        low, high = profile.opset
        refused = any(one.limit.startswith("opset") for one in found.findings if one.node is None)
        assert refused == ((low is not None and low > 9) or (high is not None and high < 9))
        assert found.problem is None


def test_the_light_files_are_whole_on_the_runtimes() -> None:
    for name in ("onnxruntime", "openvino", "tvm", "mnn", "tensorrt"):
        for file in FILES:
            assert judge(shipped(name), file).passed, (name, file)


def test_a_large_graph_takes_less_than_two_seconds() -> None:
    file = LIGHT / "light_densenet121.onnx"
    for name in ("horizon_x3", "horizon_x5", "onnxruntime"):
        start = time.process_time()
        found = judge(shipped(name), file)
        assert time.process_time() - start < 2.0
        assert len(found.placements) == 1746


@pytest.mark.slow
@pytest.mark.skipif(
    REAL is None, reason="PIPELINE_REAL_ONNX_FILES names no folder with the unpacked packages"
)
def test_real_files_get_a_verdict_for_every_node_from_every_profile() -> None:
    files = sorted(Path(REAL or "").rglob("*.onnx"))
    assert len(files) >= 5
    for file in files:
        number = _nodes(onnx.load(file).graph)
        for name in NAMES:
            found = judge(shipped(name), file)
            assert len(found.placements) == number, (name, file)
            assert all(one.place in PLACES and one.why for one in found.placements)
        assert judge(shipped("onnxruntime"), file).passed, file


@pytest.mark.slow
def test_verdicts_agree_with_onnxruntime() -> None:
    """On the models of one operator that ship with onnx: what is said to run loads, what loads is not refused."""
    import warnings

    import onnxruntime
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for case in collect_testcases(None) if case.model is not None]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    wrong: dict[str, list[str]] = {"said to run": [], "refused": []}
    said = Counter[str]()
    for case in cases[::4]:
        found = judge(shipped("onnxruntime"), case.model)
        try:
            onnxruntime.InferenceSession(
                case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            loads = True
        except Exception:  # noqa: BLE001 - the runtime raises of many kinds
            loads = False
        verdict = "refused" if found.refused else "unknown" if found.unknown else "said to run"
        said[verdict] += 1
        if verdict in wrong and loads != (verdict == "said to run"):
            wrong[verdict].append(case.name)
    assert said["said to run"] > 400
    assert len(wrong["said to run"]) <= 0.03 * said["said to run"], wrong
    assert len(wrong["refused"]) <= 3, wrong


def _nodes(graph: onnx.GraphProto) -> int:
    inner = (attribute for node in graph.node for attribute in node.attribute)
    bodies = [body for one in inner for body in ([one.g] if one.HasField("g") else one.graphs)]
    return len(graph.node) + sum(_nodes(body) for body in bodies)
