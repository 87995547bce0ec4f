"""ncnn, through pnnx: converted by pnnx's executable, loaded and run by ncnn's binding.

Neither tells when it fails: pnnx ends with 0 whatever it left out, ncnn's binding returns codes, and
both halve the precision on their own. What is checked here is said where it is checked.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.targets.backend import BackendError, Compiled, Job, Runner, TensorSpec
from pipeline.targets.known_wrong import ANTIALIAS, refuse_known_wrong
from pipeline.targets.ncnn_files import (
    Blob,
    Param,
    layouts_of,
    read_param,
    weights_precision,
)
from pipeline.targets.program import program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARAM: Final = "model.ncnn.param"
BIN: Final = "model.ncnn.bin"
#: pnnx's names for element types of inputs.
_SUFFIXES: Final = {
    "float32": "f32", "float64": "f64", "float16": "f16", "int64": "i64", "int32": "i32", "int16": "i16",
    "int8": "i8", "uint8": "u8", "bool": "bool",
}  # fmt: skip
#: The switches of ncnn's arithmetic and storage in half precision; all on as it comes.
HALF_SWITCHES: Final = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")
#: Lines in which pnnx says that it left something out.
_LEFT_OUT: Final = re.compile(
    r"ignore \S+ \S+ param|not supported|unsupported|not implemented", re.IGNORECASE
)
_ESCAPES: Final = re.compile(r"\x1b?\[[0-9;]*m")

_LOAD: Final = """
def run(inputs):
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = THREADS
    net.opt.use_vulkan_compute = False
    for switch in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, switch, HALF)  # all on as they come; before load_param
    if net.load_param(str(FOLDER / "model.ncnn.param")) or net.load_model(str(FOLDER / "model.ncnn.bin")):
        raise SystemExit("ncnn cannot load the model")
    outputs = {}
    with net.create_extractor() as extractor:
        kept = []  # a Mat points into its array: keep both
        for name, (blob, batch) in INPUTS.items():
            array = np.ascontiguousarray(inputs[name], dtype=WIDTHS.get(str(inputs[name].dtype)))
            kept.append(array)
            mat = ncnn.Mat(array) if batch is None else ncnn.Mat(array, batch_index=batch)
            if extractor.input(blob, mat.clone()):
                raise SystemExit(f"ncnn refuses the input {name}")
        for name, (blob, batch, dtype) in OUTPUTS.items():
            code, mat = extractor.extract(blob)
            if code or mat.empty():
                raise SystemExit(f"ncnn gives no output {name} (code {code})")
            array = mat.numpy() if batch is None else mat.numpy(batch_index=batch)
            outputs[name] = array.copy().astype(dtype)
    return outputs
"""

_PAGE: Final = """\
# Bundle for ncnn

| file | what it is |
|---|---|
| `{param}` | the network, as text |
| `{bin}` | its weights |
| `names.json` | name of each input and output in the ONNX file to its blob: ncnn calls them in0, out0 ... |
| `inputs.npz`, `expected.npz` | one set of inputs, and what the network gives for it |
| `run.py` | loads the network, runs it and compares: `python run.py` |

Converted with pnnx {pnnx}, run with ncnn {ncnn}, precision {precision}.

```
pip install 'ncnn>={ncnn}' numpy
python run.py
```

- Map blobs by the number in their name, not by the order of `output_names()`:
{names}
- **Precision.** ncnn's options use_fp16_packed, use_fp16_storage and use_fp16_arithmetic are on as it comes,
  also on x86: set them before load_param as run.py does, or results are those of half precision.
- ncnn checks neither the sizes of inputs nor which is which: wrong ones give wrong numbers and code 0.
- Sizes other than those of this run: {sizes}.
- Not covered here: ARM, Vulkan, int8 (ncnn2table), and your phone. Other processors have other kernels:
  run the comparison there.
