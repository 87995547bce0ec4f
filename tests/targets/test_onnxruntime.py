"""ONNX Runtime's backend against the contract of all backends."""

from __future__ import annotations

from pipeline.targets.contract_tests import BackendContract
from pipeline.targets.onnxruntime import BACKEND


class TestOnnxRuntime(BackendContract):
    backend = BACKEND
