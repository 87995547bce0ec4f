"""`verify DIR... [--deep]`: is a run directory whole and unchanged?

Exit code 0: whole and unchanged. 1: changed, missing or extra files, invalid records, or (with
`--deep`) outputs that no longer match. 2: not a run directory. Needs no torch; `--deep` runs the
file again on the saved inputs with ONNX Runtime.
"""

from __future__ import annotations

import sys
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
    from pipeline.commands.deep import compare_again

    try:
        return [Problem("changed", "model.onnx", text) for text in compare_again(folder)]
    except PipelineError as error:
        return [Problem("changed", "model.onnx", error.reason.sentence())]
