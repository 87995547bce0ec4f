"""ONNX Runtime: the optimised model as .onnx and .ort; the .ort is what is loaded and run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.targets.backend import BackendError, Compiled, Job, Runner
from pipeline.targets.program import listed, program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORT_FILE: Final = "model.ort"
ONNX_FILE: Final = "model.optimised.onnx"
#: Errors alone: warnings name the processor and the like.
LOG_SEVERITY: Final = 3
PROVIDER: Final = "CPUExecutionProvider"

_FLOATS: Final = {"float": "float32", "float16": "float16", "double": "float64", "bfloat16": "bfloat16"}
#: Operators that move values and compute nothing: they have kernels for every type.
_STILL: Final = frozenset({
    "Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
    "Pad", "Reshape", "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_STATUS: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LOADING: Final = re.compile(r"^Load model from .*? failed: ?")
#: How ONNX Runtime names what it does not take: operator, node.
_NAMED: Final = (
    re.compile(r"Fatal error: (?P<operator>\S+?)\(-?\d+\) is not a registered"),
    re.compile(r"implementation for (?P<operator>[\w.:]+)\(\d+\) node with name '(?P<node>[^']*)'"),
    re.compile(r"[Nn]ode ?\((?P<node>[^)]*)\) Op \((?P<operator>\w+)\)"),
    re.compile(r"while running (?P<operator>\w+) node\. Name:'(?P<node>[^']*)'"),
    re.compile(r"No Op registered for (?P<operator>\w+)"),
)

_LOAD: Final = """
def run(inputs):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised already
    session = ort.InferenceSession(
        str(FOLDER / "model.ort"), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs)))
"""

_PAGE: Final = """\
# {title}

| file | what it is |
|---|---|
| `model.ort` | the optimised model in ONNX Runtime's own format: what was loaded again, run and compared |
| `model.optimised.onnx` | the same as an ONNX file, to look at or to load by path |
| `inputs.npz`, `expected.npz` | one set of inputs, and what the network gives for it |
| `run.py` | loads `model.ort`, runs it and compares: `python run.py` |

Made with onnxruntime {version}, optimisation level {level}. Weights are stored in {weights}.

```
pip install onnxruntime=={version} numpy
python run.py
```

- Names, shapes and element types of inputs and outputs are those of the ONNX file:
{values}
- Both files belong to this version of ONNX Runtime. {portable}
- Open `model.ort` with optimisation off (`ORT_DISABLE_ALL`): it has been done.
- On a CPU ONNX Runtime computes in float32 where it has no kernel in float16, between casts.
- Not covered here: other execution providers (CUDA, TensorRT, CoreML, NNAPI), which optimise for themselves
  and want the run directory's `model.onnx`, and minimal builds.
