"""What the parent and the child process tell each other, as JSON. Runs in foreign interpreters too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.targets.backend import Compiled, Job, TensorSpec

ORDER_FILE: Final = "order.json"
ANSWER_FILE: Final = "answer.json"


@dataclass(frozen=True)
class Timing:
    """How latency is measured: `runs` runs or `seconds` after the warm-up, whichever ends first."""

    runs: int = 50
    seconds: float = 30.0
    warm_up_runs: int = 3
    warm_up_seconds: float = 5.0


@dataclass(frozen=True)
class Order:
    """What the child is to do.

    Attributes:
        action: "compile" or "run".
        backend: `module:Class`.
        job: see `pipeline.targets.backend.Job`.
        compiled: what compile said; for "run".
        inputs: label of the inputs to input name to a key of `arrays`; for "run".
        arrays: an .npz file.
        outputs: where to write the outputs, an .npz file; for "run".
        timing: for "run".
        import_from: folders to import from, after the interpreter's own.
    """

    action: str
    backend: str
    job: Job
    compiled: Compiled | None = None
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    arrays: str = ""
    outputs: str = ""
    timing: Timing = field(default_factory=Timing)
    import_from: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        data = asdict(self)
        for key in ("model", "folder", "scratch"):
            data["job"][key] = str(data["job"][key])
        path.write_text(json.dumps(data, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Order:
        data = json.loads(path.read_text(encoding="utf-8"))
        data["job"] = job_from_json(data["job"])
        data["compiled"] = compiled_from_json(data["compiled"]) if data["compiled"] else None
        data["timing"] = Timing(**data["timing"])
        data["import_from"] = tuple(data["import_from"])
        return cls(**data)


def job_from_json(data: Mapping[str, Any]) -> Job:
    """The job that `Order.write` wrote."""
    paths = {key: Path(data[key]) for key in ("model", "folder", "scratch")}
    specs = {key: specs_from_json(data[key]) for key in ("inputs", "outputs")}
    return Job(**{**data, **paths, **specs})


def specs_from_json(rows: Any) -> tuple[TensorSpec, ...]:
    """Tensor specifications out of JSON, whose lists are tuples again."""
    found = []
    for row in rows:
        sizes = {key: tuple(row[key]) for key in ("shape", "example", "smallest", "largest")}
        found.append(TensorSpec(row["name"], row["dtype"], **sizes))
    return tuple(found)


def compiled_from_json(data: Mapping[str, Any]) -> Compiled:
    """What a backend said of its files."""
    names = {key: tuple(data[key]) for key in ("files", "others")}
    return Compiled(**{**data, **names})


def compiled_to_json(compiled: Compiled) -> dict[str, Any]:
    """JSON data; TypeError when a backend's facts are none."""
    data = asdict(compiled)
    json.dumps(data)
    return data
