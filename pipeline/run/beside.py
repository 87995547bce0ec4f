"""A stage at work in a copy of this process, beside the stages that come after it.

    worker --fork--> copy: runs the stage, stores what it makes, tells of it in a pipe
       |
       +-- the next stages; who takes what the copy makes waits for it

The copy shares the worker's memory until one of the two writes to it, and is gone when the stage has ended.
What it cannot say (it died, or something was raised that no stage knows) is found out by running the stage
again where it always ran.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from pipeline.events import Emit, Event, decode, encode
from pipeline.run.processes import die_with_parent, flush_prints, printing_into, send_line
from pipeline.stage import Storable

#: In the copy's folder: what it prints, until that goes into log.txt.
PRINTED: Final = "printed.txt"
_TASKS: Final = Path("/proc/self/task")


def worth_it() -> bool:
    """Whether two processes work at a time here: more than one processor, and nobody asks for one thread."""
    return len(os.sched_getaffinity(0)) > 1 and os.environ.get("OMP_NUM_THREADS") != "1"


class Outlet:
    """The copy's end of the pipe."""

    def __init__(self, descriptor: int, folder: Path) -> None:
        self._descriptor = descriptor
        self._folder = folder

    def tell(self, event: Event) -> None:
        """Pass an event on."""
        self._send({"event": encode(event)})

    def hand_over(self, name: str, value: Storable) -> None:
        """Give an artifact, which can be stored."""
        folder = self._folder / name
        folder.mkdir()
        value.store(folder)
        self._send({"made": name})

    def answer(self, answer: dict[str, Any]) -> None:
        """The last thing to say."""
        self._send({"answer": answer})

    def _send(self, message: dict[str, Any]) -> None:
        send_line(self._descriptor, json.dumps(message))


class Copy:
    """The worker's end: what the copy has said so far.

    Attributes:
        answer: what `work` returned; None as long as it is at work, and for ever when it died.
        gone: it died, or has been ended.
    """

    def __init__(self, process: int, descriptor: int, folder: Path, emit: Emit) -> None:
        self._process = process
        self._descriptor = descriptor
        self._folder = folder
        self._emit = emit
        self._made: set[str] = set()
        self._unread = b""
        self.answer: dict[str, Any] | None = None
        self.gone = False

    def listen(self, until: Callable[[], bool]) -> None:
        """Take in what it has said; wait for more while `until` is not met and it is at work."""
        while self.answer is None and not self.gone:
            if not select.select([self._descriptor], [], [], 0 if until() else None)[0]:
                return
            piece = os.read(self._descriptor, 1 << 16)
            if not piece:
                self.end()
            *lines, self._unread = (self._unread + piece).split(b"\n")
            for line in lines:
                self._take_in(json.loads(line))

    def wait(self) -> None:
        """Until it has answered, or died."""
        self.listen(lambda: False)

    def handed_over(self, name: str) -> Path | None:
        """Where the artifact lies; waits for it. None when it will never come."""
        self.listen(lambda: name in self._made)
        return self._folder / name if name in self._made else None

    def has_made(self, names: Iterable[str]) -> bool:
        """Whether all of them are there."""
        return self._made.issuperset(names)

    def printed(self) -> str:
        """What it and the tools in it have printed."""
        log = _log(self._folder)
        return log.read_text(errors="replace") if log.is_file() else ""

    def end(self) -> None:
        """Kill it, if it has not ended, and wait until it is gone."""
        if not self.gone:
            self.gone = True
            os.close(self._descriptor)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # somebody ignores SIGCHLD
                os.kill(self._process, signal.SIGKILL)
                os.waitpid(self._process, 0)

    def _take_in(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._emit(decode(message["event"]))
        elif "made" in message:
            self._made.add(message["made"])
        else:
            self.answer = message["answer"]


def begin(work: Callable[[Outlet], dict[str, Any]], folder: Path, emit: Emit) -> Copy | None:
    """Fork a copy that does `work`; None where a copy would not be sound.

    Args:
        work: done in the copy; what it returns (JSON data) is the copy's answer.
        folder: a new folder for what it hands over.
        emit: gets its events, here.
    """
    if threading.active_count() > 1:
        return None
    inlet, outlet = os.pipe()
    flush_prints()
    ours = os.getpid()
    try:
        folder.mkdir(parents=True)
        process = os.fork()
    except OSError:  # no more processes, no more memory, no more room
        os.close(inlet)
        os.close(outlet)
        return None
    if not process:
        os.close(inlet)
        _be_the_copy(work, Outlet(outlet, folder), _log(folder), ours)
    os.close(outlet)
    copy = Copy(process, inlet, folder, emit)
    # Threads that native code keeps (OpenMP's, once it has computed) are not in the copy, which would wait for
    # them. OpenBLAS ends its own before a fork, so that they are counted only now.
    if len(list(_TASKS.iterdir())) > 1:
        copy.end()
        return None
    return copy


def _be_the_copy(work: Callable[[Outlet], dict[str, Any]], outlet: Outlet, log: Path, parent: int) -> None:
    """Never returns."""
    try:
        die_with_parent()
        if os.getppid() == parent:
            with printing_into(log):
                answer = work(outlet)
            outlet.answer(answer)
    except BaseException:  # noqa: BLE001 - a forked process must never return into its parent's code
        traceback.print_exc()
    finally:
        flush_prints()
        os._exit(0)


def _log(folder: Path) -> Path:
    return folder / PRINTED
