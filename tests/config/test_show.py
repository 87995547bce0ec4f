"""`--cfg job`: what is shown composes to the same request again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.config.arguments import parse_arguments
from pipeline.config.build import build
from pipeline.config.compose import compose
from pipeline.config.show import config_yaml, show_job
from pipeline.errors import Refused


def shown(*words: str) -> str:
    return show_job(parse_arguments([*words, "--cfg", "job"]))


def test_without_a_model_the_defaults_are_shown() -> None:
    data = yaml.safe_load(shown())
    assert data["export"]["opset"] is None
    assert data["parity"]["kind"] == "noise"
    assert data["out"] == "outputs"


def test_what_is_shown_is_the_request() -> None:
    words = ["model=mynet", "export.opset=11", "parity=fixed", "model.args={width: '012', on: true}"]
    assert build(yaml.safe_load(shown(*words))) == compose(words)


@pytest.mark.parametrize("text", ["on", "012", "1e-4", "null", "3", "a: b", "~", "", "ä"])
def test_texts_stay_texts(text: str) -> None:
    config = compose(tree={"model": "mynet"})
    config = build({**yaml.safe_load(config_yaml(config)), "out": text or "x"})
    assert build(yaml.safe_load(config_yaml(config))).out == (text or "x")


def test_one_package() -> None:
    assert shown("export.opset=13", "--package", "export").startswith("# @package export\nopset: 13\n")
    assert shown("seed=5", "--package", "seed") == "5\n"
    assert shown("--package", "_global_") == shown()


def test_a_package_that_there_is_not() -> None:
    with pytest.raises(Refused, match="Did you mean export"):
        shown("--package", "exprt")


def test_references_stand_as_they_are_until_resolve() -> None:
    assert "custom_opsets:\n    own: ${seed}" in shown("export.custom_opsets={own: '${seed}'}", "seed=7")
    assert "own: 7" in shown("export.custom_opsets={own: '${seed}'}", "seed=7", "--resolve")


def test_the_points_of_a_sweep_one_after_the_other() -> None:
    text = shown("-m", "export.opset=11,13", "--package", "export.opset")
    assert text == "# export.opset=11\n11\n---\n# export.opset=13\n13\n"


def test_a_mistake_is_refused_here_too() -> None:
    with pytest.raises(Refused, match="PL-101"):
        shown("export.opsett=11")


def test_a_folder_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# mine\ndefaults: [mynet, _self_]\nname: mine\n")
    assert "name: mine" in shown("model=mine", "--config-dir", str(tmp_path))
