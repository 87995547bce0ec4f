"""The JSON Schemas of the records, and what is wrong with a record by them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

#: More problems than this in one record say nothing new.
PROBLEM_LIMIT: Final = 5


@cache
def schema(name: str) -> dict[str, Any]:
    """The schema of `manifest.json` or `run.json`."""
    path = Path(__file__).parent / name.replace(".json", ".schema.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def problems_of(name: str, record: Any) -> list[str]:
    """Sentences about what does not fit the schema of `name`; empty when the record is valid."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(schema(name))
    found = []
    for error in validator.iter_errors(record):
        where = "/".join(str(part) for part in error.absolute_path) or "the record"
        found.append(f"{where}: {error.message[:200]}")
        if len(found) >= PROBLEM_LIMIT:
            break
    return found
