"""OpenVINO on the CPU: the model as .xml and .bin, run in the precision that was asked and read back.

By default it would run in bfloat16 wherever the processor can, and save weights in float16: both
are switched off by name, and what is in force is read from the compiled model, layer by layer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.targets.backend import BackendError, Compiled, Job, Runner
from pipeline.targets.known_wrong import ANTIALIAS, refuse_known_wrong
from pipeline.targets.program import listed, program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

XML_FILE: Final = "model.xml"
BIN_FILE: Final = "model.bin"
DEVICE: Final = "CPU"
#: The only hint that a CPU keeps everywhere: "f16" is taken and becomes bfloat16, and without one
#: it is bfloat16 on processors that know it.
HINT: Final = "f32"

_TYPES: Final = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64"}
#: Layers that move or hold values; they compute nothing.
_STILL: Final = frozenset({"Const", "Input", "Output", "Reorder", "Reshape", "Transpose", "Convert"})
_UNSUPPORTED: Final = re.compile(
    r"(?:OpenVINO does not support the following ONNX operations|No conversion rule found? for operations?)"
    r":?\s*([\w.,: -]+)"
)
_NODE: Final = re.compile(r"validating ONNX node '<Node\((?P<operator>\w+)\): (?P<node>[^>]*)>'")

_LOAD: Final = """
def run(inputs):
    import openvino as ov

    core = ov.Core()
    # Without the hint a CPU that knows bfloat16 computes in it.
    model = core.compile_model(FOLDER / "model.xml", "CPU", {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY",
    })
    found = model(inputs)
    outputs = {}
    for port in model.outputs:
        for name in port.get_names():
            outputs[name] = found[port]
    return outputs
"""

_PAGE: Final = """\
# Bundle for OpenVINO

| file | what it is |
|---|---|
| `model.xml`, `model.bin` | the model in OpenVINO's own format; they belong together |
| `inputs.npz`, `expected.npz` | one set of inputs, and what the network gives for it |
| `run.py` | loads `model.xml`, runs it on the CPU and compares: `python run.py` |

Made with openvino {version}. Weights are stored in {weights}; the program computes in float32.

```
pip install 'openvino>={release}' numpy
python run.py
```

- **Set `INFERENCE_PRECISION_HINT` yourself.** Without it a CPU that knows bfloat16 computes in bfloat16
  (errors of 3e-3 to 9e-3 of the largest value on common networks). `f16` is taken on a CPU too and becomes
  bfloat16. Read the property back from the compiled model.
- **Check inputs before you call.** A missing input is no error: the model runs on whatever stands in memory.
  float64 is cast without a word.
