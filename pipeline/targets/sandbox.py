"""A child process that may harm nobody: its own group, folder, environment and, where it can be had, no network.

The parent's half is `run_child`; the child calls `shut_in` before it imports anything heavy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.targets.keeper import PR_SET_PDEATHSIG, leave_network

#: Started as a script, so that it needs nothing but the standard library (see there).
KEEPER: Final = Path(__file__).with_name("keeper.py")
#: How often the parent looks at the child's memory, seconds.
LOOK_S: Final = 0.1
#: Commands that install packages: stand-ins that refuse come first on the child's PATH.
INSTALLERS: Final = (
    "pip", "pip3", "pipx", "uv", "conda", "mamba", "easy_install", "apt", "apt-get", "npm",
)  # fmt: skip
#: What such a stand-in says; the parent looks for it in the log.
REFUSAL: Final = "nothing may be installed while a backend runs"
#: What a connection is refused with where there is no namespace and Python code asks for one.
NO_CONNECTION: Final = "no connection may be opened while a backend runs"
#: So much of a child's log is read, bytes from its end.
LOG_BYTES: Final = 4 * 2**20
#: Characters of a child's log that are kept as its last words.
LAST_WORDS: Final = 300


@dataclass(frozen=True)
class ChildResult:
    """How a child ended.

    Attributes:
        returncode: as `subprocess` has it; negative: the signal.
        timed_out: it was killed at the limit.
        seconds: how long it lived.
        peak_mib: the most memory that it and what it started were seen to hold together, MiB.
        log: everything that it printed.
    """

    returncode: int
    timed_out: bool
    seconds: float
    peak_mib: float
    log: str

    @property
    def last_words(self) -> str:
        """The end of the log on one line."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        text = " / ".join(lines[-3:])
        return text if len(text) <= LAST_WORDS else "..." + text[-LAST_WORDS:]

    @property
    def tried_to_install(self) -> bool:
        return REFUSAL in self.log

    def death(self) -> str:
        """How it died, in words."""
        if self.returncode < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-self.returncode).name}"
            return f"signal {-self.returncode}"
        return f"exit code {self.returncode}"


def run_child(
    command: Sequence[str],
    *,
    folder: Path,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    leaves_network: bool = False,
) -> ChildResult:
    """Run a command in a process group of its own and wait for it; at the limit everything of it is killed.

    When this process dies, the command and what it started end too (see `pipeline.targets.keeper`).

    Args:
        command: what to run.
        folder: an existing folder of the child's own; `folder`/scratch is its working directory and
            home, `folder`/log.txt what it prints.
        timeout_s: seconds.
        environment: laid over the one that is made for it (see `closed_environment`).
        leaves_network: the command shuts itself in; else it is started without a network already.
    """
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    log = folder / "log.txt"
    started = time.perf_counter()
    how = "as-is" if leaves_network else "no-network"
    ours, keepers = os.pipe()
    try:
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER), str(ours), how, *command],
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, cwd=scratch,
                env={**closed_environment(folder), **(environment or {})}, start_new_session=True,
                pass_fds=(ours,),
            )  # fmt: skip
        peak = 0.0
        timed_out = False
        try:
            with _watched(process) as ended:
                while not ended(LOOK_S):
                    peak = max(peak, _memory_mib(process.pid))
                    if time.perf_counter() - started > timeout_s:
                        timed_out = True
                        break
        finally:
            _kill_group(process)
    finally:
        os.close(ours)
        os.close(keepers)
    text = _tail(log).decode("utf-8", "replace").replace("\0", "")
    return ChildResult(process.returncode, timed_out, time.perf_counter() - started, peak, text)


def _tail(log: Path) -> bytes:
    """The end of the log: a tool that prints without end must not fill our memory."""
    with log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - LOG_BYTES))
        return stream.read()


@contextlib.contextmanager
def _watched(process: subprocess.Popen[bytes]) -> Any:
    """A call that waits up to so many seconds for the end of the process."""
    descriptor = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        yield lambda seconds: bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End everything that the child started, also what has left its group."""
    import psutil

    left: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        left = psutil.Process(process.pid).children(recursive=True)
    # The leader is not yet waited for: its number still belongs to it, dead or alive.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for one in left:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.wait()


def _memory_mib(pid: int) -> float:
    """Resident memory of what the keeper started, MiB."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total / 2**20


def closed_environment(folder: Path) -> dict[str, str]:
    """This process's environment, with homes and caches in the child's folder and installers refused."""
    scratch, stand_ins = folder / "scratch", folder / "stand-ins"
    stand_ins.mkdir(exist_ok=True)
    for name in INSTALLERS:
        script = stand_ins / name
        script.write_text(f'#!/bin/sh\necho "$0: {REFUSAL}" >&2\nexit 1\n')
        script.chmod(0o755)
    home = str(scratch)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_", "CONDA_", "XDG_")) and not name.lower().endswith("_proxy")
    }
    return kept | {
        "PATH": os.pathsep.join((str(stand_ins), os.environ.get("PATH", os.defpath))),
        "HOME": home,
        "TMPDIR": home,
        **{f"XDG_{kind}_HOME": f"{home}/.{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA", "STATE")},
        "PIP_NO_INDEX": "1",
        "PIP_DRY_RUN": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


# -- the child's half ------------------------------------------------------------------------------


def shut_in() -> dict[str, str]:
    """Leave the network for good, and die with the parent. Call it before any thread is started.

    Returns:
        what is in force: `network` is "namespace" or "open", `why` says more.
    """
    found = leave_network()
    if found["network"] != "namespace":
        refuse_connections()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return found


def refuse_connections() -> None:
    """Python code in this process may connect to nothing but a socket of this machine's file system."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo" or (
            event in ("socket.connect", "socket.sendto")
            and getattr(arguments[0], "family", None) in (socket.AF_INET, socket.AF_INET6)
        ):
            raise PermissionError(NO_CONNECTION)

    sys.addaudithook(hook)
