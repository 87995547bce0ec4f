"""`tensorrt/` of a run: build.sh and build.py for TensorRT 10.x and 11.x, run.py, samples, a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import Refused, StageFailed
from pipeline.samples.spec import InputSpecs
from pipeline.targets.backend import BackendError
from pipeline.targets.config import TargetConfig
from pipeline.targets.tensorrt.backend import check_level
from pipeline.targets.tensorrt.found import find_tensorrt
from pipeline.targets.tensorrt.settings import (
    FLOAT16_MODEL,
    UnboundedAxisError,
    profiles_of,
    settings,
    shell_script,
)

if TYPE_CHECKING:
    from pipeline.stage import Workspace
    from pipeline.targets.judge import Judgement
    from pipeline.targets.profile import Profile

FILES: Final = ("README.md", "settings.json", "build.sh", "build.py", "run.py", "inputs.npz", "expected.npz")
#: Largest max |difference| / max |expected| where the profile states none.
TOLERANCES: Final = {"float32": 1e-4, "float16": 5e-3}
UNVERIFIED: Final = "the engine build is unverified on this machine"

_PAGE: Final = """\
# {label} for TensorRT

{verified}

| file | what it is |
|---|---|
| `build.sh` | the engine by `trtexec`: `sh build.sh` |
| `build.py` | the same by the Python API: `python build.py` (package `tensorrt`, 10.x or 11.x) |
| `run.py` | runs the engine on `inputs.npz` and compares with `expected.npz`: `python run.py` |
| `settings.json` | what both build: sizes, memory, files |
| `placement.csv`, `findings.json` | what is predicted of every node, from NVIDIA's operator table |
{float16}
The ONNX file was run in ONNX Runtime and compared with the network (verdict `parity` of this run).

- Types are strong: TensorRT computes every tensor in the type that it has in the ONNX file. TensorRT 11 knows
  nothing else; 10.x is asked for it. There is no `--fp16`: float16 is made in the file.
- TF32 is off. With it, float32 has ten bits of mantissa on newer GPUs, and outputs differ by about 1e-3.
- The engine belongs to the GPU model, the TensorRT version and the system that it was built on. `timing.cache`
  makes the next build choose the same kernels.
{sizes}
- Tolerance: max |difference| / max |expected| of {tolerance:g} ({precision}).
- Where outputs differ: `polygraphy run {model} --onnxrt --trt --onnx-outputs mark all --trt-outputs mark all`
  shows the first tensor that does.
