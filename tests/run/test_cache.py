"""The stage cache: what is damaged counts as a miss, what is lost in a race is no error."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import InternalError, Refused
from pipeline.events import Event, Finding
from pipeline.run import cache as cache_module
from pipeline.run.cache import BLOB_BYTES, Cache, CacheEntry, DamagedEntryError, move_into_place, parse_size
from pipeline.run.explain import explain
from pipeline.run.plan import StageKey
from pipeline.run.runner import execute
from pipeline.run.workspace import Shared
from pipeline.stage import Workspace
from tests.run.conftest import Text, make_plan, stages
from tests.run.permissions import as_anybody

KEY = StageKey("middle", "ab" * 32, {"config": {"opset": 11}})
OTHER = StageKey("middle", "cd" * 32, {"config": {"opset": 13}})
BIG = "x" * (BLOB_BYTES + 1)
PASSED = {"status": "passed", "reason": None, "summary": "", "measured": {}, "recorded": {}}


def entry_of(cache: Cache, key: StageKey = KEY) -> CacheEntry:
    found = cache.find(key.key)
    assert found is not None
    return found


def test_what_was_stored_is_found_and_loaded(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.store(KEY, {"small": Text("abc"), "big": Text(BIG)}, PASSED)
    entry = entry_of(cache)
    assert cache.load(entry, "small", Text, tmp_path / "s") == Text("abc")
    assert cache.load(entry, "big", Text, tmp_path / "s") == Text(BIG)
    assert cache.check(entry) is None
    cache.let_go()
    assert list((cache.root / "tmp").iterdir()) == []


def test_equal_large_files_are_kept_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.store(KEY, {"big": Text(BIG)}, PASSED)
    cache.store(OTHER, {"big": Text(BIG)}, PASSED)
    assert len(list((cache.root / "blobs").glob("*/*"))) == 1


class Stream(Text):
    """A value whose large file is given piece by piece; counts how often."""

    large_file = "large.bin"

    def __init__(self, text: str, large: bytes) -> None:
        super().__init__(text)
        self.large, self.given = large, 0

    def pieces(self) -> Iterator[bytes]:
        self.given += 1
        yield self.large[:7]
        yield self.large[7:]

    def store_rest(self, folder: Path) -> None:
        super().store(folder)

    @classmethod
    def load(cls, folder: Path) -> Stream:
        return cls(Text.load(folder).text, (folder / cls.large_file).read_bytes())


def test_a_large_file_that_is_there_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache")
    first, second = Stream("a", BIG.encode()), Stream("b", BIG.encode())
    cache.store(KEY, {"stream": first}, PASSED)
    synced: list[str] = []
    monkeypatch.setattr(cache_module, "sync_file", lambda path: synced.append(path.name))
    cache.store(OTHER, {"stream": second}, PASSED)
    assert (first.given, second.given) == (2, 1)  # a digest, and once more to be written
    assert "large.bin" not in synced
    assert len(list((cache.root / "blobs").glob("*/*"))) == 1
    for key, text in ((KEY, "a"), (OTHER, "b")):
        back = cache.load(entry_of(cache, key), "stream", Stream, tmp_path / text)
        assert (back.text, back.large) == (text, BIG.encode())


@pytest.mark.parametrize("size", [0, 5, BLOB_BYTES - 1, BLOB_BYTES])
def test_a_stream_of_any_size(tmp_path: Path, size: int) -> None:
    cache = Cache(tmp_path / "cache")
    cache.store(KEY, {"stream": Stream("a", b"z" * size)}, PASSED)
    assert len(list((cache.root / "blobs").glob("*/*"))) == (size >= BLOB_BYTES)
    entry = entry_of(cache)
    assert cache.check(entry) is None
    assert cache.load(entry, "stream", Stream, tmp_path / "s").large == b"z" * size


def test_a_damaged_large_file_is_written_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        cache.store(KEY, {"stream": Stream("a", BIG.encode())}, PASSED)
        (blob,) = (cache.root / "blobs").glob("*/*")
        assert cache.load(entry_of(cache), "stream", Stream, tmp_path / "s").large == BIG.encode()
        cache.let_go()
        flip(blob)
        with pytest.raises(DamagedEntryError):
            cache.load(entry_of(cache), "stream", Stream, tmp_path / "s")
        cache.remove(KEY.key)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("text", ["abc", BIG])
def test_a_damaged_file_is_noticed_when_it_is_used(
    tmp_path: Path, damage: Callable[[Path], None], text: str
) -> None:
    cache = Cache(tmp_path / "cache")
    cache.store(KEY, {"text": Text(text)}, PASSED)
    entry = entry_of(cache)
    damage(next(path for path in cache.root.rglob("*") if path.is_file() and path.name != "entry.json"))
    with pytest.raises(DamagedEntryError):
        cache.load(entry, "text", Text, tmp_path / "s")
    assert cache.check(entry) is not None


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_a_damaged_entry_record_is_a_miss(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    cache = Cache(tmp_path)
    cache.store(KEY, {"text": Text("abc")}, PASSED)
    damage(next(cache.root.rglob("entry.json")))
    assert cache.find(KEY.key) is None and cache.is_damaged(KEY.key)
    cache.store(KEY, {"text": Text("again")}, PASSED)
    assert not cache.is_damaged(KEY.key) and not cache.is_damaged(OTHER.key)
    assert cache.load(entry_of(cache), "text", Text, tmp_path / "s") == Text("again")


def test_entries_that_were_swapped_are_a_miss(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.store(KEY, {"text": Text("abc")}, PASSED)
    cache.store(OTHER, {"text": Text("def")}, PASSED)
    one, other = (cache.root / "entries" / key.key[:2] / key.key for key in (KEY, OTHER))
    os.rename(one, tmp_path / "aside")
    os.rename(other, one)
    os.rename(tmp_path / "aside", other)
    assert cache.find(KEY.key) is None
    assert cache.find(OTHER.key) is None


def test_a_run_removes_a_damaged_entry_says_so_and_makes_it_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    plan = make_plan()
    events: list[Event] = []
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    execute(plan, tmp_path / "one", cache=cache, emit=events.append)
    flip(next(path for path in cache.root.rglob("text") if path.is_file()))
    outcome = execute(plan, tmp_path / "two", cache=cache, emit=events.append)
    assert outcome.failed is None
    assert [event.level for event in events if isinstance(event, Finding)] == ["warning"]
    assert outcome.warnings


@pytest.mark.parametrize(
    ("mode", "ends"), [("readwrite", "was removed and is made again"), ("read", "is not used")]
)
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_a_run_says_so_of_a_damaged_record_as_well(
    tmp_path: Path, damage: Callable[[Path], None], mode: str, ends: str
) -> None:
    """The stage was made again in silence."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    execute(make_plan(), tmp_path / "one", cache=Cache(tmp_path / "cache"), emit=lambda event: None)
    damage(next((tmp_path / "cache").rglob("entry.json")))
    said = []
    for name in ("two", "three"):
        cache = Cache(tmp_path / "cache", mode)
        outcome = execute(make_plan(), tmp_path / name, cache=cache, emit=lambda event: None)
        said.append([warning["message"] for warning in outcome.warnings])
    told = [f"a damaged cache entry {ends}: its entry.json is damaged"]
    assert said == [told, [] if mode == "readwrite" else told]


