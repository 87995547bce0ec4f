"""The room's stages in a row, as the runner calls them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from pipeline.errors import InternalError, StageFailed
from pipeline.events import Event, Finding
from pipeline.graph import simplify as simplify_module
from pipeline.graph.bare import BareModel
from pipeline.graph.config import SimplifyConfig
from pipeline.graph.contract import Promises
from pipeline.graph.stages import AssembleStage, CheckStage, ContractStage, SimplifyStage
from pipeline.parity.signature import OutputSpec, Signature
from pipeline.samples.spec import TensorSpec
from pipeline.stage import Stage, Verdict
from tests.graph.graphs import bare, perceptron, random

SIGNATURE = Signature((OutputSpec("y", "float32", (2, 10)),))
PROMISES = Promises(opset=17, inputs=(TensorSpec("x", (2, 32)),), metadata={"request": "abc"})


@dataclass
class Bench:
    """A workspace in a folder."""

    folder: Path
    values: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    files: dict[str, tuple[str, bool]] = field(default_factory=dict)

    @property
    def emit(self) -> Callable[[Event], None]:
        return self.events.append

    @property
    def scratch(self) -> Path:
        return self.folder

    def get(self, name: str) -> Any:
        """`finished` is the simplified graph unless a test gives another, as in a plan without rules."""
        return self.values["simplified" if name == "finished" and name not in self.values else name]

    def put(self, name: str, value: Any) -> None:
        self.values[name] = value

    def file(self, path: str, kind: str, *, same_every_time: bool = True) -> Path:
        self.files[path] = (kind, same_every_time)
        return self.folder / path

    def digest(self, path: str, sha256: str) -> None: ...

    def release(self, name: str) -> None:
        self.values.pop(name, None)

    def do(self, stage: Stage) -> Verdict:
        stage.requires(self)
        verdict = stage.run(self)
        stage.ensures(self)
        return verdict


def bench(folder: Path, model: BareModel) -> Bench:
    return Bench(folder, {"exported": model, "export_inputs": {"x": random(2, 32)}, "signature": SIGNATURE})


def stages(**options: Any) -> list[Stage]:
    return [
        SimplifyStage(SimplifyConfig(), private_apis=True),
        CheckStage(),
        AssembleStage(options.get("external_data", "auto"), None, {"request": "abc"}),
        ContractStage(PROMISES),
    ]


def test_the_stages_in_a_row(tmp_path: Path) -> None:
    work = bench(tmp_path, perceptron())
    verdicts = {stage.name: work.do(stage) for stage in stages()}
    assert {verdict.status for verdict in verdicts.values()} == {"passed"}
    assert verdicts["simplify"].summary == "3 nodes, nothing to simplify"
    assert verdicts["check"].measured == {"nodes": 3, "operators": {"MatMul": 2, "Relu": 1}}
    assert verdicts["contract"].summary == "opset 17, IR version 8"
    assert verdicts["contract"].recorded == {
        "inputs": [{"name": "x", "dtype": "float32", "shape": [2, 32]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [2, 10]}],
        "opsets": {"": 17},
        "ir_version": 8,
    }
    assert work.files == {"model.onnx": ("model", True), "source_map.json": ("source_map", False)}
    digest = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    assert work.values["model"].sha256 == digest
    assert set(json.loads((tmp_path / "source_map.json").read_text())["nodes"]) == {
        "/fc1/MatMul", "/act/Relu", "/fc2/MatMul",
    }  # fmt: skip
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


def test_external_data_is_a_file_of_the_run(tmp_path: Path) -> None:
    work = bench(tmp_path, perceptron())
    for stage in stages(external_data="always"):
        work.do(stage)
    assert work.files["model.onnx.data"] == ("model", True)


def test_a_fallback_is_a_warning_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(proto: bytes, **options: Any) -> bytes:
        raise RuntimeError("no")

    monkeypatch.setattr(simplify_module, "run_onnxsim", fails)
    work = bench(tmp_path, perceptron())
    verdict = work.do(stages()[0])
    assert verdict.status == "passed"
    assert verdict.summary == "not simplified: RuntimeError: no"
    (event,) = work.events
    assert isinstance(event, Finding)
    assert (event.stage, event.level) == ("simplify", "warning")
    assert event.message.startswith("simplify: the simplified graph was not used")
    assert verdict.measured["reason"]["code"] == "PL-410"
    json.dumps(verdict.measured)


def test_nodes_that_cannot_be_checked_are_said_so(tmp_path: Path) -> None:
    model = bare(
        "net (float[2,32] x) => (float[2,32] y) { a = mine.Foo(x) y = Relu(a) }", imports=', "mine" : 1'
    )
    work = Bench(tmp_path, {"finished": model})
    work.do(CheckStage())
    (event,) = work.events
    assert isinstance(event, Finding)
    assert event.message.startswith("1 nodes of the domain mine are not checked")


def test_a_simplifier_that_broke_the_interface_is_our_fault(tmp_path: Path) -> None:
    work = bench(tmp_path, perceptron())
    work.values["simplified"] = replace(
        perceptron(shown_parameters=("fc1.weight",)),
    )
    with pytest.raises(InternalError, match="shown_parameters"):
        stages()[0].ensures(work)


def test_a_breach_is_a_failed_stage(tmp_path: Path) -> None:
    work = bench(tmp_path, perceptron())
    for stage in stages()[:3]:
        work.do(stage)
    with pytest.raises(StageFailed):
        work.do(ContractStage(replace(PROMISES, opset=18)))


def test_keys_hold_what_shapes_the_artifact() -> None:
    base = stages()
    other = [
        SimplifyStage(SimplifyConfig(), private_apis=True, keep=("a",)),
        AssembleStage("always", None, {}),
        AssembleStage("auto", 9, {}),
        ContractStage(replace(PROMISES, opset=18)),
    ]
    keys = [json.dumps(stage.key_parts().config) for stage in (*base, *other)]
    assert len(set(keys)) == len(keys)
    # Both roads give the same bytes, so the road is no part of the key.
    assert SimplifyStage(SimplifyConfig(), private_apis=False).key_parts() == base[0].key_parts()


def test_the_room_s_stages_are_imported_without_heavy_packages() -> None:
    script = """
import sys
import pipeline.graph.stages, pipeline.graph.contract, pipeline.graph.config
loaded = {"numpy", "onnx", "onnxruntime", "onnxsim", "torch"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
