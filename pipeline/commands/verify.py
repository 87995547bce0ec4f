"""`verify DIR... [--deep]`: is a run directory whole and unchanged?

Exit code 0: whole and unchanged. 1: changed, missing or extra files, invalid records, or (with
`--deep`) outputs that no longer match. 2: not a run directory. Needs no torch; `--deep` runs the
file again on the saved inputs with ONNX Runtime.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.commands.arguments import parser, print_json
from pipeline.errors import EXIT_FAILED, EXIT_MADE, EXIT_REFUSED, PipelineError
from pipeline.run.verify import NotARunDirectoryError, Problem, verify_directory


def main(argv: Sequence[str]) -> int:
    """Verify each folder; the exit code is the worst of theirs."""
    arguments = parser("verify", "Is a run directory whole and unchanged?")
    arguments.add_argument("directory", nargs="+", type=Path)
    arguments.add_argument("--deep", action="store_true", help="run parity again from the saved inputs")
    given = arguments.parse_args(argv)
    worst = EXIT_MADE
    report: list[dict[str, Any]] = []
    for folder in given.directory:
        try:
            problems = verify_directory(folder)
            if given.deep and not problems:
                problems = _deep(folder)
        except NotARunDirectoryError as error:
            worst = max(worst, EXIT_REFUSED)
            report.append({"directory": str(folder), "status": "not a run directory", "problems": []})
            if not given.json:
                print(f"{folder}: PL-801 not a run directory ({error})", file=sys.stderr)
            continue
        worst = max(worst, EXIT_FAILED if problems else EXIT_MADE)
        status = "changed" if problems else "whole"
        report.append(
            {"directory": str(folder), "status": status, "problems": [asdict(each) for each in problems]}
        )
        if not given.json:
            _say(folder, problems)
    if given.json:
        print_json(report)
    return worst


def _say(folder: Path, problems: Sequence[Problem]) -> None:
    if not problems:
        print(f"{folder}: whole and unchanged")
        return
    for problem in problems:
        print(f"{folder}: {problem.kind}: {problem.path} {problem.message}")


def _deep(folder: Path) -> list[Problem]:
    """In a child process: a file that somebody else made may end the process that opens it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w", encoding="utf-8") as stream:
                json.dump(_compared(folder), stream)
            status = 0
        except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's code
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        told = stream.read()
    _, status = os.waitpid(child, 0)
    if status == 0:
        return [Problem("changed", "model.onnx", text) for text in json.loads(told)]
    how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "an error"
    return [Problem("changed", "model.onnx", f"ended the process that ran it ({how})")]


def _compared(folder: Path) -> list[str]:
    from pipeline.commands.deep import compare_again

    try:
        return compare_again(folder)
    except PipelineError as error:
        return [error.reason.sentence()]