"""


@dataclass(frozen=True)
class NcnnBackend:
    """See `pipeline.targets.backend.Backend`."""

    name: ClassVar[str] = "ncnn"
    packages: ClassVar[tuple[str, ...]] = ("ncnn", "pnnx")
    extra: ClassVar[str] = "ncnn"
    precisions: ClassVar[tuple[str, ...]] = ("float32", "float16")
    #: optlevel: how far pnnx optimises (0 to 2).
    option_names: ClassVar[Mapping[str, Any]] = MappingProxyType({"optlevel": 2})

    def compile(self, job: Job) -> Compiled:
        """Convert; believe nothing but the files that were not there before, and what stands in them."""
        refuse_known_wrong(job.model, "pnnx", (ANTIALIAS,))
        said = _convert(job)
        scratch = job.scratch
        param = read_param((scratch / PARAM).read_text(encoding="utf-8"))
        left_out = sorted({line.strip() for line in said.splitlines() if _LEFT_OUT.search(line)})
        _expect_known_layers(param, left_out)
        inputs, outputs = _blobs(job, param, (scratch / "model_ncnn.py").read_text(encoding="utf-8"))
        found, proof = weights_precision(scratch / BIN)
        if found == "float16" and job.precision == "float32":
            raise BackendError(f"pnnx wrote {found} weights where {job.precision} was asked")
        for name in (PARAM, BIN):
            (scratch / name).rename(job.folder / name)
        _open(job)
        facts = {
            "versions": _versions(),
            "inputs": {name: [blob.name, blob.batch] for name, blob in inputs.items()},
            "outputs": {name: [blob.name, blob.batch] for name, blob in outputs.items()},
            "left_out": left_out,
            "layers": len(param.layers),
        }
        names = {name: blob.name for name, blob in (inputs | outputs).items()}
        return Compiled((PARAM, BIN), names, found, proof, facts)

    def load(self, job: Job, compiled: Compiled) -> Runner:
        """Load the two files."""
        return _Loaded(job, _open(job), compiled.facts)

    def program(self, job: Job, compiled: Compiled) -> str:
        """See `pipeline.targets.program`."""
        dtypes = {one.name: one.dtype for one in job.outputs}
        outputs = {name: (*blob, dtypes[name]) for name, blob in compiled.facts["outputs"].items()}
        inputs = {name: tuple(blob) for name, blob in compiled.facts["inputs"].items()}
        head = (
            "#: ONNX name to blob and the axis that is the batch.\n"
            f"INPUTS = {inputs!r}\nOUTPUTS = {outputs!r}\nHALF = {job.precision == 'float16'}\n"
            f"#: ncnn knows no 64-bit elements.\nWIDTHS = {_WIDTHS!r}\n\n"
        )
        return program(
            head + _LOAD, title="ncnn on the CPU", needs=f"ncnn>={compiled.facts['versions']['ncnn']}",
            tolerance=job.tolerance, threads=job.threads,
        )  # fmt: skip

    def page(self, job: Job, compiled: Compiled) -> str:
        """How to deploy."""
        names = "\n".join(
            f"  - `{compiled.names[one.name]}` is the {kind} `{one.name}`: {one.dtype} {list(one.shape)}"
            for kind, specs in (("input", job.inputs), ("output", job.outputs))
            for one in specs
        )
        dynamic = any(isinstance(size, str) for one in job.inputs for size in one.shape)
        return _PAGE.format(
            param=PARAM, bin=BIN, names=names, precision=f"{compiled.precision} ({compiled.proof})",
            sizes="the named axes; pnnx was told two sizes of each" if dynamic else "none; convert anew",
            **compiled.facts["versions"],
        )  # fmt: skip


BACKEND: Final = NcnnBackend()

#: What a Mat cannot hold, and what is given instead.
_WIDTHS: Final = {"int64": "int32", "float64": "float32"}


class _Loaded:
    """A network, loaded."""

    def __init__(self, job: Job, net: Any, facts: Mapping[str, Any]) -> None:
        self.job = job
        self.net = net
        self.inputs = {name: Blob(*blob) for name, blob in facts["inputs"].items()}
        self.outputs = {name: Blob(*blob) for name, blob in facts["outputs"].items()}

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All outputs by ONNX name."""
        import ncnn

        found: dict[str, NDArray[np.generic]] = {}
        kept: list[NDArray[np.generic]] = []  # a Mat points into its array, also after clone() of a temporary
        with self.net.create_extractor() as extractor:
            for spec in self.job.inputs:
                blob = self.inputs[spec.name]
                array = _narrowed(spec, inputs[spec.name])
                kept.append(array)
                mat = ncnn.Mat(array) if blob.batch is None else ncnn.Mat(array, batch_index=blob.batch)
                if code := extractor.input(blob.name, mat.clone()):
                    raise BackendError(f"ncnn does not take the input {spec.name} ({blob.name}): code {code}")
            for spec in self.job.outputs:
                blob = self.outputs[spec.name]
                code, mat = extractor.extract(blob.name)
                if code:
                    raise BackendError(
                        f"ncnn does not give the output {spec.name} ({blob.name}): code {code}"
                    )
                if mat.empty() or mat.elemsize == 0:
                    raise BackendError(
                        f"ncnn gives an empty output {spec.name} ({blob.name}) with code 0: a layer before it "
                        "does not do what pnnx wrote down"
                    )
                array = mat.numpy() if blob.batch is None else mat.numpy(batch_index=blob.batch)
                found[spec.name] = _fitted(spec, array.copy())
        return found

    def precision(self) -> tuple[str, str]:
        """The weights' flags in the file, and the switches as the network has them now."""
        weights, proof = weights_precision(self.job.folder / BIN)
        switches = {name: bool(getattr(self.net.opt, name)) for name in HALF_SWITCHES}
        on = [name for name, value in switches.items() if value]
        if bool(on) == (weights == "float16"):
            found = weights
        else:
            found = f"{weights} weights, {'float16' if on else 'float32'} arithmetic"
        return found, f"{proof}; options in force: {', '.join(on) or 'none'} of {', '.join(HALF_SWITCHES)}"


