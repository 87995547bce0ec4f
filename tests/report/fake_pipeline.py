"""The command line with plans that need no torch: `python -m tests.report.fake_pipeline model=alexnet ...`.

What a point does is told by FAKE, JSON: `{"alexnet-op13": {"export": "fail"}}`; see `WAYS`. Steps take
FAKE_SECONDS each.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.config.canonical import asked_opset, canonical_request
from pipeline.config.keys import request_digest
from pipeline.config.request import Config
from pipeline.config.show import config_yaml
from pipeline.errors import Refused, StageFailed
from pipeline.events import Finding, Progress
from pipeline.run import points
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions
from pipeline.stage import Verdict, Workspace
from tests.run.conftest import Step, Text

WAYS = ("fail", "refuse", "crash", "segv", "hang", "warn", "interrupt", "bug")


def main() -> int:
    """The real `main`, with `pipeline.plan` replaced."""
    stub = ModuleType("pipeline.plan")
    stub.build_plan, stub.run_options = build_plan, run_options  # type: ignore[attr-defined]
    sys.modules["pipeline.plan"] = stub
    os.environ["FAKE_MAIN"] = str(os.getpid())
    points.PRELOAD = ()  # type: ignore[misc]  # torch is not needed here
    from pipeline.__main__ import main as pipeline_main

    return pipeline_main(sys.argv[1:])


def run_options(config: Config) -> RunOptions:
    return RunOptions(
        out=Path(config.out), cache_dir=Path(config.cache.dir or "cache"), cache_mode=config.cache.mode,
        wait_s=config.wait_s, timeout_s=config.timeout_s, force=config.force, debug=config.debug,
    )  # fmt: skip


def build_plan(config: Config, overrides: Sequence[str] = ()) -> Plan:
    name, opset = str(config.model.name), asked_opset(config)
    if opset < 7:
        raise Refused(
            "PL-103", f"export.opset cannot be {opset}", where="export.opset", expected="7 to 23",
            next_step="Type export.opset=17",
        )  # fmt: skip
    ways = json.loads(os.environ.get("FAKE", "{}")).get(f"{name}-op{opset}", {})
    result = hashlib.sha256(request_digest(config).encode()).hexdigest()
    label = f"{name}-op{opset}-{result[:8]}"
    return Plan(
        label=label,
        stages=steps(ways, name, opset, float(os.environ.get("FAKE_SECONDS", "0"))),
        keys={"request": request_digest(config), "graph": "0" * 64, "result": result},
        describes={
            "request": canonical_request(config),
            "model": {"name": name, "source": "test", "code": None, "weights": None},
            "seeds": {},
        },
        config_yaml=config_yaml(config),
        artifact_types=dict.fromkeys(("reference", "exported", "simplified"), Text),
        code_digest=lambda modules: "0" * 64,
        version_of=lambda distribution: "1.0",
        group=name,
        row={"model": name, "opset_asked": opset, "target": config.target.name},
        overrides=tuple(overrides),
    )


def steps(ways: dict[str, str], network: str, opset: int, seconds: float) -> tuple[Step, ...]:
    def work(name: str, done: Callable[[Workspace], Any]) -> Callable[[Workspace], Any]:
        def run(workspace: Workspace) -> Any:
            for part in range(4):
                time.sleep(seconds / 4)
                workspace.emit(Progress(name, part + 1, 4, "parts"))
            behave(ways.get(name), name, workspace)
            return done(workspace)

        return run

    def model(workspace: Workspace) -> Verdict:
        workspace.file("model.onnx", "model").write_bytes(b"x" * 1_300_000)
        return Verdict(
            summary="1.2 MiB",
            recorded={
                "opsets": {"": opset}, "ir_version": 8,
                "attempts": [{"exporter": "torchscript", "opset": opset, "outcome": "passed"}],
            },
        )  # fmt: skip

    def parity(workspace: Workspace) -> Verdict:
        line = {
            "output": "output1",
            "noise": 1.1e-7,
            "tolerance": 1.1e-5,
            "metric": "max |difference| / max |reference|",
        }
        lines = [
            {**line, "seed": f"seed{seed}", "error": error, "margin": 1.1e-5 / error}
            for seed, error in enumerate((2.0e-7, 3.2e-7, 2.5e-7))
        ]
        return Verdict(summary="worst margin 34x", measured={"parity": lines})

    text = lambda workspace: Text("x")  # noqa: E731
    nodes = lambda workspace: Verdict(summary="20 nodes", measured={"nodes": 20})  # noqa: E731
    return (
        Step(
            "source",
            (),
            ("network",),
            work("source", lambda w: "live"),
            storable=False,
            on_demand=True,
            config=network,
        ),
        Step("reference", ("network",), ("reference",), work("reference", text)),
        Step("export", ("network",), ("exported",), work("export", text), config=opset),
        Step("simplify", ("exported",), ("simplified",), work("simplify", text)),
        Step("check", ("simplified",), (), work("check", nodes), storable=False),
        Step("assemble", ("simplified",), (), work("assemble", model), storable=False),
        Step("parity", ("reference", "simplified"), (), work("parity", parity), storable=False),
    )


def behave(way: str | None, stage: str, workspace: Workspace) -> None:
    """Do what FAKE says of this stage."""
    assert way is None or way in WAYS
    if way == "fail":
        raise StageFailed(
            "PL-503", "the exporter does not know the operator aten::frobnicate", where="features.0, net.py:12",
            found="opset 13", expected="opset 18 or later", next_step="Type export.exporter=dynamo",
        )  # fmt: skip
    if way == "refuse":
        raise Refused(
            "PL-225", "the weights do not fit the network", where="model.weights",
            found="3 keys too many: head.weight, head.bias, head.scale",
            next_step="Type model.weights=null, or name a checkpoint of this network",
        )  # fmt: skip
    if way == "crash":
        os.abort()
    if way == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if way == "hang":
        time.sleep(60)
    if way == "bug":
        raise RuntimeError("something that no stage knows")
    if way == "interrupt":
        os.kill(int(os.environ["FAKE_MAIN"]), getattr(signal, os.environ.get("FAKE_SIGNAL", "SIGINT")))
        time.sleep(60)
    if way == "warn":
        workspace.emit(Finding(stage, "warning", "the graph has a branch that the inputs never take"))


if __name__ == "__main__":
    sys.exit(main())
