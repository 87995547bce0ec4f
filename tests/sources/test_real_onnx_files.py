"""Files that others made: those of the onnx package, and networks that ship in packages of the index.

The latter are looked for in the folder REAL_ONNX_FILES (unpacked wheels of magika, silero-vad, nudenet,
basic-pitch, rapidocr-onnxruntime), and in those packages where they are installed.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from tests.end_to_end.conftest import CommandLine, command  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
PACKAGES = ("magika", "silero_vad", "nudenet", "basic_pitch", "rapidocr_onnxruntime")
#: File to what has to be typed beside its path.
REAL = {
    "standard_v3_3/model.onnx": [],
    "320n.onnx": ["model.inputs={images: {shape: [1,3,320,320], fill: {uniform: [0,1]}}}"],
    "icassp_2022/nmp.onnx": [],
    "silero_vad_openvino_16k.onnx": [],
    "silero_vad_op18_ifless.onnx": ["model.inputs={input: {shape: [1,576]}, sr: {fill: {constant: 16000}}}"],
    "silero_vad_16k_sequence.onnx": ["parity.seeds=2"],
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": ["model.inputs={x: {shape: [1,3,48,192], dynamic: {}}}"],
    "ch_PP-OCRv4_det_infer.onnx": ["model.inputs={x: {shape: [1,3,320,320]}}"],
    "ch_PP-OCRv4_rec_infer.onnx": ["model.inputs={x: {shape: [1,3,48,320], dynamic: {}}}"],
}


def _find(name: str) -> Path | None:
    roots = [Path(os.environ["REAL_ONNX_FILES"])] if "REAL_ONNX_FILES" in os.environ else []
    for package in PACKAGES:
        spec = find_spec(package)
        roots += [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    return next(
        (path for root in roots for path in sorted(root.rglob("*.onnx")) if path.as_posix().endswith(name)),
        None,
    )


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_is_proved_against_itself(command: CommandLine, name: str) -> None:  # noqa: F811
    path = _find(name)
    if path is None:
        pytest.skip(f"{name} is not here: set REAL_ONNX_FILES to a folder with the unpacked wheels")
    done = command("model=onnx_file", f"model.path={path}", *REAL[name])
    assert done.code == 0, done.err
    manifest = done.manifest
    assert manifest["verdicts"]["parity"]["status"] == "passed"
    assert "torch" not in manifest["versions"]
    # Every initializer of the finished file has its origin in the file that came, or a step that made it.
    assert max(line["error"] for line in done.record["parity"]) < 1e-4


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_the_light_files_of_the_onnx_package(command: CommandLine, path: Path) -> None:  # noqa: F811
    """Their outputs are the same whatever goes in, which is said; accepted, everything else holds."""
    done = command("model=onnx_file", f"model.path={path}", "parity.allow_vacuous=true", "parity.seeds=2")
    assert done.code == 0, done.err
    assert done.manifest["verdicts"]["parity"]["status"] == "vacuous"
    assert done.manifest["verdicts"]["check"]["status"] == "passed"
