"""`rules`: the rewrite rules, with what they take, make, need and promise."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from pipeline.commands.arguments import parser, print_json
from pipeline.errors import EXIT_MADE, Refused
from pipeline.report.units import count

if TYPE_CHECKING:
    from pipeline.graph.rewrites.rule import Rule

#: Under which key a rule of a kind is switched off.
KEYS: Final = {"lower": "export.rules", "legalise": "target.rules"}

#: How many near names a refusal offers, and from which likeness on.
NEAR: Final = 3
NEARNESS: Final = 0.7


def main(argv: Sequence[str]) -> int:
    """List the rules, or those whose name, kind or operators hold a word."""
    arguments = parser("rules", "List the rewrite rules: what they take, make, need and promise.")
    arguments.add_argument("words", nargs="*", help="only rules with these words in name, kind or operators")
    given = arguments.parse_args(argv)
    rows = [row for row in _rows() if _fits(row, given.words)]
    if not rows:
        raise _nothing(given.words)
    if given.json:
        print_json(rows)
        return EXIT_MADE
    for row in rows:
        opsets = _opsets(row)
        print(f"{row['name']}  ({row['kind']}{opsets}, {row['promise']})")
        print(f"    {row['summary']}")
        print(f"    takes {', '.join(row['takes'])}; makes {', '.join(row['makes'])}")
        if row["needs"]:
            print(f"    needs {row['needs']}")
        print(f"    off with {row['off']}")
    print(count(len(rows), "rule"))
    return EXIT_MADE


def _rows() -> list[dict[str, Any]]:
    from pipeline.graph.rewrites.families import rules_of

    return [_row(rule) for rule in (*rules_of("lower"), *rules_of("legalise"))]


def _row(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "kind": rule.kind,
        "summary": rule.summary,
        "takes": list(rule.takes),
        "makes": list(rule.makes),
        "needs": rule.needs,
        "promise": rule.promise,
        "from_opset": rule.from_opset or None,
        "opsets": list(rule.opsets),
        "off": f"{KEYS[rule.kind]}.{rule.name}=false",
    }


def _nothing(words: Sequence[str]) -> Refused:
    rows = _rows()
    known = sorted(
        {word for row in rows for word in (row["name"], row["kind"], *row["takes"], *row["makes"])}
    )
    lower = {word.lower(): word for word in known}
    unknown = [word for word in words if not any(_fits(row, [word]) for row in rows)]
    near = [
        lower[one]
        for word in unknown
        for one in get_close_matches(word.lower(), lower, n=NEAR, cutoff=NEARNESS)
    ]
    step = f"Type python -m pipeline rules {shlex.join(words[:1]) if not unknown else ''}".rstrip()
    return Refused(
        "PL-800", f"no rule has {' and '.join(words)} in its name, kind or operators", where="rules",
        next_step=f"Did you mean {' or '.join(near[:NEAR])}?" if near else step,
    )  # fmt: skip


def _opsets(row: dict[str, Any]) -> str:
    return f", from opset {row['from_opset']} to {row['from_opset'] - 1}" if row["from_opset"] else ""


def _fits(row: dict[str, Any], words: Sequence[str]) -> bool:
    text = " ".join((row["name"], row["kind"], *row["takes"], *row["makes"])).lower()
    return all(word.lower() in text for word in words)
