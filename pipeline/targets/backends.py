"""Which backends there are, and whether what they need is installed. No backend package.

Ours stand in one table; a third party's joins by an entry point of the group
`onnx_export_pipeline.backends` whose name is the target's and whose value is an instance.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import Refused

if TYPE_CHECKING:
    from pipeline.targets.backend import Backend

#: Target to module and instance. Only the one that is asked for is imported.
BACKENDS: Final[Mapping[str, str]] = {
    "onnxruntime": "pipeline.targets.onnxruntime:BACKEND",
    "openvino": "pipeline.targets.openvino:BACKEND",
    "tvm": "pipeline.targets.tvm:BACKEND",
    "ncnn": "pipeline.targets.ncnn:BACKEND",
    "mnn": "pipeline.targets.mnn:BACKEND",
    "rknn": "pipeline.targets.rknn:BACKEND",
    "tensorrt": "pipeline.targets.tensorrt:BACKEND",
}
ENTRY_POINTS: Final = "onnx_export_pipeline.backends"
#: How long another interpreter may take to say which packages it has, seconds.
ANSWER_S: Final = 60.0

_ASK: Final = (
    "import importlib.metadata as m, json, sys\n"
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try: found[name] = m.version(name)\n"
    "    except m.PackageNotFoundError: found[name] = None\n"
    "print(json.dumps(found))\n"
)


def backend_names() -> tuple[str, ...]:
    """Every name that `backend_of` knows: ours, then third parties'."""
    others = {point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return (*BACKENDS, *sorted(others - set(BACKENDS)))


def backend_of(name: str) -> Backend:
    """The backend called `name`; its module is imported, its packages are not.

    Raises:
        Refused: PL-640, there is none, or its entry point does not lead to one.
    """
    if name in BACKENDS:
        return _loaded(BACKENDS[name], name)
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if point.name == name:
            return _loaded(point.value, name)
    known = backend_names()
    near = get_close_matches(name, known, n=1)
    raise Refused(
        "PL-640", f"there is no backend {name}", where="target.backend", expected=", ".join(known),
        next_step=f"Type target.backend={near[0]}" if near else
        f"Install the package that brings it (entry point group {ENTRY_POINTS})",
    )  # fmt: skip


def _loaded(text: str, name: str) -> Backend:
    module, _, attribute = text.partition(":")
    try:
        backend: Backend = getattr(importlib.import_module(module), attribute.strip())
    except (ImportError, AttributeError) as error:
        raise Refused(
            "PL-640", f"the backend {name} cannot be imported: {error}", where="target.backend", found=text,
            expected="module:INSTANCE that can be imported without the runtime's own package",
        ) from error  # fmt: skip
    missing = [one for one in ("compile", "load", "program", "page") if not hasattr(backend, one)]
    if isinstance(backend, type) or missing:
        what = "a class" if isinstance(backend, type) else f"no method {missing[0]}"
        raise Refused(
            "PL-640", f"the backend {name} is none", where="target.backend", found=f"{text} ({what})",
            expected="an instance of a class like pipeline.targets.backend.Backend",
        )  # fmt: skip
    return backend


def reference_to(backend: Backend) -> str:
    """How the child process finds the backend: `module:Class`, made without arguments there."""
    return f"{type(backend).__module__}:{type(backend).__qualname__}"


def require_packages(backend: Backend, python: str | None = None) -> dict[str, str]:
    """Version of every package that the backend needs, which are not imported for it.

    Args:
        backend: whose packages.
        python: `target.python`; null: this interpreter.

    Returns:
        distribution to public version (without "+cpu").

    Raises:
        Refused: PL-641, one is missing; PL-651, there is no such interpreter.
    """
    found = _versions(tuple(backend.packages), python)
    missing = [name for name, version in found.items() if version is None]
    if missing:
        where = f" in {python}" if python else ""
        raise Refused(
            "PL-641",
            f"the target {backend.name} needs the package {missing[0]}, which is not installed{where}",
            where=f"target={backend.name}",
            expected=", ".join(backend.packages) if len(backend.packages) > 1 else None,
            next_step=f"Type {how_to_install(backend, missing, python)}",
        )  # fmt: skip
    return {name: str(version).partition("+")[0] for name, version in found.items()}


def how_to_install(backend: Backend, missing: Sequence[str], python: str | None = None) -> str:
    """What to type for the packages that are missing in `python`; null: in this interpreter."""
    own: str = getattr(backend, "environment", "")
    if own:
        return own
    if backend.extra and not python:
        return f"pip install 'onnx-export-pipeline[{backend.extra}]'"
    return f"{python or 'python'} -m pip install {' '.join(missing)}"


def _versions(packages: tuple[str, ...], python: str | None) -> dict[str, str | None]:
    if python is not None:
        return _versions_elsewhere(packages, python)
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


@cache
def _versions_elsewhere(packages: tuple[str, ...], python: str) -> dict[str, str | None]:
    try:
        done = subprocess.run(
            [interpreter(python), "-I", "-c", _ASK, *packages],
            capture_output=True, text=True, timeout=ANSWER_S, check=True,
        )  # fmt: skip
        answer: dict[str, str | None] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise Refused(
            "PL-651", "the interpreter for the target cannot be started", where="target.python",
            found=f"{python} ({type(error).__name__})", expected="the path of a Python interpreter",
            next_step="Type target.python=FOLDER/bin/python",
        ) from error  # fmt: skip
    return answer


def check_request(backend: Backend, precision: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The backend's options with what was asked laid over.

    Raises:
        Refused: PL-642, a precision or an option that it does not take.
    """
    if precision not in backend.precisions:
        raise Refused(
            "PL-642", f"the target {backend.name} does not run in {precision}", where="target.precision",
            found=precision, expected=", ".join(backend.precisions),
            next_step=f"Type target.precision={backend.precisions[0]}",
        )  # fmt: skip
    known = dict(backend.option_names)
    for name, value in options.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise Refused(
                "PL-642", f"the target {backend.name} has no option {name}", where=f"target.options.{name}",
                expected=", ".join(known) or "no option at all",
                next_step=f"Type target.options.{near[0]}={value}" if near else "Take the key away",
            )  # fmt: skip
        default = known[name]
        whole = isinstance(default, float) and isinstance(value, int)
        if default is not None and not whole and not isinstance(value, type(default)):
            typed = str(default).lower() if isinstance(default, bool) else default
            raise Refused(
                "PL-642", f"the option {name} is of another type", where=f"target.options.{name}",
                found=repr(value), expected=f"like {default!r}",
                next_step=f"Type target.options.{name}={typed}",
            )  # fmt: skip
    return {**known, **options}


def code_of(backend: Backend) -> tuple[tuple[str, ...], dict[str, str]]:
    """The backend's code for a key: modules of ours, or the digest of a third party's module."""
    module = type(backend).__module__
    if re.match(r"pipeline\.targets\.(?!contract_tests\b)", module):
        return (module,), {}
    try:
        file = inspect.getsourcefile(type(backend))
        data = Path(file).read_bytes() if file else module.encode()
    except (OSError, TypeError):
        data = module.encode()
    return (), {"backend": hashlib.sha256(data).hexdigest()}


def interpreter(python: str | None) -> str:
    """The interpreter for the backend's processes, which run in another folder: absolute, links kept."""
    if python is None:
        return sys.executable
    if os.sep not in python:
        return shutil.which(python) or python
    return str(Path(python).expanduser().absolute())


def import_paths() -> tuple[str, ...]:
    """Where this process imports from: a child of the same interpreter looks there after its own places.

    It brings what an isolated interpreter would not see by itself: packages of the user's own site
    folder, PYTHONPATH, the working directory of a backend that is not installed.
    """
    return tuple(str(Path(path).absolute()) for path in sys.path if path)
