"""Stand-in backends that do one thing right or wrong. Imported in child processes too."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.targets.backend import BackendError, Compiled, Job, Runner
from pipeline.targets.program import program

LOAD = """
def run(inputs):
    import json
    factor = json.loads((FOLDER / "model.json").read_text())["factor"]
    return {"out": inputs["in"] * np.float32(factor)}
"""


@dataclass(frozen=True)
class Doubling:
    """Takes any model for y = 2 x: `in` to `out`."""

    name: ClassVar[str] = "doubling"
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    extra: ClassVar[str] = ""
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    option_names: ClassVar[Mapping[str, Any]] = {"factor": 2.0}

    def compile(self, job: Job) -> Compiled:
        (job.folder / "model.json").write_text(json.dumps({"factor": job.options["factor"]}))
        return Compiled(("model.json",), {"in": "blob0"}, "float32", "by hand")

    def load(self, job: Job, compiled: Compiled) -> Runner:
        try:
            return Scaled(json.loads((job.folder / "model.json").read_text())["factor"])
        except (OSError, ValueError) as error:
            raise BackendError(f"model.json cannot be read: {error}") from error

    def program(self, job: Job, compiled: Compiled) -> str:
        return program(LOAD, title="doubling", needs="nothing", tolerance=job.tolerance, threads=1)

    def page(self, job: Job, compiled: Compiled) -> str:
        return "# Doubling\n\nrun.py reads inputs.npz and expected.npz.\n"


@dataclass(frozen=True)
class Scaled:
    factor: float

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"out": inputs["in"] * inputs["in"].dtype.type(self.factor)}

    def precision(self) -> tuple[str, str]:
        return "float32", "by hand"


class Sleeping(Doubling):
    """Hangs, and so does a process of its own that has left the group."""

    def compile(self, job: Job) -> Compiled:
        print("reading the graph", flush=True)
        nap = "import os, time; os.setsid(); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", nap])
        (job.scratch / "pid").write_text(str(child.pid))
        time.sleep(600)
        raise AssertionError


class SleepingInC(Doubling):
    """Hangs where Python cannot interrupt it, with signals blocked."""

    def compile(self, job: Job) -> Compiled:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        ctypes.CDLL(None).sleep(600)
        raise AssertionError


class Aborting(Doubling):
    def compile(self, job: Job) -> Compiled:
        print("converting node conv1", flush=True)
        os.abort()


class Crashing(Doubling):
    def load(self, job: Job, compiled: Compiled) -> Runner:
        print("loading blob 7", flush=True)
        ctypes.string_at(8)
        raise AssertionError


class Leaving(Doubling):
    """Ends the process with success before anything is made."""

    def compile(self, job: Job) -> Compiled:
        print("Converted Success", flush=True)
        os._exit(0)


class Boasting(Doubling):
    """Says that it wrote a file that it did not write."""

    def compile(self, job: Job) -> Compiled:
        return Compiled(("model.json",))


class Emptying(Doubling):
    def compile(self, job: Job) -> Compiled:
        (job.folder / "model.json").touch()
        return Compiled(("model.json",))


class Outside(Doubling):
    def compile(self, job: Job) -> Compiled:
        (job.folder.parent / "evil").write_text("x")
        return Compiled(("../evil",))


class Littering(Doubling):
    """Writes beside the model file."""

    def compile(self, job: Job) -> Compiled:
        job.model.with_suffix(".param").write_text("x")
        return super().compile(job)


class Naming(Doubling):
    def compile(self, job: Job) -> Compiled:
        raise BackendError("no kernel for Det", node="/head/Det", operator="Det")


class Raising(Doubling):
    def compile(self, job: Job) -> Compiled:
        raise RuntimeError("first line\nsecond line")


class Grumbling(Doubling):
    """Goes on after an error."""

    def compile(self, job: Job) -> Compiled:
        print("ERROR: layer foo is not supported, ignored", flush=True)
        return super().compile(job)


class Connecting(Doubling):
    """Tries to connect to the address in its options, from Python."""

    option_names: ClassVar[Mapping[str, Any]] = {"factor": 2.0, "port": 0}

    def compile(self, job: Job) -> Compiled:
        with socket.socket() as stream:
            stream.settimeout(5)
            try:
                stream.connect(("127.0.0.1", job.options["port"]))
            except OSError as error:
                raise BackendError(f"refused: {type(error).__name__} {error}") from error
        return super().compile(job)


class ConnectingNatively(Connecting):
    """The same with the C library alone, which no hook of Python's sees."""

    def compile(self, job: Job) -> Compiled:
        libc = ctypes.CDLL(None, use_errno=True)
        number = libc.socket(2, 1, 0)
        address = (
            (2).to_bytes(2, "little") + int(job.options["port"]).to_bytes(2, "big") + bytes([127, 0, 0, 1])
        )
        if libc.connect(number, address + bytes(8), 16) != 0:
            raise BackendError(f"refused: {os.strerror(ctypes.get_errno())}")
        return Doubling.compile(self, job)


class Installing(Doubling):
    def compile(self, job: Job) -> Compiled:
        code = os.system("pip install something-that-phones-home")
        goal = job.scratch / "installed"
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--target", str(goal), "six"], check=False
        )  # fmt: skip
        made = super().compile(job)
        return Compiled(made.files, facts={"pip": code, "installed": [one.name for one in goal.glob("*")]})


class Telling(Doubling):
    """Puts what it sees of its environment into its facts."""

    def compile(self, job: Job) -> Compiled:
        made = super().compile(job)
        names = ("HOME", "XDG_CACHE_HOME", "TMPDIR", "PIP_NO_INDEX", "SECRET_PROXY")
        facts = {name: os.environ.get(name, "") for name in names}
        facts |= {
            "cwd": str(Path.cwd()),
            "scratch": str(job.scratch),
            "left": [one.name for one in job.folder.iterdir()],
        }
        return Compiled(made.files, made.names, "float32", "by hand", facts)


class Hungry(Doubling):
    """Holds 300 MiB for a moment."""

    def compile(self, job: Job) -> Compiled:
        held = bytearray(300 * 2**20)
        held[::4096] = b"x" * len(held[::4096])
        return super().compile(job)


class Imprecise(Doubling):
    """Runs in another precision than it was asked."""

    def load(self, job: Job, compiled: Compiled) -> Runner:
        return InBfloat16(2.0)


class InBfloat16(Scaled):
    def precision(self) -> tuple[str, str]:
        return "bfloat16", "a property of the tool"


class Renaming(Doubling):
    """Gives an output under another name."""

    def load(self, job: Job, compiled: Compiled) -> Runner:
        return Misnamed(2.0)


class Misnamed(Scaled):
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"out0": inputs["in"] * 2}