def _convert(job: Job) -> str:
    """Run pnnx in the scratch folder; what it printed."""
    import importlib.util

    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        raise BackendError("pnnx has no folder of its own: its executable cannot be found")
    # The executable itself: the script beside it imports pnnx's Python side, and that imports torch.
    executable = Path(found.submodule_search_locations[0]) / "pnnx"
    model = job.scratch / "model.onnx"
    for file in job.model.parent.glob(f"{job.model.name}*"):  # external data lies beside it
        (job.scratch / file.name.replace(job.model.name, "model.onnx", 1)).symlink_to(file.absolute())
    shapes = ",".join(_shape(one, one.example) for one in job.inputs)
    command = [str(executable), "model.onnx", f"inputshape={shapes}"]
    if any(isinstance(size, str) for one in job.inputs for size in one.shape):
        command.append("inputshape2=" + ",".join(_shape(one, _other_sizes(one)) for one in job.inputs))
    command += [f"fp16={int(job.precision == 'float16')}", f"optlevel={job.options.get('optlevel', 2)}"]
    done = subprocess.run(
        command, cwd=model.parent, capture_output=True, text=True, errors="replace", check=False
    )
    said = _ESCAPES.sub("", done.stdout + done.stderr)
    sys.stdout.write(said)
    missing = [name for name in (PARAM, BIN, "model_ncnn.py") if not (job.scratch / name).is_file()]
    if done.returncode != 0 or missing:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        operator = re.search(
            r"(?:No Op registered for|Unrecognized op(?:erator)?|node type) ['\"]?([\w:.]+)", said
        )
        raise BackendError(
            f"pnnx ended with {done.returncode}{f' and left no {missing[0]}' if missing else ''}: "
            f"{lines[-1] if lines else 'it printed nothing'}",
            operator=operator.group(1) if operator else None,
        )
    return said


def _shape(spec: TensorSpec, sizes: tuple[int, ...]) -> str:
    if spec.dtype not in _SUFFIXES:
        raise BackendError(f"pnnx has no name for the element type {spec.dtype} of the input {spec.name}")
    return f"[{','.join(str(size) for size in sizes)}]{_SUFFIXES[spec.dtype]}"


