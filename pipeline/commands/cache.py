"""`cache list|clear|verify|explain`: what the stage cache holds and why a stage was not found.

Exit code 0: fine. 1: `verify` found damaged entries, `clear` could not remove something. 2: a bad call, or a
folder that cannot be read.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeline.commands.arguments import Arguments, parser, print_json
from pipeline.config.request import Config
from pipeline.errors import EXIT_FAILED, EXIT_MADE, Refused
from pipeline.report.units import count, duration, size
from pipeline.run.cache import Cache, CacheEntry, default_directory
from pipeline.run.explain import differences, explain
from pipeline.run.plan import Plan
from pipeline.run.records import MANIFEST, RECORD
from pipeline.run.verify import Problem, read_record

ACTIONS: Final = ("list", "clear", "verify", "explain")


def main(argv: Sequence[str]) -> int:
    """Do what the first word says."""
    arguments = parser("cache", "List, clear, verify or explain the stage cache.")
    arguments.add_argument("action", choices=ACTIONS)
    arguments.add_argument("rest", nargs="*", help="explain: a run directory, or overrides as for a run")
    arguments.add_argument("--dir", type=Path, help="the cache's folder (default: the user's cache folder)")
    arguments.add_argument("--damaged", action="store_true", help="clear: only what verify finds")
    given, flags = arguments.parse_known_args(argv)
    if given.damaged and given.action != "clear":
        arguments.error(f"--damaged goes with cache clear, not with cache {given.action}")
    if flags and given.action != "explain":
        arguments.error(f"there is no flag {flags[0]}")
    given.rest += flags
    if given.action != "explain" and given.rest:
        arguments.error(f"cache {given.action} takes no further words, found {given.rest[0]!r}")
    if given.action == "explain":
        return _explain(given)
    cache = Cache(given.dir or default_directory())
    with _readable():
        return {"list": _list, "clear": _clear, "verify": _verify}[given.action](cache, given, arguments)


@contextmanager
def _readable() -> Iterator[None]:
    """Refuse a folder of the cache that cannot be listed."""
    try:
        yield
    except PermissionError as error:
        raise Refused(
            "PL-800", "the cache cannot be read", where=str(error.filename), found=error.strerror,
            expected="a folder that you may read", next_step="Type --dir=FOLDER for another one",
        ) from error  # fmt: skip


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
    kind = "damaged " if given.damaged else ""
    removed, error = cache.clear_damaged() if given.damaged else cache.clear()
    if given.json:
        print_json({"removed": removed})
    else:
        print(f"{count(removed, f'{kind}entry', f'{kind}entries')} removed from {cache.root}")
    if error is None:
        return EXIT_MADE
    left = sum(1 for _ in (cache.damaged() if given.damaged else cache.entries()))
    print(
        f"{cache.root}: not everything could be removed ({error.strerror or error}), "
        f"{count(left, f'{kind}entry is', f'{kind}entries are')} still there; as the folder's owner "
        f"type chmod -R u+rwX {shlex.quote(str(cache.root.parent))} and the command again",
        file=sys.stderr,
    )
    return EXIT_FAILED


def _verify(cache: Cache, given: Any, arguments: Arguments) -> int:
    damaged = [
        {"stage": found.stage, "key": found.key, "problem": wrong}
        if isinstance(found, CacheEntry)
        else {"stage": "", "key": found.name, "problem": wrong}
        for found, wrong in cache.damaged()
    ]
    if given.json:
        print_json({"damaged": damaged})
    else:
        for row in damaged:
            print(f"damaged: {row['stage'] or 'entry'} {row['key'][:16]}: {row['problem']}")
        where = f" --dir {shlex.quote(str(given.dir))}" if given.dir else ""
        remedy = "a run rebuilds those that it needs; type python -m pipeline cache clear --damaged"
        told = f"; {remedy}{where} to remove them all" if damaged else ""
        print(f"{count(len(damaged), 'damaged entry', 'damaged entries')}{told}")
    return EXIT_FAILED if damaged else EXIT_MADE


def _explain(given: Any) -> int:
    rows: list[Mapping[str, Any]] = []
    looked_in: dict[Path, None] = {}
    for plan, folder in _plans(given.rest):
        cache = Cache(given.dir or folder)
        looked_in[cache.root] = None
        with _readable():
            rows += [{"point": plan.label, **row} for row in explain(plan, cache)]
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
    print(f"looked in {' and '.join(map(str, looked_in))}")
    return EXIT_MADE


def _plans(words: Sequence[str]) -> list[tuple[Plan, Path]]:
    """The plans of a command line, or of the one that made a run directory, each with its cache's folder."""
    from pipeline.plan import build_plan, run_options

    folder = Path(words[0]) if len(words) == 1 and Path(words[0]).is_dir() else None
    if folder is None and len(words) == 1 and "=" not in words[0] and os.sep in words[0]:
        raise Refused(
            "PL-800", "there is no such run directory", found=words[0],
            expected="a run directory, or overrides as for a run",
            next_step="Type python -m pipeline cache explain with the overrides of the run",
        )  # fmt: skip
    if folder is None:
        configs = _composed(words)
    else:
        typed = _record(folder, RECORD)["overrides"]
        try:
            configs = _composed(typed)
        except Refused as error:
            raise _not_typed(folder, typed, error) from error
    found = []
    for config, overrides in configs:
        plan = build_plan(config, overrides)
        found.append((plan, run_options(config).cache_dir))
    if folder is not None and (folder / MANIFEST).is_file():
        _say_other_request(_record(folder, MANIFEST), found[0][0])
    return found


def _composed(words: Sequence[str]) -> list[tuple[Config, tuple[str, ...]]]:
    from pipeline.config.arguments import parse_arguments
    from pipeline.config.compose import compose_points

    found = []
    for point in compose_points(parse_arguments(words)).points:
        if point.config is None:
            assert point.refusal is not None
            raise point.refusal
        found.append((point.config, point.overrides))
    return found


def _record(folder: Path, name: str) -> dict[str, Any]:
    problems: list[Problem] = []
    record = read_record(folder / name, problems)
    if record is None:
        raise Refused(
            "PL-801", "the records of the run cannot be read", where=str(folder),
            found=f"{name} {problems[0].message}", expected="the directory of a run",
            next_step="Type python -m pipeline cache explain with the overrides of the run",
        )  # fmt: skip
    return record


def _not_typed(folder: Path, typed: Sequence[str], error: Refused) -> Refused:
    """What `reproduce` or Python made, or a folder of configurations took part in, is no command line."""
    reason = error.reason
    return Refused(
        "PL-801", "the overrides that were recorded do not give the request again", where=str(folder),
        found=f"{' '.join(typed) or 'none'} ({reason.code}: {reason.message})",
        expected="a run whose whole request was typed: none of reproduce, of Python's config=, with --config-dir",
        next_step="Type python -m pipeline cache explain with the overrides and the --config-dir of the run",
    )  # fmt: skip


def _say_other_request(manifest: Mapping[str, Any], plan: Plan) -> None:
    """What was given beside the overrides is in no record of them; files that changed are explained as misses."""
    changed = differences(manifest["request"], plan.describes["request"])
    found = [text for text in changed if not text.partition(" was ")[0].endswith("sha256")]
    if found:
        print(f"the overrides that were recorded give another request: {'; '.join(found)}", file=sys.stderr)


def _whole(cache: Cache) -> list[CacheEntry]:
    return [found for found in cache.entries() if isinstance(found, CacheEntry)]
