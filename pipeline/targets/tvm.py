"""Apache TVM: Relax, compiled by LLVM into one shared library.

TVM's own pipeline for processors schedules nothing: resnet18 takes about a hundred times as long as
elsewhere, a vision transformer minutes. So convolutions are brought to NHWC and every kernel gets a
schedule by rule (`pipeline.targets.tvm_schedule`).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.targets.backend import BackendError, Compiled, Job, Runner
from pipeline.targets.known_wrong import ANTIALIAS, refuse_known_wrong
from pipeline.targets.program import listed, program
from pipeline.targets.tvm_library import last_line, library_types, precision_of, proof_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIBRARY: Final = "model.so"
#: Processor that the code is for, where this machine has AVX2 and FMA: every x86 server since 2015.
X86_64_V3: Final = "x86-64-v3"
_NEEDED_FLAGS: Final = frozenset(("avx2", "fma", "bmi2"))
#: Layouts of convolutions, data and weights: channels last can be vectorised whatever the image's size.
LAYOUTS: Final = {"relax.nn.conv2d": ["NHWC", "HWIO"]}
SCHEDULES: Final = ("rules", "none")

_UNSUPPORTED: Final = re.compile(r"not supported for frontend ONNX: (.*)")

_LOAD: Final = """
def run(inputs):
    import os
    import sys

    sys.modules.setdefault("torch", None)  # where it is installed tvm_ffi imports it, for nothing
    os.environ.setdefault("TVM_NUM_THREADS", str(THREADS))
    os.environ.setdefault("TVM_BIND_THREADS", "0")  # another program may sit on the same core
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(FOLDER / "model.so")), tvm.cpu())
    given = [tvm.runtime.tensor(np.ascontiguousarray(inputs[name])) for name in INPUTS]
    machine.set_input("main", *given)
    machine.invoke_stateful("main")
    found = machine.get_outputs("main")
    found = [found] if hasattr(found, "numpy") else list(found)
    return {name: array.numpy() for name, array in zip(OUTPUTS, found)}
"""

_PAGE: Final = """\
# Bundle for Apache TVM

| file | what it is |
|---|---|
| `model.so` | kernels, weights and the program of Relax's virtual machine in one shared library |
| `names.json` | order of the inputs, and which output has which place: TVM knows no output names |
| `inputs.npz`, `expected.npz` | one set of inputs, and what the network gives for it |
| `run.py` | loads `model.so`, runs it and compares: `python run.py` |

Made with apache-tvm {version} for LLVM target `{target}`, precision {precision}.

```
pip install 'apache-tvm=={version}' numpy
python run.py
```

