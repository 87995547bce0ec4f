"""MNN, through its extension modules alone.

Its console script installs packages and reports to a server when it is imported; `_tools` is the
converter that it wraps, and does neither. The converter says yes whatever happened: what counts is
what it printed, a file that was not there before, and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.targets.backend import BackendError, Compiled, Job, Runner
from pipeline.targets.captured import captured
from pipeline.targets.known_wrong import ANTIALIAS, BICUBIC_GRID, refuse_known_wrong
from pipeline.targets.mnn_files import weights_of
from pipeline.targets.program import listed, program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE: Final = "model.mnn"
SUCCESS: Final = "Converted Success!"
#: Interpreter.HintMode of MNN (Interpreter.hpp): how far convolutions may use Winograd's algorithm.
#: At MNN's own level (3) it uses large tiles: resnet50's error is 1.6e-3 there, 1.3e-5 at level 1,
#: in the same time.
WINOGRAD_HINT: Final = 3
#: MNN's word for float32 arithmetic; "low" would be half precision where the processor has it (ARM).
PRECISIONS: Final = {"float32": "high", "float16": "low"}
#: numpy's element types to MNN's; what is not there is given as another and given back.
_TYPES: Final = {
    "float32": "float", "float64": "float", "int32": "int", "int64": "int", "uint8": "uint8", "int8": "int8",
    "bool": "int", "int16": "int", "uint16": "int",
}  # fmt: skip
_GIVEN_AS: Final = {"float": "float32", "int": "int32", "uint8": "uint8", "int8": "int8"}

#: "Unsupported ops: ..." and the like, as the converter prints them.
_OPERATOR: Final = re.compile(
    r"(?:Op Type|[Cc]an't (?:convert|find) (?:op|Op)?|[Nn]ot [Ss]upport(?:ed)?(?: ONNX)? [Oo]p(?:erator)?s?|"
    r"These Op Not Support: ?ONNX::?)\s*[:\[]?\s*[\"']?(?:ONNX::)?(\w+)"
)
_TROUBLE: Final = re.compile(r"error|fail|not support|don't support|can't|unsupported", re.IGNORECASE)
_BANNER: Final = re.compile(r"MNN use (\w+) precision")

_LOAD: Final = """
def run(inputs):
    import MNN

    manager = MNN.nn.create_runtime_manager(
        ({"backend": "CPU", "numThread": THREADS, "precision": PRECISION},)
    )
    manager.set_hint(3, WINOGRAD)  # 3: WINOGRAD_MEMORY_LEVEL; its own level loses three digits
    net = MNN.nn.load_module_from_file(
        str(FOLDER / "model.mnn"), list(INPUTS), list(OUTPUTS), runtime_manager=manager
    )
    planes = MNN.expr.data_format.NCHW
    kept = [np.ascontiguousarray(inputs[name], dtype=given) for name, (given, kind) in INPUTS.items()]
    given = [
        MNN.expr.const(array, list(array.shape), planes, getattr(MNN.expr.dtype, kind))
        for array, (_, kind) in zip(kept, INPUTS.values())
    ]
    found = net.forward(given)
    found = found if isinstance(found, (list, tuple)) else [found]
    return {
        name: np.array(MNN.expr.convert(one, planes).read()).astype(dtype)  # as they come they may be NC4HW4
        for (name, dtype), one in zip(OUTPUTS.items(), found)
    }
"""

_PAGE: Final = """\
# Bundle for MNN

| file | what it is |
|---|---|
| `{file}` | network and weights |
| `inputs.npz`, `expected.npz` | one set of inputs, and what the network gives for it |
| `run.py` | loads the network, runs it and compares: `python run.py` |

Made with MNN {version}, precision {precision}.

```
pip install 'MNN>={version}' numpy
python run.py
```

- Names are those of the ONNX file:
{values}
- Inputs are given as NCHW, outputs converted to it: MNN keeps images in groups of four channels (NC4HW4).
- MNN has no 64-bit integers: they are given as int32.
- Never start the script `mnnconvert` of this package in an environment that you want to keep: it installs
  packages and reports to a server when it starts. The converter was called without it.
