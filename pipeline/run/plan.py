"""A plan: the ordered stages that a request needs, with all keys known before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.errors import InternalError
from pipeline.stage import KeyParts, Stage, Storable


@dataclass(frozen=True)
class StageKey:
    """The key of a stage.

    Attributes:
        stage: its name.
        key: sha256 of the parts, full.
        parts: what it was made of (for `cache explain`). What is taken stands there as a digest, or
            spelt out where no cache entry of its own would tell more: `takes.network.config.seed`.
    """

    stage: str
    key: str
    parts: Mapping[str, Any]


@dataclass(frozen=True)
class _Keys:
    """What is known of one stage: its key, and what each of its artifacts is made of."""

    stage: StageKey
    artifacts: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What will be done for one request.

    Attributes:
        label: name of the run directory.
        stages: in order; every artifact is made before it is taken.
        skipped: stages that the request switched off, with the sentence for the manifest.
        aliases: artifact name that stages take -> the one that stands for it ("finished" ->
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
        """Stage name to key."""
        return {name: keys.stage for name, keys in self._keys.items()}

    @cached_property
    def _keys(self) -> dict[str, _Keys]:
        found: dict[str, _Keys] = {}
        for stage in self.stages:
            parts = stage.key_parts()
            _check_artifacts(stage, parts)
            taken = {name: self._taken(found, name) for name in stage.takes}
            always = {
                "stage": stage.name,
                "code": self.code_digest(parts.code),
                "packages": {name: self.version_of(name) for name in sorted(parts.packages)},
                "extra": dict(sorted(parts.extra.items())),
            }
            whole = {**always, "config": parts.config, "takes": taken}
            artifacts: dict[str, Mapping[str, Any]] = dict.fromkeys(stage.makes, whole)
            for name, less in parts.artifacts.items():
                takes = {one: taken[one] for one in less.takes}
                artifacts[name] = {**always, "config": less.config, "takes": takes}
            found[stage.name] = _Keys(StageKey(stage.name, _sha256(whole), whole), artifacts)
        return found

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
        return self._digests[self.real_name(artifact)]

    @cached_property
    def _digests(self) -> dict[str, str]:
        made = [(stage, name) for stage in self.stages for name in stage.makes]
        return {name: _sha256([name, self._keys[stage.name].artifacts[name]]) for stage, name in made}

    def _taken(self, keys: Mapping[str, _Keys], artifact: str) -> Any:
        """What stands for an artifact in the key of a stage that takes it."""
        name = self.real_name(artifact)
        maker = self._makers[name]
        described = keys[maker.name].artifacts[name]
        return _sha256([name, described]) if maker.storable else described

    def taken(self) -> set[str]:
        """Digests of every artifact that some stage of this plan takes."""
        return {self.digest(name) for stage in self.stages for name in stage.takes}


def _check_artifacts(stage: Stage, parts: KeyParts) -> None:
    for name, less in parts.artifacts.items():
        if name not in stage.makes or not set(less.takes) <= set(stage.takes):
            raise InternalError(f"stage {stage.name} says what shapes {name} with names that are not its own")


def _sha256(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
