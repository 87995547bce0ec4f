"""The page of `--help`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.commands import COMMANDS
from pipeline.config import help as help_page
from pipeline.config.arguments import parse_arguments
from pipeline.config.compose import compose_points
from pipeline.config.help import COMMONEST, EXAMPLES, help_text
from pipeline.locations import CONF_DIR


def page(width: int = 100, *dirs: Path) -> str:
    return help_text(dirs, {word: what for word, (_, what) in COMMANDS.items()}, width)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_page_fits_the_terminal(width: int) -> None:
    long = [line for line in page(width).splitlines() if len(line) > width]
    assert not [line for line in long if "python -m pipeline" not in line]  # a line to copy is not broken
    if width >= 80:
        assert not long


def test_every_group_stands_there_with_every_file() -> None:
    words = set(page().replace(",", " ").replace("*", " ").split())
    for path in CONF_DIR.glob("*/*.yaml"):
        assert path.stem in words
        assert path.parent.name in words


def test_the_choice_that_is_taken_is_marked() -> None:
    text = page()
    assert "onnxsim*" in text
    assert "none, onnxsim*" in text


def test_commands_exit_codes_and_keys_stand_there() -> None:
    text = page()
    for word in (*COMMANDS, "130", "refused before work", "at the top", "allow_vacuous=false"):
        assert word in text


def test_there_are_ten_commonest_overrides_and_three_examples() -> None:
    assert (len(COMMONEST), len(EXAMPLES)) == (10, 3)


def test_a_folder_of_the_users_adds_its_files(tmp_path: Path) -> None:
    for name in ("model/mine.yaml", "experiment/tried.yaml", "extra/own.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# mine\n")
    text = page(100, tmp_path)
    for word in ("mine", "tried", "extra"):
        assert word in text.replace(",", " ").split()


@pytest.mark.parametrize(
    "line",
    [example.replace("\\\n", " ") for example, _ in EXAMPLES]
    + [f"model=mynet {what}" for what, _ in COMMONEST],
)
def test_every_line_of_the_page_is_composed(line: str) -> None:
    words = line.removeprefix("python -m pipeline ").split("'")
    typed = [*words[0].split(), *(words[1:2] if len(words) > 1 else [])]
    if typed[0] == "model=mynet" and any(word.startswith("model=") for word in typed[1:]):
        typed = typed[1:]
    composition = compose_points(parse_arguments(typed))
    assert all(point.config is not None for point in composition.points)


def test_the_help_of_the_groups_is_of_groups_that_there_are() -> None:
    assert set(help_page.GROUPS) >= {path.parent.name for path in CONF_DIR.glob("*/*.yaml")} - {"hydra"}
