"""manifest.json and run.json: what was asked and what it is, and how it went this time.

manifest.json holds no measured figure, no time, no path of this machine and no host: the same
request gives the same bytes. Everything measured stands in run.json.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from pipeline.errors import Reason
from pipeline.run.cache import file_sha256
from pipeline.run.plan import Plan
from pipeline.run.runner import Outcome

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
RECORD: Final = "run.json"
#: Files of every run that stand in run.json because they may differ from run to run.
LOG: Final = "log.txt"
#: What a stage's `Verdict.recorded` may add to the manifest, and what stands there without it.
RECORDED: Final[dict[str, Any]] = {
    "inputs": [],
    "outputs": [],
    "opsets": {},
    "ir_version": None,
    "tolerances": {},
    "attempts": [],
}

#: Of what stages measured this stands in run.json once for the run, not with each stage.
_OF_THE_RUN: Final = ("parity", "target")


def canonical_json(data: Any) -> str:
    """JSON with sorted keys and no room for taste."""
    return json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def artifacts(
    folder: Path,
    files: Mapping[str, tuple[str, bool]],
    *,
    same: bool,
    every: bool = False,
    known: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Path, size, sha256 and kind of the files, sorted by path.

    Args:
        folder: where they lie.
        files: path -> (kind, same for the same request).
        same: which of the two sorts is listed.
        every: list both.
        known: digests that were taken while a file was written.
    """
    rows = []
    for path, (kind, same_every_time) in sorted(files.items()):
        file = folder / path
        if (every or same_every_time == same) and file.is_file():
            sha256 = (known or {}).get(path) or file_sha256(file)
            rows.append({"path": path, "size": file.stat().st_size, "sha256": sha256, "kind": kind})
    return rows


