"""ONNX Runtime on bare graphs: the weights come in as inputs, nothing is optimised."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pipeline.graph.bare import HeldTensor
from pipeline.graph.dtypes import element_type

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS: Final = ["CPUExecutionProvider"]
#: Only errors, which come as exceptions too: a warning about an unused initializer helps nobody.
LOG_ERRORS: Final = 3
#: Element types up to complex128 are numpy's own; bfloat16 and the float8 family came later.
LAST_OF_NUMPY: Final = 15


@dataclass(frozen=True)
class RunsOnce:
    """A small model that is run once, in this thread: no thread pool, no memory planning."""

    model: bytes

    def run(self, values: Sequence[Any]) -> list[Any]:
        """Outputs as arrays; `values` in the order of the model's inputs."""
        import onnxruntime

        options = _options()
        options.enable_mem_pattern = False
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(self.model, options, providers=PROVIDERS)
        names = [value.name for value in session.get_inputs()]
        found: list[Any] = session.run(None, dict(zip(names, values, strict=True)))
        return found


def run_bare(
    model: bytes, values: Mapping[str, onnxruntime.OrtValue], *, threads: int | None = None
) -> list[Any]:
    """Every output of a bare graph as an array.

    Args:
        model: a serialized bare graph.
        values: name to tensor, for at least every graph input.
        threads: None: one for each processor that this process may use.

    Raises:
        Exception: what ONNX Runtime raises when it cannot load or run the graph.
    """
    import onnxruntime

    options = _options()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=PROVIDERS)
    names = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    found = session.run_with_ort_values(outputs, {name: values[name] for name in names})
    return [_array(value) for value in found]


def held_value(tensor: HeldTensor) -> onnxruntime.OrtValue:
    """A held tensor's bytes as ONNX Runtime takes them; no copy where `data` gives a view.

    Raises:
        TypeError: an element type smaller than a byte, which cannot be handed over.
    """
    import numpy as np
    import onnxruntime

    kind = element_type(tensor.dtype)
    if kind.bits < 8:
        raise TypeError(f"{tensor.name} has elements of {kind.bits} bits")
    raw = np.frombuffer(memoryview(tensor.data()).cast("B"), np.uint8)
    if kind.number <= LAST_OF_NUMPY:
        return onnxruntime.OrtValue.ortvalue_from_numpy(raw.view(kind.name).reshape(tensor.shape))
    shaped = raw.view(f"u{kind.bits // 8}").reshape(tensor.shape)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(shaped, tensor.dtype)


def array_value(array: Any) -> onnxruntime.OrtValue:
    """An array as ONNX Runtime takes it."""
    import numpy as np
    import onnxruntime

    # Not ascontiguousarray, which would make a vector of a scalar.
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))


def _options() -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = LOG_ERRORS
    return options


def _array(value: Any) -> Any:
    return value.numpy() if value.is_tensor() else value
