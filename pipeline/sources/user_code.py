"""Importing and calling what a configuration names: a factory, a preparation.

A file is imported under a name made of its own name, never of its folder: names of modules go into
the ONNX file, and the same request gives the same bytes in every folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.config.code import CallableSpec, package_root, parse_callable
from pipeline.config.schema import near
from pipeline.errors import PipelineError, Refused
from pipeline.locations import PREFIX, is_packaged
from pipeline.sources.config import ModelConfig
from pipeline.sources.user_modules import FILES, note_states, refuse_unseen, root_of, stale_modules


def find_callable(text: str, key: str, *, again: bool = True) -> Callable[..., Any]:
    """Import the module and take the callable out of it.

    Args:
        text: `pkg.module:name`, `path/to/file.py:name` or `pkg://models/file.py:name`.
        key: where it stands in the configuration.
        again: False: a file that has just been imported for another key is not run a second time, so that
            both speak of the same classes.

    Raises:
        Refused: it does not import, there is no such callable, or it loads code of the user's that no
            import statement names.
    """
    spec = parse_callable(text, key)
    try:
        with _importable(spec, key, again=again):
            module = _import(spec, again=again)
    except PipelineError:
        raise
    except (Exception, SystemExit) as error:  # a script that ends itself must not end the caller
        raise Refused(
            "PL-227", f"the module behind {key} does not import: {_first_line(error)}", where=_place(error, spec) or key,
            found=text, next_step=f"Mend it until python -c 'import {spec.module or (spec.path or Path()).stem}' works",
        ) from error  # fmt: skip
    found: Any = module
    for part in spec.name.split("."):
        if not hasattr(found, part):
            names = [
                name for name in vars(module) if not name.startswith("_") and callable(vars(module)[name])
            ]
            close = near(part, names, limit=1)
            place = text.rpartition(":")[0]
            raise Refused(
                "PL-227", f"{place} has no {part}", where=key, found=text,
                next_step=f"Type {key}={place}:{close[0]}" if close else None,
            )  # fmt: skip
        found = getattr(found, part)
    if not callable(found):
        raise Refused(
            "PL-227", f"{text} is no callable", where=key, found=type(found).__name__,
            expected="a function or class that returns a torch.nn.Module",
        )  # fmt: skip
    return found  # type: ignore[no-any-return]


def call(text: str, key: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what the configuration names.

    Raises:
        Refused: its parameters do not fit, it raises, or it loads code of the user's that no import
            statement names.
    """
    _refuse_arguments(text, key, function, args, kwargs)
    spec = parse_callable(text, key)
    try:
        with _importable(spec, key, again=False):
            return function(*args, **kwargs)
    except PipelineError:
        raise
    except (Exception, SystemExit) as error:
        raise Refused(
            "PL-228", f"{key} failed: {_first_line(error)}", where=_place(error, spec) or key, found=text,
            next_step=f"Mend {spec.name}" + (", or model.args" if kwargs else ""),
        ) from error  # fmt: skip


def _refuse_arguments(
    text: str, key: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        unknown = next((name for name in kwargs if f"'{name}'" in str(error)), None)
        close = near(unknown, signature.parameters, limit=1) if unknown else []
        raise Refused(
            "PL-228", f"{key} does not take these arguments: {error}", where="model.args" if kwargs else key, found=text,
            expected=f"{text.rpartition(':')[2]}{signature}",
            next_step=f"Did you mean model.args.{close[0]}?" if close else None,
        ) from error  # fmt: skip


def _import(spec: CallableSpec, *, again: bool) -> ModuleType:
    if spec.path is None:
        return importlib.import_module(spec.module or "")
    path = spec.path.absolute()
    if is_packaged(spec.text):
        place = spec.text.rpartition(":")[0].removeprefix(PREFIX)
        return _import_file(path, place.removesuffix(".py").replace("/", "."), again=again)
    _, name = package_root(path)
    if "." in name:
        return importlib.import_module(name)
    return _import_file(path, f"{FILES}.{path.stem}", again=again)


def _import_file(path: Path, name: str, *, again: bool) -> ModuleType:
    there = sys.modules.get(name)
    if there is not None and not again and getattr(there, "__file__", None) == str(path):
        return there
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # dataclasses, torch.export and pickle look their module up while and after it runs.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


@contextmanager
def _importable(spec: CallableSpec, key: str, *, again: bool) -> Iterator[None]:
    """The file's folder, or the working directory, comes first on the path; afterwards as before.

    Modules of an earlier file's folder that would stand in the way are set aside first, so that
    `import layers` beside one net.py never gets the layers.py beside another, nor an old one.
    """
    root = root_of(spec)
    before = list(sys.path)
    sys.path.insert(0, str(root))
    if spec.path is not None and not is_packaged(spec.text):
        for name in stale_modules(root, spec.path.absolute() if again else None):
            del sys.modules[name]
    importlib.invalidate_caches()
    known = set(sys.modules)
    try:
        with _back_again():
            yield
        refuse_unseen({key: spec}, set(sys.modules) - known, before)
    finally:
        sys.path[:] = before
        note_states(set(sys.modules) - known)


@contextmanager
def _back_again() -> Iterator[None]:
    """Code of the user's may go to another folder; paths of the request are those of this one."""
    here = Path.cwd()
    try:
        yield
    finally:
        if Path.cwd() != here:
            os.chdir(here)


def own_callables(config: ModelConfig) -> dict[str, CallableSpec]:
    """What the configuration names of the user's own code, by key; what ships with the pipeline is left out."""
    named = {
        "model.factory": config.factory if config.source == "factory" else None,
        "model.prepare": config.prepare,
    }
    return {key: parse_callable(text, key) for key, text in named.items() if text and not is_packaged(text)}


@contextmanager
def neighbours_found(callables: Mapping[str, CallableSpec], *, refuse: bool = True) -> Iterator[None]:
    """While a network runs: what lies beside its code is found by an import inside forward, too.

    Nothing is set aside: what was imported while the network was built is what its modules are made of.

    Args:
        callables: what the network was built by, by key.
        refuse: hold the modules that are loaded meanwhile against the digest of the code.

    Raises:
        Refused: code of the user's was loaded that no import statement names.
    """
    roots = list(dict.fromkeys(str(root_of(spec)) for spec in callables.values()))
    before = list(sys.path)
    sys.path[:0] = roots
    known = set(sys.modules)
    try:
        with _back_again():
            yield
        if callables and refuse:
            refuse_unseen(callables, set(sys.modules) - known, before)
    finally:
        for root in roots:
            with suppress(ValueError):  # the network's own code may change the path as well
                sys.path.remove(root)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def _place(error: BaseException, spec: CallableSpec) -> str | None:
    """file:line of the innermost frame in the user's own file, else of the innermost one not ours."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    place, own, trace = None, None, error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "importlib" not in file and not file.startswith(str(Path(__file__).parents[1])):
            place = f"{file}:{trace.tb_lineno}"
            if spec.path is not None and Path(file).name == spec.path.name:
                own = place
        trace = trace.tb_next
    return own or place
