"""`precheck` and `targets` on the command line, and the stage in a run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from pipeline.__main__ import main
from pipeline.commands.precheck import _figure
from pipeline.errors import StageFailed
from pipeline.events import Finding
from pipeline.graph.assemble import ModelFile
from pipeline.graph.bare import BareModel
from pipeline.targets.precheck_stage import COLUMNS, PrecheckStage, _sentence
from pipeline.targets.profile import Profile, load_profile
from tests.targets.judging import model
from tests.targets.workspace import DictWorkspace

NET = (
    "f (float[1,8,8,8] x, float[8,8,3,3] w) => (float[1,8,8,8] y) "
    "{ c = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (c) y = {} }"
)


def net(last: str, opset: int = 11) -> onnx.ModelProto:
    made = model(NET.replace("{}", last), opset=opset)
    weights = made.graph.input.pop()
    made.graph.initializer.append(onnx.numpy_helper.from_array(_ones((8, 8, 3, 3)), weights.name))
    for node, name in zip(made.graph.node, ("conv", "relu", "/head/last"), strict=True):
        node.name = name
    return made


def _ones(shape: tuple[int, ...]) -> Any:
    import numpy as np

    return np.ones(shape, np.float32)


def saved(folder: Path, last: str = "Exp (r)", opset: int = 11, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save(net(last, opset), path)
    return path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["precheck", *words])
    out, err = capsys.readouterr()
    return code, out, err


# -- the command


def test_what_fits_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, str(saved(tmp_path)), "--target", "horizon_x3")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "horizon_x3: Horizon / D-Robotics RDK X3, XJ3 (march bernoulli2), hb_mapper",
        f"{tmp_path}/model.onnx: opset 11, IR version 6, 3 nodes",
        "predicted from published data; no tool of the vendor's was run",
        "",
        "placement, predicted:",
        "  BPU: 3 (Conv 1, Relu 1, Exp 1)",
        "  on BPU: 100.0% of the nodes that are left and 100.0% of 36.86 k multiply-accumulates",
        "  tensors that pass between BPU and CPU: 0",
        "  remark: predicted from the vendor's published list; the vendor's checker has the last word",
        "  remark: an operator within its limits may still run on the CPU where its neighbours are not quantized",
        "",
        "nothing is refused",
    ]


def test_what_is_refused_or_unknown_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, str(saved(tmp_path, "HardSwish (r)", 14)), "--target", "horizon_x3")
    assert code == 1
    lines = out.splitlines()
    assert "  the graph: opset 10 to 11; found opset 14" in lines
    assert f"      to mend it: model=onnx_file model.path={tmp_path}/model.onnx export.opset=11" in lines
    assert "  HardSwish (node /head/last): the target has no form of it" in lines
    assert lines[-1] == "2 refused"
    code, out, _ = told(capsys, str(saved(tmp_path, "Mul (r, r)")), "--target", "horizon_x3")
    assert (code, out.splitlines()[-1]) == (1, "1 not known")
    code, out, _ = told(capsys, str(saved(tmp_path, "Neg (r)")), "--target", "horizon_x3")
    assert (code, out.splitlines()[-1]) == (0, "nothing is refused")
    assert "not on BPU, but on CPU:" in out


def test_a_run_directory_shows_modules_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, "Neg (r)")
    rows = {"/head/last": {"op_type": "Neg", "module": "head.act", "file": "models/net.py", "line": 7}}
    (tmp_path / "source_map.json").write_text(json.dumps({"nodes": rows, "initializers": {}}))
    code, out, _ = told(capsys, str(tmp_path), "--target", "horizon_x3")
    assert code == 0
    assert "      from module head.act, models/net.py:7" in out.splitlines()
    code, out, _ = told(capsys, str(tmp_path), "--target", "horizon_x3", "--json")
    data = json.loads(out)
    (finding,) = data["findings"]
    assert (finding["module"], finding["line"], finding["verdict"]) == (
        "head.act",
        "models/net.py:7",
        "limited-to-cpu",
    )
    assert [row["place"] for row in data["placements"]] == ["accelerator", "accelerator", "cpu"]
    assert (data["passed"], data["switches"], data["refused"]) == (True, 1, 0)
    (tmp_path / "source_map.json").write_text("{damaged")
    code, _, err = told(capsys, str(tmp_path), "--target", "horizon_x3")
    assert (code, err) == (0, "source_map.json is damaged: modules and lines are not shown\n")


def test_in_a_run_directory_the_override_alone_mends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, opset=13)
    _, out, _ = told(capsys, str(tmp_path), "--target", "horizon_x3")
    assert "      to mend it: export.opset=11" in out.splitlines()


def test_mends_are_words_that_can_be_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They were `export.opset=11` without the network, and "rule gelu_to_tanh" without a key."""
    file = saved(tmp_path, "Neg (r)", opset=13)
    record = {"overrides": ["model=my_net", "export.opset=13", "model.args={a: 1}", "target=tvm"]}
    (tmp_path / "run.json").write_text(json.dumps(record))
    _, out, _ = told(capsys, str(tmp_path), "--target", "horizon_x3")
    mends = [line.partition("to mend it: ")[2] for line in out.splitlines() if "to mend it" in line]
    assert mends == [
        "model=my_net 'model.args={a: 1}' target=tvm export.opset=11",
        "model=my_net export.opset=13 'model.args={a: 1}' target=horizon_x3 target.rules.neg_to_mul=true",
    ]
    (tmp_path / "run.json").unlink()
    _, out, _ = told(capsys, str(file), "--target", "horizon_x3", "--json")
    assert json.loads(out)["findings"][1]["mend"] == (
        f"model=onnx_file model.path={file} target=horizon_x3 target.rules.neg_to_mul=true"
    )


