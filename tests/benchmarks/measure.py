"""What a command costs as a whole: time on the wall, processor time, memory of its process tree.

Time and memory are measured in runs of their own, because looking at memory every few milliseconds
takes processor time from what is looked at.
"""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

MIB: Final = 1 << 20
SAMPLE_EVERY_S: Final = 0.02  #: between two looks at the tree's memory
TAIL_CHARACTERS: Final = 2000  #: of a failed command's output that are shown


@dataclass(frozen=True)
class Cost:
    """What a command, or several after each other, cost.

    Attributes:
        wall_s: seconds from start to exit.
        cpu_s: user and system time of the process and of every descendant that was waited for.
        largest_mib: `ru_maxrss`: peak resident size of the largest single process, from the kernel,
            so that no peak hides between two samples.
        peak_pss_mib: highest sum of the proportional set sizes over the process tree: a page that
            n processes share counts 1/n in each, so a fork is not counted twice. Pages shared with
            processes outside the tree count less: measure on an idle machine. None if not sampled.
        peak_rss_mib: the same sum of resident sizes, shared pages counted in every process.
    """

    wall_s: float
    cpu_s: float
    largest_mib: float
    peak_pss_mib: float | None = None
    peak_rss_mib: float | None = None


class CommandError(Exception):
    """A measured command did not exit with 0."""


class _Sampler(threading.Thread):
    """Follows the memory of a process tree until `stop` is called."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._ended = threading.Event()
        self.peak_pss_mib = 0.0
        self.peak_rss_mib = 0.0

    def run(self) -> None:
        ended = False
        while not ended:
            try:
                tree = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            sizes = [_pss_and_rss_kib(process.pid) for process in tree]
            self.peak_pss_mib = max(self.peak_pss_mib, sum(pss for pss, _ in sizes) / 1024)
            self.peak_rss_mib = max(self.peak_rss_mib, sum(rss for _, rss in sizes) / 1024)
            ended = self._ended.wait(SAMPLE_EVERY_S)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _pss_and_rss_kib(pid: int) -> tuple[int, int]:
    """Proportional and resident size of a process; nothing for one that has just ended."""
    found = {"Pss:": 0, "Rss:": 0}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(" ")
            if name in found:
                found[name] = int(rest.split()[0])
    except (OSError, ValueError):  # ended, or is ending
        return 0, 0
    return found["Pss:"], found["Rss:"]


def measure(
    commands: Sequence[Sequence[str]],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    memory: bool = False,
) -> Cost:
    """Run `commands` one after the other and add up what they cost (of memory, take the most).

    Args:
        commands: programs with their arguments.
        cwd: where they run.
        environment: added to ours.
        memory: sample the memory of the process tree; the times are then not to be used.

    Raises:
        CommandError: one of them did not exit with 0; the text ends with what it printed.
    """
    costs = [_measure_one(command, cwd, {**os.environ, **environment}, memory) for command in commands]
    return Cost(
        wall_s=sum(cost.wall_s for cost in costs),
        cpu_s=sum(cost.cpu_s for cost in costs),
        largest_mib=max(cost.largest_mib for cost in costs),
        peak_pss_mib=max(cost.peak_pss_mib or 0.0 for cost in costs) if memory else None,
        peak_rss_mib=max(cost.peak_rss_mib or 0.0 for cost in costs) if memory else None,
    )


def _measure_one(command: Sequence[str], cwd: Path, environment: Mapping[str, str], memory: bool) -> Cost:
    with tempfile.TemporaryFile() as printed:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed
        )
        sampler = _Sampler(process.pid) if memory else None
        if sampler is not None:
            sampler.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)  # we have waited for it, Popen need not
        if sampler is not None:
            sampler.stop()
        if process.returncode != 0:
            printed.seek(0)
            tail = printed.read().decode(errors="replace")[-TAIL_CHARACTERS:]
            raise CommandError(f"exit code {process.returncode}: {' '.join(command)}\n{tail}")
    return Cost(
        wall_s=wall_s,
        cpu_s=used.ru_utime + used.ru_stime,
        largest_mib=used.ru_maxrss / 1024,
        peak_pss_mib=sampler.peak_pss_mib if sampler else None,
        peak_rss_mib=sampler.peak_rss_mib if sampler else None,
    )
