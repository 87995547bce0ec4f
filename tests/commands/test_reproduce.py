"""`reproduce`, `compare`, `verify --deep` and `cache explain` on real runs of a small network of the user's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands import compare
from pipeline.commands.compare import _Remark

NET = """
import torch

def build(width=4):
    return torch.nn.Sequential(torch.nn.Conv2d(3, width, 3), torch.nn.ReLU(), torch.nn.Flatten())
"""
REQUEST = ("model=factory", "model.factory=mine/net.py:build", "model.inputs={x: {shape: [1,3,8,8]}}")


def pipeline(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with one run in it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "mine").mkdir()
    (folder / "mine" / "net.py").write_text(NET)
    done = pipeline(folder, *REQUEST, "cache.dir=cache")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def working(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(made, tmp_path / "work")
    return tmp_path / "work"


def directory(folder: Path) -> str:
    (found,) = (folder / "outputs").glob("build-*")
    return str(found.relative_to(folder))


def test_the_same_bytes(working: Path) -> None:
    done = pipeline(working, "reproduce", directory(working), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"same": True, "differences": []}
    assert sorted(path.name for path in working.iterdir()) == ["cache", "mine", "outputs"]


def test_what_is_kept_already_is_not_taken_for_made_again(working: Path) -> None:
    """It made nothing and said "was made again: the same bytes"."""
    first = pipeline(working, "reproduce", directory(working), "--keep", "kept")
    assert first.returncode == 0, first.stderr
    for kept in ("kept", "outputs"):
        again = pipeline(working, "reproduce", directory(working), "--keep", kept)
        assert again.returncode == 2 and "made again: the same" not in again.stdout
        (line,) = again.stderr.splitlines()
        assert line.startswith(f"PL-800: {kept}/build-") and "--keep with another folder" in line


def test_a_source_that_moved_is_found_by_what_it_says(working: Path) -> None:
    (working / "elsewhere" / "deep").mkdir(parents=True)
    (working / "mine" / "net.py").rename(working / "elsewhere" / "deep" / "net.py")
    (working / "elsewhere" / "net.py").write_text(NET.replace("width=4", "width=5"))  # another of that name
    missing = pipeline(working, "reproduce", directory(working))
    assert missing.returncode == 2
    assert "PL-802" in missing.stderr
    assert "--search FOLDER" in missing.stderr
    found = pipeline(working, "reproduce", directory(working), "--search", "elsewhere")
    assert found.returncode == 0, found.stderr + found.stdout


def test_a_source_that_changed_cannot_make_it_again(working: Path) -> None:
    (working / "mine" / "net.py").write_text(NET.replace("width=4", "width=5"))
    done = pipeline(working, "reproduce", directory(working))
    assert done.returncode == 2
    assert "source code with the digest" in done.stderr


def test_a_module_beside_the_source_that_changed_is_named_too(working: Path) -> None:
    """Only the file of the factory was named, "nothing like net.py", although it was there and unchanged."""
    (working / "mine" / "widths.py").write_text("width = 4\n")
    (working / "mine" / "net.py").write_text("from widths import width\n" + NET)
    first = pipeline(working, *REQUEST, "out=other", "cache.dir=cache")
    assert first.returncode == 0, first.stderr
    (run,) = (working / "other").glob("build-*")
    (working / "mine" / "widths.py").write_text("width = 5\n")
    done = pipeline(working, "reproduce", str(run))
    assert done.returncode == 2 and "nothing like" not in done.stderr
    assert "found mine/net.py, mine/widths.py, expected source code with the digest" in done.stderr
    (working / "then").mkdir()
    (working / "then" / "net.py").write_text((working / "mine" / "net.py").read_text())
    (working / "then" / "widths.py").write_text("width = 4\n")
    assert pipeline(working, "reproduce", str(run), "--search", "then").returncode == 0


def test_a_damaged_directory_is_refused(working: Path) -> None:
    (working / directory(working) / "model.onnx").write_bytes(b"x")
    assert pipeline(working, "reproduce", directory(working)).returncode == 2


def test_deep_verification_runs_the_file_again(working: Path) -> None:
    assert pipeline(working, "verify", directory(working), "--deep").returncode == 0


def test_compare_reads_the_graphs(working: Path) -> None:
    first = directory(working)
    (working / "mine" / "net.py").write_text(NET.replace("torch.nn.ReLU()", "torch.nn.Sigmoid()"))
    again = pipeline(working, *REQUEST, "out=others", "cache.mode=none")
    assert again.returncode == 0, again.stderr
    (other,) = (working / "others").glob("build-*")
    done = pipeline(working, "compare", first, str(other))
    assert done.returncode == 1
    assert "model      code was" in done.stdout
    assert "graph      Relu: 1 node and 0" in done.stdout
    assert "graph      Sigmoid: 0 nodes and 1" in done.stdout
    assert "outputs    output output1 is off by" in done.stdout
    assert "expected   output output1 is off by" in done.stdout


def test_compare_runs_both_files_on_the_same_inputs(working: Path) -> None:
    """Another seed: other weights and other saved inputs, so what was saved of the two says nothing."""
    first = directory(working)
    for index, (words, says) in enumerate({
        ("seed=7",): "outputs    output output1 is off by ",
        ("export.opset=13",): "outputs    the same to the bit on the first's saved inputs\n",
        ("model.inputs={y: {shape: [1,3,8,8]}}",): "outputs    the two files do not run on the same inputs: ",
    }.items()):  # fmt: skip
        made = pipeline(working, *REQUEST, *words, f"out=others{index}", "cache.mode=none")
        assert made.returncode == 0, made.stderr
        (other,) = (working / f"others{index}").glob("build-*")
        done = pipeline(working, "compare", first, str(other))
        assert done.returncode == 1 and says in done.stdout, done.stdout + done.stderr
        _only_differences_count(working, done.stdout, first, str(other))


def _only_differences_count(folder: Path, text: str, *runs: str) -> None:
    """Lines such as "the nodes are the same" and what was not compared are remarks beside the differences."""
    told = json.loads(pipeline(folder, "compare", *runs, "--json").stdout)
    differences, remarks = ([row["text"] for row in told[name]] for name in ("differences", "remarks"))
    assert not [line for line in differences if line.endswith(("are the same", "not compared"))]
    lines = text.splitlines()
    assert lines[-1].startswith(f"{len(differences)} differences between ")
    assert len(lines) == len(differences) + len(remarks) + 2  # the times, and the sum


def test_remarks_alone_are_no_difference(
    working: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "pipeline.commands.compare._expected", lambda first, second: iter([_Remark("the same")])
    )
    run = str(working / directory(working))
    assert compare.main([run, run]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{run} and {run} are the same"


def test_the_cache_explains_why_a_stage_would_run(working: Path) -> None:
    words = ("cache", "explain", "--dir", "cache", "--json")
    same = pipeline(working, *words, *REQUEST)
    assert {row["status"] for row in json.loads(same.stdout)} == {"hit"}
    of_a_directory = pipeline(working, *words, directory(working))
    assert of_a_directory.stdout == same.stdout
    typed = pipeline(working, "cache", "explain", *REQUEST, "cache.dir=cache", "--json")
    assert typed.stdout == same.stdout  # and not of the user's own cache folder
    other = json.loads(pipeline(working, *words, *REQUEST, "export.opset=13").stdout)
    export = next(row for row in other if row["stage"] == "export")
    assert export["status"] == "miss"
    assert "opset was 17, is 13" in export["why"].split("; ")
    assert "config.opset was 17, is 13" in export["differs"]


def test_a_directory_that_is_there_is_returned_without_a_framework(working: Path) -> None:
    code = (
        "import sys; from pipeline.__main__ import main; code = main(sys.argv[1:]);"
        "print(code, [name for name in ('torch', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *REQUEST], cwd=working, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0].startswith("there     outputs/build-op17-")
    assert done.stdout.splitlines()[-1] == "0 []"
