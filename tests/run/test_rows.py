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


def test_a_comparison_on_the_target_that_proves_nothing_is_said() -> None:
    reason = {"code": "PL-521", "message": "output y is zero on every input"}
    verdicts = {"parity": {"status": "passed"}, "compare": {"status": "vacuous", "reason": reason}}
    row = row_of({**MANIFEST, "verdicts": verdicts}, record())
    assert (row["status"], row["target_unproved"]) == ("vacuous", "output y is zero on every input")
    assert "unproved" not in row, "the file was proved"


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


TARGET: dict[str, Any] = {
    "name": "openvino",
    "versions": {"openvino": "2026.4.1"},
    "compile_seconds": 1.3,
    "run_seconds": 0.2,
    "artifact_bytes": 46,
    "precision": {"asked": "float32", "found": "float32", "proof": "a property"},
    "latency": {"median_ms": 118.6, "p95_ms": 171.2, "runs": 50, "threads": 2},
    "worst": {"output": "y", "error": 1e-6, "tolerance": 1e-4, "margin": 100.0},
}


def test_a_row_says_how_the_target_did() -> None:
    row = row_of(MANIFEST, {**record(stage("compile", "miss")), "target": TARGET})
    assert {name: row[name] for name in ("target_error", "latency_ms", "threads", "artifact_bytes")} == {
        "target_error": 1e-6, "latency_ms": 118.6, "threads": 2, "artifact_bytes": 46,
    }  # fmt: skip
    assert row["target_versions"] == "openvino 2026.4.1"
    assert row["target_precision"] == "float32"


def test_a_target_that_did_not_come_far_leaves_out_what_it_has_not() -> None:
    row = row_of(None, {**record(stage("compile", "miss")), "target": {"compile_seconds": 2.0}})
    assert {name for name in row if name.startswith(("target", "latency", "compile"))} == {"compile_seconds"}


def test_what_stages_measured_of_a_target_stands_together_in_the_record() -> None:
    from pipeline.run.records import run_record
    from tests.run.conftest import make_plan

    rows = [
        {
            "stage": name,
            "status": "passed",
            "seconds": 1.0,
            "cache": "off",
            "peak_mib": None,
            "measured": told,
        }
        for name, told in (
            ("compile", {"target": {"compile_seconds": 1.0}}),
            ("execute", {"target": {"run_seconds": 2.0}, "other": 3}),
        )
    ]
    found = run_record(
        make_plan(), started="", seconds=1.0, status="passed", stages=rows, files=[], warnings=[]
    )
    assert found["target"] == {"compile_seconds": 1.0, "run_seconds": 2.0}
    assert [one.get("measured") for one in found["stages"][:2]] == [None, {"other": 3}]
