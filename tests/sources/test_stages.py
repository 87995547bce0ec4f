"""The source stage: what it keys on, what it hands over."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InternalError, Refused, StageFailed
from pipeline.events import UNSEEN, Event, Finding
from pipeline.parity.config import ParityConfig
from pipeline.parity.stages import ReferenceStage
from pipeline.samples.spec import parse_inputs
from pipeline.sources.config import ModelConfig
from pipeline.sources.identity import identify
from pipeline.sources.stages import SourceStage

MODEL = ModelConfig(
    source="factory", name="mynet", factory="pkg://models/mynet.py:build",
    inputs={"input1": {"shape": [1, 3, 28, 28]}}, outputs=("output1",),
)  # fmt: skip


class Desk:
    """The least workspace."""

    def __init__(self, folder: Path) -> None:
        self.scratch = folder
        self.values: dict[str, Any] = {}
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def get(self, name: str) -> Any:
        return self.values[name]

    def put(self, name: str, value: Any) -> None:
        self.values[name] = value

    def file(self, path: str, kind: str, *, same_every_time: bool = True) -> Path:
        raise AssertionError

    def digest(self, path: str, sha256: str) -> None: ...

    def release(self, name: str) -> None:
        del self.values[name]


def stage(model: ModelConfig = MODEL, **more: Any) -> SourceStage:
    made = SourceStage(
        model, identify(model, seed=0), parse_inputs(model.inputs), 0, "cpu", private_apis=True
    )
    return replace(made, **more)


def test_it_makes_the_network(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    one = stage()
    one.requires(desk)
    verdict = one.run(desk)
    one.ensures(desk)
    assert verdict.summary == "mynet, 51.0 k parameters"
    assert desk.values["network"].output_names == ("output1",)


def test_a_network_in_training_mode_is_not_handed_over(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    one = stage()
    one.run(desk)
    desk.values["network"].module.features[1].train()
    with pytest.raises(InternalError, match=r"features\.1"):
        one.ensures(desk)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"device": "cuda"},
        {"model": replace(MODEL, init="plain")},
        {"model": replace(MODEL, args={"x": 1})},
        {"model": replace(MODEL, outputs=("y",))},
        {"specs": parse_inputs({"input1": {"shape": [2, 3, 28, 28]}})},
        {"specs": parse_inputs(MODEL.inputs).renamed(["image"])},
    ],
)
def test_what_shapes_the_network_is_in_the_key(changed: dict[str, Any]) -> None:
    assert stage(**changed).key_parts() != stage().key_parts()


def test_what_does_not_shape_the_network_is_not_in_the_key(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(
            "from torch import nn\ndef build(): return nn.Linear(2, 2)\n"
        )
    parts = []
    for folder in ("one", "two"):
        model = ModelConfig(
            source="factory", factory=f"{tmp_path}/{folder}/net.py:build", inputs=MODEL.inputs
        )
        parts.append(stage(model, private_apis=folder == "one").key_parts())
    assert parts[0] == parts[1]


def test_the_key_is_plain_data() -> None:
    json.dumps(stage().key_parts().config)


_LETS_GO = """
import gc, weakref
gc.disable()
from tests.sources.test_stages import Desk, ModelConfig, stage
from pathlib import Path
inputs = {"image": {"shape": [1, 3, 64, 64]}}
desk = Desk(Path())
one = stage(ModelConfig(source="torchvision", name="squeezenet1_1", inputs=inputs))
one.run(desk)
network = weakref.ref(desk.values["network"].module)
assert gc.get_freeze_count() > 100_000
desk.values.clear()
gc.collect()
assert network() is None
"""


def test_the_network_can_be_let_go_of() -> None:
    """What importing leaves behind must not hold it, although collections no longer look at that."""
    subprocess.run([sys.executable, "-c", _LETS_GO], check=True, cwd=Path(__file__).parents[2])


# -- files that no key sees -----------------------------------------------------------------------

READS = """
from pathlib import Path
import json
from torch import nn


def build():
    here = Path(__file__).parent
    (here / "notes.txt").write_text("written, not read")
    return nn.Conv2d(3, json.loads((here / "widths.json").read_text())["width"], 1)
"""


@pytest.mark.parametrize("private_apis", [True, False])
def test_a_file_that_a_factory_reads_by_itself_is_said(tmp_path: Path, private_apis: bool) -> None:
    """In library use nobody listens: a hook could not be taken out again."""
    (tmp_path / "net.py").write_text(READS)
    (tmp_path / "widths.json").write_text('{"width": 4}')
    model = ModelConfig(
        source="factory", name="net", factory=f"{tmp_path}/net.py:build",
        inputs={"x": {"shape": [1, 3, 8, 8]}},
    )  # fmt: skip
    desk = Desk(tmp_path)
    stage(model, private_apis=private_apis).run(desk)
    told = [event for event in desk.events if isinstance(event, Finding) and event.level == "warning"]
    assert [event.data["files"] for event in told] == [[str(tmp_path / "widths.json")]] * private_apis
    assert all("a change of it is not noticed" in event.message for event in told)


@pytest.mark.parametrize(
    "load",
    [
        "exec((here / 'helper.py').read_text(), globals())",
        "import runpy; globals().update(runpy.run_path(str(here / 'helper.py')))",
        """import importlib.util as u
