"""docs/profiles.md: the schema, the language and the worked example are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pipeline.config.compose import compose
from pipeline.targets.limit_parser import parse_limit
from pipeline.targets.onnx_operators import names_of
from pipeline.targets.profile import SUPPORT, UNLISTED, load_profile
from pipeline.targets.profile_schema import KEYS, ROW_KEYS
from pipeline.targets.vocabulary import FUNCTIONS, VARIABLES
from tests.targets.judging import placed

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "profiles.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_key_is_told() -> None:
    text = section("The schema")
    for key in (*KEYS, *ROW_KEYS, *SUPPORT, *UNLISTED):
        assert re.search(rf"\b{key}\b", text), key


def test_every_name_is_told_with_its_kind() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", section("The language of limits"), re.MULTILINE)
    expected = [(name, kind, about) for name, (kind, about) in VARIABLES.items()]
    expected += [(name, kind, about) for name, (_, kind, about) in FUNCTIONS.items()]
    assert rows == expected


def test_the_limits_shown_can_be_read() -> None:
    block = section("The language of limits").partition("```\n")[2].partition("```")[0]
    limits = [text for line in block.splitlines() for text in re.split(r"\s{3,}", line) if text]
    assert len(limits) > 8
    for text in limits:
        operator = "Resize" if "mode" in text or "axes" in text else "Conv"
        parse_limit(text, names_of(operator))


def test_the_worked_example(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", section("Your own vendor"), re.DOTALL)
    assert yaml.safe_load(example)["name"] == "mychip"
    path = tmp_path / "target" / "mychip.yaml"
    path.parent.mkdir()
    path.write_text(example)
    target = compose(["target=mychip", "model=mynet"], config_dirs=[tmp_path]).target
    profile = load_profile(target.profile or target.name, target.limits)
    conv = placed(profile, "Conv", (1, 8, 9, 9), weights={1: (8, 8, 7, 7)})
    assert (conv.place, conv.misses[0].limit, conv.misses[0].mend) == (
        "cpu", "kernel up to 5x5", "two smaller kernels in a row",
    )  # fmt: skip
    assert placed(profile, "Softmax", (1, 8, 2, 2)).place == "accelerator"
    assert "Einsum" not in profile.operators
    assert profile.places == {"accelerator": "NPU", "cpu": "host"}


def test_a_profile_that_shares_nothing_with_ours(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "title: mine\ncitation: the vendor's mail\noperators: {Conv: {accelerator_limits: [kernels <= 3]}}\n"
    )
    profile = load_profile(str(path))
    places = [placed(profile, "Conv", (1, 8, 9, 9), weights={1: (8, 8, size, size)}).place for size in (3, 5)]
    assert places == ["accelerator", "unsupported"]
    assert placed(profile, "Relu", (1, 8)).place == "unknown"


@pytest.mark.parametrize("name", ["conf/target/tables", "conf/target/operators", "conf/target/generate.py"])
def test_what_the_page_names_is_there(name: str) -> None:
    assert name in PAGE
    assert (Path(__file__).resolve().parents[2] / name).exists()
