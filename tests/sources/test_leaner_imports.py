"""torch and torchvision imported without what an export does not need: what is left out, and that it comes back."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

LOOKUP = "from pipeline.sources.module_lookup import frames_name_their_module\n"
BINDINGS = "from pipeline.sources.cuda_bindings import without_cuda_bindings\n"
DATA_SETS = "from pipeline.sources.data_sets import without_data_sets\n"


def run(code: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


# -- inspect.getmodule -----------------------------------------------------------------------------


def test_a_frame_is_answered_without_a_search_and_inspect_is_as_it_was_afterwards() -> None:
    same, searched, restored = run(
        "import inspect, os, sys\n" + LOOKUP + "asked = []\n"
        "ordinary, realpath = inspect.getmodule, os.path.realpath\n"
        "with frames_name_their_module():\n"
        "    os.path.realpath = lambda path, **k: asked.append(path) or realpath(path, **k)\n"
        "    found = inspect.getmodule(sys._getframe())\n"
        "    os.path.realpath = realpath\n"
        "print(found is sys.modules['__main__'])\n"
        "print(len(asked))\n"
        "print(inspect.getmodule is ordinary)\n"
    )
    assert (same, searched, restored) == ("True", "0", "True")


def test_what_a_frame_does_not_say_is_looked_up_as_ever() -> None:
    # A function's module, a frame of code that runs in another namespace, and one without a name.
    answers = run(
        "import inspect, sys, json\n" + LOOKUP + "spaces = [{'__name__': 'json'}, {}]\n"
        "for space in spaces:\n"
        "    exec('import sys\\nframe = sys._getframe()', space)\n"
        "things = [json.dumps, *(space['frame'] for space in spaces)]\n"
        "before = [inspect.getmodule(thing) for thing in things]\n"
        "with frames_name_their_module():\n"
        "    print([inspect.getmodule(thing) for thing in things] == before)\n"
        "print(before[0].__name__)\n"
    )
    assert answers == ["True", "json"]


def test_torch_registers_its_kernels_under_the_same_modules_and_lines() -> None:
    ask = (
        "import torch, torch.library\n"
        "from torch._library.simple_registry import singleton\n"
        "for name, entry in sorted(singleton._data.items()):\n"
        "    kernels = entry.fake_impl.kernels\n"
        "    print(name, [str(getattr(kernel, 'source', kernel)) for kernel in kernels][:1])\n"
    )
    leaner = run(LOOKUP + "with frames_name_their_module():\n    import torch, torch._dynamo\n" + ask)
    ordinary = run("import torch, torch._dynamo\n" + ask)
    assert len(ordinary) > 5
    assert leaner == ordinary


# -- cuda-python -----------------------------------------------------------------------------------


def test_torch_does_without_cuda_python_and_says_so_to_who_wants_a_green_context() -> None:
    loaded, has, computed, again = run(
        "import sys\n" + BINDINGS + "with without_cuda_bindings():\n    import torch\n"
        "print([name for name in sys.modules if name.startswith('cuda.bindings')])\n"
        "from torch.cuda import _utils\n"
        "print(_utils._HAS_CUDA_BINDINGS)\n"
        "print(torch.nn.functional.relu(torch.ones(2)).tolist())\n"
        "import importlib.util as util\n"
        "there = util.find_spec('cuda') is not None and util.find_spec('cuda.bindings') is not None\n"
        "if there:\n    import cuda.bindings\n"
        "print('cuda.bindings' in sys.modules or not there)\n"
    )
    assert (loaded, has, computed, again) == ("[]", "False", "[1.0, 1.0]", "True")


def test_a_cuda_python_that_is_loaded_stays() -> None:
    assert run(
        "import sys, types\n"
        + BINDINGS
        + "there = sys.modules['cuda.bindings'] = types.ModuleType('cuda.bindings')\n"
        "with without_cuda_bindings():\n    print(sys.modules['cuda.bindings'] is there)\n"
        "print(sys.modules['cuda.bindings'] is there)\n"
    ) == ["True", "True"]


def test_cuda_python_can_be_imported_again_when_torch_could_not_be() -> None:
    assert run(
        "import sys\n"
        + BINDINGS
        + "try:\n    with without_cuda_bindings():\n        raise ImportError('torch')\n"
        "except ImportError:\n    print('cuda.bindings' in sys.modules)\n"
    ) == ["False"]


# -- torchvision's data sets -----------------------------------------------------------------------


def test_the_data_sets_are_left_out_until_somebody_asks_for_one() -> None:
    without, through_attribute, same, by_import = run(
        "import sys\n" + DATA_SETS + "with without_data_sets():\n    import torchvision\n"
        "print([name for name in sys.modules if name.startswith('torchvision.datasets')])\n"
        "print(torchvision.datasets.FakeData.__module__)\n"
        "import torchvision.datasets as real\n"
        "print(torchvision.datasets is real)\n"
        "from torchvision.datasets import ImageFolder\n"
        "print(ImageFolder.__name__)\n"
    )
    assert (without, through_attribute, same, by_import) == (
        "[]", "torchvision.datasets.fakedata", "True", "ImageFolder",
    )  # fmt: skip


def test_they_are_the_real_ones_for_who_imports_them_first() -> None:
    assert run(
        "import sys\n" + DATA_SETS + "with without_data_sets():\n    import torchvision\n"
        "import torchvision.datasets\nprint(type(torchvision.datasets).__name__, len(torchvision.datasets.__all__) > 50)\n"
    ) == ["module True"]


def test_a_torchvision_that_is_loaded_is_left_alone() -> None:
    assert run(
        "import torchvision, torchvision.datasets as before\n" + DATA_SETS + "with without_data_sets():\n"
        "    import torchvision.datasets\nprint(torchvision.datasets is before)\n"
    ) == ["True"]


# -- the two roads ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "private", "bindings_left_out", "data_sets_left_out"),
    [(None, True, True, True), ("models.mynet:build", True, False, True), (None, False, False, False)],
)
def test_only_torchvisions_own_networks_do_without(
    prepare: str | None, private: bool, bindings_left_out: bool, data_sets_left_out: bool
) -> None:
    # torch's CPU build comes without cuda-python: there is nothing to leave out.
    there = find_spec("cuda") is not None and find_spec("cuda.bindings") is not None
    assert run(
        "import inspect, sys\n"
        "from pipeline.sources.config import ModelConfig\n"
        "from pipeline.sources.stages import _import_modules\n"
        "ordinary = inspect.getmodule\n"
        f"_import_modules(ModelConfig(name='resnet18', prepare={prepare!r}), {private})\n"
        "import torchvision\n"
        "from torch.cuda import _utils\n"
        "print(_utils._HAS_CUDA_BINDINGS, 'torchvision.datasets' in sys.modules)\n"
        "assert inspect.getmodule is ordinary\n"
    ) == [f"{there and not bindings_left_out} {not data_sets_left_out}"]
