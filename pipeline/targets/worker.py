"""The child process of a backend: `python -m pipeline.targets.worker ORDER.json`.

It shuts itself in, imports the backend, does one thing (compile, or load and run) and writes its
answer to a file beside the order. Its exit code says nothing: the parent reads the answer and
looks at the files. It may run in a foreign interpreter, so that nothing of the pipeline is imported
here but this room's small modules.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.targets.backend import Backend, BackendError, Compiled, Job
from pipeline.targets.messages import ANSWER_FILE, Order, compiled_to_json
from pipeline.targets.sandbox import shut_in

if TYPE_CHECKING:
    from pipeline.targets.execute import Arrays


def main(order_file: str) -> None:
    """Do what the order says, and write the answer."""
    path = Path(order_file)
    isolation = shut_in()
    answer: dict[str, Any] = {"isolation": isolation}
    try:
        order = Order.read(path)
        sys.path += [one for one in order.import_from if one not in sys.path]
        backend = _backend(order.backend)
        answer |= _compile(backend, order.job) if order.action == "compile" else _run(backend, order)
    except BackendError as error:
        answer |= {"error": error.sentence, "operator": error.operator}
        answer["node"] = error.node or _nodes_with(error.operator, job.model if (job := _job(path)) else None)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises becomes data for the parent
        traceback.print_exc()
        answer |= {"error": f"{type(error).__name__}: {_first_line(error)}", "unexpected": True}
    answer["peak_mib"] = _peak_mib()
    whole = path.with_name(f"{ANSWER_FILE}.part")
    whole.write_text(json.dumps(answer, allow_nan=False), encoding="utf-8")
    whole.rename(path.with_name(ANSWER_FILE))


def _backend(text: str) -> Backend:
    module, _, name = text.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    backend: Backend = found()
    return backend


def _compile(backend: Backend, job: Job) -> dict[str, Any]:
    started = time.perf_counter()
    compiled = backend.compile(job)
    seconds = time.perf_counter() - started
    _expect_files(job, compiled)
    return {"compiled": compiled_to_json(compiled), "seconds": seconds}


def _expect_files(job: Job, compiled: Compiled) -> None:
    """What the backend names is there, lies in its folder and is not empty."""
    if not compiled.files:
        raise BackendError("the backend names no compiled file")
    for name in (*compiled.files, *compiled.others):
        file = job.folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise BackendError(f"the backend names the file {name}, which lies outside its folder")
        if not file.is_file() or file.stat().st_size == 0:
            raise BackendError(f"the backend says that it wrote {name}, and it is missing or empty")
    known = {one.name for one in (*job.inputs, *job.outputs)}
    if strange := sorted(set(compiled.names) - known):
        raise BackendError(f"the backend names {strange[0]}, which the model does not have")


def _run(backend: Backend, order: Order) -> dict[str, Any]:
    from pipeline.targets.execute import check_inputs, measure, read_arrays, run_all, write_outputs

    job, compiled = order.job, order.compiled
    if compiled is None:
        raise ValueError("an order to run without what compile said")
    sets: dict[str, Arrays] = read_arrays(order)
    for label, values in sets.items():
        check_inputs(job.inputs, values, label)
    started = time.perf_counter()
    runner = backend.load(job, compiled)
    loaded = time.perf_counter()
    outputs = run_all(runner, job.outputs, sets)
    ran = time.perf_counter()
    precision, proof = runner.precision()
    latency = measure(runner, next(iter(sets.values())), order.timing)
    rows = write_outputs(Path(order.outputs), outputs)
    return {
        "outputs": rows,
        "load_seconds": loaded - started,
        "run_seconds": ran - loaded,
        "latency": {**latency, "threads": job.threads},
        "precision": precision,
        "proof": proof,
    }


def _job(order_file: Path) -> Job | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return Order.read(order_file).job
    return None


def _nodes_with(operator: str | None, model: Path | None) -> str | None:
    """The nodes of an operator that a tool named without them: the first one's name, and how many more."""
    if operator is None or model is None or not model.is_file():
        return None
    kind = re.split(r"[.:]", operator)[-1]
    try:
        from pipeline.graph.view import read_layout

        nodes = [node for node in read_layout(model).parsed().graph.node if node.op_type == kind]
    except Exception:  # noqa: BLE001 - a help for the reader; a foreign interpreter may lack onnx
        return None
    names = [node.name or f"that makes {node.output[0]}" for node in nodes]
    return None if not names else names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _peak_mib() -> float:
    """The most memory that this process held, MiB; not what it was forked from held."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found.group(1)) / 1024 if found else 0.0


if __name__ == "__main__":
    main(sys.argv[1])
    # The answer is written: what libraries do when they are unloaded (some crash) belongs to nobody.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