- Inputs are given by place, in this order; names, shapes and element types:
{values}
- Load it with the version that made it: the format of the virtual machine is not kept between versions.
- The library holds machine code for `{mcpu}`: it crashes on a processor without those instructions. For
  another one type target.options.mcpu=NAME (LLVM's names; `generic` runs on all of this architecture).
- The number of threads is taken from the environment variable TVM_NUM_THREADS before tvm is imported.
- Schedules: {schedule}. Not tuned: TVM's meta schedule can be faster, and takes hours.
- Not covered here: other devices than the CPU, other machines than this one's architecture.
"""


@dataclass(frozen=True)
class TvmBackend:
    """See `pipeline.targets.backend.Backend`."""

    name: ClassVar[str] = "tvm"
    packages: ClassVar[tuple[str, ...]] = ("apache-tvm",)
    extra: ClassVar[str] = "tvm"
    precisions: ClassVar[tuple[str, ...]] = ("float32", "float16")
    #: schedule: "rules", or "none" for TVM's own pipeline; mcpu: LLVM's name of the processor, ""
    #: for x86-64-v3 where this machine is one, else generic.
    option_names: ClassVar[Mapping[str, Any]] = MappingProxyType({"schedule": "rules", "mcpu": ""})

    def compile(self, job: Job) -> Compiled:
        """Import, transform, schedule, build; read the element types back from the library."""
        schedule = str(job.options.get("schedule", "rules"))
        if schedule not in SCHEDULES:
            raise BackendError(
                f"there is no schedule {schedule}: type target.options.schedule={'|'.join(SCHEDULES)}"
            )
        refuse_known_wrong(job.model, "TVM", (ANTIALIAS,))
        _prepare(job)
        import tvm

        mcpu = str(job.options.get("mcpu", "")) or _this_processor()
        target = tvm.target.Target(
            {"kind": "llvm", "num-cores": job.threads} | ({} if mcpu == "generic" else {"mcpu": mcpu})
        )
        module = _imported(job)
        parameters = [_name(one) for one in module["main"].params]
        if len(parameters) != len(job.inputs):
            raise BackendError(
                f"TVM's import has {len(parameters)} inputs ({', '.join(parameters)}), the model {len(job.inputs)}"
            )
        facts: dict[str, Any] = {"version": tvm.__version__, "target": str(target), "mcpu": mcpu}
        facts |= _build(module, target, mcpu, job, schedule)
        types = library_types(job.folder / LIBRARY)
        facts["element_types"] = types
        names = {
            one.name: found for one, found in zip(job.inputs, parameters, strict=True) if one.name != found
        } | {one.name: f"output {place}" for place, one in enumerate(job.outputs)}
        return Compiled((LIBRARY,), names, precision_of(types), proof_of(types), facts)

    def load(self, job: Job, compiled: Compiled) -> Runner:
        """Open the library."""
        _prepare(job)
        import tvm
        from tvm import relax

        try:
            machine = relax.VirtualMachine(tvm.runtime.load_module(str(job.folder / LIBRARY)), tvm.cpu())
        except Exception as error:
            raise BackendError(f"TVM cannot load {LIBRARY}: {last_line(error)}") from error
        return _Loaded(job, machine)

    def program(self, job: Job, compiled: Compiled) -> str:
        """See `pipeline.targets.program`."""
        order = f"INPUTS = {[one.name for one in job.inputs]!r}\nOUTPUTS = {[one.name for one in job.outputs]!r}\n\n"
        return program(
            order + _LOAD, title="Apache TVM on the CPU", needs=f"apache-tvm=={compiled.facts['version']}",
            tolerance=job.tolerance, threads=job.threads,
        )  # fmt: skip

    def page(self, job: Job, compiled: Compiled) -> str:
        """How to deploy."""
        facts = compiled.facts
        return _PAGE.format(
            version=facts["version"], target=facts["target"], mcpu=facts["mcpu"], values=listed(job),
            precision=f"{compiled.precision} ({compiled.proof})", schedule=_told(facts.get("schedule", {})),
        )  # fmt: skip


BACKEND: Final = TvmBackend()


class _Loaded:
    """The library in a virtual machine."""

    def __init__(self, job: Job, machine: Any) -> None:
        self.job = job
        self.machine = machine

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All outputs, by their place."""
        import numpy as np
        import tvm

        try:
            given = [tvm.runtime.tensor(np.ascontiguousarray(inputs[one.name])) for one in self.job.inputs]
            self.machine.set_input("main", *given)
            self.machine.invoke_stateful("main")
            found = self.machine.get_outputs("main")
        except Exception as error:
            raise BackendError(f"TVM cannot run the model: {last_line(error)}") from error
        arrays = [found.numpy()] if hasattr(found, "numpy") else [one.numpy() for one in found]
        if len(arrays) != len(self.job.outputs):
            raise BackendError(f"TVM gives {len(arrays)} outputs, the model has {len(self.job.outputs)}")
        return {
            one.name: np.ascontiguousarray(array) for one, array in zip(self.job.outputs, arrays, strict=True)
        }

    def precision(self) -> tuple[str, str]:
        """From the program inside the library."""
        types = library_types(self.job.folder / LIBRARY)
        return precision_of(types), proof_of(types)


def _prepare(job: Job) -> None:
    """What has to be set before tvm is imported; this process does nothing else than TVM."""
    os.environ["TVM_NUM_THREADS"] = str(job.threads)
    os.environ["TVM_BIND_THREADS"] = (
        "0"  # bound threads of two processes share a core and wait for each other
    )
    # Where torch is installed tvm_ffi imports it, for tensors that we do not have: half of the start's time.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]


def _imported(job: Job) -> Any:
    """The Relax module; an operator or node that TVM refuses is named."""
    import onnx
    import tvm
    from tvm.relax.frontend.onnx import from_onnx

    model = onnx.load(job.model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # it tells each input that it renames: names.json has it
            return from_onnx(model)
    except tvm.error.OpNotImplemented as error:
        unknown = _UNSUPPORTED.search(str(error).replace("\n", " "))
        operators = [one.strip(" .'[]") for one in unknown.group(1).split(",")] if unknown else []
        node = next((one for one in model.graph.node if one.op_type in operators), None)
        raise BackendError(
            f"TVM has no rule for {', '.join(operators) or last_line(error)}",
            node=(node.name or node.output[0]) if node else None, operator=node.op_type if node else None,
        ) from error  # fmt: skip
    except Exception as error:
        node = _node_at(error)
        raise BackendError(
            f"TVM cannot import the model: {last_line(error)}",
            node=(node.name or node.output[0]) if node is not None else None,
            operator=node.op_type if node is not None else None,
        ) from error


def _node_at(error: BaseException) -> Any:
    """The ONNX node that the importer was at, from the frames of its traceback: it names none itself."""
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "_construct_nodes":
            found = trace.tb_frame.f_locals.get("node", found)
        trace = trace.tb_next
    return found


def _build(module: Any, target: Any, mcpu: str, job: Job, schedule: str) -> dict[str, Any]:
    from tvm import relax

    try:
        with target:
            if job.precision == "float16":
                # Sums in float32: in float16 resnet18's error is 1e-2 instead of 1.3e-3, and it is slower.
                module = relax.transform.ToMixedPrecision(out_dtype="float32")(module)
            executable, facts = _executable(module, target, mcpu, schedule)
    except Exception as error:
        raise BackendError(f"TVM cannot build the model: {last_line(error)}") from error
    try:
        executable.export_library(str(job.folder / LIBRARY))
    except Exception as error:
        raise BackendError(
            f"TVM cannot link the library: {last_line(error)} (it calls the C++ compiler on PATH: g++ or clang++)"
        ) from error
    return facts


def _executable(module: Any, target: Any, mcpu: str, schedule: str) -> tuple[Any, dict[str, Any]]:
    """The compiled program; without a schedule, and said so, where TVM cannot lower ours."""
    import tvm

    if schedule == "rules":
        try:
            ready, facts = _scheduled(module, target, mcpu)
            return tvm.compile(ready, target=target, relax_pipeline=_pipeline(target, schedule)), facts
        except Exception as error:  # noqa: BLE001 - a model that cannot be built at all fails again below
            facts = {"schedule": {"functions": {}, "given_up": last_line(error)}}
    else:
        facts = {}
    return tvm.compile(module, target=target, relax_pipeline=_pipeline(target, "none")), facts


def _scheduled(module: Any, target: Any, mcpu: str) -> tuple[Any, dict[str, Any]]:
    import tvm
    from tvm import relax

    from pipeline.targets.tvm_constants import fold_constants
    from pipeline.targets.tvm_schedule import registers_of, schedule_module

    passes = relax.transform
    layout = "NCHW"
    # Where it cannot follow an operator's layout the convolutions stay as they are: slower, not wrong.
    with contextlib.suppress(Exception):
        module, layout = passes.ConvertLayout(LAYOUTS)(module), "NHWC"
    module = tvm.transform.Sequential([passes.DecomposeOpsForInference(), passes.CanonicalizeBindings()])(
        module
    )
    module = fold_constants(module)
    module = tvm.transform.Sequential(
        [
            relax.backend.DispatchSampling(), relax.backend.DispatchSortScan(), passes.LegalizeOps(),
            passes.AnnotateTIROpPattern(), passes.FoldConstant(), passes.FuseOps(), passes.FuseTIR(),
            passes.DeadCodeElimination(),
        ]
    )(module)  # fmt: skip
    module, statistics = schedule_module(module, registers_of(mcpu))
    return module, {"schedule": statistics.to_json(), "layout": layout}


def _pipeline(target: Any, schedule: str) -> Any:
    """What follows the schedule; the whole of TVM's own pipeline where there is none."""
    import tvm
    from tvm.relax.backend.cpu_generic import pipeline as own

    if schedule == "none":
        return own.get_default_pipeline(target)

    @tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def lower(module: Any, _context: Any) -> Any:
        passes = [*own.dataflow_lower_passes(target), *own.finalize_passes(target)]
        with target:
            return tvm.transform.Sequential(passes)(module)

    return lower


def _this_processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "generic"
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return X86_64_V3 if found and set(found.group(1).split()) >= _NEEDED_FLAGS else "generic"


def _name(parameter: Any) -> str:
    return str(getattr(parameter, "name", None) or getattr(parameter, "name_hint", ""))


def _told(schedule: Mapping[str, Any]) -> str:
    counts = schedule.get("functions", {})
    return ", ".join(f"{number} functions by the rule {rule}" for rule, number in counts.items()) or "none"
