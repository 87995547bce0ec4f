"""What `dry_run=true` prints: the plan, what is there already and what is cached."""

from __future__ import annotations

from typing import Final

from pipeline.report.blocks import reason_text
from pipeline.report.terminal import STYLES, Line
from pipeline.report.units import count, place
from pipeline.run.cache import Cache
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions, present

LABEL: Final = "bold"


def dry_run_block(plan: Plan, options: RunOptions) -> list[Line]:
    """The lines for one point; nothing is made, not even a folder."""
    there = present(plan, options)
    what = "is there: it would be verified and returned" if there else "would be made"
    lines: list[Line] = [("plan", f"{place(options.out / plan.label)} {what}", LABEL)]
    lines += [
        (name, f"{plan.keys[name]}", "") for name in ("request", "graph", "result") if name in plan.keys
    ]
    for stage in plan.stages:
        lines.append((stage.name, cache_state(plan, options, stage.name), _style(plan, options, stage.name)))
    lines += [(name, f"skipped: {why}", "dim") for name, why in plan.skipped.items()]
    return lines


def dry_run_line(plan: Plan, options: RunOptions) -> Line:
    """One line for a point of a sweep."""
    storable = [stage.name for stage in plan.stages if stage.storable]
    hits = sum(is_cached(plan, options, name) for name in storable)
    label = "there" if present(plan, options) else "make"
    return (label, f"{place(options.out / plan.label)}, {hits} of {count(len(storable), 'stage')} cached", "")


def refused_line(reason: dict[str, str], typed: str) -> Line:
    """One line for a point of a sweep that is refused."""
    return ("refused", f"{typed}: {reason_text(reason)}", STYLES["refused"])


def cache_state(plan: Plan, options: RunOptions, name: str) -> str:
    """`cached`, `to be made`, or `runs every time` for a stage that leaves nothing in the cache."""
    stage = next(stage for stage in plan.stages if stage.name == name)
    if not stage.storable:
        return "when it is needed" if getattr(stage, "on_demand", False) else "runs every time"
    return "cached" if is_cached(plan, options, name) else "to be made"


def is_cached(plan: Plan, options: RunOptions, name: str) -> bool:
    """Whether the cache has what this stage makes (and may be read)."""
    cache = Cache(options.cache_dir, options.cache_mode, options.cache_bytes)
    return cache.find(plan.stage_keys[name].key) is not None


def _style(plan: Plan, options: RunOptions, name: str) -> str:
    return STYLES["passed"] if cache_state(plan, options, name) == "cached" else ""
