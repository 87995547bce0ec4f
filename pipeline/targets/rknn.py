"""Rockchip's rknn-toolkit2, in an environment of its own (`target.python`): build, simulate, compare.

The toolkit's simulator runs only what the same process built: a .rknn file is run by the device alone.
So `load` builds the model again from the ONNX file that lies beside it and simulates that; that the
file itself was *not run* stands in the facts, on the page and in what `precision` says.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.targets.backend import BackendError, Compiled, Job, Runner
from pipeline.targets.captured import captured
from pipeline.targets.known_wrong import ANTIALIAS, refuse_known_wrong
from pipeline.targets.program import listed, program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE: Final = "model.rknn"
SOURCE: Final = "source.onnx"
RELOAD: Final = (
    "not run: the simulator runs only what its own process built, so the model was built again from "
    f"{SOURCE}; {FILE} itself needs the device"
)

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
#: "E build: ..." and "E RKNN: [time] ...".
_ERROR: Final = re.compile(r"^E (?:[\w ]+:\s*)?(?:\[[\d:.]+\]\s*)?(.+)$")
#: Last line of a traceback, which it prints line by line.
_RAISED: Final = re.compile(
    r"^[A-Za-z_][\w.]*\.?(?:\w*(?:Error|Exception|Fail|Invalid\w*|Implemented)): (.+)$"
)
#: Error lines that say nothing, some of them in every build.
_EMPTY: Final = re.compile(r"Unkown op target: 0|Traceback \(most recent|rknn-toolkit2 version|^=+")
_PLACES: Final = (
    re.compile(r"In Node, \(\"(?P<node>[^\"]*)\", (?P<operator>\w+)"),
    re.compile(r"(?:op_?type|Op type|op|operator)\s*[:=]?\s*['\"\[]?(?P<operator>[A-Z]\w+)"),
)

_LOAD: Final = '''
def run(inputs):
    arrays = [inputs[name] for name in INPUTS]
    try:
        from rknnlite.api import RKNNLite  # on the device
    except ImportError:
        found = simulate(arrays)
    else:
        net = RKNNLite()
        if net.load_rknn(str(FOLDER / "model.rknn")) or net.init_runtime():
            raise SystemExit("the device cannot load model.rknn")
        found = net.inference(inputs=arrays, data_format=layouts(arrays))
    return {name: np.ascontiguousarray(array).astype(dtype) for (name, dtype), array in zip(OUTPUTS.items(), found)}


def layouts(arrays):
    return ["nchw" if array.ndim == 4 else None for array in arrays]  # as it comes it is nhwc


def simulate(arrays):
    """On a PC: the simulator runs only what this process built."""
    import os
    import tempfile

    from rknn.api import RKNN

    source = str(FOLDER / "source.onnx")
    os.chdir(tempfile.mkdtemp())  # it drops files into the working directory
    net = RKNN(verbose=False)
    steps = (
        lambda: net.config(target_platform=CHIP),
        lambda: net.load_onnx(model=source),
        lambda: net.build(do_quantization=False),
        lambda: net.init_runtime(),
    )
    if any(step() for step in steps):
        raise SystemExit("rknn cannot build source.onnx")
    return net.inference(inputs=arrays, data_format=layouts(arrays))
'''

_PAGE: Final = """\
# Bundle for Rockchip {chip}

| file | what it is |
|---|---|
| `{file}` | the compiled model for {chip} |
| `{source}` | the ONNX file that it was built from |
| `inputs.npz`, `expected.npz` | one set of inputs, and what the network gives for it |
| `run.py` | on the device runs `{file}` with rknnlite; on a PC builds `{source}` again and simulates it |

Made with rknn-toolkit2 {version}, precision {precision}.

On the device: `pip install rknn-toolkit-lite2 numpy`, then `python run.py`. The runtime on the device
(librknnrt.so) must not be older than the toolkit.

