"""The command line from the outside, with plans that need no torch: exit codes, streams, what is left."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.run.schemas import problems_of
from pipeline.run.verify import verify_directory
from tests.report.drawing import in_pipe, on_terminal

ALEXNET = ("model=alexnet", "export.opset=11")


def told(**points: Mapping[str, str]) -> dict[str, str]:
    """What FAKE says: `alexnet_op11={"export": "fail"}`."""
    return {"FAKE": json.dumps({name.replace("_op", "-op"): ways for name, ways in points.items()})}


def visible(folder: Path) -> list[str]:
    """What stands in a folder, but for what is hidden and the user's cache, which remembers compositions."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return sorted(names - {"user-cache"})


def table(folder: Path) -> list[dict[str, str]]:
    (path,) = (folder / "outputs" / "sweeps").glob("*/table.csv")
    return list(csv.DictReader(path.read_text().splitlines()))


def same_every_time(text: str) -> str:
    """Times and labels filtered out."""
    text = re.sub(r"\d+\.\d s", "T s", text)
    return re.sub(r"-[0-9a-f]{8}\b", "-HEX", text)


def test_a_run_says_what_was_made_on_stdout_and_its_progress_on_stderr(tmp_path: Path) -> None:
    done = in_pipe(ALEXNET, tmp_path)
    assert done.returncode == 0
    assert same_every_time(done.stdout) == (
        "made      outputs/alexnet-op11-HEX\n"
        "model     model.onnx, 1.2 MiB, opset 11, 20 nodes, by torchscript\n"
        "matches   worst of 3: output1, error 3.2e-07, tolerance 1.1e-05, margin 34x "
        "(max |difference| / max |reference|)\n"
        "took      T s\n"
    )
    assert same_every_time(done.stderr).splitlines()[0] == "alexnet-op11-HEX"
    assert [line.split()[0] for line in done.stderr.splitlines()[1:]] == [
        "source", "reference", "export", "simplify", "check", "assemble", "parity",
    ]  # fmt: skip
    (folder,) = (tmp_path / "outputs").glob("alexnet-*")
    assert verify_directory(folder) == []


def test_the_second_run_says_that_it_was_there(tmp_path: Path) -> None:
    in_pipe(ALEXNET, tmp_path)
    done = in_pipe(ALEXNET, tmp_path)
    assert done.returncode == 0
    assert "there     outputs/alexnet-op11-" in done.stdout
    assert "passed" not in done.stderr


def test_a_failed_stage_is_1_and_names_stage_code_sentence_log_and_record(tmp_path: Path) -> None:
    done = in_pipe(ALEXNET, tmp_path, told(alexnet_op11={"export": "fail"}))
    assert done.returncode == 1
    assert done.stdout == ""
    assert same_every_time(done.stderr).endswith(
        "failed    export\n"
        "reason    PL-503: features.0, net.py:12: the exporter does not know the operator aten::frobnicate; "
        "found opset 13, expected opset 18 or later. Type export.exporter=dynamo\n"
        "log       outputs/failed/alexnet-op11-HEX/log.txt\n"
        "record    outputs/failed/alexnet-op11-HEX/run.json\n"
    )
    (record,) = (tmp_path / "outputs" / "failed").glob("*/run.json")
    assert problems_of("run.json", json.loads(record.read_text())) == []


def test_a_native_crash_is_1_and_keeps_a_true_record(tmp_path: Path) -> None:
    done = in_pipe(ALEXNET, tmp_path, told(alexnet_op11={"simplify": "segv"}))
    assert done.returncode == 1
    assert "PL-704" in done.stderr
    assert "SIGSEGV" in done.stderr
    (path,) = (tmp_path / "outputs" / "failed").glob("*/run.json")
    record = json.loads(path.read_text())
    assert problems_of("run.json", record) == []
    assert {stage["name"]: stage["status"] for stage in record["stages"]}["simplify"] == "failed"


def test_a_request_refused_inside_a_stage_is_2_and_leaves_no_directory(tmp_path: Path) -> None:
    done = in_pipe(ALEXNET, tmp_path, told(alexnet_op11={"source": "refuse"}))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        "PL-225: model.weights: the weights do not fit the network; found 3 keys too many: head.weight, "
        "head.bias, head.scale. Type model.weights=null, or name a checkpoint of this network"
    )
    assert not (tmp_path / "outputs").exists()


