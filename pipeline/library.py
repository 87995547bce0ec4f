"""The Python face: `export` and `verify`, in the caller's own process.

Calls take turns under one lock. Output is captured through logging and warnings only; nothing
process-wide is changed that is not undone, and no trick is used that only a command line may.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TextIO

from pipeline.errors import EXIT_REFUSED, Reason, Refused, StageFailed
from pipeline.events import Emit, Event
from pipeline.run import records
from pipeline.run.point import WorkResult, run_point
from pipeline.run.verify import Problem, verify_directory
from pipeline.run.work import work_in
from pipeline.run.workspace import Shared

#: torch's exporters, Hydra and onnxruntime keep process-wide state: one export at a time.
_TURN: Final = threading.RLock()


@dataclass(frozen=True)
class ExportResult:
    """What an export left, and why one may believe it.

    Attributes:
        directory: the run directory.
        model_path: the ONNX file in it.
        reused: an earlier, whole run directory was verified and returned.
        verdicts: stage name to status ("passed", "vacuous", "skipped").
        opset: of the default domain, as read back from the file.
        error, tolerance, margin: of the output that comes nearest to its tolerance; None when
            parity was switched off.
        manifest, record: the contents of manifest.json and run.json.
    """

    directory: Path
    model_path: Path
    reused: bool
    verdicts: Mapping[str, str]
    opset: int
    error: float | None
    tolerance: float | None
    margin: float | None
    manifest: Mapping[str, Any]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class VerifyResult:
    """Whether a run directory is whole and unchanged, and what is wrong if not."""

    directory: Path
    whole: bool
    problems: tuple[Problem, ...]


def export(
    overrides: Sequence[str] = (),
    *,
    config: Mapping[str, Any] | None = None,
    config_dirs: Sequence[str | Path] = (),
    on_event: Emit | None = None,
) -> ExportResult:
    """Run one request and return its proof.

    >>> import tempfile
    >>> from pipeline import export
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = export(["model=mynet", "export.opset=11", f"out={folder}", "cache.mode=none"])
    ...     (result.model_path.name, result.opset, result.verdicts["parity"], result.margin > 1)
    ('model.onnx', 11, 'passed', True)

    Args:
        overrides: as on the command line, without sweeps.
        config: the same config tree as nested mappings, laid over the overrides.
        config_dirs: folders of your own configuration files.
        on_event: gets every event (`pipeline.events`) while the run goes on.

    Raises:
        Refused: the request was refused before work.
        StageFailed: a stage failed; the record is under `<out>/failed`.
    """
    from pipeline.config.compose import compose
    from pipeline.plan import build_plan, run_options

    if isinstance(overrides, str):
        raise Refused(
            "PL-105", "the overrides are one text", where="overrides", found=repr(overrides),
            expected="a list with a text each", next_step=f"Write export({overrides.split()!r})",
        )  # fmt: skip
    if isinstance(config_dirs, (str, Path)):
        raise Refused(
            "PL-105", "the folders of configurations are one text", where="config_dirs", found=repr(str(config_dirs)),
            expected="a list of folders", next_step=f"Write config_dirs=[{str(config_dirs)!r}]",
        )  # fmt: skip
    with _TURN:
        made = compose(overrides, tree=config, config_dirs=config_dirs)
        # Private interfaces of torch and onnxsim change process-wide state: the command line's alone.
        plan = build_plan(replace(made, private_apis=False), tuple(overrides))
        options = run_options(made)
        if made.dry_run:
            raise Refused(
                "PL-111", "a dry run prints a plan and gives no result, and this call returns one",
                where="dry_run", next_step="Take it away, or run python -m pipeline in a process",
            )  # fmt: skip
        for key in ("timeout_s", "memory_limit"):
            if getattr(made, key) is not None:
                raise Refused(
                    "PL-111", "a limit needs a process of its own, and this call works in the caller's",
                    where=key, next_step="Take it away, or run python -m pipeline in a process",
                )  # fmt: skip

        def work(folder: Path, emit: Emit) -> WorkResult:
            with _logged(folder / records.LOG) as mark:
                return work_in(plan, folder, options, emit, Shared(), mark)

        finished = run_point(plan, options, on_event or _nobody, work)
    if finished.exit_code or finished.directory is None:
        reason = Reason(**(finished.reason or {"code": "PL-710", "message": "the run failed"}))
        kind = Refused if finished.exit_code == EXIT_REFUSED else StageFailed
        raise kind(
            reason.code, reason.message, where=reason.where, found=reason.found,
            expected=reason.expected, next_step=reason.next_step,
        )  # fmt: skip
    return _result(Path(finished.directory), finished.reused)


def verify(directory: str | Path) -> VerifyResult:
    """Re-hash a run directory and hold it against its records; no torch.

    Raises:
        pipeline.run.verify.NotARunDirectoryError: there are no records.
    """
    problems = verify_directory(Path(directory))
    return VerifyResult(Path(directory), not problems, tuple(problems))


def _result(folder: Path, reused: bool) -> ExportResult:
    manifest = records.load(folder / records.MANIFEST)
    record = records.load(folder / records.RECORD)
    row = records.row_of(manifest, record)
    return ExportResult(
        directory=folder,
        model_path=folder / "model.onnx",
        reused=reused,
        verdicts={name: verdict["status"] for name, verdict in manifest["verdicts"].items()},
        opset=int(row["opset"]),
        error=row.get("error"),
        tolerance=row.get("tolerance"),
        margin=row.get("margin"),
        manifest=manifest,
        record=record,
    )


def _nobody(event: Event) -> None:
    """Events that nobody asked for."""


@contextmanager
def _logged(log: Path) -> Iterator[Callable[[str], None]]:
    """Log records and warnings go into `log`; both are as before afterwards."""
    stream = log.open("a", encoding="utf-8")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        stream.write(f"{category.__name__}: {message}\n")

    def mark(stage: str) -> None:
        stream.write(f"== {stage}\n")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = show
            yield mark
    finally:
        root.removeHandler(handler)
        stream.close()
