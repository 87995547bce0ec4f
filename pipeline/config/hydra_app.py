"""What Hydra's own application answers: `--info`, `--cfg hydra|all`, `--hydra-help`, completion.

Hydra prints; what it complains about is said as one sentence of ours. No run is ever started here.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hydra import main as hydra_main
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.config import messages, overrides
from pipeline.config.arguments import Arguments
from pipeline.config.compose import VERSION_BASE
from pipeline.config.folders import ConfigFolders, config_folders
from pipeline.errors import EXIT_MADE, EXIT_REFUSED, InternalError, Refused

#: `python -m pipeline` at the head of a line that is being completed: Hydra knows `python app.py` only.
_AS_MODULE: Final = re.compile(r"^\s*\S*python[\d.]*\s+-m\s+pipeline(?=\s|$)")
_APPLICATION: Final = "onnx-pipeline"

#: Completes `onnx-pipeline ...` and `python -m pipeline ...`; other lines of python are left to what
#: completed them before.
_BASH: Final = """\
export _PIPELINE_OLD_COMP=$(complete -p python 2> /dev/null)
_pipeline_completion()
{
    local words=($COMP_LINE) helper word choices
    if [ "${words[1]}" == "-m" ] && [ "${words[2]}" == "pipeline" ]; then
        helper="${words[0]} -m pipeline"
    elif [ "${words[0]##*/}" == "onnx-pipeline" ]; then
        helper="${words[0]}"
    else
        return
    fi
    word="${COMP_LINE##* }"
    choices=$(COMP_POINT=$COMP_POINT COMP_LINE=$COMP_LINE $helper -sc query=bash 2> /dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
COMP_WORDBREAKS=$COMP_WORDBREAKS complete -o nospace -o default -F _pipeline_completion \
python python3 onnx-pipeline
"""
_BASH_UNINSTALL: Final = """\
complete -r python python3 onnx-pipeline 2> /dev/null
unset -f _pipeline_completion
eval "$_PIPELINE_OLD_COMP"
unset _PIPELINE_OLD_COMP
"""


def answer(arguments: Arguments) -> int:
    """Let Hydra print what is asked for; the exit code.

    Raises:
        Refused: the command line is refused, or Hydra cannot compose it.
    """
    words = list(arguments.argv)
    completion = "--shell-completion" in words or "-sc" in words
    if completion and "install=bash" in words:
        sys.stdout.write(_BASH)
        return EXIT_MADE
    if completion and "uninstall=bash" in words:
        sys.stdout.write(_BASH_UNINSTALL)
        return EXIT_MADE
    folders = config_folders(
        [arguments.config_dir] if arguments.config_dir is not None else [], arguments.config_name
    )
    if not completion:
        parsed = overrides.parse(arguments.overrides)
        overrides.check_keys(parsed, folders)
        overrides.sort((override for override in parsed if not override.is_sweep_override()), folders)
    with _as_hydra_expects(words):
        return _hydra(folders)


def _hydra(folders: ConfigFolders) -> int:
    @hydra_main(version_base=VERSION_BASE, config_path=str(folders.main), config_name=folders.name)
    def application(config: Any) -> None:
        raise InternalError("Hydra started a run where it was to show something")

    try:
        application()
    except SystemExit as left:
        return EXIT_MADE if not left.code else EXIT_REFUSED
    except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise messages.translate(error, folders) from error
    except (ValueError, AssertionError) as error:  # how Hydra says that flags contradict each other
        raise Refused(
            "PL-112", "the command line cannot be answered", found=str(error),
            next_step="Type python -m pipeline --hydra-help",
        ) from error  # fmt: skip
    return EXIT_MADE


@contextmanager
def _as_hydra_expects(words: list[str]) -> Iterator[None]:
    """Hydra reads sys.argv and the environment; both are as before afterwards."""
    argv, environment = list(sys.argv), dict(os.environ)
    sys.argv = [_APPLICATION, *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise instead of printing
    if "COMP_LINE" in os.environ:
        os.environ["COMP_LINE"] = _AS_MODULE.sub(_APPLICATION, os.environ["COMP_LINE"])
    try:
        yield
    finally:
        sys.argv = argv
        for name in ("HYDRA_FULL_ERROR", "COMP_LINE"):
            if name in environment:
                os.environ[name] = environment[name]
            else:
                os.environ.pop(name, None)
