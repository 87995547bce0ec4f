"""torch imported without the kernels of tensors that have no data, and both roads to the same file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = "torch._meta_registrations"
#: Small enough for a test, large enough for BatchNorm, a grouped convolution and a residual.
NETWORK = ("model=torchvision", "model.name=shufflenet_v2_x0_5",
           "model.inputs={input1: {shape: [1, 3, 64, 64]}}", "parity.seeds=2", "cache.mode=none")  # fmt: skip


def run(code: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


LEAVE_OUT = (
    "import sys\n"
    "from pipeline.sources.meta_kernels import import_torch_without_meta_kernels, load_meta_kernels\n"
    "print(import_torch_without_meta_kernels())\n"
    "import torch\n"
)


def test_the_kernels_are_left_out_and_no_stand_in_stays() -> None:
    left_out, loaded, attribute, result = run(
        LEAVE_OUT + f"print([n for n in sys.modules if n == {KERNELS!r} or n.startswith('torch._decomp')])\n"
        "print(hasattr(torch, '_meta_registrations'))\n"
        "print(torch.nn.functional.relu(torch.ones(2)).tolist())\n"
    )
    assert (left_out, loaded, attribute, result) == ("True", "[]", "False", "[1.0, 1.0]")


def test_loaded_later_they_do_what_they_do_in_an_ordinary_import() -> None:
    ask = (
        "with torch.device('meta'):\n"
        "    layer, x = torch.nn.Conv2d(3, 8, 3, stride=2), torch.empty(1, 3, 9, 9)\n"
        "print(tuple(layer(x).shape), tuple(torch.linalg.eigh(torch.empty(4, 4, device='meta'))[0].shape))\n"
        "from torch._subclasses.fake_tensor import FakeTensorMode\n"
        "with FakeTensorMode():\n"
        "    print(tuple(torch.nn.functional.max_pool2d(torch.empty(1, 3, 9, 9), 2).shape))\n"
        "print(len(torch._decomp.global_decomposition_table['meta']))\n"
    )
    ordinary = run("import torch\n" + ask)
    later = run(LEAVE_OUT + f"load_meta_kernels()\nassert {KERNELS!r} in sys.modules\n" + ask)
    assert later == ["True", *ordinary]


def test_a_torch_that_uses_the_module_while_it_is_imported_gets_the_real_one() -> None:
    name, real = run(
        "import sys\n"
        "import pipeline.sources.meta_kernels as it\n"
        "stand_in = it._StandIn(it._KERNELS)\n"
        "import torch\n"
        "real = sys.modules.pop(it._KERNELS)\n"
        "sys.modules[it._KERNELS] = torch._meta_registrations = stand_in\n"
        "import importlib\n"
        "it.importlib = type('I', (), {'import_module': staticmethod(lambda name: real)})\n"
        "print(stand_in.register_meta.__name__)\n"
        "print(it._KERNELS not in sys.modules)\n"
    )
    assert (name, real) == ("register_meta", "True")


def test_a_torch_that_is_there_already_is_left_alone() -> None:
    there, kept = run(
        "import sys, torch\n"
        "from pipeline.sources.meta_kernels import import_torch_without_meta_kernels\n"
        f"before = sys.modules[{KERNELS!r}]\n"
        "print(import_torch_without_meta_kernels())\n"
        f"print(sys.modules[{KERNELS!r}] is before)\n"
    )
    assert (there, kept) == ("False", "True")


def test_the_stand_in_goes_when_the_import_fails() -> None:
    (gone,) = run(
        "import sys\n"
        "from pipeline.sources.meta_kernels import import_torch_without_meta_kernels\n"
        "sys.modules['torch._C'] = None\n"
        "try:\n"
        "    import_torch_without_meta_kernels()\n"
        "except ImportError:\n"
        f"    print({KERNELS!r} not in sys.modules)\n"
    )
    assert gone == "True"


@pytest.mark.parametrize(
    ("prepare", "private", "expected"),
    [(None, True, "left out"), ("models.mynet:build", True, "whole"), (None, False, "whole")],
)
def test_only_torchvisions_own_networks_do_without(prepare: str | None, private: bool, expected: str) -> None:
    (found,) = run(
        "import sys\n"
        "from pipeline.sources.config import ModelConfig\n"
        "from pipeline.sources.stages import _import_modules\n"
        f"_import_modules(ModelConfig(name='resnet18', prepare={prepare!r}), {private})\n"
        f"print('whole' if {KERNELS!r} in sys.modules else 'left out')\n"
    )
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["export.opset=13", "export.opset=18,export.exporter=dynamo"])
def test_both_roads_give_the_same_files(exporter: str, tmp_path: Path) -> None:
    files = []
    for private in ("true", "false"):
        out = tmp_path / private
        words = [*NETWORK, *exporter.split(","), f"private_apis={private}", f"out={out}"]
        subprocess.run([sys.executable, "-m", "pipeline", *words], check=True, capture_output=True)
        (manifest,) = out.glob("*/manifest.json")
        files.append(json.loads(manifest.read_text())["artifacts"])
    assert "model.onnx" in [file["path"] for file in files[0]]
    assert files[0] == files[1]
