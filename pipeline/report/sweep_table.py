"""The table of a sweep: rows as data, and its two files, true at every moment.

<out>/sweeps/<name>/table.csv    one line a point
<out>/sweeps/<name>/table.json   the same rows as JSON, with the point's overrides
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.errors import Refused
from pipeline.events import RunFinished
from pipeline.report.blocks import reason_text

SWEEPS: Final = "sweeps"
COLUMNS: Final = (
    "point", "model", "opset_asked", "opset", "exporter", "target", "status", "stage", "reason",
    "error", "tolerance", "margin", "nodes", "size_bytes", "seconds", "cached", "directory",
    "target_precision", "target_error", "target_tolerance", "target_margin", "latency_ms", "latency_p95_ms",
    "latency_runs", "threads", "compile_seconds", "run_seconds", "artifact_bytes",
)  # fmt: skip


def sweep_name(models: Sequence[str], identities: Sequence[str]) -> str:
    """A label of the points: the same points, in whatever order, have the same one.

    Args:
        models: name of each point's network.
        identities: what tells a point from others and stays: its request key, or how it was typed.
    """
    digest = hashlib.sha256("\n".join(sorted(set(identities))).encode()).hexdigest()[:8]
    named = list(dict.fromkeys(models))
    who = named[0] if len(named) == 1 else f"{len(named)}-models"
    points = "1-point" if len(identities) == 1 else f"{len(identities)}-points"
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in who)
    return f"{safe}-{points}-{digest}"


@dataclass
class SweepTable:
    """The rows of a sweep, written to its folder after every change.

    Args:
        folder: `<out>/sweeps/<name>`.
        rows: what is known of each point before it is made; `status` is "not reached".
        overrides: how each point was typed.
    """

    folder: Path
    rows: list[dict[str, Any]]
    overrides: list[tuple[str, ...]] = field(default_factory=list)

    def begin(self) -> None:
        """Make the folder and write the table in which nothing is reached yet.

        Raises:
            Refused: the folder cannot be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write()
        except OSError as error:
            raise Refused(
                "PL-701", "the output folder cannot be written", where="out",
                found=f"{self.folder} ({error.strerror})", expected="a folder that you may write",
                next_step="Type out=FOLDER for another one",
            ) from error  # fmt: skip

    def finish(self, index: int, finished: RunFinished) -> None:
        """Take in a point's end and write the table."""
        row = {**self.rows[index], **finished.row}
        if finished.reason is not None:
            row["reason"] = reason_text(finished.reason)
        if finished.directory is not None:
            row["directory"] = finished.directory
        self.rows[index] = row
        with suppress(OSError):  # a full disk fails the points themselves; the table on the screen stays
            self.write()

    def write(self) -> None:
        """Replace both files; a reader, or whoever comes after an interrupt, never sees half of one."""
        _replace(self.folder / "table.csv", csv_text(self.rows))
        _replace(self.folder / "table.json", json_text(self.rows, self.overrides))


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV: a heading, then a line a point; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in COLUMNS])
    return text.getvalue()


def json_text(rows: Sequence[Mapping[str, Any]], overrides: Sequence[Sequence[str]] = ()) -> str:
    """The rows as a JSON list, a line a point; `null` is what is not known."""
    lines = []
    for index, row in enumerate(rows):
        data = {name: row.get(name) for name in COLUMNS}
        if overrides:
            data["overrides"] = list(overrides[index])
        lines.append(json.dumps(data, ensure_ascii=False))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(str(value).split()) if isinstance(value, str) else str(value)


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