def test_a_request_refused_inside_a_stage_leaves_what_was_there(tmp_path: Path) -> None:
    in_pipe(ALEXNET, tmp_path)
    done = in_pipe(("model=vgg11",), tmp_path, told(vgg11_op17={"export": "refuse"}))
    assert done.returncode == 2
    assert len(visible(tmp_path / "outputs")) == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("model=alexnett",), "PL-104"),
        (("model=alexnet", "export.opsett=11"), "PL-101"),
        (("model=alexnet", "+export.opsett=11"), "PL-101"),
        (("model=alexnet", "export.opset=abc"), "PL-102"),
        (("model=alexnet", "export.opset=3"), "PL-103"),
        (("--bogus",), "PL-112"),
        (("verif", "outputs"), "PL-800"),
    ],
)
def test_a_refused_request_is_2_one_sentence_and_no_directory(
    tmp_path: Path, words: tuple[str, ...], code: str
) -> None:
    done = in_pipe(words, tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"{code}: ")
    assert len(done.stderr.splitlines()) == 1
    assert visible(tmp_path) == []


def test_forgetting_m_gets_a_hint(tmp_path: Path) -> None:
    done = in_pipe(("model=alexnet", "export.opset=11,13"), tmp_path)
    assert done.returncode == 2
    assert "Did you mean a sweep? Type python -m pipeline -m model=alexnet export.opset=11,13" in done.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupt_has_its_exit_code(tmp_path: Path, name: str, code: int) -> None:
    done = in_pipe(ALEXNET, tmp_path, {**told(alexnet_op11={"export": "interrupt"}), "FAKE_SIGNAL": name})
    assert done.returncode == code
    assert "interrupted in export" in done.stderr
    assert visible(tmp_path / "outputs") == ["failed"]
    assert "Traceback" not in done.stderr


def test_warnings_are_shown(tmp_path: Path) -> None:
    done = in_pipe(ALEXNET, tmp_path, told(alexnet_op11={"parity": "warn"}))
    assert done.returncode == 0
    assert "  warning: parity: the graph has a branch that the inputs never take\n" in done.stderr


@pytest.mark.parametrize("way", ["fail", "bug"])
def test_tracebacks_are_shown_with_debug_only(tmp_path: Path, way: str) -> None:
    quiet = in_pipe(ALEXNET, tmp_path, told(alexnet_op11={"export": way}))
    assert "Traceback" not in quiet.stderr
    loud = in_pipe((*ALEXNET, "debug=true"), tmp_path, told(alexnet_op11={"export": way}))
    assert "Traceback (most recent call last)" in loud.stderr
    assert (quiet.returncode, loud.returncode) == (1, 1)


def test_debug_shows_where_a_request_was_refused(tmp_path: Path) -> None:
    done = in_pipe(("model=alexnett", "debug=True"), tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path) -> None:
    done = in_pipe((*ALEXNET, "dry_run=true"), tmp_path)
    assert done.returncode == 0
    assert visible(tmp_path) == []
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert lines[0][1].endswith("would be made")
    assert ["reference", "to be made"] in lines
    in_pipe(ALEXNET, tmp_path)
    lines = [
        line.split(maxsplit=1) for line in in_pipe((*ALEXNET, "dry_run=true"), tmp_path).stdout.splitlines()
    ]
    assert lines[0][1].endswith("is there: it would be verified and returned")
    assert ["reference", "cached"] in lines
    assert ["parity", "runs every time"] in lines


SWEEP = ("-m", "model=alexnet,resnet18", "export.opset=11,13")


def test_a_sweep_has_a_row_a_point_whatever_happens(tmp_path: Path) -> None:
    ways = told(alexnet_op13={"export": "fail"}, resnet18_op11={"parity": "segv"})
    done = in_pipe(("-m", "model=alexnet,resnet18,alexnett", "export.opset=6,11,13"), tmp_path, ways)
    assert done.returncode == 1
    rows = table(tmp_path)
    assert [(row["model"], row["opset_asked"], row["status"], row["stage"]) for row in rows] == [
        ("alexnet", "6", "refused", "config"),
        ("alexnet", "11", "passed", ""),
        ("alexnet", "13", "failed", "export"),
        ("resnet18", "6", "refused", "config"),
        ("resnet18", "11", "failed", "parity"),
        ("resnet18", "13", "passed", ""),
        ("alexnett", "6", "refused", "config"),
        ("alexnett", "11", "refused", "config"),
        ("alexnett", "13", "refused", "config"),
    ]
    assert rows[2]["reason"].startswith("PL-503: ")
    assert (tmp_path / rows[1]["directory"] / "manifest.json").is_file()
    assert "sweep     9 points: 2 passed, 2 failed, 5 refused\n" in done.stdout
    assert "6-8 alexnett: PL-104: there is no model 'alexnett'" in done.stdout


def test_a_sweep_again_makes_only_what_is_missing_and_tries_failed_points_again(tmp_path: Path) -> None:
    first = in_pipe(SWEEP, tmp_path, told(alexnet_op13={"export": "fail"}))
    assert first.returncode == 1
    before = {row["point"]: row["directory"] for row in table(tmp_path)}
    again = in_pipe(("-m", "export.opset=13,11", "model=resnet18,alexnet"), tmp_path)
    assert again.returncode == 0, again.stderr
    rows = table(tmp_path)  # there is one folder still
    assert [row["status"] for row in rows] == ["passed"] * 4
    assert sum(row["cached"] == "true" for row in rows) == 3
    assert before["0"] in {row["directory"] for row in rows}
    assert not (tmp_path / "outputs" / "failed").exists() or not visible(tmp_path / "outputs" / "failed")


