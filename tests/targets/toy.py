"""A third party's backend as it could be: onnx's reference evaluator as runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final

from pipeline.targets.backend import BackendError, Compiled, Job, Runner
from pipeline.targets.program import program

_LOAD: Final = """
def run(inputs):
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(FOLDER / "model.toy"))
    return dict(zip(evaluator.output_names, evaluator.run(None, inputs)))
"""


@dataclass(frozen=True)
class ToyBackend:
    """See `pipeline.targets.backend.Backend`."""

    name: ClassVar[str] = "toy"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "numpy")
    extra: ClassVar[str] = ""
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    option_names: ClassVar[Mapping[str, Any]] = MappingProxyType({"speed": 1})

    def compile(self, job: Job) -> Compiled:
        import onnx

        try:
            model = onnx.load(str(job.model))
            onnx.checker.check_model(model)
        except Exception as error:
            raise BackendError(f"no model: {type(error).__name__}") from error
        for node in model.graph.node:
            if node.domain not in ("", "ai.onnx"):
                raise BackendError(f"no operator {node.op_type}", node=node.name, operator=node.op_type)
        (job.folder / "model.toy").write_bytes(model.SerializeToString())
        return Compiled(("model.toy",), {}, "float32", "there is no other", {"nodes": len(model.graph.node)})

    def load(self, job: Job, compiled: Compiled) -> Runner:
        from onnx.reference import ReferenceEvaluator

        try:
            return _Loaded(ReferenceEvaluator(str(job.folder / "model.toy")))
        except Exception as error:
            raise BackendError(f"model.toy cannot be read: {type(error).__name__}") from error

    def program(self, job: Job, compiled: Compiled) -> str:
        return program(
            _LOAD, title="onnx's evaluator", needs="onnx", tolerance=job.tolerance, threads=job.threads
        )  # fmt: skip

    def page(self, job: Job, compiled: Compiled) -> str:
        return f"# Toy\n\n`python run.py` reads inputs.npz. {json.dumps(dict(compiled.facts))}\n"


@dataclass(frozen=True)
class _Loaded:
    evaluator: Any

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(
            zip(self.evaluator.output_names, self.evaluator.run(None, dict(inputs)), strict=True)
        )  # fmt: skip

    def precision(self) -> tuple[str, str]:
        return "float32", "numpy's element types"


BACKEND: Final = ToyBackend()