def test_a_refused_node_names_the_rule_by_its_key() -> None:
    sentences = {
        "rule gelu_to_tanh (an approximation)": "Type target.rules.gelu_to_tanh=true (an approximation). ",
        "rule prelu_to_leaky_relu or prelu_to_relus":
            "Type target.rules.prelu_to_leaky_relu=true or target.rules.prelu_to_relus=true. ",
        "export.opset=11": "Type export.opset=11. ",
        "ask for the BPU (target.options.node_info)": "Ask for the BPU (target.options.node_info). ",
    }  # fmt: skip
    assert {mend: _sentence(mend) for mend in sentences} == sentences


def test_several_paths_are_refused_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second one was called a key of target, and `reproduce` spoke of unrecognized arguments."""
    paths = [str(saved(tmp_path, name=name)) for name in ("a.onnx", "b.onnx")]
    code, _, err = told(capsys, *paths, "--target", "tvm")
    said = f"precheck takes one at a time; found {paths[0]} and {paths[1]}, expected one path. Type the command once"
    assert code == 2 and said in err
    assert main(["reproduce", *paths]) == 2
    assert "reproduce takes one at a time" in capsys.readouterr().err


def test_weights_that_are_not_there_are_refused_as_in_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / name / "big.onnx" for name in ("whole", "short", "none")]
    for path in paths:
        path.parent.mkdir()
        onnx.save(net("Exp (r)"), path, save_as_external_data=True, location="big.data", size_threshold=0)
    assert told(capsys, str(paths[0]), "--target", "horizon_x3")[0] == 0
    paths[1].with_name("big.data").write_bytes(b"1234")
    assert told(capsys, str(paths[1]), "--target", "horizon_x3")[2].startswith("PL-242: ")
    paths[2].with_name("big.data").unlink()
    code, out, err = told(capsys, str(paths[2]), "--target", "horizon_x3")
    assert (code, out) == (2, "")
    assert err.startswith("PL-240: big.onnx: external data of 'w' is missing; found big.data")


def test_multiply_accumulates_in_a_unit_that_shows_them() -> None:
    shown = [_figure(number) for number in (512, 36864, 4.19e6, 1.82e9)]
    assert shown == ["512", "36.86 k", "4.19 M", "1.82 G"]


def test_json_of_a_bad_call_is_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, str(tmp_path), "--target", "tvm", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "PL-801")
    assert err.startswith("PL-801: ")
    assert main(["compare", str(tmp_path), str(tmp_path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "PL-801"


MYCHIP = "defaults: [horizon_x3, _self_]\nname: mychip\nlimits: {operators: {Exp: {accelerator: none, cpu: none}}}\n"


def test_a_users_own_vendor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(saved(tmp_path))
    folder = tmp_path / "conf" / "target"
    folder.mkdir(parents=True)
    (folder / "mychip.yaml").write_text(MYCHIP)
    code, out, _ = told(capsys, path, "--target", "mychip", "--config-dir", str(tmp_path / "conf"))
    assert (code, "Exp (node /head/last): the target has no form of it" in out) == (1, True)
    assert out.startswith("mychip: Horizon / D-Robotics RDK X3")
    words = (path, "--target", "horizon_x3", "target.limits.opset.max=10")
    code, out, _ = told(capsys, *words)
    assert (code, "opset 10; found opset 11" in out) == (1, True)
    assert main(["targets", "--config-dir", str(tmp_path / "conf"), "--json"]) == 0
    assert "mychip" in {row["name"] for row in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("{model}", "--target", "horizon_x33"), "PL-600", "Did you mean horizon_x3"),
        (("{model}", "--target", "none"), "PL-600", "target=none is no target"),
        (("{model}",), "PL-800", "--target"),
        (("--target", "tvm"), "PL-800", "the following arguments are required: path."),
        (("{model}", "--target", "tvm", "target.limits.wants=[no_rule]"), "PL-601", "target.limits.wants"),
        (("nowhere.onnx", "--target", "tvm"), "PL-800", "there is no such file"),
        (("{folder}", "--target", "tvm"), "PL-801", "no model.onnx"),
        (("{damaged}", "--target", "tvm"), "PL-609", "no ONNX model, or damaged"),
        (("{model}", "--target", "tvm", "seed=3"), "PL-800", "only keys of target"),
        (("{model}", "--target", "tvm", "target.limits.opset=3"), "PL-601", "a mapping"),
        (("{model}", "--target", "tvm", "target.limitss.opset=3"), "PL-101", "limits"),
        (("{model}", "--target", "mychip", "--config-dir", "/nowhere"), "PL-108", "/nowhere"),
        (("{model}", "--target", "tvm", "target.name=none"), "PL-600", "target.name=none is no target"),
        (("{model}", "--target", "tvm", "target.rules.foo=false"), "PL-103", "target.rules.foo"),
    ],
)
def test_bad_calls_are_one_sentence_and_exit_with_2(
    words: tuple[str, ...], code: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    places = {"model": saved(tmp_path), "folder": tmp_path / "empty", "damaged": tmp_path / "bad.onnx"}
    found, out, err = told(capsys, *(word.format(**places) for word in words))
    assert (found, out) == (2, "")
    assert err.startswith(f"{code}: ")
    assert text in err
    assert err.count("\n") == 1


def test_targets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("horizon_x3 "))
    assert lines[at].endswith("Horizon / D-Robotics RDK X3, XJ3 (march bernoulli2), hb_mapper")
    assert "opset 10 to 11, static shapes, float32" in lines[at + 1]
    assert main(["targets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["onnxruntime"]["backend"]["installed"] is True
    assert rows["horizon_s100"]["backend"]["name"] is None or rows["horizon_s100"]["backend"]["name"]
    assert rows["deepx"]["backend"]["state"] == "judged only"
    assert all(row["citation"] and row["title"] for row in rows.values())
    assert rows["mnn"]["tolerances"] == {"float32": 1e-4, "float16": 5e-3}
    assert "none" not in rows


def test_one_damaged_file_leaves_the_others_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "broken.yaml").write_text("defaults: [horizon_x3, _self_]\nname: broken\nlimits: {opsett: 3}\n")
    (folder / "listed.yaml").write_text("defaults: [horizon_x3, _self_]\nname: listed\nlimits: [1, 2]\n")
    (folder / "mychip.yaml").write_text(MYCHIP)
    (folder / "nameless.yaml").write_text("profile: horizon_x3\n")
    (folder / "astray.yaml").write_text("defaults: [nosuch, _self_]\nname: astray\n")
    assert main(["targets", "--config-dir", str(tmp_path)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert (
        rows["broken"]
        .split(maxsplit=1)[1]
        .startswith("broken: PL-601: target.limits: a profile has no key opsett")
    )
    assert "target.limits has a value of the wrong type" in rows["listed"]
    assert "Horizon / D-Robotics RDK X3" in rows["nameless"]
    assert "PL-104: target/astray.yaml: there is no target/nosuch.yaml" in rows["astray"]
    assert "Horizon / D-Robotics RDK X3" in rows["mychip"]
    assert main(["targets", "--json", "--config-dir", str(tmp_path)]) == 0
    data = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (data["broken"]["broken"]["code"], data["mychip"]["broken"]) == ("PL-601", None)


def test_a_backend_that_is_not_installed_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.commands.targets._version", lambda package: None)
    assert main(["targets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (
        rows["openvino"]["backend"]["state"] == "not installed: pip install 'onnx-export-pipeline[openvino]'"
    )
    assert rows["openvino"]["backend"]["installed"] is False
    assert rows["rknn"]["backend"]["state"] == (
        "not installed: make rknn and target.python=.venv-rknn/bin/python"
    )


def test_precheck_imports_neither_torch_nor_a_runtime(tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.__main__ import main; main(sys.argv[1:]);"
        "print([name for name in ('torch', 'onnxruntime', 'hydra') if name in sys.modules], file=sys.stderr)"
    )
    words = [sys.executable, "-c", code, "precheck", str(saved(tmp_path)), "--target", "horizon_x3"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stderr.strip() == "[]"


# -- the stage


def stage_in(
    folder: Path, last: str, profile: Profile | str = "horizon_x3", **options: Any
) -> tuple[PrecheckStage, DictWorkspace]:
    path = saved(folder, last)
    bare = BareModel.from_proto(net(last), scopes={"y": "head"}, lines={"y": "net.py:3"})
    space = DictWorkspace(folder, model=ModelFile(path, path.stat().st_size, "0" * 64, ()))
    for name in PrecheckStage.takes[1:]:
        space.put(name, bare)
    found = load_profile(profile) if isinstance(profile, str) else profile
    return PrecheckStage("horizon_x3", found, options), space


def test_the_stage_writes_findings_and_placement(tmp_path: Path) -> None:
    stage, space = stage_in(tmp_path, "Neg (r)")
    (verdict,) = space.walk(stage)
    assert verdict.status == "passed"
    assert verdict.summary == (
        "predicted: 2 of 3 nodes on BPU, 100% of multiply-accumulates, 1 switches to and from CPU"
    )
    assert verdict.measured["placed"] == {"accelerator": 2, "cpu": 1}
    assert space.files == {
        "horizon_x3/findings.json": ("target", False),
        "horizon_x3/placement.csv": ("target", True),
        "horizon_x3/placement.json": ("target", True),
    }
    with (tmp_path / "horizon_x3/placement.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["node"], row["place"], row["predicted"], row["module"]) for row in rows] == [
        ("conv", "accelerator", "yes", ""), ("relu", "accelerator", "yes", ""), ("/head/last", "cpu", "yes", "head"),
    ]  # fmt: skip
    found = json.loads((tmp_path / "horizon_x3/findings.json").read_text())
    assert [(one["node"], one["module"], one["line"]) for one in found["findings"]] == [
        ("/head/last", "head", "net.py:3")
    ]
    assert json.loads((tmp_path / "horizon_x3/placement.json").read_text())[2]["place"] == "cpu"
    assert space.get("judgement").passed
    assert space.events == []


def test_a_refused_node_fails_the_stage_and_leaves_the_findings(tmp_path: Path) -> None:
    stage, space = stage_in(
        tmp_path, "HardSwish (r)", load_profile("horizon_x3", {"operators": {"Relu": None}})
    )
    with pytest.raises(StageFailed) as error:
        stage.run(space)
    reason = error.value.reason
    assert reason.code == "PL-608"
    assert reason.message == "horizon_x3 does not take the operator Relu, and 1 more"
    assert (reason.where, reason.expected) == ("node relu", "the operator is not in the target's list")
    assert "horizon_x3/findings.json" in (reason.next_step or "")
    assert error.value.measured["refused"] == 2
    assert len(json.loads((tmp_path / "horizon_x3/findings.json").read_text())["findings"]) == 2


def test_what_is_not_known_is_a_warning(tmp_path: Path) -> None:
    stage, space = stage_in(tmp_path, "Mul (r, r)")
    (verdict,) = space.walk(stage)
    assert "1 not known" in verdict.summary
    (event,) = space.events
    assert isinstance(event, Finding)
    assert event.level == "warning"
    assert event.message == (
        "horizon_x3: not known whether it takes Mul: input values must not be 0 "
        "(node /head/last, module head, net.py:3)"
    )
    assert event.data["nodes"] == ["/head/last"]


def test_the_stage_keys_on_the_profile_and_what_is_asked_for() -> None:
    profile = load_profile("horizon_x3")
    first = PrecheckStage("horizon_x3", profile).key_parts()
    assert first == PrecheckStage("horizon_x3", profile, {"march": "x"}).key_parts()
    other = PrecheckStage("horizon_x3", load_profile("horizon_x3", {"batch": 2})).key_parts()
    asked = PrecheckStage("horizon_x3", profile, {"run_on_bpu": "last"}).key_parts()
    assert len({json.dumps(one.config) for one in (first, other, asked)}) == 3
