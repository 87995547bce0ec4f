"""Between us and a tool's process: whatever the tool starts ends with it, and with us.

Run as a script of the standard library alone: `python -I -S keeper.py DESCRIPTOR HOW COMMAND...`; HOW is
"no-network", or "as-is" for a command that leaves the network itself and tells what came of it.
DESCRIPTOR is the reading end of a pipe whose other end we hold: when we die, however that may be, it
ends. Processes that a tool has left behind, also in sessions of their own, fall to the keeper
and are ended. It ends as the command ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
from pathlib import Path

#: Linux: <linux/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
#: Linux: <linux/sched.h>.
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


def keep(descriptor: int, command: list[str]) -> None:
    """Run the command, clean up after it, and end as it ended."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            os.close(descriptor)
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([descriptor, ended], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    _end_what_is_left()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _end_what_is_left() -> None:
    """Kill children until there is none: each one's own children become ours in turn."""
    while True:
        try:
            mine = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        except OSError:  # a kernel without that list: the group is ended by the parent
            return
        for one in mine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(one), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def leave_network() -> dict[str, str]:
    """Move this process into a network namespace without any connection, where the system gives one."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError):
        return still_open("this system knows no network namespaces")
    if unshare(CLONE_NEWNET) == 0:
        return {"network": "namespace", "why": "a network namespace of its own"}
    user, group = os.geteuid(), os.getegid()
    if unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return still_open(f"no namespace is to be had ({os.strerror(ctypes.get_errno())})")
    with contextlib.suppress(OSError):  # who it is in there does not matter: files are opened as before
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return {"network": "namespace", "why": "network and user namespaces of its own"}


def still_open(why: str) -> dict[str, str]:
    """What is in force where there is no namespace: `shut_in` adds the hook that is spoken of."""
    return {
        "network": "open",
        "why": f"{why}: Python code is refused connections, native code is not held",
    }


if __name__ == "__main__":
    if sys.argv[2] == "no-network":
        leave_network()
    keep(int(sys.argv[1]), sys.argv[3:])
