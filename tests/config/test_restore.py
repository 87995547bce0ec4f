"""A canonical request is restored to a configuration with the same canonical form."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.canonical import canonical_request
from pipeline.config.compose import compose
from pipeline.config.restore import is_source_file, restore


def nowhere(*words: str) -> str:
    raise AssertionError(f"{words} should not be looked for")


@pytest.mark.parametrize(
    "words",
    [
        ["model=mynet"],
        ["model=mynet_multi_input", "export.opset=13", "parity=fixed", "parity.floor=1e-4"],
        ["experiment=alexnet_classic"],
        ["model=raft_small"],
        ["model=fasterrcnn_mobilenet_v3_large_320_fpn"],
        [
            "model=mynet",
            "model.inputs={x: {shape: [1,3,28,28], dynamic: {0: {name: batch, min: 1, max: 8}}}}",
        ],
        ["model=mynet", "model.args={a: [1, {b: null}], c: 1.5}", "export.custom_opsets={own: 2}"],
        ["model=mynet", "export.rules={fuse: false}"],
    ],
)
def test_there_and_back(words: list[str]) -> None:
    request = canonical_request(compose(words))
    assert canonical_request(restore(request, nowhere, nowhere)) == request


def test_keys_that_are_no_texts() -> None:
    config = compose(tree={"model": "mynet", "model.args": {"table": {1: "a", 2: float("inf")}}})
    request = canonical_request(config)
    assert restore(request, nowhere, nowhere).model.args == {"table": {1: "a", 2: float("inf")}}


def test_files_and_sources_are_asked_for(tmp_path: Path) -> None:
    for name in ("net.py", "w.pth", "x.npy"):
        (tmp_path / name).write_text("x = 1\n")
    words = [
        "model=factory", f"model.factory={tmp_path}/net.py:build", f"model.weights={tmp_path}/w.pth",
        f"model.inputs={{x: {{shape: [1], fill: {{file: {tmp_path}/x.npy}}}}}}",
    ]  # fmt: skip
    request = canonical_request(compose(words))
    asked: list[str] = []

    def locate_file(name: str, sha256: str) -> str:
        asked.append(name)
        return str(tmp_path / name)

    config = restore(request, locate_file, lambda key, text: f"{tmp_path}/{text}")
    assert canonical_request(config) == request
    assert config.model.weights == str(tmp_path / "w.pth")
    assert config.model.factory == f"{tmp_path}/net.py:build"
    assert config.model.inputs["x"]["fill"] == {"file": str(tmp_path / "x.npy")}
    assert set(asked) == {"w.pth", "x.npy"}


def test_what_a_source_file_is() -> None:
    assert is_source_file("net.py:build")
    assert not is_source_file("my_pkg.net:build")
    assert not is_source_file("pkg://models/mynet.py:build")
