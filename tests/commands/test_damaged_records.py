"""Records and samples that somebody changed, with digests made to fit, end in one sentence each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.run.cache import file_sha256
from pipeline.run.verify import verify_directory
from tests.report.drawing import REPOSITORY

NET = """
import torch

def build(width=4):
    return torch.nn.Sequential(torch.nn.Conv2d(3, width, 3), torch.nn.ReLU(), torch.nn.Flatten())
"""
REQUEST = ("model=factory", "model.factory=net.py:build", "model.inputs={x: {shape: [1,3,8,8]}}")
#: Reads without the rights of root: a file that one may not read stands in the tests' way otherwise.
AS_NOBODY = """
import os, sys
from pipeline.__main__ import main
import pipeline.commands.compare, pipeline.commands.verify, jsonschema
from pipeline.run.schemas import problems_of
problems_of("run.json", {}), problems_of("manifest.json", {})
if os.geteuid() == 0:
    os.seteuid(65534)
raise SystemExit(main(sys.argv[1:]))
"""
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of a small network of the user's."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "net.py").write_text(NET)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *REQUEST, "cache.mode=none"],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "outputs").glob("build-*")
    return made


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it that a test may change; what a test leaves would have to be valid."""
    yield Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(tmp_path / "run")


def changed(run: Path, name: str, change: Change) -> None:
    """Change a record, and make the digests fit."""
    record = json.loads((run / name).read_text())
    change(record)
    (run / name).write_text(json.dumps(record))
    fitted(run)


def fitted(run: Path) -> None:
    """Make the digests of both records fit what lies there now."""
    for name in ("manifest.json", "run.json"):
        record = json.loads((run / name).read_text())
        for file in record["artifacts"]:
            path = run / file["path"]
            if len(path.name) < 256 and path.name.isascii() and path.is_file():
                file |= {"size": path.stat().st_size, "sha256": file_sha256(path)}
        (run / name).write_text(json.dumps(record))


