"""The command line's flags, as Hydra names them, read without importing Hydra.

Everything that is no flag is an override. Flags and overrides may stand in any order.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn

from pipeline.config import schema
from pipeline.errors import Refused

#: What an answer consists of when no run is wanted.
Show = Literal["help", "version", "cfg", "hydra"]

_CFG: Final = ("job", "hydra", "all")
_INFO: Final = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass(frozen=True)
class Arguments:
    """What the command line asks for.

    Attributes:
        overrides: everything that is no flag, as typed, in order.
        multirun: `-m`.
        show: what to print instead of running; "hydra" is answered by Hydra's own application
            (`--info`, `--cfg hydra|all`, `--shell-completion`, `--hydra-help`).
        cfg, package, resolve: of `--cfg`.
        config_dir: `--config-dir`: a folder of the user's own configuration files.
        config_name: `--config-name`: another primary config.
        argv: as it came.
    """

    overrides: tuple[str, ...] = ()
    multirun: bool = False
    show: Show | None = None
    cfg: Literal["job", "hydra", "all"] | None = None
    package: str | None = None
    resolve: bool = False
    config_dir: Path | None = None
    config_name: str | None = None
    argv: tuple[str, ...] = ()


class _Parser(argparse.ArgumentParser):
    """argparse that raises our sentence instead of printing usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise _refusal(message)


def _refusal(message: str) -> Refused:
    step = "Type python -m pipeline --help for what there is"
    if message.startswith("unrecognized arguments: "):
        flag = message.removeprefix("unrecognized arguments: ").split()[0]
        name = flag.lstrip("-").partition("=")[0].replace("-", "_")
        keys = schema.near_keys(name) if schema.all_keys().get(name) is None else [name]
        close = schema.near(flag.partition("=")[0], _parser().flags())
        if keys and name in (keys[0], keys[0].rpartition(".")[2]):
            value = flag.partition("=")[2] or "VALUE"
            step = f"Keys are given without dashes: type {keys[0]}={value}"
        elif close:
            step = f"Did you mean {close[0]}?"
        return Refused("PL-112", f"there is no flag {flag}", next_step=step)
    if message.startswith("argument "):
        flag, _, what = message.removeprefix("argument ").partition(": ")
        name = flag.split("/")[0]
        if "invalid choice" in what:
            choices = {"--cfg": _CFG, "--info": _INFO}.get(name, ())
            value = what.partition("'")[2].partition("'")[0]
            return Refused(
                "PL-112", f"{name} cannot be '{value}'", expected=schema.names(choices),
                next_step=f"Type {name} {choices[0]}",
            )  # fmt: skip
        return Refused("PL-112", f"{name} needs a value", next_step=f"Type {name} VALUE")
    return Refused("PL-112", f"the command line cannot be read: {message}", next_step=step)


class _Flags(_Parser):
    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False, prog="python -m pipeline")
        self.add_argument("overrides", nargs="*")
        self.add_argument("--help", "-h", action="store_true")
        self.add_argument("--version", action="store_true")
        self.add_argument("--hydra-help", action="store_true")
        self.add_argument("--cfg", "-c", choices=_CFG)
        self.add_argument("--resolve", action="store_true")
        self.add_argument("--package", "-p")
        self.add_argument("--run", "-r", action="store_true")
        self.add_argument("--multirun", "-m", action="store_true")
        self.add_argument("--shell-completion", "-sc", action="store_true")
        self.add_argument("--config-path", "-cp")
        self.add_argument("--config-name", "-cn")
        self.add_argument("--config-dir", "-cd")
        self.add_argument("--experimental-rerun")
        self.add_argument("--info", "-i", const="all", nargs="?", choices=_INFO)

    def flags(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]


def _parser() -> _Flags:
    return _Flags()


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read the command line (without the program's name).

    Raises:
        Refused: an unknown flag, a flag without its value, flags that contradict.
    """
    given = _parser().parse_intermixed_args(list(argv))
    if given.config_path is not None:
        raise Refused(
            "PL-112", "--config-path would take the pipeline's own configuration away",
            next_step=f"Type --config-dir {given.config_path}, which adds a folder to it",
        )  # fmt: skip
    if given.experimental_rerun is not None:
        raise Refused(
            "PL-112", "--experimental-rerun is not supported",
            next_step="Type python -m pipeline reproduce DIR to make a run again from its records",
        )  # fmt: skip
    if given.run and given.multirun:
        raise Refused(
            "PL-112", "--run and --multirun contradict each other", next_step="Leave one of them out"
        )
    config_dir = Path(given.config_dir).absolute() if given.config_dir is not None else None
    if config_dir is not None and not config_dir.is_dir():
        raise Refused(
            "PL-108", "the configuration folder is not there", where="--config-dir",
            found=str(given.config_dir), expected="a folder with model/, experiment/ ... inside",
            next_step="Type --config-dir FOLDER",
        )  # fmt: skip
    show: Show | None = None
    if given.help:
        show = "help"
    elif given.version:
        show = "version"
    elif given.cfg == "job":
        show = "cfg"
    elif given.cfg or given.info or given.shell_completion or given.hydra_help:
        show = "hydra"
    if show != "cfg" and (given.resolve or given.package) and not given.cfg:
        flag = "--resolve" if given.resolve else "--package"
        raise Refused("PL-112", f"{flag} goes with --cfg", next_step=f"Type --cfg job {flag}")
    return Arguments(
        overrides=tuple(given.overrides),
        multirun=given.multirun,
        show=show,
        cfg=given.cfg,
        package=given.package,
        resolve=given.resolve,
        config_dir=config_dir,
        config_name=given.config_name,
        argv=tuple(argv),
    )
