"""The contract test suite on the TensorRT backend, with the stand-ins of `fakes/` in the child processes."""

from __future__ import annotations

import json
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


_START = """
import sys
from pathlib import Path
import pipeline.targets.tensorrt.found as found
found.GPU_DEVICES = (Path("/dev/null"),)
from pipeline.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_whole_run_where_tensorrt_is(tmp_path: Path, precision: str) -> None:
    """A device file and an interpreter with the stand-in are all that is pretended."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    shutil.copy(FAKES / "tensorrt.py", packages)
    (packages / "here.pth").write_text(str(Path(np.__file__).parents[1]) + "\n")
    words = [
        "model=mynet", "target=tensorrt", f"target.python={tmp_path}/venv/bin/python", f"out={tmp_path}/out",
        f"target.precision={precision}", "cache.mode=none",
        "model.inputs={input1: {shape: [2,3,28,28], dynamic: {0: {name: batch, max: 4}}}}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _START, *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "out").glob("mynet-op17-tensorrt-*")
    verdicts = json.loads((run / "manifest.json").read_text())["verdicts"]
    for stage in ("handover", "compile", "execute", "compare", "bundle"):
        assert verdicts[stage]["status"] == "passed", stage
    assert "unverified" not in (run / "tensorrt" / "README.md").read_text()
    assert (run / "tensorrt" / "bundle" / "model.plan").is_file()


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