def test_a_damaged_value_is_not_said_to_be_removed_where_it_stays(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    execute(make_plan(), tmp_path / "one", cache=Cache(tmp_path / "cache"), emit=lambda event: None)
    flip(next((tmp_path / "cache").rglob("text/text")))
    cache = Cache(tmp_path / "cache", "read")
    outcome = execute(make_plan(), tmp_path / "two", cache=cache, emit=lambda event: None)
    (warning,) = outcome.warnings
    assert warning["message"].startswith("a damaged cache entry is not used: ")
    assert cache.find(make_plan().stage_keys["middle"].key) is not None


def test_a_failure_is_never_cached(tmp_path: Path) -> None:
    from tests.run.conftest import refuse

    cache = Cache(tmp_path / "cache")
    outcome = execute(make_plan(steps=stages(middle=refuse)), tmp_path, cache=cache, emit=lambda event: None)
    assert outcome.failed is not None
    assert list(cache.entries()) == []


def test_a_cut_key_is_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="64"):
        Cache(tmp_path).find("abcd1234")


def test_a_rename_that_lost_its_race_is_no_error(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.store(KEY, {"text": Text("first")}, PASSED)
    cache.store(KEY, {"text": Text("second")}, PASSED)
    assert cache.load(entry_of(cache), "text", Text, tmp_path / "s") == Text("first")


def test_a_rename_whose_reply_was_lost_counts_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An NFS client can see ENOENT although the server has renamed."""
    rename = os.rename

    def lossy(source: Path, target: Path) -> None:
        rename(source, target)
        raise OSError(errno.ENOENT, "stale answer")

    source = tmp_path / "source"
    source.mkdir()
    monkeypatch.setattr(cache_module.os, "rename", lossy)
    assert move_into_place(source, tmp_path / "target")
    assert (tmp_path / "target").is_dir()


@pytest.mark.parametrize("number", [errno.EEXIST, errno.ENOTEMPTY])
def test_so_does_one_that_was_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The client sends it a second time, and the server finds the first one's work in the way."""
    rename = os.rename

    def twice(source: Path, target: Path) -> None:
        rename(source, target)
        raise OSError(number, "sent again")

    source = tmp_path / "source"
    source.mkdir()
    monkeypatch.setattr(cache_module.os, "rename", twice)
    assert move_into_place(source, tmp_path / "target")


def test_a_rename_that_failed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        move_into_place(tmp_path / "nothing", tmp_path / "target")


def test_the_least_recently_used_entry_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for index, key in enumerate((KEY, OTHER)):
        cache.store(key, {"text": Text(BIG + str(index))}, PASSED)
        os.utime(next((cache.root / "entries" / key.key[:2]).rglob("entry.json")), (index, index))
    assert cache.evict(len(BIG) + 4000) == [KEY.key]
    assert cache.find(KEY.key) is None
    assert cache.load(entry_of(cache, OTHER), "text", Text, tmp_path / "s") == Text(BIG + "1")
    assert len(list((cache.root / "blobs").glob("*/*"))) == 1


def test_what_a_run_uses_is_not_evicted_before_it_lets_go(tmp_path: Path) -> None:
    reader, other = Cache(tmp_path / "cache"), Cache(tmp_path / "cache")
    reader.store(KEY, {"text": Text(BIG)}, PASSED)
    assert reader.load(entry_of(reader), "text", Text, tmp_path / "s") == Text(BIG)
    assert other.evict(0) == [KEY.key]
    assert (tmp_path / "s" / f"cached-{KEY.key[:16]}-text" / "text").read_text() == BIG
    reader.let_go()
    other.evict(0)
    assert [path for path in other.root.rglob("*") if path.is_file()] == []


def test_an_entry_in_the_making_keeps_its_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run evicts after the file was put away and before the entry is in place."""
    cache = Cache(tmp_path)
    for text in (BIG, BIG):  # new, and there already
        key = KEY if text is BIG and cache.find(KEY.key) is None else OTHER

        def move(source: Path, target: Path) -> bool:
            Cache(tmp_path).evict(0)
            return move_into_place(source, target)

        monkeypatch.setattr(cache_module, "move_into_place", move)
        cache.store(key, {"text": Text(text)}, PASSED)
        assert cache.load(entry_of(cache, key), "text", Text, tmp_path / "s") == Text(BIG)


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    old, new = cache.root / "tmp" / "old", cache.root / "tmp" / "new"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (1, 1))
    cache.store(KEY, {"text": Text("abc")}, PASSED)
    assert [folder.name for folder in (cache.root / "tmp").iterdir()] == ["new"]


def test_a_damaged_entry_is_stored_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    execute(make_plan(), tmp_path / "one", cache=cache, emit=lambda event: None)
    flip(next(path for path in cache.root.rglob("text") if path.is_file()))
    execute(make_plan(), tmp_path / "two", cache=cache, emit=lambda event: None)
    events: list[Event] = []
    execute(make_plan(), tmp_path / "three", cache=cache, emit=events.append)
    assert not [event for event in events if isinstance(event, Finding)]


def test_a_stage_that_is_not_run_again_says_again_what_it_found(tmp_path: Path) -> None:
    def fell_back(workspace: Workspace) -> Text:
        workspace.emit(Finding("middle", "warning", "the simplified graph was not used"))
        return Text("made")

    cache, said = Cache(tmp_path / "cache"), []
    plan = make_plan(steps=stages(middle=fell_back))
    shared = Shared(wanted=plan.taken())
    for name, where in (("miss", Shared()), ("hit", Shared()), ("kept", shared), ("kept again", shared)):
        (tmp_path / name).mkdir()
        outcome = execute(plan, tmp_path / name, cache=cache, emit=lambda event: None, shared=where)
        said.append([warning["message"] for warning in outcome.warnings])
    assert said == [["the simplified graph was not used"]] * 4


@pytest.mark.parametrize("lost", [False, True])
def test_a_live_value_s_stage_that_is_not_needed_says_again_what_it_found(tmp_path: Path, lost: bool) -> None:
    """A warning of a file that no key sees was gone as soon as everything came from the cache."""

    def reads(workspace: Workspace) -> str:
        workspace.emit(Finding("source", "warning", "it reads a file by itself"))
        return "live"

    cache, said = Cache(tmp_path / "cache"), []
    for name in ("miss", "hit", "hit again"):
        (tmp_path / name).mkdir()
        outcome = execute(
            make_plan(steps=stages(source=reads)), tmp_path / name, cache=cache, emit=lambda event: None
        )
        said.append([(warning["stage"], warning["message"]) for warning in outcome.warnings])
        if lost:  # what takes it is made anew, and keeps it anew
            cache.remove(make_plan().stage_keys["middle"].key)
    assert said == [[("source", "it reads a file by itself")]] * 3


def test_a_cache_that_cannot_be_written_is_said_once_with_what_to_type(tmp_path: Path) -> None:
    """It was "the cache could not keep this stage: Not a directory", once a stage, without the folder."""
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    cache = Cache(tmp_path / "file")
    outcome = execute(make_plan(), tmp_path / "run", cache=cache, emit=lambda event: None)
    (warning,) = outcome.warnings
    assert outcome.failed is None and warning["message"] == (
        f"the cache in {tmp_path}/file could not keep what this run makes (Not a directory); type "
        "cache.dir=FOLDER for another folder, or cache.mode=read or none to go without"
    )


def big(workspace: Workspace) -> Text:
    return Text(workspace.get("network") + BIG)


def forbid(folder: Path, mode: int = 0o555) -> None:
    """Nobody may write into the folder, nor into those below it."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            path.chmod(mode)


@pytest.mark.parametrize("mode", ["read", "readwrite"])
@pytest.mark.parametrize("damage", [lambda path: None, flip])
def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    tmp_path: Path, mode: str, damage: Callable[[Path], None]
) -> None:
    """A large file was a hit, no second name could be made for it, and the run ended with a PermissionError."""
    plan = make_plan(steps=stages(middle=big))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    execute(plan, tmp_path / "one", cache=Cache(tmp_path / "cache"), emit=lambda event: None)
    damage(next((tmp_path / "cache").glob("v1/blobs/*/*")))
    forbid(tmp_path / "cache")
    with as_anybody():
        cache = Cache(tmp_path / "cache", mode)
        entry = entry_of(cache, plan.stage_keys["middle"])
        if damage is flip:
            with pytest.raises(DamagedEntryError):
                cache.load(entry, "text", Text, tmp_path / "s")
            cache.remove(entry.key)  # as a run does then
        else:
            assert cache.load(entry, "text", Text, tmp_path / "s") == Text("live" + BIG)
        outcome = execute(plan, tmp_path / "two", cache=cache, emit=lambda event: None)
    assert outcome.failed is None
    said = [warning["message"] for warning in outcome.warnings]
    assert sum("damaged" in text for text in said) == (damage is flip)
    assert sum("could not keep" in text for text in said) == len(said) - (damage is flip) <= 1


