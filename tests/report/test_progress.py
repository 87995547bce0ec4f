"""The stage list: what is drawn on terminals of two widths, and the lines in a pipe."""

from __future__ import annotations

import io

import pytest

from pipeline.events import Event, Finding, LogLine, Progress, RunStarted, StageFinished, StageStarted
from pipeline.report.progress import LiveStages, PlainStages
from tests.report.drawing import drawn

EVENTS: tuple[Event, ...] = (
    RunStarted("alexnet-op11-0a1b2c3d", "outputs/x", "0" * 64, ("source", "reference", "export", "parity")),
    StageStarted("source"),
    StageFinished("source", "passed", 0.0, "off", summary="when it is needed"),
    StageStarted("reference"),
    Progress("reference", 2, 3, "seeds"),
    StageFinished("reference", "passed", 0.04, "hit", summary="3 inputs"),
    StageStarted("export"),
    Finding("export", "warning", "the exporter of TorchScript froze 1 branch of Python"),
    StageFinished("export", "passed", 63.2, "miss", summary="torchscript, opset 11"),
)
FAILED = StageFinished(
    "parity", "failed", 1.2, "off",
    reason={"code": "PL-520", "message": "the file does not compute what the network computes, by far"},
)  # fmt: skip

LIST = """\
alexnet-op11-0a1b2c3d
  source     passed        0.0 s  when it is needed
  reference  cached        0.0 s  3 inputs
  export     passed   1 min 03 s  torchscript, opset 11
  parity     waiting
  warning: export: the exporter of TorchScript froze 1 branch of Python"""


def live(*events: Event) -> LiveStages:
    view = LiveStages(io.StringIO(), debug=False)
    for event in events:
        view.show(event)
    return view


def plain(*events: Event, debug: bool = False) -> str:
    stream = io.StringIO()
    view = PlainStages(stream, debug)
    for event in events:
        view.show(event)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_the_list_on_a_terminal(width: int) -> None:
    assert drawn(live(*EVENTS)._draw(), width) == LIST


def test_a_reason_is_cut_at_the_edge_of_the_terminal() -> None:
    text = drawn(live(*EVENTS, FAILED)._draw(), 80)
    line = next(line for line in text.splitlines() if "PL-520" in line)
    assert line.endswith("…")
    assert "failed" in line
    assert "by far" in drawn(live(*EVENTS, FAILED)._draw(), 160)


def test_a_running_stage_shows_how_far_it_is() -> None:
    text = drawn(live(*EVENTS[:5])._draw(), 80)
    assert "running" in text
    assert "2 of 3 seeds" in text


def test_the_lines_in_a_pipe() -> None:
    assert plain(*EVENTS, FAILED) == (
        "alexnet-op11-0a1b2c3d\n"
        "  source     passed        0.0 s  when it is needed\n"
        "  reference  cached        0.0 s  3 inputs\n"
        "  warning: export: the exporter of TorchScript froze 1 branch of Python\n"
        "  export     passed   1 min 03 s  torchscript, opset 11\n"
        "  parity     failed        1.2 s  PL-520: the file does not compute what the network computes, by far\n"
    )


def test_log_lines_are_shown_with_debug_only() -> None:
    line = LogLine("export", "Traceback (most recent call last):")
    assert plain(line) == ""
    assert plain(line, debug=True) == "Traceback (most recent call last):\n"


BESIDE: tuple[Event, ...] = (
    StageStarted("reference"),
    StageStarted("export"),
    StageFinished("export", "passed", 0.2, "off", summary="torchscript"),
    StageStarted("parity"),
    StageFinished("reference", "passed", 0.4, "off", summary="3 inputs", beside=True),
)


def test_lines_of_stages_beside_each_other_come_in_the_order_of_the_plan() -> None:
    assert plain(*BESIDE) == (
        "  reference  passed        0.4 s  3 inputs, meanwhile\n  export     passed        0.2 s  torchscript\n"
    )


def test_a_line_that_waits_is_said_when_the_run_stops() -> None:
    stream = io.StringIO()
    view = PlainStages(stream, debug=False)
    for event in BESIDE[:3]:
        view.show(event)
    assert stream.getvalue() == ""
    view.stop()
    assert stream.getvalue() == "  export     passed        0.2 s  torchscript\n"
