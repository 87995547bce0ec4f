"""Command lines of commands: argparse whose complaints are one sentence and exit code 2."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import Refused


class Arguments(argparse.ArgumentParser):
    """An argument parser that raises `Refused` where argparse would print a usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise Refused("PL-800", message, where=self.prog, next_step=f"Type {self.prog} --help")


def parser(name: str, summary: str) -> Arguments:
    """The parser of `python -m pipeline NAME`, with `--json`."""
    made = Arguments(prog=f"python -m pipeline {name}", description=summary)
    made.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")
    return made


def one_path(arguments: Arguments, given: Sequence[Path]) -> Path:
    """The only one of what was given.

    Raises:
        Refused: there are several.
    """
    if len(given) > 1:
        name = arguments.prog.rpartition(" ")[2]
        raise Refused(
            "PL-800", f"{name} takes one at a time", where=arguments.prog, found=" and ".join(map(str, given)),
            expected="one path", next_step="Type the command once for each of them",
        )  # fmt: skip
    return given[0]


def print_json(data: Any) -> None:
    """The result of a `--json` call."""
    json.dump(data, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
