"""The contract test suite on the TensorRT backend, with the stand-ins of `fakes/` in the child processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.targets.contract_tests import BackendContract, Trial
from pipeline.targets.tensorrt import BACKEND

FAKES = Path(__file__).parent / "fakes"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="the CUDA stand-in needs a C compiler"),
]


@pytest.fixture(scope="module", autouse=True)
def _stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    library = tmp_path_factory.mktemp("cudart") / "libcudart.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(FAKES / "cudart.c")], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDART", str(library))
        patch.setenv("FAKE_TENSORRT_VERSION", "11.4.0.106")
        patch.setenv("PYTHONPATH", str(FAKES))
        yield


class TestTensorRt(BackendContract):
    backend = BACKEND

    def test_bundle_program_and_page(self, two: Trial, tmp_path: Path) -> None:
        """As the suite has it, but with the stand-ins, which an isolated interpreter would not see."""
        folder = two.bundle(two.made)
        words = [sys.executable, str(folder / "run.py")]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        expected = dict(np.load(folder / "expected.npz"))
        expected["pooled"] = expected["pooled"] * np.float32(1.1)
        np.savez(folder / "expected.npz", **expected)
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 1
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert "run.py" in text
        assert "inputs.npz" in text

    def test_it_is_made_without_arguments(self) -> None:
        """Unlike every other it names no package: no index has TensorRT, it is found at run time."""
        assert type(BACKEND)() == BACKEND
        assert BACKEND.packages == ()