def manifest(plan: Plan, outcome: Outcome, files: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest of a run that reached its end."""
    recorded = dict(RECORDED)
    for stage in outcome.stages:
        recorded.update({key: value for key, value in stage.verdict.recorded.items() if key in RECORDED})
    return {
        "schema_version": SCHEMA_VERSION,
        "keys": dict(plan.keys),
        **dict(plan.describes),
        **recorded,
        "artifacts": files,
        "verdicts": verdicts(plan, outcome),
        "stages": [
            {
                "name": stage.name,
                "key": plan.stage_keys[stage.name].key,
                "takes": [plan.real_name(name) for name in stage.takes],
                "makes": list(stage.makes),
            }
            for stage in plan.stages
        ],
        "versions": {name: plan.version_of(name) for name in sorted(plan.packages)},
    }


def verdicts(plan: Plan, outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Every stage of the plan, those that were switched off, and those that were not reached."""
    found: dict[str, dict[str, Any]] = {
        name: {"status": "skipped", "reason": {"code": "off", "message": why}}
        for name, why in plan.skipped.items()
    }
    reached = {stage.name: stage.verdict for stage in outcome.stages}
    for stage in plan.stages:
        verdict = reached.get(stage.name)
        if verdict is None:
            found[stage.name] = {"status": "not reached"}
        else:
            found[stage.name] = {"status": verdict.status}
            if verdict.reason:
                found[stage.name]["reason"] = verdict.reason.to_json()
    return found


def run_record(
    plan: Plan,
    *,
    started: str,
    seconds: float,
    status: str,
    stages: Iterable[Mapping[str, Any]],
    files: list[dict[str, Any]],
    warnings: list[dict[str, Any]],
    reason: Reason | None = None,
    versions: Mapping[str, str] | None = None,
    git: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """How it went: `stages` are StageFinished events as dictionaries."""
    order = {stage.name: position for position, stage in enumerate(plan.stages)}
    rows = sorted(stages, key=lambda row: order.get(row["stage"], len(order)))
    reached = {row["stage"] for row in rows}
    rows_out = [
        {"name": row["stage"], "status": row["status"], "seconds": round(row["seconds"], 4),
         "cache": row["cache"], "peak_mib": row["peak_mib"] and round(row["peak_mib"], 1),
         **({"beside": True} if row.get("beside") else {}),
         **({"reason": row["reason"]} if row.get("reason") else {}),
         **({"measured": own} if (own := _own_measured(row)) else {})}
        for row in rows
    ]  # fmt: skip
    rows_out += [
        {"name": stage.name, "status": "not reached", "seconds": 0.0, "cache": "off", "peak_mib": None}
        for stage in plan.stages
        if stage.name not in reached
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "key": plan.keys["result"],
        "status": status,
        **({"reason": reason.to_json()} if reason else {}),
        "started": started,
        "seconds": round(seconds, 4),
        "host": host(),
        "stages": rows_out,
        "parity": [line for row in rows for line in row.get("measured", {}).get("parity", [])],
        **({"target": target} if (target := _target(rows)) else {}),
        "artifacts": files,
        "overrides": list(plan.overrides),
        "git": dict(git or {}),
        "warnings": warnings,
        "builds": dict(versions or {}),
    }


def _own_measured(row: Mapping[str, Any]) -> dict[str, Any]:
    """What stands with the stage itself."""
    return {key: value for key, value in row.get("measured", {}).items() if key not in _OF_THE_RUN}


def _target(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the stages of a target measured, each a part of it."""
    found: dict[str, Any] = {}
    for row in rows:
        found |= row.get("measured", {}).get("target", {})
    return found


def host() -> dict[str, Any]:
    """The machine, in words and figures."""
    return {
        "name": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
    }


def git_state(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Commit and dirtiness of the checkouts that the folders belong to; empty outside of git."""
    found = {}
    for name, folder in folders.items():
        try:
            commit = _git(folder, "rev-parse", "HEAD")
            dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
        except (OSError, subprocess.SubprocessError):
            continue
        found[name] = {"commit": commit, "dirty": dirty}
    return found


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5, check=True
    )
    return done.stdout.strip()


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write a record into a folder that is not yet published."""
    path.write_text(canonical_json(data), encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    """A record that has been verified, or was just written by us."""
    data: dict[str, Any] = json.loads(path.read_bytes())
    return data


def full_version(distribution: str) -> str:
    """The installed version with its local part ("2.14.1+cu130"), or "not installed"."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Where two manifests of the same request differ first, or None."""
    files: dict[str, str] = {file["path"]: file["sha256"] for file in one["artifacts"]}
    for file in other["artifacts"]:
        if files.pop(file["path"], None) != file["sha256"]:
            return str(file["path"])
    if files:
        return next(iter(files))
    return next((key for key in one if one[key] != other.get(key)), None)


def worst_of(parity: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The comparison that came nearest to its tolerance, or went farthest past it.

    A margin that is null means that nothing differed, when the error is within the tolerance.
    """

    def margin(line: Mapping[str, Any]) -> float:
        if line["margin"] is not None:
            return float(line["margin"])
        return math.inf if not line["error"] else 0.0

    return min(parity, key=margin, default=None)


def row_of(manifest: Mapping[str, Any] | None, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the records say for the point's line of table.csv."""
    looked_up = [stage["cache"] for stage in record["stages"] if stage["cache"] != "off"]
    row: dict[str, Any] = {
        "seconds": record["seconds"],
        "cached": bool(looked_up) and all(use == "hit" for use in looked_up),
    }
    worst = worst_of(record["parity"])
    if worst:
        row |= {
            key: worst[key] for key in ("error", "tolerance", "margin", "output", "metric") if key in worst
        }
        row["compared"] = len(record["parity"])
    row |= _row_of_target(record.get("target", {}))
    for stage in record["stages"]:
        row |= {
            key: stage.get("measured", {}).get(key) for key in ("nodes",) if key in stage.get("measured", {})
        }
    if manifest is None:
        return {**row, "cached": False}
    model = next((file for file in manifest["artifacts"] if file["path"] == "model.onnx"), None)
    took = next((try_ for try_ in manifest["attempts"] if try_["outcome"] == "passed"), None)
    parity = manifest["verdicts"].get("parity", {})
    if parity.get("status") in ("vacuous", "skipped") and parity.get("reason"):
        row["unproved"] = parity["reason"]["message"]
    on_target = manifest["verdicts"].get("compare", {})
    if on_target.get("status") == "vacuous" and on_target.get("reason"):
        row["target_unproved"] = on_target["reason"]["message"]
    vacuous = "vacuous" in (parity.get("status"), on_target.get("status"))
    return {
        **row,
        "status": "vacuous" if vacuous else "passed",
        "opset": manifest["opsets"].get("", manifest["opsets"].get("ai.onnx")),
        "exporter": took["exporter"] if took else "",
        "size_bytes": sum(f["size"] for f in manifest["artifacts"] if f["path"].startswith("model.onnx")),
        "ir_version": manifest["ir_version"] if model else None,
    }


def _row_of_target(target: Mapping[str, Any]) -> dict[str, Any]:
    """What the target's part of run.json says for the table: as far as its stages came."""
    worst, latency = target.get("worst", {}), target.get("latency", {})
    row = {
        "target_versions": " ".join(
            f"{name} {version}" for name, version in target.get("versions", {}).items()
        ),
        "target_precision": target.get("precision", {}).get("found"),
        "target_output": worst.get("output"),
        "target_error": worst.get("error"),
        "target_tolerance": worst.get("tolerance"),
        "target_margin": worst.get("margin"),
        "latency_ms": latency.get("median_ms"),
        "latency_p95_ms": latency.get("p95_ms"),
        "latency_runs": latency.get("runs"),
        "threads": latency.get("threads"),
        "compile_seconds": target.get("compile_seconds"),
        "run_seconds": target.get("run_seconds"),
        "artifact_bytes": target.get("artifact_bytes"),
    }
    return {key: value for key, value in row.items() if value not in (None, "")}
