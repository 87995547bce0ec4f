"""Damaged files end in one sentence, with bounded memory and time; files that somebody made to do harm do none."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import PipelineError
from pipeline.samples.npz import read_npz, write_npz
from pipeline.sources.weights_file import inspect_weights
from tests.end_to_end.conftest import NETWORKS, CommandLine, X, run_command
from tests.end_to_end.networks import build

ROOT = Path(__file__).resolve().parents[2]
#: What reading one damaged file may take. The networks here have 10 to 200 kB.
LONGEST_S = 20.0
MOST_MIB = 300
MANY = pytest.param(500, marks=[pytest.mark.slow])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory and checkpoints to damage."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_command(folder, ["model=mynet", "cache.mode=none"])
    assert done.code == 0, done.err
    done.run.rename(folder / "run")
    network = build("Plain", channels=64)
    torch.save(network.state_dict(), folder / "weights.pth")
    save_file(network.state_dict(), folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize("count", [25, MANY])
@pytest.mark.parametrize("kind", ["model", "pth", "safetensors", "manifest"])
def test_damaged_files(whole: Path, kind: str, count: int) -> None:
    words = [sys.executable, "-m", "tests.end_to_end.fuzz_driver", kind, str(whole), str(count)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{count} damaged {kind} files: {told}")
    assert sum(told["ends"].values()) == count
    assert told["longest_s"] < LONGEST_S
    assert told["grown_mib"] < MOST_MIB
    if kind in ("pth", "manifest"):  # these two hold sums of what is in them, or are held by some
        assert told["ends"].get("taken", 0) < count / 10


FACTORY = ("model=factory", f"model.factory={NETWORKS}:build", X)


def refusal(path: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        inspect_weights(path)
    return caught.value.reason.sentence()


def test_a_zip_that_unpacks_to_a_thousand_times_its_size(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}q\x00.")
        with archive.open("w/data/0", "w", force_zip64=True) as stream:
            for _ in range(256):
                stream.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    assert "unpacks to" in refusal(path)


def test_a_pickle_in_a_zip_that_is_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("w/data.pkl", "w", force_zip64=True) as stream,
    ):
        for _ in range(256):
            stream.write(b"0" * (1 << 20))
    assert "unpacks to" in refusal(path)


def test_a_header_that_never_ends(tmp_path: Path) -> None:
    header = b'{"a":' + b"[" * 200_000
    path = tmp_path / "deep.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert "a damaged file" in refusal(path)


@pytest.mark.parametrize("offsets", ["[0]", '["a", "b"]', "7", "[0, 1e400]", "[0, -5]", "null", "[[], {}]"])
def test_offsets_of_a_wrong_kind(tmp_path: Path, offsets: str) -> None:
    header = f'{{"w": {{"dtype": "F32", "shape": [2], "data_offsets": {offsets}}}}}'.encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert "a damaged file" in refusal(path)


def test_saved_samples_that_unpack_to_more_than_they_are(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez_compressed(path, x=np.zeros(1 << 24, np.float32))
    with pytest.raises(ValueError, match="unpacks to"):
        read_npz(path)
    write_npz(path, {"x": np.ones(3, np.float32)})
    assert read_npz(path)["x"].tolist() == [1, 1, 1]


def test_an_array_that_says_it_is_larger_than_its_file(command: CommandLine, tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 100000, 100000), }"
    text = header.ljust(117).encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64))
    done = command(*FACTORY[:2], "model.inputs={x: {fill: {file: x.npy}}}", "memory_limit=4GB")
    assert done.code == 2, done.err
    assert "PL-20" in done.err and len(done.err.strip().splitlines()[-1]) < 600


# -- records that name what is not theirs ------------------------------------------------------------


def rewritten(run: Path, change: Any) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    change(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "samples/../../secret", "a/../../secret"])
@pytest.mark.parametrize("words", [["verify"], ["verify", "--deep"], ["reproduce"], ["compare", "."]])
def test_records_cannot_name_files_outside(whole: Path, tmp_path: Path, name: str, words: list[str]) -> None:
    import shutil

    shutil.copytree(whole / "run", tmp_path / "run")
    (tmp_path / "secret").write_text("of nobody's business")

    def change(manifest: dict[str, Any]) -> None:
        manifest["artifacts"][0]["path"] = name

    rewritten(tmp_path / "run", change)
    from pipeline.__main__ import main

    place = str(tmp_path / "run")
    words = [place if word == "." else word for word in words]
    assert main([*words, place]) in (1, 2)


def test_a_link_in_a_run_directory_is_not_followed(whole: Path, tmp_path: Path) -> None:
    import shutil

    from pipeline.run.verify import verify_directory

    run = tmp_path / "run"
    shutil.copytree(whole / "run", run)
    (tmp_path / "elsewhere").mkdir()
    for path in (run / "samples").iterdir():
        path.rename(tmp_path / "elsewhere" / path.name)
    (run / "samples").rmdir()
    (run / "samples").symlink_to(tmp_path / "elsewhere")
    assert verify_directory(run), "the same bytes, but outside"
    (run / "samples").unlink()
    shutil.copytree(tmp_path / "elsewhere", run / "samples")
    model = (run / "model.onnx").read_bytes()
    (tmp_path / "model").write_bytes(model)
    (run / "model.onnx").unlink()
    (run / "model.onnx").symlink_to(tmp_path / "model")
    assert [problem.message for problem in verify_directory(run)] == ["is no plain file"]


def test_a_named_pipe_or_device_does_not_hang_verify(whole: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(whole / "run", run)
    for name in ("run.json", "log.txt"):
        (run / name).unlink()
        os.mkfifo(run / name)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "verify", str(run)], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
