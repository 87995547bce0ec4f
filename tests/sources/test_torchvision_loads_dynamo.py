"""The defect: torchvision loads torch._dynamo (1000 modules, 1.2 s) for one function it hardly calls."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_stand_ins_keep_dynamo_out_and_are_gone_afterwards() -> None:
    out = run(
        "import sys\n"
        "from pipeline.sources.imports import import_torchvision\n"
        "models = import_torchvision(private_apis=True)\n"
        "print(models.__name__, [name for name in sys.modules if name.startswith('torch._dynamo')])\n"
    )
    assert out.split("\n")[0] == "torchvision.models []"


def test_without_private_interfaces_the_import_is_the_ordinary_one() -> None:
    out = run(
        "import sys\n"
        "from pipeline.sources.imports import import_torchvision\n"
        "import_torchvision(private_apis=False)\n"
        "import torch._dynamo.utils as utils\n"
        "print(sys.modules['torchvision.ops.roi_align'].is_compile_supported is utils.is_compile_supported)\n"
    )
    assert out.strip() == "True"


@pytest.mark.slow
def test_what_really_needs_dynamo_afterwards_gets_the_real_one() -> None:
    out = run(
        "import sys, torch\n"
        "from pipeline.sources.imports import import_torchvision\n"
        "models = import_torchvision(private_apis=True)\n"
        "print(sys.modules['torchvision.ops.roi_align'].is_compile_supported('cpu'))\n"
        "import torch._dynamo\n"
        "print(len([name for name in sys.modules if name.startswith('torch._dynamo.')]) > 20)\n"
        "compiled = torch.compile(torch.nn.Linear(2, 2), backend='eager')\n"
        "print(tuple(compiled(torch.zeros(1, 2)).shape))\n"
        "program = torch.export.export(models.squeezenet1_1().eval(), (torch.zeros(1, 3, 64, 64),))\n"
        "print(len(program.graph.nodes) > 50)\n"
    )
    assert out.split() == ["True", "True", "(1,", "2)", "True"]


def test_a_loaded_dynamo_is_left_alone() -> None:
    out = run(
        "import sys, types\n"
        "import torch\n"
        "fake = types.ModuleType('torch._dynamo'); sys.modules['torch._dynamo'] = fake\n"
        "from pipeline.sources.imports import _without_dynamo\n"
        "with _without_dynamo():\n"
        "    print(sys.modules['torch._dynamo'] is fake)\n"
        "print(sys.modules['torch._dynamo'] is fake)\n"
    )
    assert out.split() == ["True", "True"]


def test_the_stand_ins_go_when_the_import_fails() -> None:
    out = run(
        "import sys, torch\n"
        "from pipeline.sources.imports import _without_dynamo\n"
        "try:\n"
        "    with _without_dynamo():\n"
        "        raise ImportError('no torchvision')\n"
        "except ImportError:\n"
        "    print([name for name in sys.modules if name.startswith('torch._dynamo')])\n"
    )
    assert out.strip() == "[]"
