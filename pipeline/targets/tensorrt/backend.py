"""TensorRT, where it and a GPU are present: an engine built, loaded again and run, by the Python API or trtexec.

It is not on any public index: the package or trtexec come from NVIDIA, and are found at run time
(`pipeline.targets.tensorrt.found`). The code that builds and runs is that of the files that every run
hands over (`build_engine`, `run_engine`).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.targets.backend import BackendError, Compiled, Job, Runner
from pipeline.targets.tensorrt.settings import (
    ENGINE_FILE,
    LEVELS,
    OPTIONS,
    TIMING_CACHE,
    Profiles,
    settings,
    trtexec_words,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SETTINGS_FILE: Final = "settings.json"

_PAGE: Final = """\
# Bundle for TensorRT

| file | what it is |
|---|---|
| `{engine}` | the engine; it belongs to this GPU model and this TensorRT version |
| `{cache}` | timings of kernels: a build with them chooses the same kernels again |
| `settings.json` | what the engine was built from |
| `inputs.npz`, `expected.npz` | one set of inputs, and what the network gives for it |
| `run.py` | loads the engine, runs it and compares: `python run.py` |

Built by {how}. Precision: {precision} ({proof}). TF32 is off.

- `run.py` needs numpy and the `tensorrt` package of the same version with the CUDA runtime, or `trtexec`.
- On another GPU or with another version build it anew: the run directory's `{target}/` has `build.py` and
  `build.sh`.
