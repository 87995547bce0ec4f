"""What the records say for a line of the table."""

from __future__ import annotations

from typing import Any

from pipeline.run.records import row_of, worst_of


def stage(name: str, cache: str = "off", **measured: Any) -> dict[str, Any]:
    return {"name": name, "cache": cache, "status": "passed", **({"measured": measured} if measured else {})}


def record(*stages: dict[str, Any], parity: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"seconds": 1.5, "stages": list(stages), "parity": list(parity)}


MANIFEST: dict[str, Any] = {
    "artifacts": [
        {"path": "model.onnx", "size": 10},
        {"path": "model.onnx.data", "size": 32},
        {"path": "samples/inputs.npz", "size": 7},
    ],
    "attempts": [
        {"exporter": "torchscript", "outcome": "failed"},
        {"exporter": "dynamo", "outcome": "passed"},
    ],
    "verdicts": {"parity": {"status": "passed"}},
    "opsets": {"": 18, "custom": 1},
    "ir_version": 10,
}


def line(output: str, error: float | None, margin: float | None) -> dict[str, Any]:
    return {
        "output": output,
        "seed": "seed0",
        "error": error,
        "tolerance": 1e-5,
        "noise": 0,
        "margin": margin,
    }


def test_a_row_says_what_came_out() -> None:
    row = row_of(MANIFEST, record(stage("export", "miss"), stage("check", nodes=20)))
    assert {name: row[name] for name in ("status", "opset", "exporter", "size_bytes", "nodes", "cached")} == {
        "status": "passed", "opset": 18, "exporter": "dynamo", "size_bytes": 42, "nodes": 20, "cached": False,
    }  # fmt: skip


def test_all_hits_is_cached() -> None:
    assert row_of(MANIFEST, record(stage("export", "hit"), stage("check")))["cached"]


def test_without_the_cache_nothing_is_cached() -> None:
    assert not row_of(MANIFEST, record(stage("export"), stage("check")))["cached"]


def test_a_failed_run_is_not_cached_although_its_first_stages_were() -> None:
    assert not row_of(None, record(stage("reference", "hit"), stage("export")))["cached"]


def test_the_worst_comparison_is_the_one_nearest_to_its_tolerance() -> None:
    lines = [line("a", 1e-7, 100.0), line("b", 5e-6, 2.0), line("c", 0.0, None)]
    worst = worst_of(lines)
    assert worst is not None
    assert worst["output"] == "b"


def test_an_output_that_cannot_be_compared_is_the_worst() -> None:
    worst = worst_of([line("a", 1e-7, 100.0), line("b", None, 0.0)])
    assert worst is not None
    assert worst["output"] == "b"


def test_nothing_compared_has_no_worst() -> None:
    assert worst_of([]) is None
    assert "error" not in row_of(MANIFEST, record())


def test_an_accepted_vacuous_comparison_is_said() -> None:
    reason = {"code": "PL-521", "message": "the outputs hardly depend on the inputs"}
    manifest = {**MANIFEST, "verdicts": {"parity": {"status": "vacuous", "reason": reason}}}
    row = row_of(manifest, record())
    assert (row["status"], row["unproved"]) == ("vacuous", "the outputs hardly depend on the inputs")
