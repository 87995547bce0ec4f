"""Opsets are known without importing the packages that know them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.errors import Refused
from pipeline.exporters import opsets


@pytest.mark.parametrize("opset", [opsets.LOWEST, 11, 17, 18, opsets.newest()])
def test_opsets_that_something_writes(opset):
    opsets.check_opset(opset)


@pytest.mark.parametrize(("opset", "step"), [(6, 7), (0, 7), (99, opsets.newest())])
def test_opsets_that_nothing_writes(opset, step):
    with pytest.raises(Refused) as caught:
        opsets.check_opset(opset)
    reason = caught.value.reason
    assert reason.code == "PL-300"
    assert reason.found == str(opset)
    assert reason.expected.startswith(f"7 to {opsets.newest()} (onnx ")
    assert reason.next_step == f"Type export.opset={step}"


def test_what_is_read_from_the_text_is_what_the_packages_say():
    import onnx.defs
    from torch.onnx import _constants

    assert opsets.onnx_newest() == onnx.defs.onnx_opset_version()
    assert opsets.torchscript_newest() == _constants.ONNX_MAX_OPSET
    assert opsets.TORCHSCRIPT_OPERATORS_END == _constants.ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET


def test_the_newest_opset_of_the_runtime():
    """The measured table, against the installed version."""
    import onnx.parser
    import onnxruntime

    def loads(opset: int) -> bool:
        text = (
            f'<ir_version: 8, opset_import: ["": {opset}]> g (float[2] x) => (float[2] y) {{ y = Relu(x) }}'
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(
                onnx.parser.parse_model(text).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            return False
        return True

    assert loads(opsets.onnxruntime_newest())
    assert not loads(opsets.onnxruntime_newest() + 1)


def test_first_opsets_agree_with_torchs_registry():
    from torch.onnx._internal.torchscript_exporter import registration, utils

    utils._trigger_symbolic_function_registration()
    for name, first in opsets.first_opsets().items():
        group = registration.registry.get_function_group(name)
        assert group is not None, name
        assert first in (group.get_min_supported(), 9), name
    assert opsets.first_opsets()["aten::grid_sampler"] == 16


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from pipeline.exporters import opsets, names, parameters, stages, attempts, config\n"
        "opsets.check_opset(17); opsets.first_opsets()\n"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'numpy', 'onnx_ir', 'onnxscript') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
