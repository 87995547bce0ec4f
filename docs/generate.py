"""Writes the pages that come from elsewhere: docs/errors.md and docs/decisions/README.md.

    python docs/generate.py

`tests/test_docs.py` fails while a page is not what this writes.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from pipeline.errors import CODES  # noqa: E402 - found beside docs/, whatever is installed

#: First digit of a code to what it is about.
ROOMS: Final = {
    "1": "Configuration and command line",
    "2": "Networks and inputs",
    "3": "Export",
    "4": "Graph and file",
    "5": "Reference and parity",
    "6": "Targets",
    "7": "Run directory, cache and processes",
    "8": "Commands",
}

ERRORS: Final = """# Error codes

Made by `python docs/generate.py` from the table in `pipeline/errors.py`; do not edit.

A user's mistake and a failed stage are one sentence with a stable code: where it is, what was found, what
was expected, and what to type. The same stands as data, `{code, message, where, found, expected,
next_step}` (what is not known is left out), in run.json of a failed run and in `error.reason` in Python;
a row of a sweep has the sentence. A code is never used again for something else; scripts may rely on it, the words
of a sentence may change. Whether the run was refused (2) or failed (1) is told by the
[exit code](exit-codes.md): some mistakes can be seen before work in one place and only by a stage in
another.
"""

DECISIONS: Final = """# Decisions

Choices that a newcomer would question, one page each: what was decided, why, and what it was measured on.
The list is made by `python docs/generate.py` from the pages' titles.

"""


def errors() -> str:
    """docs/errors.md."""
    parts = [ERRORS]
    for digit, codes in groupby(sorted(CODES), key=lambda code: code.removeprefix("PL-")[0]):
        rows = "\n".join(f"| {code} | {CODES[code]} |" for code in codes)
        parts.append(f"\n## {ROOMS[digit]}\n| code | meaning |\n|---|---|\n{rows}\n")
    return "".join(parts)


def decisions() -> str:
    """docs/decisions/README.md: a line a page."""
    lines = []
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        number, _, title = (
            path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").partition(" ")
        )
        lines.append(f"- [{number}]({path.name}) {title}\n")
    return DECISIONS + "".join(lines)


def pages() -> dict[Path, str]:
    """Every page that is made, with its text."""
    return {DOCS / "errors.md": errors(), DOCS / "decisions" / "README.md": decisions()}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
