"""Why a stage would hit the cache or not: which part of its key differs from the nearest entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipeline.run.cache import Cache, CacheEntry
from pipeline.run.plan import Plan

#: Longer texts are cut; of a digest less is shown.
LONGEST: Final = 60
DIGEST_DIGITS: Final = 64


def explain(plan: Plan, cache: Cache) -> list[dict[str, Any]]:
    """A row a storable stage: {stage, key, status: hit|miss, why, differs}.

    `differs` has the parts of the key by their paths, `why` a clause for each of them. Of entries that are
    equally near the one that was used last is taken.
    """
    entries = [found for found in cache.entries() if isinstance(found, CacheEntry)]
    rows = []
    for stage in plan.stages:
        if not stage.storable:
            continue
        key = plan.stage_keys[stage.name]
        same_stage = [entry for entry in entries if entry.stage == stage.name]
        if any(entry.key == key.key for entry in same_stage):
            rows.append(
                {"stage": stage.name, "key": key.key, "status": "hit", "why": "it is in the cache",
                 "differs": []}
            )  # fmt: skip
            continue
        latest_first = sorted(same_stage, key=lambda entry: -entry.used)
        nearest = min(
            (list(_changes(entry.parts, key.parts)) for entry in latest_first), key=len, default=None
        )
        why = "the cache has nothing of this stage" if nearest is None else "; ".join(map(_clause, nearest))
        differs = [_by_path(*change) for change in nearest or ()]
        rows.append({"stage": stage.name, "key": key.key, "status": "miss", "why": why, "differs": differs})
    return rows


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Each place where two key parts differ, in words: "config.opset was 11, is 13"."""
    return (_by_path(*change) for change in _changes(old, new, where))


def _changes(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, what was and what is there."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _changes(old.get(name), new.get(name), f"{where}.{name}" if where else name)
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, after, f"{where}[{index}]")
    elif old != new:
        yield where, old, new


def _by_path(where: str, old: Any, new: Any) -> str:
    return f"{where} was {_short(old)}, is {_short(new)}"


def _clause(change: tuple[str, Any, Any]) -> str:
    """What a part of a key means: "export_inputs: seed was 0, is 5", "it takes another signature"."""
    where, old, new = change
    taker, of = "", ""
    while where.startswith("takes."):
        taker = of
        of, _, where = where.removeprefix("takes.").partition(".")
    head, _, name = where.partition(".")
    if not where:
        return f"{taker or 'it'} takes another {of}"
    of = f"{of}: " if of else ""
    if where == "code":
        return f"{of}the pipeline's own code for it has changed"
    if head in ("config", "extra", "packages") and name:
        return _by_path(f"{of}{'package ' if head == 'packages' else ''}{name}", old, new)
    return _by_path(f"{of}{where}", old, new)


def _short(value: Any) -> str:
    text = str(value)
    if len(text) == DIGEST_DIGITS and not set(text) - set("0123456789abcdef"):
        return f"{text[:12]}..."
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