"""


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """See `pipeline.targets.backend.Backend`."""

    name: ClassVar[str] = "onnxruntime"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    extra: ClassVar[str] = ""
    precisions: ClassVar[tuple[str, ...]] = ("float32", "float16")
    #: level: how far ONNX Runtime optimises the saved model; "all" ties it to this processor.
    option_names: ClassVar[Mapping[str, Any]] = MappingProxyType({"level": "extended"})

    def compile(self, job: Job) -> Compiled:
        """Save the optimised model in both formats, and read its element types back."""
        import onnxruntime

        source = job.model
        level, how = _level(job)
        facts: dict[str, Any] = {"level": level, "version": onnxruntime.__version__}
        if job.precision == "float16":
            from pipeline.targets.float16 import Float16Error, to_float16

            source = job.scratch / "float16.onnx"
            try:
                facts["float16"] = to_float16(job.model, source).to_json()
            except Float16Error as error:
                raise BackendError(str(error), node=error.node, operator=error.operator) from error
        for name in (ORT_FILE, ONNX_FILE):
            options = _options(job)
            options.graph_optimization_level = how
            options.optimized_model_filepath = str(job.folder / name)
            if name == ORT_FILE:
                options.add_session_config_entry("session.save_model_format", "ORT")
            _session(source, options)
        weights = weight_types(job.folder / ONNX_FILE)
        facts["weights"] = weights
        others = sorted(file.name for file in job.folder.iterdir() if file.name != ORT_FILE)
        found = next(iter(weights), job.precision)
        proof = f"weights of {ONNX_FILE}: {_told(weights)}"
        return Compiled((ORT_FILE,), {}, found, proof, facts, others=tuple(others))

    def load(self, job: Job, compiled: Compiled) -> Runner:
        """Open the .ort as it stands."""
        session = _session(job.folder / ORT_FILE, _as_it_stands(job))
        if (found := session.get_providers()) != [PROVIDER]:
            raise BackendError(f"the session runs on {', '.join(found)} instead of {PROVIDER}")
        return _Loaded(job, session, dict(compiled.facts["weights"]))

    def program(self, job: Job, compiled: Compiled) -> str:
        """See `pipeline.targets.program`."""
        return program(
            _LOAD,
            title="ONNX Runtime on the CPU",
            needs=f"onnxruntime (made with {compiled.facts['version']})",
            tolerance=job.tolerance,
            threads=job.threads,
        )

    def page(self, job: Job, compiled: Compiled) -> str:
        """How to deploy."""
        tied = compiled.facts["level"] == "all"
        return _PAGE.format(
            title="Bundle for ONNX Runtime",
            version=compiled.facts["version"],
            level=compiled.facts["level"],
            weights=next(iter(compiled.facts["weights"]), "the types of the ONNX file"),
            portable="At level all they also belong to this kind of processor." if tied else
            "At this level nothing in them belongs to one kind of processor.",
            values=listed(job),
        )  # fmt: skip


BACKEND: Final = OnnxRuntimeBackend()


class _Loaded:
    """The .ort, open."""

    def __init__(self, job: Job, session: Any, weights: Mapping[str, int]) -> None:
        self.job = job
        self.session = session
        self.weights = weights
        self.last: dict[str, Any] = {}

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All outputs by name."""
        self.last = dict(inputs)
        return _run(self.session, self.last)

    def precision(self) -> tuple[str, str]:
        """Element types of the weights, and of what the kernels took in one more, profiled run."""
        options = _as_it_stands(self.job)
        options.enable_profiling = True
        options.profile_file_prefix = str(self.job.scratch / "profile")
        session = _session(self.job.folder / ORT_FILE, options)
        _run(session, self.last)
        kernels = kernel_types(Path(session.end_profiling()))
        proof = (
            f"profile of a run of {ORT_FILE}: {_told(kernels)} kernels; providers {session.get_providers()}"
        )
        stored, computed = next(iter(self.weights), None), next(iter(kernels), None)
        if stored is None or computed is None or stored == computed:
            return stored or computed or "float32", proof
        return f"{stored} weights, {computed} arithmetic", proof


def _options(job: Job) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_SEVERITY
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    return options


def _level(job: Job) -> tuple[str, Any]:
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    known = {
        "disable": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }
    name = str(job.options.get("level", "extended"))
    if name not in known:
        raise BackendError(
            f"there is no optimisation level {name}: type target.options.level={'|'.join(known)}"
        )
    return name, known[name]


def _session(path: Path, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
    except Exception as error:
        raise _error(error) from error


def _error(error: Exception) -> BackendError:
    text = (str(error).strip().splitlines() or ["no message"])[0]
    text = _LOADING.sub("", _STATUS.sub("", text)).rstrip(". ")
    named = next((found.groupdict() for pattern in _NAMED if (found := pattern.search(text))), {})
    return BackendError(text, node=named.get("node") or None, operator=named.get("operator") or None)


def _run(session: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(None, inputs), strict=True))
    except Exception as error:
        raise _error(error) from error


def _as_it_stands(job: Job) -> Any:
    import onnxruntime

    options = _options(job)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def weight_types(path: Path) -> dict[str, int]:
    """Floating element type to the number of weights (two dimensions and more), the most frequent first."""
    from pipeline.graph.dtypes import element_type
    from pipeline.graph.view import read_layout

    found: Counter[str] = Counter()
    for tensor in read_layout(path).parsed().graph.initializer:
        name = element_type(tensor.data_type).name
        if len(tensor.dims) > 1 and "float" in name:
            found[name] += 1
    return dict(found.most_common())


def kernel_types(profile: Path) -> dict[str, int]:
    """Floating element type to the number of kernels that took it, read from a profile; moving is no arithmetic."""
    found: Counter[str] = Counter()
    for event in json.loads(profile.read_text(encoding="utf-8")):
        arguments = event.get("args", {})
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        kinds = [kind for one in arguments.get("input_type_shape", ()) for kind in one if kind in _FLOATS]
        if kinds and arguments.get("op_name") not in _STILL:
            found[_FLOATS[kinds[0]]] += 1
    return dict(found.most_common())


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in counts.items()) or "no floating"
