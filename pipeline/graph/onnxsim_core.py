"""Running onnxsim on a small graph, with and without its Python package.

`import onnxsim` takes 0.4 to 1.7 s, and what it adds to the C++ core is not needed here. The
private road loads the core alone, under the name that the package would give it, so that a later
`import onnxsim` finds it; the public road calls `onnxsim.simplify`. Both give the same bytes.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, Final

from pipeline.graph.session import RunsOnce

_PACKAGE: Final = "onnxsim"
_CORE: Final = "onnxsim.onnxsim_cpp2py_export"
#: Read by the core; the package sets it to this around every call.
_BACKEND: Final = ("ONNXSIM_GEMM_FUSION_BACKEND", "ort_cpu")


class CoreUnavailable(ImportError):  # noqa: N818 - not an error: the public road is taken then
    """The C++ core is not where this version of onnxsim has it, or does not take what we give."""


def run_onnxsim(model: bytes, *, private_apis: bool, largest_folded: int) -> bytes:
    """Simplify a serialized model of less than 2 GB.

    Args:
        model: every graph input counts as unknown, every initializer as constant.
        largest_folded: bytes of a result that is folded at most.
        private_apis: load only the C++ core. What it does process-wide is an environment variable
            that is put back. False: only public names, which import onnxsim (and torch, where it
            is installed).

    Raises:
        Exception: whatever onnxsim raises; there is no common class.
    """
    if private_apis:
        try:
            core = _core()
        except CoreUnavailable:
            pass
        else:
            return _through_core(core, model, largest_folded)
    return _through_package(model, largest_folded)


def _through_package(model: bytes, largest_folded: int) -> bytes:
    import onnx
    import onnxsim

    simplified, _ = onnxsim.simplify(
        onnx.ModelProto.FromString(model),
        tensor_size_threshold=f"{largest_folded}B",
        import_custom_schemas=False,
        certify=False,
    )
    found: bytes = simplified.SerializeToString(deterministic=True)
    return found


def _through_core(core: ModuleType, model: bytes, largest_folded: int) -> bytes:
    import onnx

    before = os.environ.get(_BACKEND[0])
    os.environ[_BACKEND[0]] = _BACKEND[1]
    try:
        found: bytes = core.simplify(
            executor=_executor(core),
            model_bytes=model,
            skip_optimizers=[],
            constant_folding=True,
            shape_inference=True,
            tensor_size_threshold=largest_folded,
            target_opset_version=None,
            rewriter=None,
            initializers_as_constants=True,
            include_inline_functions=False,
            mutable_initializer=False,
            overwrite_input_shapes=None,
            unused_output=None,
            extra_optimizers=None,
        )
    finally:
        if before is None:
            del os.environ[_BACKEND[0]]
        else:
            os.environ[_BACKEND[0]] = before
    # The core writes map fields in no fixed order.
    again: bytes = onnx.ModelProto.FromString(found).SerializeToString(deterministic=True)
    return again


def _core() -> ModuleType:
    """The C++ core of onnxsim, without the package around it."""
    if _CORE in sys.modules:
        core = sys.modules[_CORE]
    else:
        package = importlib.util.find_spec(_PACKAGE)
        folders = package.submodule_search_locations if package else None
        spec = PathFinder.find_spec(_CORE, list(folders)) if folders else None
        if spec is None or spec.loader is None:
            raise CoreUnavailable(f"{_CORE} is not there")
        core = importlib.util.module_from_spec(spec)
        sys.modules[_CORE] = core
        try:
            spec.loader.exec_module(core)
        except BaseException:
            del sys.modules[_CORE]
            raise
    if not hasattr(core, "ModelExecutor") or not hasattr(core, "simplify"):
        raise CoreUnavailable(f"{_CORE} has another interface")
    return core


def _executor(core: ModuleType) -> Any:
    """What the core calls to compute a constant: the same settings as the package's own executor."""

    class Executor(core.ModelExecutor):  # type: ignore[misc,name-defined]
        def Run(self, model: bytes, inputs: Sequence[bytes]) -> list[bytes]:  # noqa: N802 - the core's name
            import onnx
            import onnx.numpy_helper

            values = [onnx.numpy_helper.to_array(onnx.TensorProto.FromString(data)) for data in inputs]
            found = RunsOnce(model).run(values)
            return [onnx.numpy_helper.from_array(value).SerializeToString() for value in found]

    return Executor()
