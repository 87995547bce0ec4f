"""Running the written file in ONNX Runtime, as it stands: no optimisation, weights mapped from the file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError, StageFailed

Arrays = Mapping[str, NDArray[Any]]
Mode = Literal["as written", "optimised"]

#: ONNX Runtime's own lines below this severity are not printed (3: errors).
LOG_SEVERITY: Final = 3
#: Files up to this size are run once more by path, with ONNX Runtime's default optimisation:
#: 0.1 s there. Above, its copies of the weights would cost as much as everything else together.
OPTIMISED_RUN_BYTES: Final = 64 * 1024 * 1024

_STATUS: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_FAILED_NODE: Final = re.compile(r"while running (\S+) node\. Name:'(.*?)' Status Message: (.*)")
_NUMPY: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def run_onnxruntime(
    path: Path,
    samples: Mapping[str, Arrays],
    *,
    extra: Arrays | None = None,
    mode: Mode = "as written",
    after_run: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, NDArray[Any]]]:
    """The file's outputs for every set of inputs; the session is closed before this returns.

    Args:
        path: the .onnx file, with its external data beside it.
        samples: label to input name to array.
        extra: values of graph inputs that are no samples (parameters, with export.export_params=false).
        mode: "as written" runs every node of the file as it is; "optimised" opens the file by its
            path with ONNX Runtime's defaults, as its users do.
        after_run: called after each set.

    Raises:
        StageFailed: PL-510 to PL-512.
    """
    outputs = {}
    with FileSession(path, extra=extra, mode=mode) as session:
        for label, values in samples.items():
            outputs[label] = session.run(values, label)
            after_run()
    return outputs


class FileSession:
    """The file, open in ONNX Runtime while the context lasts; see `run_onnxruntime`.

    The weights are mapped from the file: it must be closed before anyone renames or removes it.
    """

    def __init__(self, path: Path, *, extra: Arrays | None = None, mode: Mode = "as written") -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_SEVERITY
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Its arena grows in powers of two: weights would take up to twice their size there.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        source: str | bytes = str(path)
        if mode == "as written":
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
            )
            source = _view(path)
        self._extra = extra or {}
        try:
            self._session: Any = onnxruntime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except MemoryError:
            raise
        except Exception as error:
            raise _does_not_load(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def run(self, values: Arrays, label: str) -> dict[str, NDArray[Any]]:
        """The outputs for one set of inputs, by name; they own their memory.

        Args:
            values: input name to array.
            label: which inputs these are, for messages.

        Raises:
            StageFailed: PL-511, PL-512.
        """
        feed = _feed(self._session.get_inputs(), values, self._extra)
        names = [output.name for output in self._session.get_outputs()]
        try:
            arrays = self._session.run(None, feed)
        except MemoryError:
            raise
        except Exception as error:
            raise _does_not_run(label, error) from error
        return {name: np.array(array) for name, array in zip(names, arrays, strict=True)}


def _view(path: Path) -> bytes:
    """A small model whose large tensors point into the file."""
    from pipeline.graph.view import view_for_runtime
    from pipeline.graph.wire import MalformedError

    try:
        return view_for_runtime(path)
    except MalformedError as error:
        raise StageFailed("PL-510", f"the file is no ONNX model: {error}", where=path.name) from error


def _feed(inputs: Any, values: Arrays, extra: Arrays) -> dict[str, NDArray[Any]]:
    """What the session is given: every input of the file, also one that nothing uses."""
    names = [value.name for value in inputs]
    gone = [name for name in values if name not in names]
    missing = [name for name in names if name not in values and name not in extra]
    if gone or missing:
        text = f"the file has no input {gone[0]}" if gone else f"the file asks for an input {missing[0]}"
        raise StageFailed(
            "PL-512", text, found=", ".join(names) or "no input", expected=", ".join(values) or "no input"
        )
    feed = {}
    for value in inputs:
        array = values[value.name] if value.name in values else extra[value.name]
        kind = _NUMPY.get(value.type, value.type)
        if array.dtype.name != kind:
            raise StageFailed(
                "PL-512", "an input has another element type in the file",
                where=value.name, found=kind, expected=array.dtype.name,
            )  # fmt: skip
        sizes = list(value.shape)
        fixed = [
            (have, want) for have, want in zip(array.shape, sizes, strict=False) if isinstance(want, int)
        ]
        if len(sizes) != array.ndim or any(have != want for have, want in fixed):
            raise StageFailed(
                "PL-512", "an input has another shape in the file",
                where=value.name, found=_shape(sizes), expected=_shape(list(array.shape)),
            )  # fmt: skip
        feed[value.name] = array
    return feed


def _shape(sizes: list[Any]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]"


def _does_not_load(path: Path, error: Exception) -> PipelineError:
    return StageFailed(
        "PL-510",
        f"ONNX Runtime does not load the file: {_first_line(error)}",
        where=path.name,
        next_step="Choose another export.opset, or type simplify=none to see whether the simplifier did it",
    )


def _does_not_run(label: str, error: Exception) -> PipelineError:
    text, node = _first_line(error), None
    found = _FAILED_NODE.search(text)
    if found:
        kind, name, text = found.groups()
        node = f"{kind} {name}".strip()
        # ONNX Runtime names the file, function and condition of its own source first.
        text = text.rpartition("was false. ")[2]
    return StageFailed(
        "PL-511",
        f"ONNX Runtime fails while it runs the file: {text}",
        where=f"inputs {label}" + (f", node {node}" if node else ""),
        next_step="Type export.exporter=dynamo or torchscript to try the other exporter, or mend the file where it "
        "came from",
    )


def _first_line(error: Exception) -> str:
    """The exception's own words without ONNX Runtime's status code."""
    text = (str(error).strip().splitlines() or ["no message"])[0]
    return _STATUS.sub("", text).rstrip(". ")
