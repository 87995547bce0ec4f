"""Networks that only dynamo exports as they are, brought down to opset 11 and run on several backends. Slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import small_transformers
from tests.end_to_end.conftest import run_command

#: Network -> what names it, and the backends that run it at opset 11.
NETWORKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mvit_v1_b": (("model=mvit_v1_b",), ("onnxruntime", "openvino", "mnn")),
    "timm": (
        (
            "model=factory", "model.factory=timm:create_model", "model.name=eva02_tiny",
            "model.args={model_name: eva02_tiny_patch14_224, pretrained: false}",
            "model.inputs={x: {shape: [1, 3, 224, 224]}}",
        ),
        ("onnxruntime", "openvino", "tvm", "mnn"),
    ),
    "transformers": (
        (
            "model=factory", f"model.factory={small_transformers.__file__}:build", "model.name=bert",
            "model.args={family: bert}", f"model.inputs={small_transformers.INPUTS['bert']}",
        ),
        ("onnxruntime", "openvino", "tvm"),
    ),
}  # fmt: skip

POINTS = [(name, backend) for name, (_, backends) in NETWORKS.items() for backend in backends]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages that the backends of a network share."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(("name", "backend"), POINTS)
def test_a_network_of_dynamo_runs_at_opset_11(tmp_path: Path, cache: Path, name: str, backend: str) -> None:
    if name in ("timm", "transformers"):
        pytest.importorskip(name)
    words = (*NETWORKS[name][0], "export.exporter=dynamo", "export.opset=11", f"target={backend}")
    done = run_command(tmp_path, [*words, f"cache.dir={cache}"])
    assert done.code == 0, done.err
    assert done.manifest["opsets"][""] == 11
    verdicts = {stage: one["status"] for stage, one in done.manifest["verdicts"].items()}
    assert verdicts["parity"] == verdicts["compare"] == "passed"
    assert all(one["margin"] > 1 for one in done.record["target"]["parity"])
