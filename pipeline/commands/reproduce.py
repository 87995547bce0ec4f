"""`reproduce DIR [--search PATH...]`: make a run again from its records and compare the bytes.

Exit code 0: the same bytes. 1: made, but different (it says what). 2: it cannot be made (it says what is
missing). Weights and sources are looked for by digest: where the records say they were typed, and in
the folders of `--search`.
"""

from __future__ import annotations

import itertools
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from pipeline.commands.arguments import one_path, parser, print_json
from pipeline.commands.compare import PIPELINE, Difference, compare_directories, whole_manifest
from pipeline.config.canonical import file_sha256
from pipeline.config.code import as_recorded
from pipeline.config.request import Config
from pipeline.config.restore import restore
from pipeline.errors import EXIT_FAILED, EXIT_MADE, Reason, Refused
from pipeline.plan import build_plan, run_options
from pipeline.report.progress import stage_view
from pipeline.report.units import count, place
from pipeline.run.explain import differences
from pipeline.run.plan import Plan
from pipeline.run.point import present
from pipeline.run.points import run_points
from pipeline.run.records import MANIFEST, RECORD, load
from pipeline.sources.identity import identify

#: More files than this of one name are not tried.
MOST_CANDIDATES: Final = 32
#: Files that a sentence names.
MOST_NAMED: Final = 6


def main(argv: Sequence[str]) -> int:
    """Make it again; the exit code."""
    arguments = parser("reproduce", "Make a run directory again from its records and compare the bytes.")
    arguments.add_argument("directory", type=Path, nargs="+", help="one run directory")
    arguments.add_argument(
        "--search", nargs="+", type=Path, default=[], help="folders with sources and weights"
    )
    arguments.add_argument("--keep", type=Path, help="a folder to keep what was made in")
    given = arguments.parse_args(argv)
    given.directory = one_path(arguments, given.directory)
    manifest = whole_manifest(given.directory)
    if given.keep is not None and given.keep.resolve().is_relative_to(given.directory.resolve()):
        raise Refused(
            "PL-800", "--keep lies inside the run directory, which would not be whole any more",
            where=place(given.keep), next_step="Type --keep with another folder",
        )  # fmt: skip
    scratch = Path(tempfile.mkdtemp(prefix="reproduce-"))
    try:
        plan, config = _plan(given.directory, manifest, given.search, scratch)
        made = _make(plan, config, manifest, given.keep or scratch, quiet=given.json)
        # With the same versions the numbers may still differ from machine to machine, and say nothing.
        upgraded = load(made / MANIFEST)["versions"] != manifest["versions"]
        found = compare_directories(given.directory, made, expected=upgraded)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    # Another version of the pipeline that makes the same bytes has made the same.
    found = [each for each in found if each.part != PIPELINE]
    differ = [each for each in found if not each.is_remark]
    _say(given, found, differ)
    return EXIT_FAILED if differ else EXIT_MADE


def _say(given: Any, found: Sequence[Difference], differ: Sequence[Difference]) -> None:
    if given.json:
        print_json({"same": not differ, "differences": [asdict(each) for each in differ]})
        return
    for each in found if differ else ():
        print(f"{each.part:<10} {each.text}")
    where = place(given.directory)
    print(
        f"{where} was made again, but with {count(len(differ), 'difference')}" if differ else
        f"{where} was made again: the same bytes"
    )  # fmt: skip


def _make(plan: Plan, config: Config, manifest: Mapping[str, Any], out: Path, *, quiet: bool) -> Path:
    options = replace(run_options(config), out=out, cache_mode="none", force=False)
    if present(plan, options):
        raise _kept(out, plan)
    view = stage_view(sys.stderr)
    (finished,), interrupt = run_points(
        [plan], [options],
        (lambda index, event: None) if quiet else (lambda index, event: view.show(event)),
        before_threads=(lambda: None) if quiet else view.start,
    )  # fmt: skip
    view.stop()
    if interrupt:
        raise KeyboardInterrupt
    if finished is None or finished.exit_code or finished.directory is None:
        reason = Reason(**finished.reason) if finished and finished.reason else None
        raise Refused(
            "PL-802", "it cannot be made again: a stage fails now", where=plan.label,
            found=f"{reason.code}: {reason.sentence()}" if reason else None,
            next_step=_upgraded(plan, manifest),
        )  # fmt: skip
    if finished.reused:  # somebody else made it meanwhile
        raise _kept(out, plan)
    return Path(finished.directory)


def _kept(out: Path, plan: Plan) -> Refused:
    """What was there already proves nothing."""
    return Refused(
        "PL-800", "the folder of --keep holds this run directory already, so it would not be made again",
        where=place(out / plan.label), next_step="Type --keep with another folder",
    )  # fmt: skip


