"""Factories and preparations: found, imported under a name that no folder shapes, called."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.errors import Refused
from pipeline.sources.user_code import call, find_callable

KEY = "model.factory"


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_name_of_a_file_s_module_does_not_depend_on_its_folder(tmp_path: Path) -> None:
    names = []
    for folder in ("one", "two"):
        path = written(tmp_path / folder / "net.py", "class Net: ...\n")
        names.append(find_callable(f"{path}:Net", KEY).__module__)
    assert names == ["network_file.net"] * 2


def test_a_file_named_like_an_installed_module_shadows_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "torch.py", "class Net: ...\n")
    import torch

    assert find_callable(f"{path}:Net", KEY).__module__ == "network_file.torch"
    assert sys.modules["torch"] is torch


def test_a_file_that_ships_with_the_pipeline() -> None:
    assert find_callable("pkg://models/mynet.py:MyNet", KEY).__module__ == "models.mynet"


def test_a_file_inside_a_package_is_imported_as_such(tmp_path: Path) -> None:
    written(tmp_path / "shop" / "__init__.py", "")
    written(tmp_path / "shop" / "layers.py", "WIDTH = 7\n")
    path = written(
        tmp_path / "shop" / "net.py", "from .layers import WIDTH\ndef build():\n    return WIDTH\n"
    )
    build = find_callable(f"{path}:build", KEY)
    assert (build.__module__, build()) == ("shop.net", 7)


def test_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(
        tmp_path / "my_network_module.py",
        "class Net:\n    @staticmethod\n    def build():\n        return 5\n",
    )
    monkeypatch.chdir(tmp_path)
    assert find_callable("my_network_module:Net.build", KEY)() == 5


def test_neighbours_of_two_files_are_not_mixed_up(tmp_path: Path) -> None:
    got = []
    for folder in ("one", "two"):
        written(tmp_path / folder / "layers_beside.py", f"NAME = {folder!r}\n")
        path = written(
            tmp_path / folder / "net.py",
            "import layers_beside\ndef build():\n    return layers_beside.NAME\n",
        )
        got.append(call(str(path) + ":build", KEY, find_callable(f"{path}:build", KEY)))
    assert got == ["one", "two"]


def test_a_changed_neighbour_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "net.py", "import other_beside\ndef build():\n    return other_beside.SIZE\n")
    for size in (10, 2000):
        written(tmp_path / "other_beside.py", f"SIZE = {size}\n")
        assert find_callable(f"{path}:build", KEY)() == size


def test_an_import_inside_the_call_finds_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path / "late_beside.py", "VALUE = 3\n")
    path = written(tmp_path / "net.py", "def build():\n    from late_beside import VALUE\n    return VALUE\n")
    before = list(sys.path)
    assert call(f"{path}:build", KEY, find_callable(f"{path}:build", KEY)) == 3
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            "import no_such_module_at_all\n",
            "PL-227",
            "ModuleNotFoundError: No module named 'no_such_module_at_all'",
        ),
        ("raise ValueError('not today.')\n", "PL-227", "ValueError: not today"),
        ("biuld = print\n", "PL-227", "net.py has no build"),
        ("build = 5\n", "PL-227", "is no callable"),
    ],
)
def test_what_does_not_import(tmp_path: Path, text: str, code: str, message: str) -> None:
    path = written(tmp_path / "net.py", text)
    with pytest.raises(Refused) as caught:
        find_callable(f"{path}:build", KEY)
    assert caught.value.reason.code == code
    assert message in caught.value.reason.message


def test_where_an_import_failed_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "net.py", "\n\nraise ValueError('no')\n")
    with pytest.raises(Refused) as caught:
        find_callable(f"{path}:build", KEY)
    assert caught.value.reason.where == f"{path}:3"


def test_a_call_that_fails_says_where(tmp_path: Path) -> None:
    path = written(tmp_path / "net.py", "def build(width=1):\n    raise KeyError('width')\n")
    with pytest.raises(Refused) as caught:
        call(f"{path}:build", KEY, find_callable(f"{path}:build", KEY))
    assert caught.value.reason.code == "PL-228"
    assert caught.value.reason.where == f"{path}:2"


def test_arguments_that_do_not_fit_have_a_near_name(tmp_path: Path) -> None:
    path = written(tmp_path / "net.py", "def build(width=1):\n    return width\n")
    with pytest.raises(Refused) as caught:
        call(f"{path}:build", KEY, find_callable(f"{path}:build", KEY), widht=3)
    assert str(caught.value) == (
        f"PL-228: model.args: model.factory does not take these arguments: got an unexpected keyword argument "
        f"'widht'; found {path}:build, expected build(width=1). Did you mean model.args.width?"
    )


# -- code that its digest does not see ------------------------------------------------------------


BY_NAME = (
    "import importlib\n\ndef build(kind='a'):\n    return importlib.import_module(f'{kind}_layers').WIDTH\n"
)


def test_a_module_that_no_import_statement_names_is_refused(tmp_path: Path) -> None:
    """Its changes would not be seen: the results of its earlier version would be returned."""
    written(tmp_path / "unseen_layers.py", "WIDTH = 7\n")
    net = written(tmp_path / "net.py", BY_NAME)
    with pytest.raises(Refused, match="loads a module that no import statement names") as caught:
        call(f"{net}:build", KEY, find_callable(f"{net}:build", KEY), kind="unseen")
    reason = caught.value.reason
    assert (reason.code, reason.found) == ("PL-233", "unseen_layers")
    assert reason.next_step is not None and "import unseen_layers in net.py" in reason.next_step


@pytest.mark.parametrize("statement", ["import named_layers\n", "if False:\n    import named_layers\n"])
def test_an_import_that_is_named_is_taken(tmp_path: Path, statement: str) -> None:
    sys.modules.pop("named_layers", None)
    written(tmp_path / "named_layers.py", "WIDTH = 7\n")
    net = written(tmp_path / "net.py", statement + BY_NAME)
    assert call(f"{net}:build", KEY, find_callable(f"{net}:build", KEY), kind="named") == 7


def test_a_star_does_not_hide_a_module(tmp_path: Path) -> None:
    written(tmp_path / "starry" / "__init__.py", "__all__ = ['inner']\n")
    written(tmp_path / "starry" / "inner.py", "WIDTH = 7\n")
    net = written(tmp_path / "net.py", "from starry import *\n\ndef build():\n    return inner.WIDTH\n")
    with pytest.raises(Refused, match=r"found starry\.inner"):
        find_callable(f"{net}:build", KEY)


def test_what_is_installed_is_no_business_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an environment, or where pip install --target put it."""
    (tmp_path / "target" / "things-1.0.dist-info").mkdir(parents=True)
    for place in ("target", "work/site-packages"):
        written(tmp_path / place / f"{Path(place).name.replace('-', '_')}_layers.py", "WIDTH = 7\n")
        monkeypatch.syspath_prepend(str(tmp_path / place))
    net = written(tmp_path / "work" / "net.py", BY_NAME)
    for kind in ("target", "site_packages"):
        assert call(f"{net}:build", KEY, find_callable(f"{net}:build", KEY), kind=kind) == 7


