"""A plan: the ordered stages that a request needs, with all keys known before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.stage import Stage, Storable


@dataclass(frozen=True)
class StageKey:
    """The key of a stage and the parts that it was made of (for `cache explain`)."""

    stage: str
    key: str  #: sha256, full
    parts: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What will be done for one request.

    Attributes:
        label: name of the run directory.
        stages: in order; every artifact is made before it is taken.
        skipped: stages that the request switched off, with the sentence for the manifest.
        aliases: artifact name that stages take -> the one that stands for it ("simplified" ->
            "exported" when simplify is off).
        artifact_types: how a storable artifact is loaded from the cache.
        keys: request, graph and result key, full sha256.
        describes: what manifest.json says whatever happens (request, model, inputs, seeds).
        packages: distributions whose versions the manifest lists.
        code_digest: digest of pipeline modules, versions of distributions: passed in, so that
            this room needs nothing from the others.
        group: points with the same group share a network and run in one process.
        row: what is known of the point's line of table.csv.
    """

    label: str
    stages: tuple[Stage, ...]
    keys: Mapping[str, str]
    describes: Mapping[str, Any]
    config_yaml: str
    artifact_types: Mapping[str, type[Storable]]
    code_digest: Callable[[tuple[str, ...]], str]
    version_of: Callable[[str], str]
    skipped: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    group: str = ""
    allow_vacuous: bool = False
    row: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    @cached_property
    def stage_keys(self) -> dict[str, StageKey]:
        """Stage name to key. An artifact's digest is that of the stage that makes it and its name."""
        keys: dict[str, StageKey] = {}
        for stage in self.stages:
            parts = stage.key_parts()
            described = {
                "stage": stage.name,
                "config": parts.config,
                "code": self.code_digest(parts.code),
                "packages": {name: self.version_of(name) for name in sorted(parts.packages)},
                "extra": dict(sorted(parts.extra.items())),
                "takes": {name: self._digest(keys, name) for name in stage.takes},
            }
            text = json.dumps(described, sort_keys=True, separators=(",", ":"))
            keys[stage.name] = StageKey(stage.name, hashlib.sha256(text.encode()).hexdigest(), described)
        return keys

    @cached_property
    def _makers(self) -> dict[str, Stage]:
        return {name: stage for stage in self.stages for name in stage.makes}

    def maker(self, artifact: str) -> Stage:
        """The stage that makes `artifact` (aliases followed)."""
        return self._makers[self.real_name(artifact)]

    def real_name(self, artifact: str) -> str:
        return self.aliases.get(artifact, artifact)

    def digest(self, artifact: str) -> str:
        """The digest by which an artifact is known in keys and shared between points."""
        return self._digest(self.stage_keys, artifact)

    def _digest(self, keys: Mapping[str, StageKey], artifact: str) -> str:
        name = self.real_name(artifact)
        return hashlib.sha256(f"{keys[self._makers[name].name].key}/{name}".encode()).hexdigest()

    def taken(self) -> set[str]:
        """Digests of every artifact that some stage of this plan takes."""
        return {self.digest(name) for stage in self.stages for name in stage.takes}