def _upgraded(plan: Plan, manifest: Mapping[str, Any]) -> str | None:
    """What to install again, when a stage fails that did not."""
    now = {name: plan.version_of(name) for name in plan.packages}
    texts = list(differences(manifest["versions"], now))
    return f"It was made with other versions: {'; '.join(texts)}" if texts else None


def _plan(
    folder: Path, manifest: dict[str, Any], search: Sequence[Path], scratch: Path
) -> tuple[Plan, Config]:
    """The plan whose code and weights have the digests of the manifest.

    Raises:
        Refused: a source or weights with that digest are nowhere.
    """
    places = _Places(load(folder / RECORD)["overrides"], search, scratch)
    wanted = manifest["model"]
    sources: dict[str, list[str]] = {}

    def note(key: str, text: str) -> str:
        name, _, function = text.rpartition(":")
        sources[key] = [f"{path}:{function}" for path in places.of(name)]
        if not sources[key]:
            raise _missing(key, name, "its source file")
        return sources[key][0]

    config = restore(manifest["request"], places.file, note)
    keys = list(sources)
    tried: dict[Path, None] = {}
    for chosen in itertools.islice(itertools.product(*sources.values()), MOST_CANDIDATES):
        located = dict(zip(keys, chosen, strict=True))
        config = restore(manifest["request"], places.file, partial(_located, located))
        try:
            plan = build_plan(config, ())
        except Refused:
            if len(keys) == 0:
                raise
            continue
        if not keys or wanted["code"] in (plan.describes["model"]["code"], _code_then(config, manifest)):
            return replace(plan, overrides=("reproduced",)), config
        tried |= dict.fromkeys(identify(config.model, seed=config.seed).files)
    if tried:
        raise _changed(keys[0], str(wanted["code"]), list(tried))
    key = keys[0] if keys else "model"
    name = manifest["request"][key.partition(".")[0]][key.partition(".")[2]]
    raise _missing(key, name, f"source code with the digest {str(wanted['code'])[:16]}...")


def _code_then(config: Config, manifest: Mapping[str, Any]) -> str:
    """The digest of the network's code, with the packages that it imports as they were."""
    with as_recorded(manifest["versions"]):
        return identify(config.model, seed=config.seed).code


def _located(located: Mapping[str, str], key: str, text: str) -> str:
    return located[key]


def _missing(key: str, name: str, what: str) -> Refused:
    return Refused(
        "PL-802", f"it cannot be made again: {what} is not found", where=key, found=f"nothing like {name}",
        next_step="Type --search FOLDER with the folder that it lies in",
    )  # fmt: skip


def _changed(key: str, digest: str, tried: Sequence[Path]) -> Refused:
    """The digest is of all modules together: which of them has changed is in no record."""
    return Refused(
        "PL-802", "it cannot be made again: its source code, with the modules that it imports, has changed",
        where=key, found=", ".join(place(path) for path in tried[:MOST_NAMED])
        + (f" and {len(tried) - MOST_NAMED} more" if len(tried) > MOST_NAMED else ""),
        expected=f"source code with the digest {digest[:16]}...",
        next_step="Put back what has changed, or type --search FOLDER with a folder that holds all of it as it was",
    )  # fmt: skip


class _Places:
    """Where files may be: as they were typed, and under the folders that are searched."""

    def __init__(self, overrides: Sequence[str], search: Sequence[Path], scratch: Path) -> None:
        self._scratch = scratch
        self._typed = [
            Path(word).expanduser()
            for text in overrides
            for word in re.findall(r"[^\s\"'=,:{}\[\]]+\.\w+", text.partition("=")[2])
        ]
        self._search = search

    def of(self, name: str) -> list[Path]:
        """Files of that name, those that were typed first."""
        return list(itertools.islice(dict.fromkeys(self._named(name)), MOST_CANDIDATES))

    def _named(self, name: str) -> Iterator[Path]:
        yield from (path for path in self._typed if path.name == name and path.is_file())
        for folder in self._search:
            if folder.is_file() and folder.name == name:
                yield folder
            yield from (path for path in sorted(folder.rglob(name)) if path.is_file())

    def _under(self, name: str, path: Path, sha256: str) -> Path:
        """The file under the name that it had: that name is part of the request."""
        link = self._scratch / "found" / sha256 / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():  # asked for once a candidate of the source
            link.symlink_to(path.absolute())
        return link

    def file(self, name: str, sha256: str) -> str:
        """The file with these bytes; one that was renamed is found too, when its folder is searched.

        Raises:
            Refused: there is none.
        """
        everything = (path for folder in self._search for path in sorted(folder.rglob("*")) if path.is_file())
        for path in itertools.chain(self.of(name), everything):
            if file_sha256(path) == sha256:
                return str(path if path.name == name else self._under(name, path, sha256))
        raise _missing("weights or inputs", name, f"a file with the sha256 {sha256[:16]}...")
