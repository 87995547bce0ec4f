"""Plans of small stages without torch, for tests of the machinery around stages."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest

from pipeline.errors import StageFailed
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions
from pipeline.stage import ArtifactParts, KeyParts, Verdict, Workspace


@dataclass(frozen=True)
class Text:
    """A storable artifact."""

    text: str

    def store(self, folder: Path) -> None:
        (folder / "text").write_text(self.text)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls((folder / "text").read_text())


@dataclass(frozen=True)
class Step:
    """A stage whose work is a function of what it takes."""

    name: str
    takes: tuple[str, ...]
    makes: tuple[str, ...]
    work: Callable[[Workspace], Any]
    storable: bool = True
    on_demand: bool = False
    config: Any = None
    ran: list[str] = field(default_factory=list, compare=False)

    def key_parts(self) -> KeyParts:
        return KeyParts(config=self.config)

    def requires(self, workspace: Workspace) -> None:
        for name in self.takes:
            workspace.get(name)

    def run(self, workspace: Workspace) -> Verdict:
        self.ran.append(self.name)
        made = self.work(workspace)
        if isinstance(made, Verdict):
            return made
        for name in self.makes:
            workspace.put(name, made)
        return Verdict(summary=f"{self.name} done")

    def ensures(self, workspace: Workspace) -> None:
        for name in self.makes:
            assert workspace.get(name) is not None


def write_model(workspace: Workspace) -> Verdict:
    """A 'model' file large enough to be torn."""
    path = workspace.file("model.onnx", "model")
    with path.open("wb") as stream:
        for piece in range(16):
            stream.write(bytes([piece]) * 65536)
            stream.flush()
    return Verdict(recorded={"opsets": {"": 11}, "ir_version": 6})


def abort(workspace: Workspace) -> Verdict:
    """A crash in native code."""
    os.abort()


def hang(workspace: Workspace) -> Verdict:
    time.sleep(60)
    return Verdict()


def eat(workspace: Workspace) -> Verdict:
    """Takes memory until somebody stops it."""
    held = []
    for _ in range(200):
        held.append(bytearray(os.urandom(1) * (16 * 2**20)))
        time.sleep(0.02)
    return Verdict()


def refuse(workspace: Workspace) -> Verdict:
    raise StageFailed("PL-710", "this stage always fails", where="here", next_step="Do nothing")


def stages(**changes: Callable[[Workspace], Any]) -> tuple[Step, ...]:
    """source, middle, write: a live value, a stored one, a file. Each can be given other work."""
    return (
        Step(
            "source",
            (),
            ("network",),
            changes.get("source", lambda w: "live"),
            storable=False,
            on_demand=True,
        ),
        Step(
            "middle", ("network",), ("text",), changes.get("middle", lambda w: Text(w.get("network") + "!"))
        ),
        Step("write", ("text",), (), changes.get("write", write_model), storable=False),
    )


def make_plan(
    label: str = "fake-op11-00000000", group: str = "g", steps: tuple[Step, ...] | None = None
) -> Plan:
    """A plan over `steps`, with keys that depend on the label."""
    digest = hashlib.sha256(label.encode()).hexdigest()
    return Plan(
        label=label,
        stages=steps or stages(),
        keys={"request": digest, "graph": digest, "result": digest},
        describes={
            "request": {"label": label},
            "model": {"name": "fake", "source": "test", "code": None, "weights": None},
            "seeds": {},
        },
        config_yaml=f"label: {label}\n",
        artifact_types={"text": Text},
        code_digest=lambda modules: "0" * 64,
        version_of=lambda name: "1.0",
        group=group,
        row={"model": "fake"},
    )


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return RunOptions(out=tmp_path / "outputs", cache_dir=tmp_path / "cache")


@dataclass(frozen=True)
class Stated(Step):
    """A step that says what shapes its artifacts."""

    artifacts: Mapping[str, ArtifactParts] = field(default_factory=dict)

    def key_parts(self) -> KeyParts:
        return replace(super().key_parts(), artifacts=self.artifacts)


@dataclass(frozen=True)
class CopiedStep(Stated):
    """A stage that may work in a copy of the process."""

    prepare: Callable[[], None] | None = lambda: None

    def beside(self, workspace: Workspace) -> Callable[[], None] | None:
        return self.prepare