- GELU is computed exactly (`--useGeluApproximation 0`): MNN's default loses three digits in transformers.
- Convolutions: `set_hint(3, {winograd})` keeps Winograd's algorithm to small tiles. At MNN's own level (3) a
  deep network loses three digits.
- On ARM, `precision: low` computes in half precision; `high` is float32 everywhere. This run was on x86.
- Not covered here: OpenCL, Vulkan, Metal, NPU back ends; MNN's quantisation.
"""


@dataclass(frozen=True)
class MnnBackend:
    """See `pipeline.targets.backend.Backend`."""

    name: ClassVar[str] = "mnn"
    packages: ClassVar[tuple[str, ...]] = ("MNN",)
    extra: ClassVar[str] = "mnn"
    precisions: ClassVar[tuple[str, ...]] = ("float32", "float16")
    #: optimize_level: MNN's optimizeLevel (1: only what is right for every input); gelu_approximation:
    #: as MNN has it by default; winograd_level: see `WINOGRAD_HINT`, 0 to 3.
    option_names: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"optimize_level": 1, "gelu_approximation": False, "winograd_level": 1}
    )

    def compile(self, job: Job) -> Compiled:
        """Convert; read the weights' element type back from the file; load it."""
        refuse_known_wrong(job.model, "MNN", (ANTIALIAS, BICUBIC_GRID))
        said = _convert(job)
        weights = weights_of(job.folder / FILE)
        found = next(iter(weights), "float32")
        if "float16" in weights and job.precision == "float32":
            raise BackendError(f"MNN wrote {weights['float16']} layers with float16 weights")
        _load(job)
        import MNN

        facts = {
            "version": MNN.version(),
            "weights": weights,
            "said": [line.strip() for line in said.splitlines() if _TROUBLE.search(line)],
        }
        return Compiled((FILE,), {}, _told(found, job.precision), _proof(weights), facts)

    def load(self, job: Job, compiled: Compiled) -> Runner:
        """Load the file."""
        return _Loaded(job, *_load(job))

    def program(self, job: Job, compiled: Compiled) -> str:
        """See `pipeline.targets.program`."""
        inputs = {one.name: (_GIVEN_AS[_type(one.dtype)], _type(one.dtype)) for one in job.inputs}
        outputs = {one.name: one.dtype for one in job.outputs}
        head = (
            f"#: Name to numpy's and MNN's element type.\nINPUTS = {inputs!r}\nOUTPUTS = {outputs!r}\n"
            f"PRECISION = {PRECISIONS[job.precision]!r}\nWINOGRAD = {_winograd(job)}\n\n"
        )
        return program(
            head + _LOAD, title="MNN on the CPU", needs=f"MNN>={compiled.facts['version']}",
            tolerance=job.tolerance, threads=job.threads,
        )  # fmt: skip

    def page(self, job: Job, compiled: Compiled) -> str:
        """How to deploy."""
        return _PAGE.format(
            file=FILE, version=compiled.facts["version"], values=listed(job),
            precision=f"{compiled.precision} ({compiled.proof})", winograd=_winograd(job),
        )  # fmt: skip


BACKEND: Final = MnnBackend()