ON_THE_PATH = "import sys\nsys.path.insert(0, {folder!r})\n"


@pytest.mark.parametrize("late", [False, True])
def test_a_helper_in_a_folder_that_the_code_puts_on_the_path_is_refused(tmp_path: Path, late: bool) -> None:
    """It is in no key: the results of its earlier version were returned."""
    sys.modules.pop("deep_helper", None)
    folder = tmp_path / "lib"
    helper = written(folder / "deep_helper.py", "K = 7\n")
    text = f"{ON_THE_PATH.format(folder=str(folder))}from deep_helper import K\n"
    body = f"def build():\n{textwrap.indent(text, '    ')}    return K\n"
    net = written(tmp_path / "net.py", body if late else text + "def build():\n    return K\n")
    with pytest.raises(Refused, match="loads a module that is not found before the code runs") as caught:
        call(f"{net}:build", KEY, find_callable(f"{net}:build", KEY))
    reason = caught.value.reason
    assert (reason.code, reason.found, reason.where) == ("PL-233", "deep_helper", str(helper))
    assert reason.next_step is not None and f"PYTHONPATH={folder}" in reason.next_step


def test_code_that_is_fetched_to_another_place_is_left_to_the_warning(tmp_path: Path) -> None:
    """torch.hub and transformers load code that no import statement could name."""
    sys.modules.pop("fetched_layers", None)
    written(tmp_path / "hub" / "fetched_layers.py", "K = 7\n")
    text = f"{ON_THE_PATH.format(folder=str(tmp_path / 'hub'))}from fetched_layers import K\n"
    net = written(tmp_path / "work" / "net.py", text + "def build():\n    return K\n")
    assert call(f"{net}:build", KEY, find_callable(f"{net}:build", KEY)) == 7


def test_a_helper_on_the_path_of_the_call_is_in_the_key_and_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.modules.pop("deep_helper", None)
    written(tmp_path / "lib" / "deep_helper.py", "K = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    net = written(tmp_path / "net.py", "from deep_helper import K\n\ndef build():\n    return K\n")
    assert call(f"{net}:build", KEY, find_callable(f"{net}:build", KEY)) == 7


@pytest.mark.parametrize("bytecode", [True, False])
def test_a_helper_that_is_imported_again_later_is_the_same_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytecode: bool
) -> None:
    """Without cached code (a container, a read-only folder) it was taken for an old one and run again."""
    monkeypatch.setattr(sys, "dont_write_bytecode", not bytecode)
    sys.modules.pop("kept_helper", None)
    written(tmp_path / "kept_helper.py", "class K: pass\n")
    net = written(
        tmp_path / "net.py",
        "import kept_helper\nfirst = kept_helper.K\n\ndef build():\n    import kept_helper\n"
        "    return kept_helper.K is first\n",
    )
    assert call(f"{net}:build", KEY, find_callable(f"{net}:build", KEY)) is True


@pytest.mark.parametrize("package", [False, True])
def test_two_keys_that_name_one_file_speak_of_the_same_classes(tmp_path: Path, package: bool) -> None:
    """prepare met no instance of its own class, and did nothing, in silence."""
    folder = tmp_path / "fusing" if package else tmp_path
    if package:
        sys.modules.pop("fusing.net", None)
        sys.modules.pop("fusing", None)
        written(folder / "__init__.py", "")
    net = written(
        folder / "net.py", "class Block: pass\n\ndef build(): return Block()\n\n"
        "def prep(found): return isinstance(found, Block)\n",
    )  # fmt: skip
    built = call(f"{net}:build", KEY, find_callable(f"{net}:build", KEY))
    prepare = find_callable(f"{net}:prep", "model.prepare", again=False)
    assert call(f"{net}:prep", "model.prepare", prepare, built) is True