- **Reload: {reload}.**
- Inputs are given in this order, four-dimensional ones as NCHW (`data_format="nchw"`; as it comes it is NHWC):
{values}
- mean_values and std_values are not set: normalise before you call it, as the network expects.
- Sizes are fixed. Computation is in float16 on the device; without calibration nothing is quantised.
- Not covered here: int8 (`do_quantization=True` with a data set), speed (the simulator has none), other chips.
"""


@dataclass(frozen=True)
class RknnBackend:
    """See `pipeline.targets.backend.Backend`."""

    name: ClassVar[str] = "rknn"
    packages: ClassVar[tuple[str, ...]] = ("rknn-toolkit2",)
    extra: ClassVar[str] = ""
    #: It pins numpy 1, onnx and protobuf, so it must never be installed beside the pipeline.
    environment: ClassVar[str] = "make rknn and target.python=.venv-rknn/bin/python"
    precisions: ClassVar[tuple[str, ...]] = ("float16",)
    #: chip: target_platform; optimization_level: 0 to 3, the toolkit's own word.
    option_names: ClassVar[Mapping[str, Any]] = MappingProxyType({"chip": "rk3588", "optimization_level": 3})

    def compile(self, job: Job) -> Compiled:
        """Build, export; every call's return code, what it printed and the new file must agree."""
        refuse_known_wrong(job.model, "rknn-toolkit2", (ANTIALIAS,))
        dynamic = next((one for one in job.inputs if any(isinstance(size, str) for size in one.shape)), None)
        if dynamic is not None:
            raise BackendError(
                f"rknn-toolkit2 takes fixed sizes, the input {dynamic.name} is {list(dynamic.shape)}"
            )
        _write_whole(job.model, job.folder / SOURCE)
        net = _built(job)
        target = job.folder / FILE
        _step("export_rknn", lambda: net.export_rknn(str(target)))
        net.release()
        if not target.is_file() or target.stat().st_size == 0:
            raise BackendError(f"rknn-toolkit2 reported success and left no {FILE}")
        facts = {"version": _version(), "chip": _chip(job), "reload": RELOAD}
        return Compiled((FILE, SOURCE), {}, "float16", _proof(job), facts)

    def load(self, job: Job, compiled: Compiled) -> Runner:
        """Build it again in this process, for the simulator: see `RELOAD`."""
        if not (job.folder / FILE).read_bytes().startswith(b"RKNN"):
            raise BackendError(f"{FILE} is damaged: it does not begin like a compiled model")
        net = _built(job)
        _step("init_runtime", net.init_runtime)
        return _Simulated(job, net)

    def program(self, job: Job, compiled: Compiled) -> str:
        """See `pipeline.targets.program`."""
        head = (
            f"INPUTS = {[one.name for one in job.inputs]!r}\n"
            f"OUTPUTS = { ({one.name: one.dtype for one in job.outputs})!r}\nCHIP = {_chip(job)!r}\n\n"
        )
        return program(
            head + _LOAD, title=f"Rockchip {_chip(job)}",
            needs=f"rknn-toolkit-lite2 on the device or rknn-toolkit2=={compiled.facts['version']} on a PC,",
            tolerance=job.tolerance, threads=job.threads,
        )  # fmt: skip

    def page(self, job: Job, compiled: Compiled) -> str:
        """How to deploy."""
        return _PAGE.format(
            chip=_chip(job), file=FILE, source=SOURCE, version=compiled.facts["version"], values=listed(job),
            precision=f"{compiled.precision} ({compiled.proof})", reload=RELOAD,
        )  # fmt: skip


BACKEND: Final = RknnBackend()


class _Simulated:
    """A model built in this process, in the toolkit's simulator."""

    def __init__(self, job: Job, net: Any) -> None:
        self.job = job
        self.net = net

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All outputs, by their place."""
        import numpy as np

        given = [np.ascontiguousarray(inputs[one.name]) for one in self.job.inputs]
        layouts = ["nchw" if array.ndim == 4 else None for array in given]
        with captured() as said:
            try:
                found = self.net.inference(inputs=given, data_format=layouts)
            except Exception as error:
                raise BackendError(f"rknn's simulator cannot run the model: {_words(error)}") from error
        if found is None or len(found) != len(self.job.outputs):
            raise _failure("inference", f"gave {len(found or ())} outputs", said[0])
        return {
            spec.name: np.ascontiguousarray(np.asarray(array).astype(spec.dtype))
            for spec, array in zip(self.job.outputs, found, strict=True)
        }

    def precision(self) -> tuple[str, str]:
        """As the toolkit was told; it has no call that tells."""
        return "float16", f"{_proof(self.job)}; reload {RELOAD}"


def _built(job: Job) -> Any:
    """The toolkit with the model built, not quantised."""
    from rknn.api import RKNN  # type: ignore[import-not-found]

    net = RKNN(verbose=False)
    level = int(job.options.get("optimization_level", 3))
    _step("config", lambda: net.config(
        target_platform=_chip(job), optimization_level=level, float_dtype="float16"
    ))  # fmt: skip
    _step("load_onnx", lambda: net.load_onnx(model=str(job.folder / SOURCE)))
    _step("build", lambda: net.build(do_quantization=False))  # as it comes it quantises
    return net


def _step(name: str, call: Callable[[], Any]) -> None:
    """One call of the toolkit: it returns a code, raises, or prints; all three count.

    Raises:
        BackendError: it failed; operator and node where it names them.
    """
    failed: str | None = None
    with captured() as said:
        try:
            code = call()
            failed = f"ended with {code}" if code else None
        except Exception as error:  # noqa: BLE001 - it raises ValueError with a traceback as text, and others
            failed = _words(error)
    if failed is not None:
        raise _failure(name, failed, said[0])


def _failure(step: str, how: str, said: str) -> BackendError:
    words = reason_of(said) or how
    found = next((place for pattern in _PLACES if (place := pattern.search(words))), None)
    named = found.groupdict() if found else {}
    return BackendError(
        f"rknn-toolkit2 failed in {step}: {words}"[:400],
        node=named.get("node") or None, operator=named.get("operator"),
    )  # fmt: skip


def reason_of(said: str) -> str:
    """The line of what the toolkit printed that says why; "" where none does."""
    lines = [line.strip() for line in _COLOURS.sub("", said).replace("\r", "\n").splitlines()]
    for pattern in (_RAISED, _ERROR):
        found = [match.group(1) for line in lines if (match := pattern.match(line))]
        told = [one for one in found if not _EMPTY.search(one)]
        if told:
            return told[-1]
    return ""


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _write_whole(model: Path, target: Path) -> None:
    """The model in one file; weights beside it are taken in."""
    import onnx

    if any(other != model for other in model.parent.glob(f"{model.name}*")):
        onnx.save(onnx.load(model), target)
    else:
        shutil.copyfile(model, target)


def _chip(job: Job) -> str:
    return str(job.options.get("chip", "rk3588"))


def _proof(job: Job) -> str:
    return f"config(float_dtype='float16') and build(do_quantization=False) for {_chip(job)}: it has no call that tells"


def _version() -> str:
    from importlib.metadata import version

    return version("rknn-toolkit2")