def test_an_interrupted_sweep_leaves_a_true_table(tmp_path: Path) -> None:
    done = in_pipe(SWEEP, tmp_path, told(alexnet_op13={"export": "interrupt"}))
    assert done.returncode == 130
    rows = table(tmp_path)
    assert [row["status"] for row in rows] == ["passed", "failed", "not reached", "not reached"]
    assert "PL-707" in rows[1]["reason"]
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert visible(folder) == ["table.csv", "table.json"]
    assert [row["status"] for row in json.loads((folder / "table.json").read_text())] == [
        row["status"] for row in rows
    ]
    assert "2 not reached" in done.stdout
    again = in_pipe(SWEEP, tmp_path, told(resnet18_op11={"export": "interrupt"}))
    assert again.returncode == 130
    assert [row["status"] for row in table(tmp_path)] == ["passed", "passed", "failed", "not reached"]


def test_points_that_are_there_stand_in_the_table_before_the_others_begin(tmp_path: Path) -> None:
    in_pipe(("-m", "model=resnet18", "export.opset=13"), tmp_path)
    for path in (tmp_path / "outputs" / "sweeps").rglob("table.*"):
        path.unlink()
    in_pipe(SWEEP, tmp_path, told(alexnet_op11={"export": "interrupt"}))
    assert [row["status"] for row in table(tmp_path)] == ["failed", "not reached", "not reached", "passed"]


def test_a_point_past_its_time_limit_is_a_row(tmp_path: Path) -> None:
    done = in_pipe((*SWEEP, "timeout_s=2"), tmp_path, told(alexnet_op11={"parity": "hang"}))
    assert done.returncode == 1
    assert [row["status"] for row in table(tmp_path)] == ["failed", "passed", "passed", "passed"]
    assert "PL-705" in table(tmp_path)[0]["reason"]


def test_a_named_sweep_has_that_folder(tmp_path: Path) -> None:
    in_pipe(("-m", "model=alexnet", "export.opset=11,13", "sweep=mine"), tmp_path)
    assert visible(tmp_path / "outputs" / "sweeps") == ["mine"]
    refused = in_pipe(("-m", "model=alexnet", "export.opset=11,13", "sweep=../mine"), tmp_path)
    assert refused.returncode == 2
    assert "PL-103" in refused.stderr


def test_a_sweep_over_other_keys_tells_its_points_apart(tmp_path: Path) -> None:
    done = in_pipe(("-m", "model=alexnet", "seed=1,2"), tmp_path, {"COLUMNS": "80"})
    assert "alexnet  seed=1" in done.stdout
    assert len({row["directory"] for row in table(tmp_path)}) == 2


def test_a_dry_sweep_makes_nothing(tmp_path: Path) -> None:
    done = in_pipe(("-m", "model=alexnet", "export.opset=6,11", "dry_run=true"), tmp_path)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["refused", "make"]
    assert visible(tmp_path) == []


def test_a_sweep_of_refused_points_only_goes_where_it_was_told(tmp_path: Path) -> None:
    done = in_pipe(("-m", "model=alexnett,vgg1", "out=elsewhere"), tmp_path)
    assert done.returncode == 1
    assert visible(tmp_path) == ["elsewhere"]


@pytest.mark.parametrize("columns", [80, 160])
def test_on_a_terminal_the_stages_are_drawn_in_place(tmp_path: Path, columns: int) -> None:
    code, text = on_terminal(ALEXNET, tmp_path, columns, {"FAKE_SECONDS": "0.1"})
    assert code == 0
    assert "running" in text
    assert "\x1b[1A" in text  # the list is drawn over itself
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "made      outputs/alexnet-op11-" in plain
    assert "\x1b[32m" not in text  # NO_COLOR


def test_on_a_terminal_there_is_colour_without_no_color(tmp_path: Path) -> None:
    _, text = on_terminal(ALEXNET, tmp_path, 80, {"NO_COLOR": ""})
    assert "\x1b[32m" in text


@pytest.mark.parametrize("columns", [80, 160])
def test_on_a_terminal_a_sweep_is_a_table(tmp_path: Path, columns: int) -> None:
    code, text = on_terminal(SWEEP, tmp_path, columns, told(alexnet_op13={"export": "fail"}))
    assert code == 1
    plain: Any = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()
    last = max(index for index, line in enumerate(plain) if line.strip().startswith("#"))
    assert all(len(line.rstrip()) <= columns for line in plain)
    assert plain[last + 2].split()[:3] == ["0", "alexnet", "11"]
    assert "failed export" in plain[last + 3]
