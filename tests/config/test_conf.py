"""Every file of conf/ is composed and checked; values in YAML and defaults of dataclasses agree."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import schema
from pipeline.config.compose import compose, compose_points
from pipeline.config.request import Config
from pipeline.config.show import plain
from pipeline.locations import CONF_DIR
from pipeline.samples.spec import parse_inputs

FILES = sorted(path.relative_to(CONF_DIR) for path in CONF_DIR.glob("*/*.yaml"))
#: What a file leaves to the command line (`???`, or a name that only the user can give).
NEEDED = {
    "model/factory.yaml": [
        "model.factory=pkg://models/mynet.py:build",
        "model.inputs={x: {shape: [1,3,8,8]}}",
    ],
    "model/onnx_file.yaml": ["model.path=net.onnx", "model.inputs={x: {shape: [1,3,8,8]}}"],
    "experiment/target_matrix.yaml": ["model=mynet"],
    "model/torchvision.yaml": ["model.name=alexnet", "model.inputs={x: {shape: [1,3,224,224]}}"],
}


def read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((CONF_DIR / path).read_text(encoding="utf-8"))
    return data


def test_there_are_files() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_is_composed_and_checked(path: Path) -> None:
    group, name = path.parent.name, path.stem
    model = [] if group in ("model", "experiment") else ["model=mynet"]
    config = compose([*model, f"{group}={name}", *NEEDED.get(str(path), [])])
    assert isinstance(config, Config)
    specs = parse_inputs(config.model.inputs)
    assert specs.leaves


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_says_what_it_is(path: Path) -> None:
    lines = (CONF_DIR / path).read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#") and "@package" not in line]
    assert comments, "a first comment line says what the choice means"


def test_the_folders_are_the_groups() -> None:
    assert {path.parent.name for path in FILES} <= {*schema.GROUPS, "hydra"}


def test_values_in_yaml_are_the_defaults_of_the_dataclasses() -> None:
    composed = compose_points([], whole=False).points[0]
    assert composed.config == Config()


def test_the_primary_config_has_every_key_at_the_top() -> None:
    listed = {name for name in read(Path("config.yaml")) if name not in ("defaults", "hydra")}
    assert listed == {field.name for field in fields(Config)} - set(schema.GROUPS)
    assert set(read(Path("config.yaml"))["cache"]) == {field.name for field in fields(Config().cache)}


@pytest.mark.parametrize(
    ("section", "file"),
    [
        ("model", "torchvision"), ("model", "factory"), ("export", "default"), ("parity", "noise"),
        ("simplify", "onnxsim"), ("check", "full"), ("surgery", "none"), ("target", "none"),
    ],
)  # fmt: skip
def test_the_full_file_of_a_group_shows_every_key(section: str, file: str) -> None:
    node = getattr(Config(), section)
    assert is_dataclass(node)
    assert set(read(Path(f"{section}/{file}.yaml"))) - {"defaults"} == set(plain(node))
