"""cuda without a GPU is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import Refused
from pipeline.sources.device import refuse_missing_device, refuse_unusable_device


def test_the_cpu_is_always_there(tmp_path: Path) -> None:
    refuse_missing_device("cpu", dev=tmp_path)


def test_cuda_without_device_files_is_refused_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(Refused) as caught:
        refuse_missing_device("cuda", dev=tmp_path)
    assert str(caught.value) == (
        "PL-232: device=cuda needs a GPU; found no GPU on this machine. Type device=cpu"
    )


@pytest.mark.parametrize("name", ["nvidia0", "dxg", "kfd"])
def test_a_device_file_lets_torch_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / name).touch()
    refuse_missing_device("cuda", dev=tmp_path)


def test_hidden_gpus_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "nvidia0").touch()
    with pytest.raises(Refused, match=r"hides every GPU"):
        refuse_missing_device("cuda", dev=tmp_path)


def test_what_torch_cannot_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refused, match=r"PL-232"):
        refuse_unusable_device("cuda")
