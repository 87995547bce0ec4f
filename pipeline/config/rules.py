"""Checks across keys, gathered: each stands beside its dataclass, in the room's own config.py."""

from __future__ import annotations

from pipeline.config.request import Config
from pipeline.errors import Refused


def check(config: Config) -> None:
    """Raise the first contradiction.

    Raises:
        Refused: a value out of range, or keys that contradict each other.
    """
    if config.model == type(config.model)():
        raise Refused(
            "PL-110", "no model was chosen",
            next_step="Type model=NAME, for example model=alexnet; python -m pipeline --help lists the names",
        )  # fmt: skip
