"""Keys: what changes them, what does not, and what the cache then gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InternalError
from pipeline.events import Event, StageFinished
from pipeline.run.cache import Cache
from pipeline.run.explain import explain
from pipeline.run.plan import Plan
from pipeline.run.runner import Outcome, Shared, execute
from pipeline.stage import ArtifactParts, KeyParts, Workspace
from tests.run.conftest import Step, Text, make_plan


@dataclass(frozen=True)
class Stated(Step):
    """A step that says what shapes its artifacts."""

    artifacts: Mapping[str, ArtifactParts] = ()  # type: ignore[assignment]

    def key_parts(self) -> KeyParts:
        return KeyParts(config=self.config, artifacts=dict(self.artifacts))


def reference(workspace: Workspace) -> None:
    """Outputs come from every set of inputs, the names of outputs from none."""
    workspace.put("reference", Text(f"reference of {workspace.get('samples')}"))
    workspace.put("signature", Text("names"))


@dataclass(frozen=True)
class Reference(Stated):
    def run(self, workspace: Workspace) -> Any:
        self.ran.append(self.name)
        reference(workspace)
        return super().run(replace_work(workspace))


def replace_work(workspace: Workspace) -> Workspace:
    return workspace