"""


def prepare(target: TargetConfig, profile: Profile, specs: InputSpecs, prefix: str) -> None:
    """Refuse what can be refused before work.

    Raises:
        Refused: PL-624, a dynamic axis without a largest size; PL-622, an option out of range.
    """
    try:
        profiles_of(specs)
        check_level(target.options)
    except UnboundedAxisError as error:
        axis, index = error.axis, error.index
        most = max(8, 4 * error.leaf.shape[index])
        raise Refused(
            "PL-624", "TensorRT builds for a range of sizes, and a dynamic axis has no largest one",
            where=f"model.inputs.{error.leaf.key}.dynamic.{index}", found=axis.name,
            next_step=f"Type 'model.inputs.{error.leaf.key}.dynamic={{{index}: {{name: {axis.name}, max: {most}}}}}'",
        ) from error  # fmt: skip
    except BackendError as error:
        raise Refused("PL-622", error.sentence, where="target.options.builder_optimization_level") from error


def write(
    target: TargetConfig,
    profile: Profile,
    specs: InputSpecs,
    prefix: str,
    workspace: Workspace,
    judgement: Judgement,
) -> list[str]:
    """Write the files into `<target>/`; returns sentences that the user must read.

    Raises:
        StageFailed: PL-643, the graph cannot be made float16; PL-649, in float16 it computes something else.
    """
    from pipeline.samples.npz import write_npz

    label, inputs = next(iter(workspace.get("parity_inputs").items()))
    expected = workspace.get("reference").outputs[label]
    tolerance = float({**TOLERANCES, **profile.precisions}[target.precision])
    model, about = "../model.onnx", ""
    if target.precision == "float16":
        model, about = _halved(target, workspace, inputs, expected, tolerance)
    found = settings(model, profiles_of(specs), {**profile.options, **target.options}, tolerance=tolerance)
    texts = {
        "settings.json": json.dumps(found, indent=1) + "\n",
        "build.sh": shell_script(found),
        "build.py": _source("build_engine"),
        "run.py": _source("run_engine"),
    }
    here = find_tensorrt(target.python)
    verified = (
        f"**{UNVERIFIED[0].upper()}{UNVERIFIED[1:]}: {here.missing}.** The scripts are tested against stand-ins of "
        "TensorRT that hold them to its documented interface."
        if here.missing
        else "The engine was built and run on the machine of this run: see `bundle/`."
    )
    texts["README.md"] = _PAGE.format(
        label=prefix, verified=verified, float16=about, sizes=_sizes(found["profiles"]), tolerance=tolerance,
        precision=target.precision, model=model,
    )  # fmt: skip
    for name, text in texts.items():
        # The page says what this machine has.
        path = workspace.file(f"{target.name}/{name}", "target", same_every_time=name != "README.md")
        path.write_text(text, encoding="utf-8")
        if name == "build.sh":
            path.chmod(0o755)
    write_npz(workspace.file(f"{target.name}/inputs.npz", "samples"), inputs)
    write_npz(workspace.file(f"{target.name}/expected.npz", "samples", same_every_time=False), expected)
    return [f"{UNVERIFIED}: {here.missing}"] if here.missing else []


def _halved(
    target: TargetConfig, workspace: Workspace, inputs: Any, expected: Any, tolerance: float
) -> tuple[str, str]:
    """The graph in float16, proved on ONNX Runtime before anybody builds from it."""
    from pipeline.parity.onnxruntime_session import FileSession
    from pipeline.targets.float16 import Float16Error, to_float16

    path = workspace.file(f"{target.name}/{FLOAT16_MODEL}", "target")
    try:
        to_float16(workspace.get("model").path, path)
    except Float16Error as error:
        raise StageFailed(
            "PL-643", f"the graph cannot be made float16: {error}", where=f"node {error.node}" if error.node else None,
            next_step="Type target.precision=float32",
        ) from error  # fmt: skip
    with FileSession(path) as session:
        outputs = session.run(inputs, "float16")
    worst, name = max((_error(outputs[name], array), name) for name, array in expected.items())
    if not worst <= tolerance:
        raise StageFailed(
            "PL-649", "the graph in float16 does not compute what the network computes", where=f"output {name}",
            found=f"error {worst:.2g}", expected=f"at most {tolerance:g}",
            next_step="Type target.precision=float32",
        )  # fmt: skip
    about = (
        f"| `{FLOAT16_MODEL}` | the graph in float16, inputs and outputs in float32; in ONNX Runtime it is off by "
        f"{worst:.2g} at most |\n"
    )
    return FLOAT16_MODEL, about


def _error(found: Any, expected: Any) -> float:
    import numpy as np

    if expected.dtype.kind != "f":
        return 0.0 if found.shape == expected.shape else float("inf")
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    scale = float(np.abs(expected).max(initial=0)) or 1.0
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0)) / scale


def _sizes(profiles: Any) -> str:
    if not profiles:
        return "- All sizes are fixed."
    lines = "; ".join(
        f"`{name}` from {each['min']} to {each['max']}, fastest at {each['opt']}"
        for name, each in profiles.items()
    )
    return f"- Sizes: {lines}."


def _source(module: str) -> str:
    return (Path(__file__).with_name(f"{module}.py")).read_text(encoding="utf-8")
