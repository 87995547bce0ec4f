"""What a command line composed to, remembered: the same configuration, and nothing outdated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import remembered
from pipeline.config.arguments import Arguments, parse_arguments
from pipeline.config.compose import compose_points
from pipeline.config.points import Composition
from pipeline.config.remembered import compose_remembered
from pipeline.config.source_digest import index_path
from pipeline.errors import Reason, Refused
from pipeline.locations import CONF_DIR

LINES = (
    ("model=alexnet", "export.opset=11"),
    ("model=mynet", "parity=fixed", "simplify=none", "check=none"),
    ("model=mynet", "seed=3", "out=/tmp/x", "parity.k=7.5", "export.verbose=true"),
    ("model=torchvision", "model.name=resnet18", "model.inputs={x: {shape: [1, 3, 64, 64], dynamic: {0: b}}}"),
    ("experiment=alexnet_classic", "seed=2"),
    ("model=factory", "model.factory=a.py:f", "model.args={width: 0.5, deep: true, none: null}",
     "model.inputs={x: {shape: [2]}}"),
)  # fmt: skip


def ask(*words: str) -> Composition:
    return compose_remembered(parse_arguments(list(words)))


def entries() -> list[Path]:
    return sorted((index_path().parent / remembered.FOLDER).glob("*.json"))


@pytest.mark.parametrize("words", LINES, ids=lambda words: words[0] + "," + words[1])
def test_the_second_time_gives_what_the_first_gave(words: tuple[str, ...]) -> None:
    composed = compose_points(parse_arguments(list(words)))
    first, second = ask(*words), ask(*words)
    assert composed == first == second
    tree = composed.points[0].tree
    assert len(entries()) == (json.loads(json.dumps(tree)) == tree)  # JSON has no numbers for keys


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (("out=/tmp/a", "cache.dir=/tmp/b"), ("out=/tmp/c-1/d_2", "cache.dir=/e"), 1),
        (("out=/tmp/a",), ("out=/tmp/a", "cache.dir=/b"), 2),
        (("out=null-ish",), ("out=/tmp/a",), 2),  # what is no plain path stays in the digest
        (("out=/tmp/a,b",), ("out=/tmp/a",), 2),
        (("out=/tmp/a", "out=/tmp/b"), ("out=/tmp/c", "out=/tmp/d"), 2),
        (("++out=/tmp/a",), ("++out=/tmp/b",), 2),
    ],
    ids=["two folders", "one folder more", "no path", "a sweep", "twice", "added"],
)
def test_folders_are_put_in_afterwards(first: tuple[str, ...], second: tuple[str, ...], kept: int) -> None:
    shown = 0
    for words in (("model=alexnet", *first), ("model=alexnet", *second)) * 2:
        composed = answer(words, compose_points)
        assert answer(words, compose_remembered) == composed
        shown += isinstance(composed, Composition)
    assert len(entries()) == min(kept, shown // 2)


def answer(words: tuple[str, ...], composer: Callable[[Arguments], Composition]) -> Composition | Reason:
    try:
        return composer(parse_arguments(list(words)))
    except Refused as refused:
        return refused.reason


def test_what_is_refused_is_refused_with_the_same_words() -> None:
    words = ["model=mynet", "export.opsett=11"]
    with pytest.raises(Refused) as composed:
        compose_points(parse_arguments(words))
    for _ in range(2):
        with pytest.raises(Refused) as again:
            ask(*words)
        assert again.value.reason == composed.value.reason
    assert not index_path().parent.exists(), "a refused request left something"


def test_without_hydra() -> None:
    code = (
        "import sys\n"
        "import pipeline.commands.run\n"
        "from pipeline.config.arguments import parse_arguments\n"
        "from pipeline.config.remembered import compose_remembered\n"
        "compose_remembered(parse_arguments(['model=alexnet', 'export.opset=11']))\n"
        "print('hydra' in sys.modules, 'omegaconf' in sys.modules)\n"
    )
    found = []
    for _ in range(4):  # whoever edits a configuration file meanwhile makes it compose once more
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found.append(done.stdout.strip())
        if len(found) > 1 and found[-1] == "False False":
            break
    assert (found[0], found[-1]) == ("True True", "False False")


@pytest.mark.parametrize("what", ["a file says something else", "a file more", "code", "a package", "words"])
def test_whatever_takes_part_makes_another_entry(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF_DIR, conf)
    monkeypatch.setattr(remembered, "CONF_DIR", conf)
    words = ["model=alexnet"]
    before = remembered._place(parse_arguments(words))
    assert before == remembered._place(parse_arguments(words)) != None  # noqa: E711
    if what == "a file says something else":
        with (conf / "model" / "alexnet.yaml").open("a") as file:
            file.write("# a word\n")
    elif what == "a file more":
        (conf / "model" / "other.yaml").write_text("name: other\n")
    elif what == "code":
        monkeypatch.setattr(remembered, "unsaved_code_digest", lambda modules: "another")
    elif what == "a package":
        monkeypatch.setattr(remembered, "full_version", lambda name: "9.9")
    else:
        words = ["model=alexnet", "seed=1"]
    assert remembered._place(parse_arguments(words)) not in (before, None)


def test_what_depends_on_more_is_composed_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED_OF_TEST", "5")
    assert ask("model=mynet", "seed=${oc.env:SEED_OF_TEST}").points[0].config.seed == 5  # type: ignore[union-attr]
    monkeypatch.setenv("SEED_OF_TEST", "6")
    assert ask("model=mynet", "seed=${oc.env:SEED_OF_TEST}").points[0].config.seed == 6  # type: ignore[union-attr]
    for words in (
        ["-m", "model=mynet", "seed=1,2"],
        ["model=mynet", "--config-dir", str(tmp_path)],
        ["model=mynet", "--config-name", "config"],
        ["model=mynet", "hydra.searchpath=[]"],
        ["model=mynet", "+hydra.job.name=x"],
    ):
        assert remembered._place(parse_arguments(words)) is None, words
    (tmp_path / "hydra_plugins").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert remembered._place(parse_arguments(["model=mynet"])) is None
    assert entries() == []


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "no text"])
def test_a_damaged_entry_is_done_without(damage: str) -> None:
    good = ask("model=alexnet")
    (entry,) = entries()
    data = bytearray(entry.read_bytes())
    if damage == "cut":
        del data[-20:]
    elif damage == "flip":
        data[len(data) // 2] ^= 1
    else:
        data = bytearray(b"" if damage == "empty" else b"\xff\xfe\x00")
    entry.write_bytes(data)
    assert ask("model=alexnet") == good
    assert entry.read_bytes() != data, "the damaged entry was not made again"


def test_a_folder_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert ask("model=alexnet") == ask("model=alexnet")


def test_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST_ENTRIES", 8)
    monkeypatch.setattr(remembered, "_own_files", list)  # whoever edits one meanwhile makes another entry
    ask("model=alexnet", "seed=0")
    (oldest,) = entries()
    for seed in range(1, 8):
        ask("model=alexnet", f"seed={seed}")
    old = set(entries()) - {oldest}
    for path in old:
        os.utime(path, (1, 1))
    assert ask("model=alexnet", "seed=0") == compose_points(parse_arguments(["model=alexnet", "seed=0"]))
    ask("model=alexnet", "seed=8")
    assert oldest in entries()
    assert len(entries()) == 6