def test_entries_that_cannot_be_read_are_a_miss(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    execute(make_plan(), tmp_path / "one", cache=Cache(tmp_path / "cache"), emit=lambda event: None)
    forbid(tmp_path / "cache" / "v1" / "entries", 0o000)
    with as_anybody():
        cache = Cache(tmp_path / "cache")
        assert cache.find(make_plan().stage_keys["middle"].key) is None
        outcome = execute(make_plan(), tmp_path / "two", cache=cache, emit=lambda event: None)
    assert outcome.failed is None
    assert len(outcome.warnings) <= 1


@pytest.mark.parametrize(("mode", "reads", "writes"), [("none", 0, 0), ("read", 1, 0), ("write", 0, 1)])
def test_the_mode_says_what_the_cache_does(tmp_path: Path, mode: str, reads: bool, writes: bool) -> None:
    Cache(tmp_path).store(KEY, {"text": Text("abc")}, PASSED)
    cache = Cache(tmp_path, mode)
    assert (cache.find(KEY.key) is not None) == bool(reads)
    cache.store(OTHER, {"text": Text("abc")}, PASSED)
    assert (Cache(tmp_path).find(OTHER.key) is not None) == bool(writes)


def test_a_miss_is_explained_by_the_nearest_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    execute(make_plan(), tmp_path, cache=cache, emit=lambda event: None)
    steps = stages()
    changed = type(steps[1])(**{**steps[1].__dict__, "config": {"opset": 13}})
    assert explain(make_plan(), cache)[0]["status"] == "hit"
    (row,) = explain(make_plan(steps=(steps[0], changed, steps[2])), cache)
    assert (row["status"], row["why"]) == ("miss", "config was None, is {'opset': 13}")


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("512MiB", 512 * 2**20), ("100", 100), ("1.5 kb", 1500)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "cache.size") == size


@pytest.mark.parametrize("text", ["", "GB", "twenty", "5 parsecs", "-"])
def test_a_size_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"cache\.size"):
        parse_size(text, "cache.size")