def _other_sizes(spec: TensorSpec) -> tuple[int, ...]:
    """A second size for every dynamic axis: the largest that was asked for, else twice the first."""
    largest = spec.largest or tuple(2 * size for size in spec.example)
    return tuple(
        size if isinstance(name, int) else (most if most != size else 2 * size)
        for name, size, most in zip(spec.shape, spec.example, largest, strict=True)
    )


def _expect_known_layers(param: Param, left_out: list[str]) -> None:
    """What it could not convert pnnx leaves in the network under its own name, and ends with 0."""
    import ncnn

    unknown = [layer for layer in param.layers if ncnn.layer_to_index(layer.kind) < 0]
    if unknown:
        kinds = sorted({layer.kind for layer in unknown})
        why = f" ({left_out[0]})" if left_out else ""
        raise BackendError(
            f"ncnn has no layer for {', '.join(kinds)}, which pnnx left in the network{why}",
            node=unknown[0].name, operator=unknown[0].kind,
        )  # fmt: skip


def _blobs(job: Job, param: Param, program_text: str) -> tuple[dict[str, Blob], dict[str, Blob]]:
    """Blob of each input and output by the number in its name, with the axis that pnnx takes for the batch."""
    batches = layouts_of(program_text)
    found: list[dict[str, Blob]] = []
    for kind, specs in (("in", job.inputs), ("out", job.outputs)):
        names = param.numbered(kind)
        wanted = [f"{kind}{number}" for number in range(len(specs))]
        if sorted(names) != sorted(wanted):
            raise BackendError(
                f"pnnx wrote the {kind}puts {', '.join(sorted(names)) or 'none'} where the model has "
                f"{len(specs)}: one is unused or was merged with another"
            )
        found.append({
            spec.name: Blob(name, batches.get(name)) for spec, name in zip(specs, wanted, strict=True)
        })  # fmt: skip
    return found[0], found[1]


def _open(job: Job) -> Any:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = job.threads
    net.opt.use_vulkan_compute = False
    for name in HALF_SWITCHES:  # before load_param: layers are made for the storage that is in force then
        setattr(net.opt, name, job.precision == "float16")
    for name, read in ((PARAM, net.load_param), (BIN, net.load_model)):
        if code := read(str(job.folder / name)):
            raise BackendError(f"ncnn cannot load {name}: code {code}")
    return net


def _narrowed(spec: TensorSpec, array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array as a Mat can hold it; values that do not fit are refused."""
    import numpy as np

    fixed = [
        (name, size) for name, size in zip(spec.shape, array.shape, strict=False) if isinstance(name, int)
    ]
    if len(array.shape) != len(spec.shape) or any(name != size for name, size in fixed):
        # ncnn runs other sizes with code 0 and gives something.
        raise BackendError(
            f"the input {spec.name} is {list(array.shape)}, the model takes {list(spec.shape)}"
        )
    kind = _WIDTHS.get(str(array.dtype))
    if kind is None:
        return np.ascontiguousarray(array)
    narrow = np.ascontiguousarray(array, dtype=kind)
    if kind == "int32" and not np.array_equal(narrow, array):
        raise BackendError(
            f"the input {spec.name} holds values that do not fit into 32 bits, which ncnn computes in"
        )
    return narrow


def _fitted(spec: TensorSpec, array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array in the model's element type and shape, where only axes of size 1 are missing."""
    import numpy as np

    if all(isinstance(size, int) for size in spec.shape) and array.shape != spec.shape:
        without_ones = [size for size in array.shape if size != 1]
        if without_ones != [size for size in spec.shape if size != 1]:
            raise BackendError(
                f"ncnn gives the output {spec.name} as {list(array.shape)}, expected {list(spec.shape)}"
            )
        array = array.reshape([int(size) for size in spec.shape])
    if str(array.dtype) == spec.dtype:
        return np.ascontiguousarray(array)
    if spec.dtype == "float32" or array.dtype.kind in "iu":
        return np.ascontiguousarray(array.astype(spec.dtype))
    whole = np.rint(array)
    if not np.array_equal(whole, array):
        raise BackendError(f"ncnn gives fractions in the output {spec.name}, which is {spec.dtype}")
    return np.ascontiguousarray(whole.astype(spec.dtype))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("ncnn", "pnnx")}
