"""What a checkpoint is, seen without torch: by content, not by extension."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import Refused
from pipeline.sources.weights_file import inspect_weights

STATE = OrderedDict(weight=torch.ones(2, 3), bias=torch.zeros(2))


class Attack:
    """Runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch pwned",)


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    torch.save(STATE, tmp_path / "weights.bin")
    return tmp_path / "weights.bin"


def test_a_zip_of_torch(zipped: Path) -> None:
    assert inspect_weights(zipped).kind == "zip"


def test_the_old_format_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "weights.zip"  # the extension says nothing
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    found = inspect_weights(path)
    assert (found.kind, found.unsafe) == ("pickle", ())


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_file(dict(STATE), path)
    assert inspect_weights(path).kind == "safetensors"


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_pickle_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"weight": Attack()}, protocol=protocol))
    with pytest.raises(Refused) as caught:
        inspect_weights(path)
    assert str(caught.value) == (
        "PL-224: model.weights: the weights file would run code while it is loaded; found posix.system in "
        "weights.pth, expected tensors in dicts and lists. Save model.state_dict() alone, or type "
        "model.trust_pickle=true if you trust whoever made it"
    )
    assert inspect_weights(path, trust_pickle=True).unsafe == ("posix.system",)
    assert not (tmp_path / "pwned").exists()


def test_code_in_a_zip_of_torch(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1), "extra": Attack()}, tmp_path / "weights.pth")
    with pytest.raises(Refused, match=r"posix\.system"):
        inspect_weights(tmp_path / "weights.pth")


def test_a_whole_module_is_code(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), tmp_path / "weights.pth")
    with pytest.raises(Refused, match=r"torch\.nn\.modules\.linear\.Linear"):
        inspect_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"hello, I am no checkpoint", "neither torch.save's nor safetensors' format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "an HDF5 file"),
        (b"PK\x03\x04" + bytes(40), "a damaged file"),
        (b"\x80\x02garbage", "a damaged file"),
        ((10).to_bytes(8, "little") + b"{not json}" + bytes(10), "a damaged file"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(
        Refused, match=rf"PL-223: model.weights: the weights file cannot be used; found .*{found}"
    ):
        inspect_weights(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"cannot be read; found .*: No such file or directory"):
        inspect_weights(tmp_path / "weights.pth")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"Is a directory"):
        inspect_weights(tmp_path)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_zip_cut_short(zipped: Path, kept: float) -> None:
    data = zipped.read_bytes()
    zipped.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(Refused, match=r"PL-223"):
        inspect_weights(zipped)


def test_safetensors_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(dict(STATE), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Refused, match=r"a damaged file"):
        inspect_weights(path)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(Refused, match=r"without data\.pkl"):
        inspect_weights(tmp_path / "weights.pth")


def test_a_torchscript_program(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("net/data.pkl", "net/constants.pkl", "net/code/net.py"):
            archive.writestr(name, pickle.dumps(()))
    with pytest.raises(Refused, match=r"a TorchScript program"):
        inspect_weights(path)


def test_a_safetensors_header_that_points_outside(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8000]}}).encode()
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(Refused, match=r"expected 80"):
        inspect_weights(tmp_path / "w")


def test_a_text_fetched_from_the_memo_is_seen(tmp_path: Path) -> None:
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=4)
    pickler.dump([["posix", "system"], Attack()])
    (tmp_path / "w").write_bytes(stream.getvalue())
    assert inspect_weights(tmp_path / "w", trust_pickle=True).unsafe == ("posix.system",)


def test_torch_is_not_imported(zipped: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.sources.weights_file import inspect_weights\n"
        f"inspect_weights(Path({str(zipped)!r})); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
