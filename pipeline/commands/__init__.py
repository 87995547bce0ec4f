"""Commands: the first word of a command line, one file each. Imported only when called."""

from __future__ import annotations

from typing import Final

#: First word -> (module, one line for the help page).
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "verify": ("pipeline.commands.verify", "is a run directory whole and unchanged?"),
    "reproduce": ("pipeline.commands.reproduce", "make it again from its records, compare bytes"),
    "compare": ("pipeline.commands.compare", "what differs between two run directories"),
    "precheck": ("pipeline.commands.precheck", "judge a file against a target's profile"),
    "targets": ("pipeline.commands.targets", "list the targets and what they take"),
    "rules": ("pipeline.commands.rules", "the rewrite rules: what they take, make, need and promise"),
    "cache": ("pipeline.commands.cache", "list, clear, verify or explain the stage cache"),
}
