"""The last block of a run, as it stands in a pipe and on terminals of two widths."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pipeline.events import RunFinished
from pipeline.report import terminal
from pipeline.report.blocks import block
from pipeline.report.terminal import print_block

ROW = {
    "model": "alexnet", "opset": 11, "exporter": "torchscript", "status": "passed", "error": 3.2e-7,
    "tolerance": 1.1e-5, "margin": 34.4, "output": "output1", "compared": 3, "metric": "max |difference| / max |reference|",
    "nodes": 20, "size_bytes": 244_403_000, "seconds": 6.13, "cached": False,
}  # fmt: skip
REASON = {
    "code": "PL-310", "message": "the exporter does not know the operator aten::frobnicate",
    "where": "features.0, net.py:12", "found": "opset 11", "expected": "opset 18 or later",
    "next_step": "Type export.exporter=dynamo",
}  # fmt: skip


def text_of(finished: RunFinished) -> str:
    stream = io.StringIO()
    print_block(block(finished), stream)
    return stream.getvalue()


def made(**changes: object) -> RunFinished:
    return RunFinished("alexnet-op11-0a1b2c3d", "outputs/alexnet-op11-0a1b2c3d", 0, row={**ROW, **changes})


def test_made() -> None:
    assert text_of(made()) == (
        "made      outputs/alexnet-op11-0a1b2c3d\n"
        "model     model.onnx, 233 MiB, opset 11, 20 nodes, by torchscript\n"
        "matches   worst of 3: output1, error 3.2e-07, tolerance 1.1e-05, margin 34x "
        "(max |difference| / max |reference|)\n"
        "took      6.1 s\n"
    )


def test_found_again_says_that_nothing_was_made() -> None:
    found = RunFinished("x", "outputs/x", 0, reused=True, row=ROW)
    assert text_of(found).splitlines()[0] == (
        "there     outputs/x (made before, verified now: whole and unchanged)"
    )


def test_all_from_the_cache() -> None:
    assert text_of(made(cached=True)).endswith("took      6.1 s, every stage that can be from the cache\n")


def test_outputs_that_were_not_compared_are_said_to_be_unproved() -> None:
    text = text_of(made(error=None, unproved="parity=none: nothing was proved"))
    assert "unproved  parity=none: nothing was proved\n" in text
    assert "matches" not in text


def test_an_accepted_vacuous_comparison_is_not_called_a_match() -> None:
    text = text_of(made(status="vacuous", unproved="the outputs hardly depend on the inputs"))
    assert "vacuous   worst of 3: output1" in text
    assert text.count("the outputs hardly depend on the inputs") == 1
    assert "matches" not in text


def test_failed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("failed"))
    folder = Path("outputs/failed/x")
    folder.mkdir(parents=True)
    for name in ("log.txt", "run.json"):
        (folder / name).touch()
    finished = RunFinished("x", str(folder), 1, reason=REASON, row={"stage": "export", "status": "failed"})
    assert text_of(finished) == (
        "failed    export\n"
        "reason    PL-310: features.0, net.py:12: the exporter does not know the operator aten::frobnicate; "
        "found opset 11, expected opset 18 or later. Type export.exporter=dynamo\n"
        "log       outputs/failed/x/log.txt\n"
        "record    outputs/failed/x/run.json\n"
    )


def test_a_failed_comparison_shows_how_far_off_it_is() -> None:
    row = {**ROW, "stage": "parity", "status": "failed", "error": 0.2, "margin": 5.5e-5}
    text = text_of(RunFinished("x", None, 1, reason={**REASON, "code": "PL-520"}, row=row))
    assert "worst     worst of 3: output1, error 2.0e-01, tolerance 1.1e-05, margin 6e-05x" in text


TARGET = {
    "target": "openvino", "target_versions": "openvino 2026.4.1", "target_precision": "float32",
    "target_output": "output1", "target_error": 7.9e-7, "target_tolerance": 1e-4, "target_margin": 126.6,
    "latency_ms": 118.6, "latency_p95_ms": 171.2, "latency_runs": 50, "threads": 2, "compile_seconds": 1.31,
    "run_seconds": 0.24, "artifact_bytes": 46_800_000,
}  # fmt: skip


def test_a_target_says_how_it_matches_and_how_fast_it_is() -> None:
    lines = text_of(made(**TARGET)).splitlines()
    assert lines[3] == (
        "target    openvino 2026.4.1 in float32: output1, error 7.9e-07, tolerance 1.0e-04, margin 127x"
    )
    assert lines[4] == (
        "speed     compiled in 1.3 s, 44.6 MiB, all inputs run in 0.2 s, latency 119 ms median, 171 ms p95 "
        "of 50 runs on 2 threads"
    )


def test_a_vacuous_comparison_on_a_target_says_so() -> None:
    lines = text_of(made(**TARGET, status="vacuous", target_unproved="output y is zero on every input"))
    assert "127x; vacuous: output y is zero on every input\n" in lines
    assert "matches   " in lines, "the file itself was proved"


@pytest.mark.parametrize("page", ["README.md", "placement.csv"])
def test_a_target_that_was_only_predicted_says_that_nothing_was_compiled(tmp_path: Path, page: str) -> None:
    (tmp_path / "horizon_x3").mkdir()
    for name in {page, "placement.csv"}:
        (tmp_path / "horizon_x3" / name).touch()
    row = {**ROW, "target": "horizon_x3"}
    said = [
        text_of(RunFinished("x", str(tmp_path), 0, reused=reused, row=row)).splitlines()[3]
        for reused in (False, True)
    ]
    where = tmp_path / "horizon_x3" / page
    assert said == [f"target    horizon_x3: predicted, not compiled; see {where}"] * 2


def test_a_target_that_was_compiled_is_not_called_predicted() -> None:
    for text in (text_of(made(**TARGET)), text_of(made(target="none")), text_of(made())):
        assert "predicted" not in text


def test_a_target_that_fails_shows_how_far_it_came_and_that_the_file_matches() -> None:
    row = {
        **ROW,
        **TARGET,
        "target_error": 0.5,
        "target_margin": 2e-4,
        "stage": "compare",
        "status": "failed",
    }
    lines = text_of(RunFinished("x", None, 1, reason={**REASON, "code": "PL-649"}, row=row)).splitlines()
    assert [line.split()[0] for line in lines] == ["failed", "reason", "matches", "target", "speed"]
    assert "error 5.0e-01, tolerance 1.0e-04, margin 0.0002x" in lines[3]


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [80, 160])
def test_on_a_terminal_text_is_wrapped_beside_its_label(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Screen()
    print_block(block(RunFinished("x", None, 1, reason=REASON, row={"stage": "export"})), stream)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert all(len(line) <= width for line in lines)
    assert lines[0] == "failed    export"
    assert lines[1].startswith("reason    PL-310: ")
    assert all(line.startswith(" " * terminal.INDENT) for line in lines[2:])
    assert len(lines) == {80: 4, 160: 3}[width]


def test_a_path_is_never_broken() -> None:
    path = "/a/" + "very-long-folder/" * 9 + "model.onnx"
    assert path in terminal.wrap(f"it is {path} there", 80)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" not in _on_screen()
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[32m" in _on_screen()


def _on_screen() -> str:
    stream = Screen()
    print_block(block(made()), stream)
    return stream.getvalue()
