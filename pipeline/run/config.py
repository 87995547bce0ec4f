"""`cache` and the keys at the top that say how, not what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CacheConfig:
    mode: Literal["readwrite", "read", "write", "none"] = "readwrite"
    dir: str | None = None  #: null: the user's cache folder
    size: str = "20GB"  #: least recently used entries go beyond it