- Names, shapes and element types of inputs and outputs are those of the ONNX file:
{values}
- Compiling the model for the device takes place where it is loaded; set `CACHE_DIR` to do it once.
- Not covered here: GPU and NPU. Give their names instead of "CPU"; the tolerance is another matter there.
"""


@dataclass(frozen=True)
class OpenVinoBackend:
    """See `pipeline.targets.backend.Backend`."""

    name: ClassVar[str] = "openvino"
    packages: ClassVar[tuple[str, ...]] = ("openvino",)
    extra: ClassVar[str] = "openvino"
    precisions: ClassVar[tuple[str, ...]] = ("float32", "float16")
    option_names: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def compile(self, job: Job) -> Compiled:
        """Read, save and compile once, so that what the device refuses is known here."""
        import openvino

        refuse_known_wrong(job.model, "OpenVINO", (ANTIALIAS,))
        core = openvino.Core()
        half = job.precision == "float16"
        try:
            model = core.read_model(str(job.model))
            openvino.save_model(model, str(job.folder / XML_FILE), compress_to_fp16=half)
            del model
            saved = core.read_model(str(job.folder / XML_FILE))
        except Exception as error:
            raise _error(error) from error
        _ports(saved.inputs, [one.name for one in job.inputs])
        _ports(saved.outputs, [one.name for one in job.outputs])
        weights = weight_types(saved)
        if not (job.folder / BIN_FILE).stat().st_size:  # a model without constants: .xml holds everything
            (job.folder / BIN_FILE).unlink()
        _compiled(core, job)
        facts = {"version": openvino.__version__.split("-")[0], "weights": weights}
        stored = next(iter(weights), job.precision)
        files = tuple(name for name in (XML_FILE, BIN_FILE) if (job.folder / name).exists())
        return Compiled(files, {}, stored, f"constants of {XML_FILE}: {_told(weights)}", facts)

    def load(self, job: Job, compiled: Compiled) -> Runner:
        """Compile the saved files for the device."""
        import openvino

        model = _compiled(openvino.Core(), job)
        inputs = _ports(model.inputs, [one.name for one in job.inputs])
        outputs = _ports(model.outputs, [one.name for one in job.outputs])
        return _Loaded(model, model.create_infer_request(), inputs, outputs, dict(compiled.facts["weights"]))

    def program(self, job: Job, compiled: Compiled) -> str:
        """See `pipeline.targets.program`."""
        return program(
            _LOAD, title="OpenVINO on the CPU", needs=f"openvino (made with {compiled.facts['version']})",
            tolerance=job.tolerance, threads=job.threads,
        )  # fmt: skip

    def page(self, job: Job, compiled: Compiled) -> str:
        """How to deploy."""
        version = str(compiled.facts["version"])
        return _PAGE.format(
            version=version, release=".".join(version.split(".")[:2]), values=listed(job),
            weights=next(iter(compiled.facts["weights"]), "float32"),
        )  # fmt: skip


BACKEND: Final = OpenVinoBackend()


@dataclass(frozen=True)
class _Loaded:
    """The model, compiled for the device.

    Attributes:
        model, request: OpenVINO's own.
        inputs, outputs: port by ONNX name.
        weights: element types in the saved file.
    """

    model: Any
    request: Any
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    weights: Mapping[str, int]

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All outputs by name."""
        try:
            found = self.request.infer({self.inputs[name]: array for name, array in inputs.items()})
        except Exception as error:
            raise _error(error) from error
        return {name: found[port] for name, port in self.outputs.items()}

    def precision(self) -> tuple[str, str]:
        """Element types of the stored weights and of the layers' kernels, as the compiled model lists them."""
        hint = str(self.model.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        layers = layer_types(self.model)
        proof = f"INFERENCE_PRECISION_HINT reads {hint}; kernels of the compiled model: {_told(layers)}"
        computed = next(iter(layers), _TYPES.get(hint, hint))
        # A few layers that only have a kernel in another type do not make it that precision.
        stored = next(iter(self.weights), computed)
        if _TYPES.get(hint, hint) not in (computed, "float32"):
            computed = _TYPES.get(hint, hint)
        return (stored if stored == computed else f"{stored} weights, {computed} arithmetic"), proof


def _compiled(core: Any, job: Job) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": HINT,
        "INFERENCE_NUM_THREADS": job.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        return core.compile_model(str(job.folder / XML_FILE), DEVICE, settings)
    except Exception as error:
        raise _error(error) from error


def _ports(ports: Any, names: list[str]) -> dict[str, Any]:
    """Port by ONNX name; it may have other names besides."""
    found = {}
    for name in names:
        port = next((one for one in ports if name in one.get_names()), None)
        if port is None:
            known = ", ".join(sorted(each for one in ports for each in one.get_names()))
            raise BackendError(f"OpenVINO lost the name {name}; it has {known or 'none'}")
        found[name] = port
    return found


def weight_types(model: Any) -> dict[str, int]:
    """Floating element type to the number of constants (two dimensions and more) that the file holds in it."""
    found: Counter[str] = Counter()
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) > 1:
            kind = str(node.get_output_element_type(0).get_type_name())
            if kind in _TYPES and node.get_output_size() and _elements(node) > 1:
                found[_TYPES[kind]] += 1
    return dict(found.most_common())


def _elements(node: Any) -> int:
    total = 1
    for size in node.get_output_shape(0):
        total *= int(size)
    return total


def layer_types(model: Any) -> dict[str, int]:
    """Floating element type to the number of kernels that compute in it ("brgconv_avx512_f32")."""
    found: Counter[str] = Counter()
    for node in model.get_runtime_model().get_ops():
        told = node.get_rt_info()
        if str(told["layerType"].astype(str)) in _STILL:
            continue
        kind = str(told["primitiveType"].astype(str)).rpartition("_")[2]
        if kind in _TYPES:
            found[_TYPES[kind]] += 1
    return dict(found.most_common())


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in counts.items()) or "no floating"


def _error(error: Exception) -> BackendError:
    """OpenVINO's own words without its source lines; the operators and the node that it names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [
        line for line in lines
        if not re.match(r"(Exception from |Check '|\[.*\.cpp|FrontEnd API failed|Exception caught)", line)
    ]  # fmt: skip
    text = " ".join(said or lines)[:400]
    if node := _NODE.search(text):
        return BackendError(text, node=node["node"], operator=node["operator"])
    found = _UNSUPPORTED.search(text)
    # "Det-17, example.Other": the first, without the operator set.
    operator = re.sub(r"-\d+$", "", found.group(1).split(",")[0].strip(" .")) if found else None
    return BackendError(text, operator=operator or None)
