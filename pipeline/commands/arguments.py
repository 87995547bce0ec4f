"""Command lines of commands: argparse whose complaints are one sentence and exit code 2."""

from __future__ import annotations

import argparse
import json
import sys
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


def print_json(data: Any) -> None:
    """The result of a `--json` call."""
    json.dump(data, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
