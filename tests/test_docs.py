"""What the pages say is what the code is. Read from source text: nothing of torch is imported."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline import errors
from pipeline.config.compose import compose
from pipeline.plan import build_plan
from pipeline.stage import Stage

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "tests" / "benchmarks" / "README.md"])
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
#: `name(parameters) -> result   # file.py; remark`, and `class Name   # file.py`.
INTERFACE = re.compile(
    r"^(?:class (?P<kind>\w+)|(?P<name>[\w.]+)\((?P<parameters>[^)]*)\)(?: -> .+?)?)\s+# (?P<file>\w+\.py)"
)
#: Where a path in a page may begin: the repository, the package, the page's own folder's benchmarks.
BASES = (ROOT, ROOT / "pipeline", ROOT / "tests" / "benchmarks")
#: Folders of the repository: a word in backticks that begins with one is a path.
FOLDERS = ("conf/", "docs/", "models/", "pipeline/", "tests/")


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem + "_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- architecture ------------------------------------------------------------------------------------


def interfaces() -> list[tuple[str, str]]:
    """(folder of the room, line) of the block of interfaces."""
    block = re.search(r"## Interfaces between rooms.*?```python\n(.*?)```", ARCHITECTURE, re.DOTALL)
    assert block is not None
    found, room = [], ""
    for line in block[1].splitlines():
        heading = re.match(r"# (pipeline(?:/\w+)*)(?:\s|$)", line)
        if heading:
            room = heading[1]
        elif line.strip():
            found.append((room, line))
    return found


def definitions(body: list[ast.stmt]) -> dict[str, Any]:
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def parameters_of(function: ast.FunctionDef) -> str:
    names = [each.arg for each in function.args.args if each.arg != "self"]
    keyword_only = [each.arg for each in function.args.kwonlyargs]
    return ", ".join([*names, *(["*"] if keyword_only else []), *keyword_only])


@pytest.mark.parametrize(("room", "line"), interfaces())
def test_interfaces_are_as_in_the_code(room: str, line: str) -> None:
    said = INTERFACE.match(line)
    assert said is not None, f"not of the form name(parameters) -> result  # file.py: {line}"
    body = ast.parse((ROOT / room / said["file"]).read_text(encoding="utf-8")).body
    found = definitions(body)
    if said["kind"]:
        assert isinstance(found.get(said["kind"]), ast.ClassDef)
        return
    *owner, name = said["name"].split(".")
    for kind in owner:
        found = definitions(found[kind].body)
    assert name in found, f"{said['file']} has no {said['name']}"
    assert said["parameters"] == parameters_of(found[name])


def test_every_room_shows_an_interface() -> None:
    rooms = {"/".join(room.split("/")[:2]) for room, _ in interfaces()}  # a part of a room counts for it
    empty = {"pipeline/commands", "pipeline/report"}  # nothing below calls these
    there = {f"pipeline/{path.parent.name}" for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert rooms == {"pipeline", *there} - empty


def stages_said(heading: str) -> list[tuple[Any, ...]]:
    """(name, takes, makes, runs, room) of every row of a table of stages; files are left out."""
    table = re.search(rf"^\| {heading} \|.*?\n\n", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    assert table is not None
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table[0].strip().splitlines()[2:]
    ]
    return [
        (name, tuple(taken.split(", ")) if taken else (), tuple(re.findall(r"`(\w+)`", made)), runs, room)
        for name, taken, made, runs, room in rows
    ]


def stages_planned(*overrides: str) -> list[tuple[Any, ...]]:
    def runs(stage: Stage) -> str:
        if getattr(stage, "on_demand", False):
            return "on demand"
        return "cached" if stage.storable else "every time"

    return [
        (stage.name, stage.takes, stage.makes, runs(stage), type(stage).__module__.split(".")[1])
        for stage in build_plan(compose(overrides)).stages
    ]


def test_the_table_of_stages_is_the_plan() -> None:
    assert stages_said("stage") == stages_planned("model=mynet")


def test_the_table_of_a_targets_stages_is_the_plan() -> None:
    """One target hands over, another compiles; no single one does both here."""
    handed = stages_planned("model=mynet", "target=horizon_x3")
    compiled = stages_planned("model=mynet", "target=onnxruntime")
    without = stages_planned("model=mynet")
    both = [*handed, *(row for row in compiled if row not in handed)]
    assert stages_said("stage of a target") == [row for row in both if row not in without]


# -- paths, names and links in every page ------------------------------------------------------------


def words(path: Path) -> list[str]:
    """What stands in backticks, outside of blocks, in one line."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(word.split()) for word in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def exists(text: str) -> bool:
    """Whether the path is there; of `<name>` and `*` the folder that it stands in."""
    text = text.rstrip("/")
    if "*" in text:
        return any(next(base.glob(text), None) for base in BASES)
    if "<" in text:
        text = text[: text.index("<")].rpartition("/")[0]
    return any((base / text).exists() for base in BASES)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_paths_are_there(page: Path) -> None:
    paths = [word for word in words(page) if word.startswith(FOLDERS) and re.fullmatch(r"[\w./<>*-]+", word)]
    # Decision 0002 says what a wheel holds.
    inside_the_wheel = {"pipeline/conf", "pipeline/models"}
    assert [path for path in paths if path not in inside_the_wheel and not exists(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_files_named_without_a_folder_are_there(page: Path) -> None:
    files = {word for word in words(page) if re.fullmatch(r"(?:\w+/)*\w+\.py", word)}
    known = {
        path.name for top in ("pipeline", "tests", "models", "docs") for path in (ROOT / top).rglob("*.py")
    }
    examples = {"net.py", "torch.py", "some/folder/net.py"}
    assert [file for file in sorted(files - examples) if Path(file).name not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_dotted_names_are_there(page: Path) -> None:
    missing = []
    for name in {word for word in words(page) if re.fullmatch(r"pipeline(?:\.\w+)+", word)}:
        *parts, last = name.split(".")
        module = ROOT.joinpath(*parts, last)
        if module.is_dir() or module.with_suffix(".py").is_file():
            continue
        owner = ROOT.joinpath(*parts).with_suffix(".py")
        text = owner.read_text(encoding="utf-8") if owner.is_file() else ""
        if not re.search(rf"^(?:def |class )?{last}\b", text, re.MULTILINE):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_no_place_of_one_machine(page: Path) -> None:
    assert re.findall(r"/(?:home|work|root|tmp|usr)/[\w./-]+", page.read_text(encoding="utf-8")) == []


def test_contributing_names_what_a_step_changes() -> None:
    """The names in code that CONTRIBUTING tells to extend."""
    places = {
        "ModelConfig": "pipeline/sources/config.py", "identify": "pipeline/sources/identity.py",
        "_build": "pipeline/sources/load.py", "_simplified": "pipeline/graph/simplify.py",
        "STORABLE": "pipeline/plan.py", "RECORDED": "pipeline/run/records.py",
        "GRAPH_KEYS": "pipeline/config/request.py", "MODELS": "tests/benchmarks/coverage.py",
    }  # fmt: skip
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name, path in places.items():
        assert re.search(rf"`{name}\b", text), name
        assert path in text, path
        assert re.search(
            rf"^(?:def |class )?{name}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE
        )


# -- codes and lists that are made -------------------------------------------------------------------


def test_made_pages_are_in_step() -> None:
    for path, text in loaded(DOCS / "generate.py").pages().items():
        assert path.read_text(encoding="utf-8") == text, "type python docs/generate.py"


def test_codes_in_the_code_are_in_the_table_and_in_use() -> None:
    used = {
        code
        for path in (ROOT / "pipeline").rglob("*.py")
        if path.name != "errors.py"
        for code in re.findall(r"\"(PL-\d{3})\"", path.read_text(encoding="utf-8"))
    }
    assert used == set(errors.CODES)


def test_exit_codes_are_all_there() -> None:
    from pipeline.config.help import EXIT_CODES

    page = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    said = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    known = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    helped = {int(number) for numbers, _ in EXIT_CODES for number in numbers.split(", ")}
    assert said == known == helped


def test_every_command_has_its_exit_codes() -> None:
    from pipeline.commands import COMMANDS

    page = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    assert {word for word in COMMANDS if f"| `{word} " not in page} == set()


# -- coverage ----------------------------------------------------------------------------------------


def test_coverage_is_written_from_its_rows() -> None:
    coverage = loaded(ROOT / "tests" / "benchmarks" / "coverage.py")
    rows = json.loads((DOCS / "coverage.json").read_text(encoding="utf-8"))
    assert coverage.page(rows) == (DOCS / "coverage.md").read_text(encoding="utf-8")
    # Selected by model.name= and model.factory=, not networks by themselves.
    shipped = {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")} - {
        "torchvision",
        "factory",
        "onnx_file",
    }
    assert set(coverage.MODELS) == shipped
