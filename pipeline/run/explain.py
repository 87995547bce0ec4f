"""Why a stage would hit the cache or not: which part of its key differs from the nearest entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.run.cache import Cache, CacheEntry
from pipeline.run.plan import Plan


def explain(plan: Plan, cache: Cache) -> list[dict[str, Any]]:
    """A row a storable stage: {stage, key, status: hit|miss, why, differs}."""
    entries = [found for found in cache.entries() if isinstance(found, CacheEntry)]
    rows = []
    for stage in plan.stages:
        if not stage.storable:
            continue
        key = plan.stage_keys[stage.name]
        same_stage = [entry for entry in entries if entry.stage == stage.name]
        if any(entry.key == key.key for entry in same_stage):
            rows.append(
                {"stage": stage.name, "key": key.key, "status": "hit", "why": "the same key", "differs": []}
            )
            continue
        nearest = min(
            (list(differences(entry.parts, key.parts)) for entry in same_stage), key=len, default=None
        )
        why = "nothing like it is cached" if nearest is None else "; ".join(nearest) or "nothing differs"
        rows.append(
            {"stage": stage.name, "key": key.key, "status": "miss", "why": why, "differs": nearest or []}
        )
    return rows


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Each place where two key parts differ, in words: "config.opset was 11, is 13"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{where}.{name}" if where else name)
    elif old != new:
        yield f"{where} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
