"""The points of a command line, as plain data: known without Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.request import Config
from pipeline.errors import Refused


@dataclass(frozen=True)
class Point:
    """One run that is asked for, or why it is refused.

    Attributes:
        index: its place in the sweep, from 0.
        overrides: as typed, one value each.
        config: None when the point is refused.
        refusal: why.
        choices: group to chosen file, as far as they were composed.
        tree: plain data with interpolations as they stand, as far as it was composed.
    """

    index: int
    overrides: tuple[str, ...]
    config: Config | None = None
    refusal: Refused | None = None
    choices: Mapping[str, str | None] = field(default_factory=dict)
    tree: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Composition:
    """All points of a command line; a single run has one."""

    points: tuple[Point, ...]
    multirun: bool