s = u.spec_from_file_location('h', here / 'helper.py')
m = u.module_from_spec(s)
s.loader.exec_module(m)
WIDTH = m.WIDTH""",
    ],
)
def test_code_that_is_run_without_an_import_is_said(tmp_path: Path, load: str) -> None:
    (tmp_path / "net.py").write_text(
        f"from pathlib import Path\nfrom torch import nn\nhere = Path(__file__).parent\n{load}\n\n"
        "def build():\n    return nn.Conv2d(3, WIDTH, 1)\n"
    )
    (tmp_path / "helper.py").write_text("WIDTH = 4\n")
    model = ModelConfig(
        source="factory", name="net", factory=f"{tmp_path}/net.py:build",
        inputs={"x": {"shape": [1, 3, 8, 8]}},
    )  # fmt: skip
    for _ in range(2):  # the second time from Python's own cache of compiled code
        desk = Desk(tmp_path)
        stage(model).run(desk)
        told = [event.data["files"] for event in desk.events if isinstance(event, Finding)]
        assert told == [[str(tmp_path / "helper.py")]]


@pytest.mark.parametrize("where", ["__init__", "forward", "both"])
def test_a_file_that_the_network_reads_by_itself_is_said_once(tmp_path: Path, where: str) -> None:
    """When it is built, or in the first run, which comes right after."""
    read = "self.factor = float(Path(__file__).with_name('factor.txt').read_text())"
    text = FORWARD.replace("pass  # __init__", read if where != "forward" else "pass")
    (tmp_path / "net.py").write_text(text.replace("pass  # forward", read if where != "__init__" else "pass"))
    (tmp_path / "factor.txt").write_text("2.0")
    for private_apis in (True, False):
        desk = referenced(tmp_path, private_apis, init="plain")
        told = [
            (one.stage, one.data) for one in desk.events if isinstance(one, Finding) and UNSEEN in one.data
        ]
        assert told == [("source", {UNSEEN: [str(tmp_path / "factor.txt")]})] * private_apis


FORWARD = """
import importlib
from pathlib import Path
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.factor = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), 2.0
        pass  # __init__

    def forward(self, x):
        pass  # forward
        return self.norm(self.conv(x)) * self.factor


def build():
    return Net()
"""


def referenced(folder: Path, private_apis: bool = True, **more: Any) -> Desk:
    """The desk after the source and the reference stage of net.py."""
    model = ModelConfig(
        source="factory",
        name="net",
        factory=f"{folder}/net.py:build",
        inputs={"x": {"shape": [1, 3, 8, 8]}},
        **more,
    )
    desk = Desk(folder)
    one = stage(model, private_apis=private_apis)
    one.run(desk)
    values = {"x": np.ones((1, 3, 8, 8), np.float32)}
    desk.values |= {"export_inputs": values, "parity_inputs": {"seed0": values}}
    ReferenceStage(ParityConfig()).run(desk)
    return desk


@pytest.mark.parametrize("init", ["live", "plain"])
def test_an_import_inside_forward_finds_its_neighbour(tmp_path: Path, init: str) -> None:
    """It was found while the file was imported alone: the run ended with advice on model.inputs."""
    (tmp_path / "beside_forward.py").write_text("FACTOR = 2.0\n")
    (tmp_path / "net.py").write_text(
        FORWARD.replace("pass  # forward", "from beside_forward import FACTOR; self.factor = FACTOR")
    )
    sys.modules.pop("beside_forward", None)
    before = list(sys.path)
    desk = referenced(tmp_path, init=init)
    assert sys.path == before
    assert [event for event in desk.events if isinstance(event, Finding) and event.level == "warning"] == []


@pytest.mark.parametrize("init", ["live", "plain"])
def test_a_module_that_forward_loads_by_a_name_no_import_says_is_refused(tmp_path: Path, init: str) -> None:
    (tmp_path / "unnamed_beside_forward.py").write_text("FACTOR = 2.0\n")
    (tmp_path / "net.py").write_text(
        FORWARD.replace(
            "pass  # forward", "importlib.import_module('_'.join(['unnamed', 'beside', 'forward']))"
        )
    )
    sys.modules.pop("unnamed_beside_forward", None)
    with pytest.raises(Refused, match=r"PL-233: .*unnamed_beside_forward"):
        referenced(tmp_path, init=init)


def test_a_module_that_forward_misses_is_not_blamed_on_the_inputs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FORWARD.replace("pass  # forward", "import no_such_module_anywhere"))
    with pytest.raises(StageFailed, match="Install no_such_module_anywhere"):
        referenced(tmp_path, init="plain")


def test_lines_that_a_traceback_shows_are_not_read_by_the_network(tmp_path: Path) -> None:
    """torch notes the stack of whoever seeds it, with every line's source."""
    (tmp_path / "other.py").write_text("x = 1\n")
    (tmp_path / "net.py").write_text(
        FORWARD.replace(
            "pass  # __init__",
            "import linecache; linecache.getlines(str(Path(__file__).with_name('other.py')))",
        )
    )
    desk = referenced(tmp_path)
    assert [event for event in desk.events if isinstance(event, Finding) and event.level == "warning"] == []


def test_files_that_keys_see_are_not_said(tmp_path: Path) -> None:
    import torch

    (tmp_path / "net.py").write_text("from torch import nn\n\ndef build():\n    return nn.Conv2d(3, 4, 1)\n")
    np.save(tmp_path / "x.npy", np.ones((1, 3, 8, 8), np.float32))
    torch.save(torch.nn.Conv2d(3, 4, 1).state_dict(), tmp_path / "w.pth")
    model = ModelConfig(
        source="factory", name="net", factory=f"{tmp_path}/net.py:build", weights=f"{tmp_path}/w.pth",
        inputs={"x": {"shape": [1, 3, 8, 8], "fill": {"file": f"{tmp_path}/x.npy"}}},
    )  # fmt: skip
    desk = Desk(tmp_path)
    stage(model).run(desk)
    assert [event for event in desk.events if isinstance(event, Finding) and event.level == "warning"] == []
