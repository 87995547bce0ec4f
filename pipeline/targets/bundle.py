"""`<target>/bundle/`: everything that is needed to run the compiled model, and the proof that it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import StageFailed
from pipeline.events import LogLine
from pipeline.parity.compare import is_floating
from pipeline.samples.npz import write_npz
from pipeline.stage import Workspace
from pipeline.targets.backend import Job
from pipeline.targets.backends import interpreter
from pipeline.targets.child import imports_for
from pipeline.targets.sandbox import run_child

if TYPE_CHECKING:
    from pipeline.targets.compare import TargetReport
    from pipeline.targets.compiled import CompiledFiles
    from pipeline.targets.stages import TargetRequest

STAGE: Final = "bundle"
INPUTS: Final = "inputs.npz"
EXPECTED: Final = "expected.npz"
PROGRAM: Final = "run.py"
PAGE: Final = "README.md"
NAMES: Final = "names.json"
#: What a compiled file may not be called.
TAKEN: Final = frozenset({INPUTS, EXPECTED, PROGRAM, PAGE, NAMES})
#: How the program is started: Python isolated from the user's settings, finding the packages that we find,
#: and without the pipeline even where it is installed.
_START: Final = (
    "import runpy, sys; sys.path += [one for one in {paths!r} if one not in sys.path]; "
    "sys.modules['pipeline'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def write_bundle(request: TargetRequest, workspace: Workspace) -> list[Path]:
    """Write the bundle's files into the run directory.

    Returns:
        their paths.

    Raises:
        StageFailed: PL-647, the backend calls a file as the bundle calls one of its own.
    """
    made: CompiledFiles = workspace.get("compiled")
    report: TargetReport = workspace.get("target_report")
    label, inputs = next(iter(workspace.get("parity_inputs").items()))
    if taken := sorted(TAKEN & set(made.data)):
        raise StageFailed("PL-647", f"{request.target} calls a compiled file {taken[0]}",
                          expected="a name that no file of the bundle has")  # fmt: skip
    for name in made.data:
        _place(request, workspace, name)
    made.write_files(_root(request, workspace))
    job = _job(request, workspace, made, report.tolerance)
    texts = {
        PROGRAM: request.backend.program(job, made.compiled),
        PAGE: f"{request.backend.page(job, made.compiled).rstrip()}\n{_accepted(request, report.tolerance)}",
    }
    if made.compiled.names:
        texts[NAMES] = json.dumps(dict(made.compiled.names), indent=1, ensure_ascii=False) + "\n"
    for name, text in texts.items():
        _place(request, workspace, name).write_text(text, encoding="utf-8")
    write_npz(_place(request, workspace, INPUTS), inputs)
    write_npz(_place(request, workspace, EXPECTED), _expected(workspace, label))
    return [_place(request, workspace, name) for name in (*made.data, *texts, INPUTS, EXPECTED)]


def _accepted(request: TargetRequest, tolerance: float) -> str:
    """The last paragraph of the page."""
    return (
        f"\n`{PROGRAM}` accepts max |difference| / max |expected| up to {tolerance:.3g} of a floating output "
        f"({request.precision}), NaN and infinities only where they are expected, and integers that are equal.\n"
    )


def _expected(workspace: Workspace, label: str) -> dict[str, Any]:
    """The network's own outputs; the target's where ties may fall otherwise (integers, lists of boxes)."""
    reference = workspace.get("reference").outputs[label]
    own = workspace.get("target_outputs").outputs[label]
    return {
        name: array if is_floating(array) and array.shape == own[name].shape else own[name]
        for name, array in reference.items()
    }


def prove_bundle(request: TargetRequest, workspace: Workspace) -> None:
    """Run the bundle's program in a child process where the pipeline cannot be imported.

    Raises:
        StageFailed: PL-650, it does not end with 0.
    """
    program = _place(request, workspace, PROGRAM)
    start = _START.format(paths=list(imports_for(request.python)))
    folder = workspace.scratch / "bundle"
    folder.mkdir()
    result = run_child(
        [interpreter(request.python), "-I", "-c", start, str(program.absolute())],
        folder=folder.absolute(),
        timeout_s=request.timeout_s,
    )
    for line in result.log.splitlines():
        workspace.emit(LogLine(STAGE, line))
    if result.timed_out or result.returncode != 0:
        how = f"killed after {request.timeout_s:g} s" if result.timed_out else result.death()
        raise StageFailed(
            "PL-650", f"the bundle's program does not reproduce the outputs on {request.target}",
            where=f"{request.target}/bundle/{PROGRAM}", found=f"{how}: {result.last_words}",
            expected="exit code 0",
        )  # fmt: skip


def _root(request: TargetRequest, workspace: Workspace) -> Path:
    return _place(request, workspace, PROGRAM).parent


def _place(request: TargetRequest, workspace: Workspace, name: str) -> Path:
    """Where a file of the bundle stands; only the inputs are the same for the same request."""
    return workspace.file(f"{request.target}/bundle/{name}", "bundle", same_every_time=name == INPUTS)


def _job(request: TargetRequest, workspace: Workspace, made: CompiledFiles, tolerance: float) -> Job:
    return Job(
        model=workspace.get("model").path,
        folder=_root(request, workspace),
        scratch=workspace.scratch,
        inputs=made.inputs,
        outputs=made.outputs,
        precision=request.precision,
        options=request.options,
        threads=request.use_threads,
        timeout_s=request.timeout_s,
        tolerance=tolerance,
    )