class _Loaded:
    """A network, loaded."""

    def __init__(self, job: Job, net: Any, banner: str) -> None:
        self.job = job
        self.net = net
        self.banner = banner

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All outputs by name; every input is given (a missing one would run all the same)."""
        import MNN
        import numpy as np

        planes = MNN.expr.data_format.NCHW
        kept: list[NDArray[np.generic]] = []  # a constant points into its array
        given = []
        for spec in self.job.inputs:
            kind = _type(spec.dtype)
            array = np.ascontiguousarray(inputs[spec.name], dtype=_GIVEN_AS[kind])
            if array.dtype.kind in "iu" and not np.array_equal(array, inputs[spec.name]):
                raise BackendError(
                    f"the input {spec.name} holds values that do not fit into 32 bits, MNN's integers"
                )
            kept.append(array)
            given.append(MNN.expr.const(array, list(array.shape), planes, getattr(MNN.expr.dtype, kind)))
        found = self.net.forward(given)
        found = list(found) if isinstance(found, list | tuple) else [found]
        if len(found) != len(self.job.outputs):
            raise BackendError(f"MNN gives {len(found)} outputs, the model has {len(self.job.outputs)}")
        return {
            spec.name: _taken(spec.name, spec.dtype, MNN.expr.convert(one, planes).read())
            for spec, one in zip(self.job.outputs, found, strict=True)
        }

    def precision(self) -> tuple[str, str]:
        """The weights in the file and what MNN said when it was opened: it has no call that tells."""
        weights = weights_of(self.job.folder / FILE)
        return _told(next(iter(weights), "float32"), self.job.precision), (
            f"{_proof(weights)}; MNN said that it uses {self.banner} precision"
        )


def _convert(job: Job) -> str:
    """Convert into the job's folder; what the converter printed."""
    import _tools  # type: ignore[import-not-found]

    target = job.folder / FILE
    target.unlink(missing_ok=True)
    command = [
        "mnnconvert", "-f", "ONNX", "--modelFile", str(job.model), "--MNNModel", str(target), "--bizCode", "model",
        "--optimizeLevel", str(job.options.get("optimize_level", 1)),
        "--useGeluApproximation", str(int(bool(job.options.get("gelu_approximation", False)))),
    ]  # fmt: skip
    if job.precision == "float16":
        command.append("--fp16")
    with captured() as said:
        _tools.mnnconvert(command)
    text = said[0]
    if SUCCESS not in text or not target.is_file() or target.stat().st_size == 0:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        trouble = [line for line in lines if _TROUBLE.search(line) and "Converted Failed" not in line]
        operator = _OPERATOR.search(text)
        name = operator.group(1) if operator else None
        raise BackendError(
            f"MNN did not convert the model: {(trouble or lines or ['it printed nothing'])[0][:300]}",
            node=_node_of(job, name), operator=name,
        )  # fmt: skip
    return text


def _node_of(job: Job, operator: str | None) -> str | None:
    """The first node of an operator: the converter names none."""
    import onnx

    graph = onnx.load(job.model, load_external_data=False).graph
    return next((one.name or one.output[0] for one in graph.node if one.op_type == operator), None)


def _load(job: Job) -> tuple[Any, str]:
    """The module, and which precision MNN says it uses."""
    import MNN

    settings = {"backend": "CPU", "numThread": job.threads, "precision": PRECISIONS[job.precision]}
    with captured() as said:
        try:
            manager = MNN.nn.create_runtime_manager((settings,))
            manager.set_hint(WINOGRAD_HINT, _winograd(job))
            net = MNN.nn.load_module_from_file(
                str(job.folder / FILE), [one.name for one in job.inputs], [one.name for one in job.outputs],
                runtime_manager=manager,
            )  # fmt: skip
        except Exception as error:
            raise BackendError(
                f"MNN cannot load {FILE}: {str(error).strip() or type(error).__name__}"
            ) from error
    info = net.get_info() if net is not None else None
    if not info:
        raise BackendError(f"MNN cannot load {FILE}: it gives no module")
    found = _BANNER.search(said[0])
    return net, found.group(1) if found else "normal"


def _winograd(job: Job) -> int:
    return int(job.options.get("winograd_level", 1))


def _type(dtype: str) -> str:
    if dtype not in _TYPES:
        raise BackendError(f"MNN has no element type for {dtype}")
    return _TYPES[dtype]


def _taken(name: str, dtype: str, array: Any) -> NDArray[np.generic]:
    """An array of our own in the model's element type."""
    import numpy as np

    if array is None:
        raise BackendError(f"MNN gives no output {name}")
    copied = np.array(array)
    if np.dtype(dtype).kind in "iub" and copied.dtype.kind == "f":
        raise BackendError(f"MNN gives the output {name} as {copied.dtype}, expected {dtype}")
    return np.ascontiguousarray(copied.astype(dtype))


def _told(weights: str, precision: str) -> str:
    if weights == "float32":
        return weights
    return f"{weights} weights, float32 arithmetic on x86"


def _proof(weights: Mapping[str, int]) -> str:
    counts = ", ".join(f"{number} {kind}" for kind, number in weights.items()) or "none"
    return f"weights of convolutions and products in {FILE}: {counts}"
