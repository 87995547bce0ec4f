"""What the wheel holds, and that the lock goes with pyproject.toml."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
LOCK = (REPOSITORY / "requirements.lock").read_text()


def normalized(requirement: str) -> str:
    """The name of a requirement as indexes write it (PEP 503)."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tracked(folder: str, pattern: str) -> list[Path]:
    """Files of a folder in the checkout, relative to the repository."""
    files = (path.relative_to(REPOSITORY) for path in (REPOSITORY / folder).rglob(pattern))
    return [path for path in files if "__pycache__" not in path.parts]


def test_nothing_lands_beside_the_package(contents: set[str]) -> None:
    tops = {name.split("/")[0] for name in contents}
    assert tops == {"pipeline", f"onnx_export_pipeline-{version()}.dist-info"}


def version() -> str:
    from pipeline.version import __version__

    return __version__


@pytest.mark.parametrize(
    ("folder", "pattern", "inside"),
    [
        ("conf", "*.yaml", "pipeline/conf"),
        ("models", "*.py", "pipeline/models"),
        ("pipeline", "*.py", "pipeline"),
        ("pipeline/run/schemas", "*.json", "pipeline/run/schemas"),
        ("pipeline", "py.typed", "pipeline"),
    ],
)
def test_everything_that_is_read_at_run_time_ships(
    contents: set[str], folder: str, pattern: str, inside: str
) -> None:
    files = tracked(folder, pattern)
    assert files
    missing = [str(path) for path in files if f"{inside}/{path.relative_to(folder)}" not in contents]
    assert not missing


def test_no_caches_ship(contents: set[str]) -> None:
    assert not [name for name in contents if "__pycache__" in name or name.endswith(".pyc")]


def test_the_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}  # stands before the editable install

    where = subprocess.run(
        [sys.executable, "-c", "from pipeline import locations; print(locations.CONF_DIR)"],
        cwd=elsewhere, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()) == site / "pipeline" / "conf"

    composed = subprocess.run(
        [sys.executable, "-m", "pipeline", "model=mynet", "--cfg", "job"],
        cwd=elsewhere, env=environment, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert composed.returncode == 0, composed.stderr
    assert "pkg://models/mynet.py:build" in composed.stdout
    assert list(elsewhere.iterdir()) == []


def test_the_lock_has_hashes_and_no_addresses() -> None:
    assert "://" not in LOCK
    pinned = re.findall(r"^[a-z0-9][\w.-]*==\S+", LOCK, flags=re.MULTILINE | re.IGNORECASE)
    assert len(pinned) > len(PROJECT["dependencies"])
    for block in re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE):
        assert not block.strip() or "--hash=sha256:" in block, block


def test_the_lock_has_every_package_that_is_asked_for() -> None:
    locked = {normalized(line) for line in LOCK.splitlines() if "==" in line and not line.startswith(" ")}
    asked = {
        normalized(each) for each in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])
    }
    assert asked <= locked


def test_extras_do_not_reach_into_the_core() -> None:
    core = {normalized(each) for each in PROJECT["dependencies"]}
    extras = {
        normalized(each)
        for name, each_extra in PROJECT["optional-dependencies"].items()
        if name != "dev"
        for each in each_extra
    }
    assert not core & extras
