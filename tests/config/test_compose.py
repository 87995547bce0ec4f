"""From a command line to typed requests: what is taken, what is refused, and with which words."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.config.arguments import parse_arguments
from pipeline.config.compose import compose, compose_points
from pipeline.config.keys import request_digest
from pipeline.config.request import Config
from pipeline.errors import Refused

#: A command line, the code, and what the sentence must say.
REFUSED = [
    (["model=alexnett"], "PL-104", "Did you mean alexnet? Type model=alexnet"),
    (["model=resnet1818"], "PL-104", "resnet18"),
    (["model=regnet_y_400mf"], "PL-104", "Type model=torchvision model.name=regnet_y_400mf"),
    (["parity=noize"], "PL-104", "Type parity=noise"),
    (["target=openvno"], "PL-104", "there is no target"),
    (["model=mynet", "export.opsett=11"], "PL-101", "Did you mean export.opset? Type export.opset=11"),
    (["model=mynet", "+export.opsett=11"], "PL-101", "export.opset"),
    (["model=mynet", "++export.opsett=11"], "PL-101", "export.opset"),
    (["model=mynet", "opset=11"], "PL-101", "Type export.opset=11"),
    (["+modle=alexnet"], "PL-101", "model"),
    (["model=mynet", "export.opset=abc"], "PL-102", "expected a whole number or null"),
    (["model=mynet", "export.opset=11.0"], "PL-102", "a whole number"),
    (["model=mynet", "seed=null"], "PL-102", "a whole number"),
    (["model=mynet", "force=maybe"], "PL-102", "true or false"),
    (["model=mynet", "export.output_names=a"], "PL-102", "Type export.output_names=[a]"),
    (["model=mynet", "export.exporter=onnx"], "PL-103", "auto, torchscript or dynamo"),
    (["model=mynet", "device=gpu"], "PL-103", "cpu or cuda"),
    (["model=mynet", "seed=-1"], "PL-103", "expected 0 to 9223372036854775807. Type seed=0"),
    (["model=mynet", "timeout_s=0"], "PL-103", "expected more than 0. Type timeout_s=null"),
    (["model=mynet", "parity.seeds=0"], "PL-103", "expected 1 to 100"),
    (["model=mynet", "parity.k=-1"], "PL-103", "more than 0"),
    (["model=mynet", "parity.rtol=.nan"], "PL-102", "parity.rtol"),
    (["model=mynet", "parity.rtol=nan"], "PL-103", "finite"),
    (["model=mynet", "export.ir_version=2"], "PL-103", "3 to 14"),
    (["model=mynet", "out=''"], "PL-103", "out is empty"),
    (["model=mynet", "sweep=../x"], "PL-103", "letters, digits"),
    (["model=mynet", "sweep=.."], "PL-103", "letters, digits"),
    (["model=mynet", "export.opset"], "PL-105", "Type export.opset=VALUE"),
    (["model=mynet", "out=a=b"], "PL-105", "to give it as text"),
    (["model=mynet", "model=alexnet"], "PL-105", "chosen twice"),
    (
        ["model=mynet", "export.opset=11,13"],
        "PL-106",
        "Type python -m pipeline -m model=mynet export.opset=11,13",
    ),
    (["model=mynet,alexnet"], "PL-106", "Did you mean a sweep?"),
    (
        ["model=mynet", "seed=1,2", "model.args={a: 1}"],
        "PL-106",
        "-m model=mynet seed=1,2 'model.args={a: 1}'",
    ),
    (["model=mynet", "seed=1,2", "--config-dir", "/"], "PL-106", "-m --config-dir / model=mynet seed=1,2"),
    (["model=mynet", "export.output_names=a,b"], "PL-106", "Type export.output_names=[a,b] for a list"),
    (["model=mynet", "~seed"], "PL-107", "Type seed=0 for the default"),
    (["~parity"], "PL-107", "Type parity=none"),
    (["model=mynet", "--config-dir", "/nowhere"], "PL-108", "--config-dir"),
    (["model=mynet", "out=${sead}"], "PL-109", "a reference cannot be resolved"),
    ([], "PL-110", "Type model=NAME"),
    (["model=factory"], "PL-110", "Type model.factory=VALUE"),
    (["model=torchvision"], "PL-110", "model=torchvision model.name=NAME"),
    (["model=null"], "PL-110", "Type model=NAME"),
    (["model=mynet", "@ache=null"], "PL-105", "'@ache=null' chooses no file of a group"),
    (["model=mynet", "+@ache="], "PL-105", "chooses no file of a group"),
    (["model=mynet", "a/b=x"], "PL-100", "a/b"),
    (["~model"], "PL-107", "Type model=NAME for another one"),
    (["model=mynet", "~model.inputs"], "PL-107", "Leave ~model.inputs out"),
    (["-m", "model=mynet", "export.opsett=11,12"], "PL-101", "Type export.opset=11,12"),
    (["-m", "model=mynet", "opset=11,12"], "PL-101", "Type export.opset=11,12"),
    (["model=mynet", "export.output_names=[]"], "PL-103", "Type export.output_names=null"),
    (["model=mynet", "model.outputs=[]"], "PL-103", "Type model.outputs=null"),
    (["model=mynet", "export.input_names=['a b']"], "PL-103", "Type export.input_names=[a_b]"),
    (["model=mynet", "cache.mode=a\nb"], "PL-105", "the value of cache.mode cannot be read; found a\\nb"),
    (["model=mynet", "--bogus"], "PL-112", "there is no flag --bogus"),
    (["model=mynet", "--opset=11"], "PL-112", "Keys are given without dashes: type export.opset=11"),
    (["model=mynet", "hydra.run.dir=x"], "PL-112", "Type out=FOLDER"),
    (["model=mynet", "hydra/launcher=joblib"], "PL-112", "runs sweeps itself"),
    (["-m", "model=mynet", "seed=interval(0,3)"], "PL-116", "no values to run through"),
    (["-m", "model=mynet", "seed=range(0,20000)"], "PL-116", "too many points"),
]


@pytest.mark.parametrize(
    ("words", "code", "says"), REFUSED, ids=[" ".join(case[0]) or "-" for case in REFUSED]
)
def test_a_mistake_is_one_sentence_with_its_code(words: list[str], code: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        compose_points(parse_arguments(words))
    reason = refused.value.reason
    assert reason.code == code
    assert says in reason.sentence()
    assert "\n" not in reason.sentence()
    assert reason.next_step
    assert refused.value.exit_code == 2


def points(*words: str) -> list[tuple[str, ...]]:
    return [point.overrides for point in compose_points(parse_arguments(words)).points]


def test_a_sweep_is_every_combination_the_last_fastest() -> None:
    assert points("-m", "model=mynet,alexnet", "export.opset=11,13") == [
        ("model=mynet", "export.opset=11"),
        ("model=mynet", "export.opset=13"),
        ("model=alexnet", "export.opset=11"),
        ("model=alexnet", "export.opset=13"),
    ]


def test_ranges_choices_and_globs_are_swept() -> None:
    assert len(points("-m", "model=mynet", "export.opset=range(11,14)")) == 3
    assert len(points("-m", "model=mynet", "seed=choice(1,2)")) == 2
    assert points("-m", "model=glob(mynet*)") == [("model=mynet",), ("model=mynet_multi_input",)]


def test_a_refused_point_is_data() -> None:
    found = compose_points(parse_arguments(["-m", "model=mynet,nonet"])).points
    assert found[0].config is not None
    assert found[1].config is None
    assert found[1].refusal is not None
    assert found[1].refusal.reason.code == "PL-104"


def test_a_sweep_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "opsets.yaml").write_text(
        "# @package _global_\n# opsets\ndefaults:\n  - override /model: mynet\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      export.opset: 11,13\n"
    )
    words = ["experiment=opsets", "--config-dir", str(tmp_path)]
    found = compose_points(parse_arguments(words))
    assert found.multirun
    assert [point.config.export.opset for point in found.points if point.config] == [11, 13]


def test_the_command_line_wins_over_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n# mine\ndefaults:\n  - override /model: mynet\nexport:\n  opset: 11\nseed: 4\n"
    )
    words = ["experiment=mine", "seed=5", "--config-dir", str(tmp_path)]
    config = compose_points(parse_arguments(words)).points[0].config
    assert config is not None
    assert (config.export.opset, config.seed, config.model.name) == (11, 5, "mynet")


def test_inputs_given_whole_replace_what_stood_there() -> None:
    config = compose(["model=mynet", "model.inputs={x: {shape: [1,3,8,8]}}"])
    assert list(config.model.inputs) == ["x"]


def test_inputs_keep_the_order_of_the_call() -> None:
    config = compose(["model=mynet", "model.inputs={z: {shape: [1]}, a: {shape: [2]}}"])
    assert list(config.model.inputs) == ["z", "a"]


@pytest.mark.parametrize(
    "other",
    [
        ["export.opset=11", "model=mynet"],
        ["model=mynet", "export.opset=11", "export.exporter=auto", "parity.k=16"],
        ["model=mynet", "export.opset=11", "out=elsewhere", "force=true", "wait_s=5", "cache.mode=none"],
        ["model=mynet", "+export.opset=11"],
        ["model=mynet", "export.opset='11'"],
    ],
)
def test_spellings_of_one_request_have_one_key(other: list[str]) -> None:
    assert request_digest(compose(other)) == request_digest(compose(["model=mynet", "export.opset=11"]))


def test_no_opset_is_the_default_opset() -> None:
    assert request_digest(compose(["model=mynet"])) == request_digest(
        compose(["model=mynet", "export.opset=17"])
    )


@pytest.mark.parametrize(
    "change", ["seed=1", "parity=fixed", "export.opset=12", "simplify=none", "model=alexnet"]
)
def test_another_request_has_another_key(change: str) -> None:
    base = ["model=mynet", "export.opset=11"]
    key = change.partition("=")[0]
    changed = [word for word in base if not word.startswith(f"{key}=")] + [change]
    assert request_digest(compose(changed)) != request_digest(compose(base))


def test_a_tree_is_the_same_as_overrides() -> None:
    assert compose(tree={"model": "mynet", "export": {"opset": 11}}) == compose(
        ["model=mynet", "export.opset=11"]
    )


def test_from_many_threads() -> None:
    found: list[Config] = []

    def one(opset: int) -> None:
        found.append(compose(["model=mynet", f"export.opset={opset}"]))

    threads = [threading.Thread(target=one, args=(opset,)) for opset in range(8, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(config.export.opset or 0 for config in found) == list(range(8, 16))


def test_a_list_over_a_mapping_is_said_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mychip.yaml").write_text("defaults: [horizon_x3, _self_]\nlimits: [1, 2]\n")
    with pytest.raises(Refused) as refused:
        compose(["target=mychip", "model=mynet"], config_dirs=[tmp_path])
    reason = refused.value.reason
    assert (reason.code, reason.where) == ("PL-102", "target/mychip.yaml")
    assert reason.message == "target.limits has a value of the wrong type"
    assert reason.next_step == "Mend target.limits in target/mychip.yaml"


def test_a_defaults_list_that_names_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mychip.yaml").write_text("defaults: [mychip, _self_]\nname: mychip\n")
    with pytest.raises(Refused) as refused:
        compose(["target=mychip", "model=mynet"], config_dirs=[tmp_path])
    assert "a defaults list names its own file" in refused.value.reason.message
    assert "target='mychip'" in (refused.value.reason.found or "")


def test_a_target_of_the_users_has_the_name_of_its_file_and_the_profile_beside_it(tmp_path: Path) -> None:
    profiles = tmp_path / "target" / "profiles"
    profiles.mkdir(parents=True)
    (tmp_path / "target" / "mychip.yaml").write_text("limits: {}\n")
    (profiles / "mychip.yaml").write_text("title: My chip\ncitation: mine\n")
    (profiles / "other.yaml").write_text("title: Another\ncitation: mine\n")
    target = compose(["model=mynet", "target=mychip"], config_dirs=[tmp_path]).target
    assert (target.name, target.profile) == ("mychip", str(profiles / "mychip.yaml"))
    target = compose(["model=mynet", "target=mychip", "target.profile=other"], config_dirs=[tmp_path]).target
    assert target.profile == str(profiles / "other.yaml")
    ours = compose(["model=mynet", "target=horizon_x3"], config_dirs=[tmp_path]).target
    assert (ours.name, ours.profile) == ("horizon_x3", "horizon_x3")
    assert (
        compose(["model=mynet", "target=mychip", "target.name=none"], config_dirs=[tmp_path]).target.name
        == "none"
    )


def test_a_target_file_that_lies_over_ours_is_itself(tmp_path: Path) -> None:
    profiles = tmp_path / "target" / "profiles"
    profiles.mkdir(parents=True)
    (tmp_path / "target" / "likex3.yaml").write_text(
        "defaults: [horizon_x3, _self_]\nlimits: {title: Mine}\n"
    )
    target = compose(["model=mynet", "target=likex3"], config_dirs=[tmp_path]).target
    assert (target.name, target.profile) == ("likex3", "horizon_x3")
    (profiles / "likex3.yaml").write_text("title: My chip\ncitation: mine\n")
    target = compose(["model=mynet", "target=likex3"], config_dirs=[tmp_path]).target
    assert (target.name, target.profile) == ("likex3", str(profiles / "likex3.yaml"))
