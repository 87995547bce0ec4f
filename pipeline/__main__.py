"""The command line: runs, sweeps, and commands (a first word without `=`).

This process stays light: it never imports torch, torchvision, onnx or onnxruntime. `--help` and
`--version` are answered before Hydra is imported.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from pipeline.errors import EXIT_FAILED, EXIT_MADE, EXIT_SIGINT, InternalError, PipelineError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code: docs/exit-codes.md says what each means."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Read when torch is imported. Idle OpenMP threads that spin cost more than they bring, but one that
    # sleeps at once takes longer to wake than a small layer to compute: they spin for about 0.1 ms.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        return _answer(words)
    except PipelineError as error:
        if "debug=true" in map(str.lower, words):
            traceback.print_exc()
        print(f"{error.reason.code}: {error.reason.sentence()}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_SIGINT
    except BrokenPipeError:
        # Somebody closed our stdout (head, less): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_FAILED
    except InternalError:
        traceback.print_exc()
        print("This is a defect of the pipeline itself: please report it.", file=sys.stderr)
        return EXIT_FAILED


def _answer(words: list[str]) -> int:
    if words and "=" not in words[0] and not words[0].startswith(("-", "~", "+")):
        return _command(words[0], words[1:])
    from pipeline.config.arguments import parse_arguments

    arguments = parse_arguments(words)
    if arguments.show == "help" or not words:
        from pipeline.commands import COMMANDS
        from pipeline.config.help import help_text

        folders = [arguments.config_dir] if arguments.config_dir else []
        print(help_text(folders, {word: what for word, (_, what) in COMMANDS.items()}))
        return EXIT_MADE
    if arguments.show == "version":
        from pipeline.config.help import version_text

        print(version_text())
        return EXIT_MADE
    if arguments.show == "cfg":
        from pipeline.config.show import show_job

        print(show_job(arguments), end="")
        return EXIT_MADE
    if arguments.show == "hydra":
        from pipeline.config.hydra_app import answer

        return answer(arguments)
    from pipeline.commands.run import main as run

    return run(arguments)


def _command(word: str, rest: Sequence[str]) -> int:
    from importlib import import_module

    from pipeline.commands import COMMANDS
    from pipeline.errors import Refused

    if word not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(word, COMMANDS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise Refused(
            "PL-800",
            f"there is no command {word!r}",
            expected=f"one of {', '.join(COMMANDS)}, or overrides such as model=alexnet",
            next_step=f"{hint}Type python -m pipeline --help",
        )
    try:
        code: int = import_module(COMMANDS[word][0]).main(rest)
    except PipelineError as error:
        if "--json" in rest:
            from pipeline.commands.arguments import print_json

            print_json({"error": error.reason.to_json()})
        raise
    return code


def console() -> None:
    """Entry point of the console script."""
    sys.exit(main())


if __name__ == "__main__":
    console()
