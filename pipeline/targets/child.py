"""Driving a backend's child process and judging how it ended. Nothing it returns is taken for proof."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import StageFailed
from pipeline.events import Emit, Finding, LogLine
from pipeline.targets.backends import import_paths, interpreter
from pipeline.targets.messages import ANSWER_FILE, ORDER_FILE, Order
from pipeline.targets.sandbox import ChildResult, run_child

#: Lines of a tool's log that are worth a look although it went on.
SUSPICIOUS: Final = re.compile(
    r"\b(error|fatal|fail(ed|ure)?|unsupported|not supported|don't support|not implemented|ignore[ds]?)\b",
    re.IGNORECASE,
)
#: So many of them are kept in run.json.
KEPT_LINES: Final = 20


@dataclass(frozen=True)
class Answer:
    """What a child that did its work said, and how it went.

    Attributes:
        data: the worker's answer.
        seconds: wall time of the whole process.
        peak_mib: the most memory that it and its children held, MiB.
        suspicious: lines of the log that sound like trouble.
    """

    data: Mapping[str, Any]
    seconds: float
    peak_mib: float
    suspicious: tuple[str, ...]

    @property
    def isolation(self) -> dict[str, str]:
        return dict(self.data["isolation"])


@dataclass(frozen=True)
class Employer:
    """Starts the processes of one target.

    Attributes:
        stage, target: for messages.
        python: `target.python`.
        emit: gets the tool's log and what is found in it.
    """

    stage: str
    target: str
    python: str | None
    emit: Emit

    def give(self, order: Order, folder: Path, *, failure: str) -> Answer:
        """Run the order in a child process.

        Args:
            order: what to do.
            folder: an existing folder of the child's own (see `run_child`); what an earlier child left
                there was removed.
            failure: code of the error when the backend says that it could not.

        Raises:
            StageFailed: `failure`; PL-644, PL-645, PL-647.
        """
        link = folder / "import"
        link.mkdir()
        (link / "pipeline").symlink_to(Path(__file__).resolve().parents[1], target_is_directory=True)
        order.write(folder / ORDER_FILE)
        command = [
            interpreter(self.python), "-m", "pipeline.targets.worker", str(folder / ORDER_FILE)
        ]  # fmt: skip
        result = run_child(
            command,
            folder=folder,
            timeout_s=order.job.timeout_s,
            environment=_environment(link, order.job.threads, foreign=self.python is not None),
            leaves_network=True,
        )
        shutil.rmtree(link, ignore_errors=True)
        for line in result.log.splitlines():
            self.emit(LogLine(self.stage, line))
        return self._judge(result, folder / ANSWER_FILE, order, failure)

    def _judge(self, result: ChildResult, file: Path, order: Order, failure: str) -> Answer:
        words = result.last_words or "nothing was printed"
        if result.tried_to_install:
            self.emit(
                Finding(self.stage, "warning", f"{self.target} tried to install a package and was refused")
            )
        if result.timed_out:
            raise StageFailed(
                "PL-644",
                f"{self.target} did not {order.action} the model within {order.job.timeout_s:g} s and was killed",
                where="target.timeout_s", found=f"its last words: {words}",
                next_step=f"Type target.timeout_s={max(2 * order.job.timeout_s, 60):g}",
            )  # fmt: skip
        try:
            data = json.loads(file.read_text(encoding="utf-8")) if result.returncode == 0 else None
        except (OSError, ValueError):
            data = None
        if data is None:
            raise StageFailed(
                "PL-645",
                f"{self.target} crashed while it should {order.action} the model ({result.death()})",
                found=f"its last words: {_without_stack(result)}",
                next_step=_after_a_crash(result),
            )
        peak = max(result.peak_mib, float(data["peak_mib"]))
        if "error" in data:
            raise self._refusal(data, failure, peak)
        suspicious = tuple(line.strip()[:200] for line in result.log.splitlines() if SUSPICIOUS.search(line))[
            :KEPT_LINES
        ]
        if suspicious:
            self.emit(
                Finding(
                    self.stage, "info", f"{self.target} said: {suspicious[0]}", {"lines": list(suspicious)}
                )
            )
        if data["isolation"]["network"] != "namespace":
            self.emit(
                Finding(self.stage, "warning",
                        f"{self.target} ran without a network namespace: {data['isolation']['why']}")
            )  # fmt: skip
        return Answer(data, result.seconds, round(peak, 1), suspicious)

    def _refusal(self, data: Mapping[str, Any], failure: str, peak: float) -> StageFailed:
        node, operator = data.get("node"), data.get("operator")
        where = ", ".join(
            f"{what} {value}" for what, value in (("node", node), ("operator", operator)) if value
        )
        error = StageFailed(
            failure, f"{self.target}: {data['error']}", where=where or None,
            next_step="The tool's own words are in log.txt",
        )  # fmt: skip
        error.measured = {"target": {"isolation": dict(data["isolation"]), "peak_mib": round(peak, 1)}}
        return error


def _environment(link: Path, threads: int, *, foreign: bool) -> dict[str, str]:
    """Where the child finds the pipeline, and how many threads its libraries may start."""
    given = os.environ.get("PYTHONPATH", "") if not foreign else ""
    paths = [str(link), *(str(Path(one).absolute()) for one in given.split(os.pathsep) if one)]
    return {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}


def imports_for(python: str | None) -> tuple[str, ...]:
    """Folders that the child imports from besides its interpreter's own."""
    return () if python else import_paths()


def _without_stack(result: ChildResult) -> str:
    """The last words before Python's own stack dump, then where the crash was."""
    text, mark, stack = result.log.partition("Fatal Python error:")
    if not mark:
        return result.last_words or "nothing was printed"
    before = [line.strip() for line in text.splitlines() if line.strip()][-2:]
    frames = [line.strip() for line in stack.splitlines() if line.strip().startswith("File ")]
    place = [re.sub(r'File ".*/([^/"]+)", ', r"\1 ", frames[0])] if frames else []
    return " / ".join([*before, mark + stack.splitlines()[0], *place])


def _after_a_crash(result: ChildResult) -> str:
    if result.returncode == -signal.SIGKILL:
        return f"It held {result.peak_mib:.0f} MiB: the system may have run out of memory"
    return "Look into log.txt; another export.opset or export.exporter may avoid the crash"