"""


@dataclass(frozen=True)
class TensorRtBackend:
    """See `pipeline.targets.backend.Backend`."""

    name: ClassVar[str] = "tensorrt"
    packages: ClassVar[tuple[str, ...]] = ()  #: found at run time: no index has the libraries
    extra: ClassVar[str] = ""
    precisions: ClassVar[tuple[str, ...]] = ("float32", "float16")
    option_names: ClassVar[Mapping[str, Any]] = OPTIONS

    def compile(self, job: Job) -> Compiled:
        """Build an engine; float16 is a matter of the file, since types are strong."""
        check_level(job.options)
        model = job.model
        facts: dict[str, Any] = {}
        if job.precision == "float16":
            from pipeline.targets.float16 import Float16Error, to_float16

            model = job.scratch / "float16.onnx"
            try:
                facts["float16"] = to_float16(job.model, model).to_json()
            except Float16Error as error:
                raise BackendError(str(error), node=error.node, operator=error.operator) from error
        found = settings(str(model), _profiles(job), job.options, tolerance=job.tolerance)
        (job.folder / SETTINGS_FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        how, read = _by_api(found, job) if _has_api() else _by_trtexec(found, job)
        facts |= {"how": how, **read}
        # The path of the model means nothing where the engine goes.
        kept = {**found, "model": model.name}
        (job.folder / SETTINGS_FILE).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        files = (
            ENGINE_FILE,
            SETTINGS_FILE,
            *((TIMING_CACHE,) if (job.folder / TIMING_CACHE).is_file() else ()),
        )
        precision, proof = _precision(job, facts)
        return Compiled(files, {}, precision, proof, facts)

    def load(self, job: Job, compiled: Compiled) -> Runner:
        """Load the engine in a process in which nothing was built."""
        return _Loaded(job, compiled)

    def program(self, job: Job, compiled: Compiled) -> str:
        """run.py: `run_engine`, as it stands; the tolerance is in settings.json beside it."""
        import pipeline.targets.tensorrt.run_engine as module

        return Path(str(module.__file__)).read_text(encoding="utf-8")

    def page(self, job: Job, compiled: Compiled) -> str:
        """How to deploy."""
        return _PAGE.format(
            engine=ENGINE_FILE, cache=TIMING_CACHE, how=compiled.facts["how"], precision=compiled.precision,
            proof=compiled.proof, target=self.name,
        )  # fmt: skip


BACKEND: Final = TensorRtBackend()


def check_level(options: Mapping[str, Any]) -> None:
    """Raise BackendError on a builder optimization level that there is not."""
    level = options.get("builder_optimization_level", OPTIONS["builder_optimization_level"])
    if level not in LEVELS:
        raise BackendError(f"builder_optimization_level is {LEVELS[0]} to {LEVELS[-1]}, not {level}")


def _has_api() -> bool:
    return importlib.util.find_spec("tensorrt") is not None


def _profiles(job: Job) -> Profiles:
    if not any(isinstance(size, str) for spec in job.inputs for size in spec.shape):
        return {}
    found: Profiles = {}
    for spec in job.inputs:
        dynamic = any(isinstance(size, str) for size in spec.shape)
        if dynamic and not spec.largest:
            raise BackendError(
                f"a dynamic axis of input {spec.name} has no largest size: give it max in model.inputs"
            )
        least, most = (spec.smallest or spec.example, spec.largest or spec.example)
        found[spec.name] = {"min": list(least), "opt": list(spec.example), "max": list(most)}
    return found


def _by_api(found: Mapping[str, Any], job: Job) -> tuple[str, dict[str, Any]]:
    from pipeline.targets.tensorrt.build_engine import BuildError, build

    try:
        read = build(found, job.folder)
    except BuildError as error:
        raise BackendError(str(error), node=error.node, operator=error.operator) from error
    if read["tf32"]:
        raise BackendError("TensorRT left TF32 on although it was switched off")
    return f"TensorRT {read['version']}", read


def _by_trtexec(found: Mapping[str, Any], job: Job) -> tuple[str, dict[str, Any]]:
    program = shutil.which("trtexec")
    if program is None:
        raise BackendError("neither the tensorrt package nor trtexec is here")
    words = [program, *trtexec_words(found)]
    done = subprocess.run(words, cwd=job.folder, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout + done.stderr)  # for the log of the run
    engine = job.folder / ENGINE_FILE
    if done.returncode or not engine.is_file() or not engine.stat().st_size:
        raise BackendError(f"trtexec built no engine: {_last_error(done)}")
    version = next((line for line in done.stdout.splitlines() if "TensorRT version" in line), "")
    return "trtexec", {
        "version": version.rpartition(":")[2].strip() or "not said",
        "types": {},
        "layer_types": {},
    }


def _last_error(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if "[E]" in line or "Error" in line]
    return (errors or lines or [f"exit code {done.returncode}"])[-1]


def _precision(job: Job, facts: Mapping[str, Any]) -> tuple[str, str]:
    """What most layers give; what the file says where the engine's inspector does not tell."""
    counts: Mapping[str, int] = facts.get("layer_types", {})
    if counts:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        return max(
            counts, key=lambda name: counts[name]
        ), f"engine inspector: layers that give {told}; TF32 off"
    return (
        job.precision,
        "types are strong, and those of the ONNX file; the engine's inspector does not tell more",
    )


class _Loaded:
    """The engine, ready to run."""

    def __init__(self, job: Job, compiled: Compiled) -> None:
        from pipeline.targets.tensorrt.run_engine import Engine, RunError

        self.job, self.compiled = job, compiled
        self.engine: Any = None
        if _has_api():
            try:
                self.engine = Engine(job.folder / ENGINE_FILE)
            except RunError as error:
                raise BackendError(str(error)) from error

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All outputs by name."""
        from pipeline.targets.tensorrt.run_engine import RunError, run_by_trtexec

        program = shutil.which("trtexec")
        try:
            if self.engine is not None:
                found: dict[str, Any] = self.engine.run(inputs)
                return found
            if program is None:
                raise BackendError("neither the tensorrt package nor trtexec is here")
            expected = {one.name: (one.dtype, one.example) for one in self.job.outputs}
            return run_by_trtexec(self.job.folder / ENGINE_FILE, inputs, expected, program)
        except RunError as error:
            raise BackendError(str(error)) from error

    def precision(self) -> tuple[str, str]:
        """As it was read from the engine."""
        return self.compiled.precision, self.compiled.proof