def ended(capfd: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """Exit code and all that was said; an exception that comes out is a defect."""
    code = main([str(word) for word in words])
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    return code, said.out + said.err


@pytest.mark.parametrize("name", ["n" * 300, "\ud800"], ids=["300 letters", "no Unicode"])
def test_an_artifact_that_no_file_can_be_named_like(
    run: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """OSError 36 and UnicodeEncodeError came out of verify and compare."""
    changed(run, "manifest.json", lambda manifest: manifest["artifacts"][0].update(path=name))
    assert ended(capfd, "verify", run)[0] == 1
    assert ended(capfd, "verify", run, "--json")[0] == 1
    assert ended(capfd, "compare", run, run)[0] == 2


@pytest.mark.parametrize(
    ("key", "value"), [("tolerance", "wide"), ("output", []), ("seed", {}), ("margin", "3"), ("error", [])]
)
def test_a_comparison_of_a_wrong_type_is_no_valid_record(
    run: Path, key: str, value: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """verify said whole; verify --deep and compare gave TypeError."""
    changed(run, "run.json", lambda record: record["parity"][0].update({key: value}))
    for words in (("verify", run), ("verify", run, "--deep")):
        code, said = ended(capfd, *words)
        assert code == 1 and f"parity/0/{key}" in said
    assert ended(capfd, "compare", run, run)[0] == 2


@pytest.mark.parametrize("number", ["NaN", "1e400", "1" + "0" * 400], ids=["NaN", "infinite", "a long one"])
@pytest.mark.parametrize("key", ["tolerance", "seconds"])
def test_a_number_that_none_of_ours_is(
    run: Path, key: str, number: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """OverflowError came out of compare."""
    changed(
        run, "run.json", lambda record: (record if key in record else record["parity"][0]).update({key: 7e7})
    )
    text = (run / "run.json").read_text()
    assert text.count("70000000.0") == 1
    (run / "run.json").write_text(text.replace("70000000.0", number))
    code, said = ended(capfd, "verify", run, "--deep")
    assert code == 1 and "run.json is no JSON" in said
    assert ended(capfd, "compare", run, run)[0] == 2


@pytest.fixture
def open_run(whole: Path) -> Iterator[Path]:
    """A copy where nobody's rights suffice to reach it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = Path(shutil.copytree(whole, Path(folder) / "run"))
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield copy
        for path in (copy, copy / "samples"):
            path.chmod(0o755)


@pytest.mark.parametrize("name", [".", "samples", "manifest.json", "run.json", "model.onnx"])
def test_what_may_not_be_read_is_told(open_run: Path, name: str) -> None:
    """PermissionError came out of verify and compare."""
    (open_run / name).chmod(0)

    def end(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *words], cwd=REPOSITORY, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    code, said = end("verify", str(open_run))
    assert code == 1 and "Permission denied" in said and "Traceback" not in said
    assert len(said.splitlines()) == len(set(said.splitlines()))
    assert "manifest.json manifest.json" not in said and "model.onnx model.onnx" not in said
    code, said = end("compare", str(open_run), str(open_run))
    assert code == 2 and said.startswith("PL-801") and "Permission denied" in said
    (open_run / name).chmod(0o755)


def _odd_compression(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:10] = b"\x63\x00"
    at = data.rindex(b"PK\x01\x02")
    data[at + 10 : at + 12] = b"\x63\x00"
    path.write_bytes(data)


def _cut_short(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    for start in (at + 20, at + 24, 18, 22):
        data[start : start + 4] = (200).to_bytes(4, "little")
    path.write_bytes(bytes(data) + bytes(100))


def _text_inside(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x.npy", b"no array")


@pytest.mark.parametrize("damage", [_odd_compression, _cut_short, _text_inside])
@pytest.mark.parametrize("name", ["inputs.npz", "expected.npz"])
def test_damaged_samples_whose_digests_fit(
    whole: Path, run: Path, name: str, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """NotImplementedError and EOFError came out of compare, and of the process of verify --deep."""
    damage(run / "samples" / name)
    fitted(run)
    assert verify_directory(run) == []
    code, said = ended(capfd, "verify", run, "--deep")
    assert code == 1 and "its saved samples cannot be read" in said
    assert ended(capfd, "compare", run, whole)[0] < 2
    assert ended(capfd, "compare", whole, run)[0] < 2


@pytest.mark.parametrize("parity", [None, 3, [], {"k": "much"}, {"k": [1]}, {"kind": 1}, {"floor": {}}])
def test_a_comparison_asked_for_in_a_wrong_type(
    run: Path, parity: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """verify --deep gave TypeError or AttributeError."""
    changed(run, "manifest.json", lambda manifest: manifest["request"].update(parity=parity))
    code, said = ended(capfd, "verify", run, "--deep")
    assert code == 1 and "the process that ran it" not in said and "parity" in said


REQUESTS: dict[str, Change] = {
    "no inputs": lambda request: request["model"].update(inputs=None),
    "inputs by number": lambda request: request["model"].update(inputs=[[1, {"shape": [1, 3, 8, 8]}]]),
    "factory a number": lambda request: request["model"].update(factory=1),
    "pairs of one": lambda request: request["model"].update(args={"pairs": [1]}),
    "no float": lambda request: request["model"].update(args={"float": "z"}),
    "no model": lambda request: request.pop("model"),
    "model a list": lambda request: request.update(model=[]),
    "a file by number": lambda request: request["model"].update(weights={"file": 1, "sha256": 2}),
    "a file outside": lambda request: request["model"].update(weights={"file": "../x", "sha256": "0" * 64}),
    "a source outside": lambda request: request["model"].update(factory="/tmp/net.py:build"),
    "no export": lambda request: request.update(export=None),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_of_wrong_types_is_refused(
    run: Path, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """reproduce gave TypeError, ValueError, KeyError or AttributeError."""
    changed(run, "manifest.json", lambda manifest: REQUESTS[kind](manifest["request"]))
    code, said = ended(capfd, "reproduce", run, "--search", tmp_path)
    assert code == 2 and said.startswith("PL-"), said


def test_no_link_is_made_outside_of_the_scratch_folder(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A renamed file got a link of the name in the request, wherever that led."""
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "w.pth").write_bytes(b"weights")
    file = {"file": str(tmp_path / "escaped"), "sha256": file_sha256(tmp_path / "search" / "w.pth")}
    changed(run, "manifest.json", lambda manifest: manifest["request"]["model"].update(weights=file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rglob", lambda folder, pattern: iter([folder / "w.pth"]))
        code, said = ended(capfd, "reproduce", run, "--search", tmp_path / "search")
    assert not (tmp_path / "escaped").is_symlink()
    assert code == 2 and "PL-801" in said


def test_a_file_whose_name_is_no_text_is_told(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """UnicodeEncodeError came out of verify."""
    Path(os.fsdecode(os.fsencode(run) + b"/\xff")).touch()
    assert [problem.path for problem in verify_directory(run)] == ["\\xff"]
    code, said = ended(capfd, "verify", run)
    assert code == 1 and "extra: \\xff is listed in no record" in said


def test_a_missing_manifest_is_told_once(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As a record and as what run.json lists."""
    (run / "manifest.json").unlink()
    code, said = ended(capfd, "verify", run)
    assert code == 1 and said.count("missing: manifest.json is not there") == 1
