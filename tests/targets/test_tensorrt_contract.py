"""The contract test suite on the TensorRT backend, with the stand-ins of `fakes/` in the child processes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.targets.contract_tests import BackendContract
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
