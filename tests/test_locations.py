"""Files that ship with the pipeline are found in a checkout and in a wheel."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from pipeline import locations

REPOSITORY = Path(__file__).resolve().parent.parent


def locations_inside(package: Path) -> ModuleType:
    """`locations.py` as it behaves when the package lies in `package`."""
    package.mkdir(parents=True, exist_ok=True)
    copy = shutil.copy(locations.__file__, package / "locations.py")
    spec = importlib.util.spec_from_file_location("locations_elsewhere", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_checkout_uses_the_folders_at_its_top() -> None:
    assert locations.CONF_DIR == REPOSITORY / "conf"
    assert locations.MODELS_DIR == REPOSITORY / "models"


def test_a_wheel_uses_the_folders_inside_the_package(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "pipeline"
    (package / "conf").mkdir(parents=True)
    (package / "models").mkdir()
    (package.parent / "conf").mkdir()  # somebody else's, which must not win

    installed = locations_inside(package)

    assert installed.CONF_DIR == package / "conf"
    assert installed.resolve_packaged("pkg://models/mynet.py") == package / "models" / "mynet.py"


def test_the_same_text_means_the_same_file_in_both(tmp_path: Path) -> None:
    package = tmp_path / "pipeline"
    (package / "models").mkdir(parents=True)
    (package / "models" / "mynet.py").write_text("NAME = 'wheel'\n")
    installed = locations_inside(package)

    for module in (locations, installed):
        resolved = module.resolve_packaged("pkg://models/mynet.py")
        assert resolved.relative_to(module.MODELS_DIR) == Path("mynet.py")


def test_the_working_directory_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locations.resolve_packaged("pkg://models/__init__.py").is_file()


@pytest.mark.parametrize("path", ["my/net.py", "/abs/net.py", "../net.py", "models/mynet.py"])
def test_other_paths_stay_as_they_are(path: str) -> None:
    assert locations.resolve_packaged(path) == Path(path)
    assert not locations.is_packaged(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("pkg://nets/a.py", "should begin with pkg://conf/ or pkg://models/"),
        ("pkg://", "should begin with"),
        ("pkg://models", "should name a file inside pkg://models/"),
        ("pkg://models/", "should name a file inside pkg://models/"),
        ("pkg://models/../pipeline/errors.py", "should name a file inside pkg://models/"),
        ("pkg://models//etc/passwd", "should name a file inside pkg://models/"),
    ],
)
def test_a_path_that_leads_out_is_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        locations.resolve_packaged(path)
