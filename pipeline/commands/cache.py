"""`cache list|clear|verify|explain`: what the stage cache holds and why a stage was not found.

Exit code 0: fine. 1: `verify` found damaged entries. 2: a bad call.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.commands.arguments import Arguments, parser, print_json
from pipeline.errors import EXIT_FAILED, EXIT_MADE
from pipeline.report.units import count, duration, size
from pipeline.run.cache import Cache, CacheEntry, default_directory
from pipeline.run.explain import explain
from pipeline.run.plan import Plan
from pipeline.run.records import RECORD, load

ACTIONS: Final = ("list", "clear", "verify", "explain")


def main(argv: Sequence[str]) -> int:
    """Do what the first word says."""
    arguments = parser("cache", "List, clear, verify or explain the stage cache.")
    arguments.add_argument("action", choices=ACTIONS)
    arguments.add_argument("rest", nargs="*", help="explain: a run directory, or overrides as for a run")
    arguments.add_argument("--dir", type=Path, help="the cache's folder (default: the user's cache folder)")
    given, flags = arguments.parse_known_args(argv)
    if flags and given.action != "explain":
        arguments.error(f"there is no flag {flags[0]}")
    given.rest += flags
    if given.action != "explain" and given.rest:
        arguments.error(f"cache {given.action} takes no further words, found {given.rest[0]!r}")
    if given.action == "explain":
        return _explain(given)
    cache = Cache(given.dir or default_directory())
    return {"list": _list, "clear": _clear, "verify": _verify}[given.action](cache, given, arguments)


def _list(cache: Cache, given: Any, arguments: Arguments) -> int:
    entries = sorted(_whole(cache), key=lambda entry: -entry.used)
    if given.json:
        print_json(
            [
                {"stage": entry.stage, "key": entry.key, "bytes": entry.size, "used": entry.used}
                for entry in entries
            ]
        )
        return EXIT_MADE
    now = time.time()  # noqa: TID251 - beside the time stamps of files
    for entry in entries:
        print(
            f"{entry.stage:<12} {entry.key[:16]}  {size(entry.size):>9}  used {duration(max(now - entry.used, 0))} ago"
        )
    print(
        f"{count(len(entries), 'entry', 'entries')}, {size(sum(entry.size for entry in entries))} in {cache.root}"
    )
    return EXIT_MADE


def _clear(cache: Cache, given: Any, arguments: Arguments) -> int:
    removed = cache.clear()
    if given.json:
        print_json({"removed": removed})
    else:
        print(f"{count(removed, 'entry', 'entries')} removed from {cache.root}")
    return EXIT_MADE


def _verify(cache: Cache, given: Any, arguments: Arguments) -> int:
    damaged = []
    for found in cache.entries():
        if isinstance(found, CacheEntry):
            wrong = cache.check(found)
            if wrong:
                damaged.append({"stage": found.stage, "key": found.key, "problem": wrong})
        else:
            damaged.append({"stage": "", "key": found.name, "problem": "entry.json is damaged"})
    if given.json:
        print_json({"damaged": damaged})
    else:
        for row in damaged:
            print(f"damaged: {row['stage'] or 'entry'} {row['key'][:16]}: {row['problem']}")
        print(
            f"{count(len(damaged), 'damaged entry', 'damaged entries')}; "
            "the next run that needs one removes and rebuilds it"
        )
    return EXIT_FAILED if damaged else EXIT_MADE


def _explain(given: Any) -> int:
    rows: list[Mapping[str, Any]] = []
    for plan, folder in _plans(given.rest):
        rows += [{"point": plan.label, **row} for row in explain(plan, Cache(given.dir or folder))]
    if given.json:
        print_json(rows)
        return EXIT_MADE
    for row in rows:
        clauses, head = row["why"].split("; "), f"{row['point']}  {row['stage']:<10} {row['status']:<5}"
        if len(clauses) == 1:
            print(f"{head} {clauses[0]}")
        else:
            clauses.insert(0, f"{len(clauses)} things differ from the nearest entry:")
            print(head, "\n    ".join(clauses))
    return EXIT_MADE


def _plans(words: Sequence[str]) -> list[tuple[Plan, Path]]:
    """The plans of a command line, or of the one that made a run directory, each with its cache's folder."""
    from pipeline.config.arguments import parse_arguments
    from pipeline.config.compose import compose_points
    from pipeline.plan import build_plan, run_options

    if len(words) == 1 and (Path(words[0]) / RECORD).is_file():
        words = load(Path(words[0]) / RECORD)["overrides"]
    found = []
    for point in compose_points(parse_arguments(words)).points:
        if point.config is None:
            assert point.refusal is not None
            raise point.refusal
        plan = build_plan(point.config, point.overrides)
        found.append((plan, run_options(point.config).cache_dir))
    return found


def _whole(cache: Cache) -> list[CacheEntry]:
    return [found for found in cache.entries() if isinstance(found, CacheEntry)]
