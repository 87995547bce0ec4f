"""Child processes that do the work, and the light parent that outlives them.

    parent (no torch) --fork--> server --fork--> worker of a group of points
                      --fork--> worker                       (when there is one group)

Orders (parent to child) and events (child to parent) are lines of JSON in two pipes. The server
imports torch once and only forks; a worker makes the points of one group, one after the other,
and keeps what they share. When a worker dies, the parent knows which stage was running, writes
the true record, and lets the server fork another worker for the points that are left.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from pipeline.errors import EXIT_FAILED, EXIT_SIGINT, EXIT_SIGTERM, InternalError, Reason, StageFailed
from pipeline.events import Emit, Event, LogLine, StageFinished, StageStarted, decode, encode
from pipeline.run import records
from pipeline.run.beside import worth_it
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions, WorkResult
from pipeline.run.processes import die_with_parent, flush_prints, printing_into, send_line
from pipeline.run.work import work_in
from pipeline.run.workspace import SCRATCH, Shared

#: How often the parent looks at a worker's memory and time, seconds.
WATCH_S: Final = 0.1
#: How long an ended worker may take to be reported, seconds.
REAP_S: Final = 10.0
#: What a line of log.txt begins with that says which stage comes now.
MARK: Final = "== "


class InterruptedRun(BaseException):
    """SIGINT or SIGTERM reached the parent."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = EXIT_SIGINT if signal_number == signal.SIGINT else EXIT_SIGTERM


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise `InterruptedRun` here (once; the second one is ignored)."""
    seen: list[int] = []

    def raise_once(number: int, frame: FrameType | None) -> None:
        if not seen:
            seen.append(number)
            raise InterruptedRun(number)

    old = {number: signal.signal(number, raise_once) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@dataclass
class _Pipes:
    orders_in: int
    orders_out: int
    events_in: int
    events_out: int


class Workers:
    """The children of one command-line run.

    Args:
        plans: every point's plan; children know them by index, having been forked after.
        options: how to go about each point.
        server: whether a server forks the workers (several points) or our child is the only one.
        preload: modules that the server imports before it forks (several groups).
    """

    def __init__(
        self,
        plans: Sequence[Plan | None],
        options: Sequence[RunOptions],
        *,
        server: bool,
        preload: tuple[str, ...],
    ) -> None:
        self._plans = plans
        self._options = options
        self._server = server
        self._preload = preload if server else ()
        self._pipes: _Pipes | None = None
        self._child = 0  #: our own child: the server, or the only worker
        self._worker = 0  #: who does the work now
        self._buffer = b""

    def start(self) -> None:
        """Fork; call it before any thread is started."""
        orders, events = os.pipe(), os.pipe()
        self._pipes = _Pipes(orders[0], orders[1], events[0], events[1])
        sys.stdout.flush()
        sys.stderr.flush()
        self._child = os.fork()
        if self._child:
            os.close(orders[0])
            os.close(events[1])
            if not self._server:
                self._worker = self._child
            return
        os.close(orders[1])
        os.close(events[0])
        work = _serve_groups if self._server else _serve_points
        _child_main(
            lambda stream: work(self._plans, self._options, stream, events[1], self._preload), orders[0]
        )

    def work(self, index: int, wanted: set[str], folder: Path, emit: Emit) -> WorkResult:
        """Let a child do point `index` in `folder`; never raises for what happens to the child."""
        if not self._worker:
            self._order({"do": "worker"})
            answer = self._read(None) or {}
            if "worker" not in answer:
                raise StageFailed(
                    "PL-704", "the process that starts the workers died", found=f"status {answer.get('ended')}",
                    next_step="Read what it printed above; python -c 'import torch' may say more",
                )  # fmt: skip
            self._worker = int(answer["worker"])
        self._order({"do": "point", "point": index, "folder": str(folder), "wanted": sorted(wanted)})
        options = self._options[index]
        deadline = time.monotonic() + options.timeout_s if options.timeout_s else None
        running: list[str] = []
        killed: Reason | None = None
        looked = time.monotonic()
        try:
            while True:
                message = self._read(WATCH_S)
                if message is None or time.monotonic() - looked > WATCH_S:  # many events are no excuse
                    if killed is None and (killed := self._limits(options, deadline)):
                        running = self._at_work(running)
                        self._kill_worker()
                    looked = time.monotonic()
                if message is None:
                    continue
                if "event" in message:
                    event = decode(json.dumps(message))
                    if isinstance(event, StageStarted | StageFinished):
                        running = [one for one in running if one != event.stage]
                    if isinstance(event, StageStarted):
                        running.append(event.stage)
                    emit(event)
                elif "done" in message:
                    return _result(message["done"])
                elif "ended" in message:
                    self._worker = 0
                    reason = killed or _death(int(message["ended"]), folder)
                    return WorkResult(_left(folder), reason, _last(running), EXIT_FAILED)
        except InterruptedRun as interrupt:
            self._kill_worker()
            self._await_end()
            reason = Reason("PL-707", "interrupted", where=_last(running))
            return WorkResult(_left(folder), reason, _last(running), interrupt.exit_code)

    def next_group(self) -> None:
        """The next point belongs to another group: it gets a fresh worker."""
        if self._worker and self._server:
            self._order({"do": "end"})
            while "ended" not in (self._read(None) or {}):
                pass
            self._worker = 0

    def stop(self) -> None:
        """End the children and wait for them."""
        if self._pipes is None or not self._child:
            return
        with contextlib.suppress(OSError):
            os.close(self._pipes.orders_out)
        deadline = time.monotonic() + REAP_S
        while time.monotonic() < deadline:
            done, _ = os.waitpid(self._child, os.WNOHANG)
            if done:
                break
            time.sleep(0.002)
        else:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        os.close(self._pipes.events_in)
        self._child = self._worker = 0
        self._pipes = None

    # -- inside ----------------------------------------------------------------------------------

    def _order(self, order: dict[str, Any]) -> None:
        assert self._pipes is not None
        with contextlib.suppress(BrokenPipeError):  # its death is reported by `_read`
            os.write(self._pipes.orders_out, (json.dumps(order) + "\n").encode())

    def _read(self, timeout: float | None) -> dict[str, Any] | None:
        """The next message; None when nothing came within `timeout` seconds."""
        assert self._pipes is not None
        while b"\n" not in self._buffer:
            if not select.select([self._pipes.events_in], [], [], timeout)[0]:
                return None
            chunk = os.read(self._pipes.events_in, 1 << 16)
            if not chunk:
                return {"ended": self._reap()}
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _reap(self) -> int:
        """Our own child closed its pipe: how did it end (1: it was gone before)?"""
        if not self._child:
            return 1 << 8
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        return status

    def _memory_held(self) -> float:
        """Resident memory of the worker, and what those that it has started have beyond it, bytes."""
        import psutil

        if not self._worker:
            return 0.0
        try:
            process = psutil.Process(self._worker)
            held, started = process.memory_info().rss, process.children(recursive=True)
        except psutil.Error:
            return 0.0
        for one in started:
            with contextlib.suppress(psutil.Error):  # it has just ended
                held += one.memory_full_info().uss  # those that were forked share most of their pages
        return float(held)

    def _limits(self, options: RunOptions, deadline: float | None) -> Reason | None:
        limit = options.memory_bytes
        if limit is not None and self._memory_held() > limit:
            return Reason(
                "PL-706", "the point was stopped at its memory limit", where="memory_limit",
                found=f"more than {limit / 2**20:.0f} MiB", next_step="Type memory_limit=SIZE for a higher one",
            )  # fmt: skip
        if deadline is not None and time.monotonic() > deadline:
            return Reason(
                "PL-705", "the point was stopped at its time limit", where="timeout_s",
                found=f"more than {options.timeout_s:g} s",
                next_step="Type timeout_s=SECONDS for a longer one, or timeout_s=null for none",
            )  # fmt: skip
        return None

    def _at_work(self, running: list[str]) -> list[str]:
        """Of stages beside each other, the first one while its copy is at work: the others may wait for it."""
        import psutil

        if len(running) > 1:
            with contextlib.suppress(psutil.Error):
                started = psutil.Process(self._worker).children()
                if any(one.status() != psutil.STATUS_ZOMBIE for one in started):
                    return running[:1]
        return running

    def _kill_worker(self) -> None:
        try:
            os.killpg(self._worker, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._worker, signal.SIGKILL)

    def _await_end(self) -> None:
        """A killed worker is gone: it writes no more into the folder whose record is made now."""
        deadline = time.monotonic() + REAP_S
        while time.monotonic() < deadline:
            if "ended" in (self._read(WATCH_S) or {}):
                self._worker = 0
                return


def _last(running: Sequence[str]) -> str | None:
    return running[-1] if running else None


def _result(done: dict[str, Any]) -> WorkResult:
    files = {path: (kind, same) for path, (kind, same) in done["files"].items()}
    reason = Reason(**done["reason"]) if done["reason"] else None
    return WorkResult(files, reason, done["stage"], done["exit_code"])


def _left(folder: Path) -> dict[str, tuple[str, bool]]:
    """What a dead worker left in its folder."""
    return {
        str(path.relative_to(folder)): ("left by a failed run", False)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and SCRATCH not in path.relative_to(folder).parts and path.name != records.MANIFEST
    }


def _death(status: int, folder: Path) -> Reason:
    """The sentence for a child that ended on its own, with the last words it printed."""
    log = folder / records.LOG
    printed = log.read_text(errors="replace").splitlines() if log.is_file() else []
    words = [line for line in printed if line.strip() and not line.startswith(MARK)][-1:]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        found = signal.Signals(number).name
        likely = "native code crashed" if number != signal.SIGKILL else (
            "it was killed, most likely because the machine ran out of memory")  # fmt: skip
    else:
        found, likely = f"exit status {os.WEXITSTATUS(status)}", "a tool ended the process"
    return Reason(
        "PL-704", f"the process that did the work died: {likely}",
        found=f"{found}" + (f"; last words: {words[0][:200]}" if words else ""),
        next_step="Read log.txt of the failed run",
    )  # fmt: skip


# -- in the child ------------------------------------------------------------------------------------


def _child_main(serve: Callable[[Any], None], orders: int) -> None:
    """What a forked child does; never returns."""
    status = 1
    try:
        _become_child()
        serve(os.fdopen(orders, "r", encoding="utf-8"))
        status = 0
    except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's code
        traceback.print_exc()
    finally:
        flush_prints()
        os._exit(status)


def _become_child() -> None:
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    # Collection while modules are imported finds nothing and costs a tenth of the import.
    gc.disable()


def _serve_groups(
    plans: Sequence[Plan | None],
    options: Sequence[RunOptions],
    stream: Any,
    events: int,
    preload: tuple[str, ...],
) -> None:
    """Import once, fork a worker whenever one is asked for."""
    for line in stream:
        if json.loads(line)["do"] != "worker":
            continue  # left over from a worker that died
        for module in preload:
            __import__(module)
        gc.freeze()
        worker = os.fork()
        if not worker:
            # The worker goes on reading where the server stopped.
            _child_main(lambda orders: _serve_points(plans, options, orders, events), os.dup(stream.fileno()))
        _send(events, {"worker": worker})
        _, status = os.waitpid(worker, 0)
        _send(events, {"ended": status})


def _serve_points(
    plans: Sequence[Plan | None],
    options: Sequence[RunOptions],
    stream: Any,
    events: int,
    _: tuple[str, ...] = (),
) -> None:
    """Make points one after the other, in a process group of our own (Ctrl-C is the parent's)."""
    os.setpgid(0, 0)
    shared = Shared()
    while line := stream.readline():
        order = json.loads(line)
        if order["do"] == "end":
            return
        plan = plans[order["point"]]
        assert plan is not None
        shared.wanted = set(order["wanted"])
        result = _one_point(plan, Path(order["folder"]), options[order["point"]], shared, events)
        _send(
            events,
            {"done": {
                "files": dict(result.files), "stage": result.stage, "exit_code": result.exit_code,
                "reason": result.reason.to_json() if result.reason else None,
            }},
        )  # fmt: skip
        if len(plans) == 1:
            return  # giving back a gigabyte takes the system 0.1 s, in which the parent publishes


def _one_point(plan: Plan, folder: Path, options: RunOptions, shared: Shared, events: int) -> WorkResult:
    def emit(event: Event) -> None:
        send_line(events, encode(event))

    with printing_into(folder / records.LOG):
        try:
            copies = options.private_apis and worth_it()
            return work_in(plan, folder, options, emit, shared, _mark, copies=copies)
        except MemoryError:
            shared.values.clear()
            return WorkResult(_left(folder), Reason("PL-711", "the machine's memory is exhausted"), None, 1)
        except BaseException as error:  # noqa: BLE001 - whatever a tool raises is a failed stage
            traceback.print_exc()
            kind = "a broken invariant of the pipeline (please report)" if isinstance(error, InternalError) else (
                "an error that no stage knows")  # fmt: skip
            if options.debug:
                emit(LogLine("", traceback.format_exc()))
            reason = Reason("PL-710", kind, found=f"{type(error).__name__}: {error}",
                            next_step="Read log.txt of the failed run")  # fmt: skip
            return WorkResult(_left(folder), reason, None, EXIT_FAILED)


def _mark(stage: str) -> None:
    flush_prints()
    os.write(1, f"{MARK}{stage}\n".encode())


def _send(descriptor: int, message: dict[str, Any]) -> None:
    send_line(descriptor, json.dumps(message))
