"""Codes that no other test meets, each by the way that a user meets it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from pipeline.config.arguments import parse_arguments
from pipeline.config.compose import compose, compose_points
from pipeline.errors import Refused, StageFailed
from pipeline.exporters.boundary import Boundary, settle
from pipeline.parity.signature import OutputSpec, Signature
from pipeline.plan import build_plan, run_options
from pipeline.run.directory import RunDirectory
from pipeline.run.point import RunOptions
from pipeline.run.points import run_points
from pipeline.samples.spec import parse_inputs
from pipeline.stage import Verdict, Workspace
from tests.end_to_end.conftest import CommandLine
from tests.run.conftest import make_plan, options, stages

__all__ = ["options"]  # the fixture


def refused(*words: str) -> Refused:
    def plan() -> None:
        config = compose(words)
        run_options(config)
        build_plan(config)

    with pytest.raises(Refused) as caught:
        plan()
    assert caught.value.reason.next_step
    return caught.value


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["model=mynet", "export.training=train"], "PL-111", "export.training=train with parity=noise"),
        (["model=factory", "model.factory=not-a-name", "model.inputs={x: {shape: [1]}}"], "PL-114",
         "my_pkg.net:build or path/to/net.py:build"),
        (["model=factory", "model.factory=nowhere.net:build", "model.inputs={x: {shape: [1]}}"], "PL-114",
         "a module that is not found"),
        (["model=resnet18", "model.prepare=nowhere.py:cut"], "PL-114", "a file that is not there"),
        (["model=mynet", "cache.size=plenty"], "PL-700", "cache.size"),
        (["model=mynet", "cache.size=-5GB"], "PL-700", "cache.size"),
        (["model=mynet", "memory_limit='inf'"], "PL-700", "memory_limit"),
        (["model=mynet", "memory_limit=0"], "PL-103", "more than 0"),
    ],
)  # fmt: skip
def test_refused(words: list[str], code: str, says: str) -> None:
    found = refused(*words)
    assert found.reason.code == code
    assert says in found.reason.sentence()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    from pipeline.config.keys import request_digest

    with pytest.raises(Refused, match=r"PL-115: model\.weights names a file that cannot be read"):
        request_digest(compose(["model=resnet18", f"model.weights={tmp_path}/missing.pth"]))


def test_a_choice_that_could_mean_two_files(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mynet.yaml").write_text("defaults: [torchvision, _self_]\nname: resnet18\n")
    with pytest.raises(Refused, match=r"PL-113: model=mynet could mean two files"):
        compose_points(parse_arguments(["model=mynet", "--config-dir", str(tmp_path)]))


def test_outputs_that_are_others_while_it_is_traced(network: CommandLine) -> None:
    done = network("OtherWhileTraced", "export.exporter=torchscript")
    assert done.code == 1 and "PL-320" in done.err and "whether it is traced or not" in done.err, done.err


def test_an_exporter_that_loses_an_output() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]>\ng (float[2] x) => (float[2] y) { y = Relu(x) }'
    signature = Signature(tuple(OutputSpec(name, "float32", (2,)) for name in ("y", "z")))
    leaves = parse_inputs({"x": {"shape": [2]}}).leaves
    with pytest.raises(StageFailed, match=r"PL-321: the exporter gives another number of outputs"):
        settle(onnx.parser.parse_model(text).graph, Boundary(leaves, signature), specialised_is_wrong=True)


def test_another_request_s_directory_has_this_name(options: RunOptions) -> None:
    """The label has eight digits of the key; what counts is the whole of it."""
    run_points([make_plan()], [options], lambda index, event: None)
    other = replace(make_plan(), keys=dict.fromkeys(("request", "graph", "result"), "f" * 64))
    (done,) = run_points([other], [options], lambda index, event: None)[0]
    assert done is not None and done.reason is not None
    assert (done.exit_code, done.reason["code"]) == (1, "PL-709")
    assert "out=FOLDER" in done.reason["next_step"]


def test_something_else_stands_where_the_directory_belongs(options: RunOptions) -> None:
    place = RunDirectory(options.out, "label")
    place.prepare()
    folder = place.begin()
    (place.final / "of somebody else").mkdir(parents=True)
    with pytest.raises(StageFailed, match=r"PL-709: .*something else stands"):
        place.publish(folder)
    assert [path.name for path in place.final.iterdir()] == ["of somebody else"]


def exhausted(workspace: Workspace) -> Verdict:
    raise MemoryError


def test_a_machine_without_memory(options: RunOptions) -> None:
    (done,) = run_points([make_plan(steps=stages(middle=exhausted))], [options], lambda index, event: None)[0]
    assert done is not None and done.reason is not None
    assert (done.exit_code, done.reason["code"]) == (1, "PL-711")
    record = json.loads((options.out / "failed" / "fake-op11-00000000" / "run.json").read_text())
    assert [stage["status"] for stage in record["stages"]] == ["passed", "failed", "not reached"]
