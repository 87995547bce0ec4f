"""A third party's backend: it joins through an entry point and passes the contract that ours pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import Refused
from pipeline.targets.backends import BACKENDS, ENTRY_POINTS, backend_names, backend_of
from pipeline.targets.config import TargetConfig
from pipeline.targets.contract_tests import BackendContract
from pipeline.targets.stages import TargetRequest, target_stages
from tests.targets.toy import BACKEND
from tests.targets.workspace import doubling


class TestToy(BackendContract):
    backend = BACKEND


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A distribution with one entry point, as an installer would leave it."""
    info = folder / "site" / "toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ntoy = {value}\n")
    monkeypatch.syspath_prepend(str(info.parent))


def test_it_joins_through_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "tests.targets.toy:BACKEND")
    assert "toy" in backend_names()
    # By name: pytest may hold the module of the test apart from the one that is imported.
    assert type(backend_of("toy")).__qualname__ == type(BACKEND).__qualname__
    (tmp_path / "run").mkdir()
    workspace, specs = doubling(tmp_path / "run")
    request = TargetRequest.of(TargetConfig(name="board", backend="toy", options={"speed": 3}))
    verdicts = workspace.walk(*target_stages(request, specs, k=16.0))
    assert [verdict.status for verdict in verdicts] == ["passed"] * 4
    assert (tmp_path / "run" / "board" / "bundle" / "model.toy").is_file()
    parts = target_stages(request, specs, k=16.0)[0].key_parts()
    assert len(parts.extra["backend"]) == 64, "its code takes part in the key"
    assert "onnx" in parts.packages


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("tests.targets.nowhere:BACKEND", "cannot be imported"),
        ("tests.targets.toy:NOTHING", "cannot be imported"),
        ("tests.targets.toy:ToyBackend", "(a class)"),
        ("tests.targets.workspace:SPECS", "(no method compile)"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    installed(tmp_path, monkeypatch, value)
    with pytest.raises(Refused) as refused:
        backend_of("toy")
    assert refused.value.reason.code == "PL-640"
    assert words in refused.value.reason.sentence()


def test_a_third_party_cannot_take_the_name_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "tests.targets.toy:BACKEND")
    entry = tmp_path / "site" / "toy-1.0.dist-info" / "entry_points.txt"
    entry.write_text(entry.read_text().replace("toy =", "onnxruntime ="))
    assert backend_of("onnxruntime").name == "onnxruntime"
    assert backend_names().count("onnxruntime") == 1


def test_an_unknown_backend_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(Refused) as refused:
        backend_of("openvno")
    assert refused.value.reason.next_step == "Type target.backend=openvino"
    assert set(BACKENDS) <= set(str(refused.value.reason.expected).split(", "))
