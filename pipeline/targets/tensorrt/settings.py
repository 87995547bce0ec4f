"""From a request to settings.json and the trtexec command. No tensorrt, no numpy."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pipeline.samples.spec import InputSpecs, TensorSpec

ENGINE_FILE: Final = "model.plan"
TIMING_CACHE: Final = "timing.cache"
FLOAT16_MODEL: Final = "model.float16.onnx"
#: Options and their defaults (`target.options`).
OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({
    "workspace_mib": 1024,  # memory that kernels may use while they are tried
    "builder_optimization_level": 3,  # 0 (fast build) to 5
    "version_compatible": False,  # an engine that later versions of the same major take too
})  # fmt: skip
LEVELS: Final = range(6)

Profiles = dict[str, dict[str, list[int]]]


class UnboundedAxisError(ValueError):
    """A dynamic axis whose largest size nobody says; `leaf`, `index` and `axis` name it."""

    def __init__(self, leaf: TensorSpec, index: int) -> None:
        self.leaf, self.index, self.axis = leaf, index, leaf.dynamic[index]
        super().__init__(f"the dynamic axis {self.axis.name} of {leaf.name} has no largest size")


def profiles_of(specs: InputSpecs) -> Profiles:
    """Smallest, usual and largest sizes of every input, where any axis is dynamic; else nothing.

    Raises:
        UnboundedAxisError: TensorRT builds for a range, and an axis has none.
    """
    if not specs.axes:
        return {}
    found: Profiles = {}
    for leaf in specs.leaves:
        sizes: dict[str, list[int]] = {"min": [], "opt": list(leaf.shape), "max": []}
        for index, size in enumerate(leaf.shape):
            axis = leaf.dynamic.get(index)
            if axis is not None and axis.max is None:
                raise UnboundedAxisError(leaf, index)
            step = axis.multiple_of if axis else 1
            sizes["min"].append(-(-axis.min // step) * step if axis else size)
            sizes["max"].append(axis.max // step * step if axis and axis.max else size)
        found[leaf.name] = sizes
    return found


def settings(
    model: str, profiles: Profiles, options: Mapping[str, Any], *, tolerance: float
) -> dict[str, Any]:
    """What settings.json says; build.py, run.py and the backend read it.

    Args:
        model: the ONNX file, relative to the folder of settings.json.
        profiles: see `profiles_of`.
        options: `target.options`, whole.
        tolerance: of the comparison.
    """
    return {
        "model": model, "engine": ENGINE_FILE, "timing_cache": TIMING_CACHE, "profiles": profiles,
        "tolerance": tolerance, **{name: options.get(name, default) for name, default in OPTIONS.items()},
    }  # fmt: skip


def trtexec_words(found: Mapping[str, Any]) -> list[str]:
    """The flags that build the same engine as build.py; `--stronglyTyped` means nothing to 11.x any more."""
    words = [
        f"--onnx={found['model']}", f"--saveEngine={found['engine']}", "--stronglyTyped", "--noTF32",
        f"--timingCacheFile={found['timing_cache']}", f"--memPoolSize=workspace:{found['workspace_mib']}",
        f"--builderOptimizationLevel={found['builder_optimization_level']}", "--profilingVerbosity=detailed",
        "--skipInference",
    ]  # fmt: skip
    if found["version_compatible"]:
        words.append("--versionCompatible")
    for kind in ("min", "opt", "max") if found["profiles"] else ():
        shapes = ",".join(f"{_named(name)}:{_sizes(each[kind])}" for name, each in found["profiles"].items())
        words.append(f"--{kind}Shapes={shapes}")
    return words


def shell_script(found: Mapping[str, Any]) -> str:
    """build.sh: the engine by trtexec, in the folder of the script; it fails when there is no engine."""
    lines = " \\\n  ".join(["trtexec", *map(shlex.quote, trtexec_words(found))])
    engine = shlex.quote(str(found["engine"]))
    return (
        "#!/bin/sh\n"
        "# Build the engine with trtexec of TensorRT 10.x or 11.x. Its exit code is not trusted alone.\n"
        'set -eu\ncd "$(dirname "$0")"\n'
        f"rm -f {engine}\n"
        f"{lines}\n"
        f'test -s {engine} || {{ echo "trtexec left no engine" >&2; exit 1; }}\n'
    )


def _named(name: str) -> str:
    """A tensor's name as trtexec takes it: in single quotes where it holds what separates."""
    return f"'{name}'" if any(sign in name for sign in ":, ") else name


def _sizes(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes)) or "1"
