"""Damages a file again and again and lets the product read it; a process of its own, with little memory.

Started by test_damaged_files.py:

    python -m tests.end_to_end.fuzz_driver model|pth|safetensors|manifest FOLDER COUNT

FOLDER holds `run`, a run directory, and `weights.pth` and `weights.safetensors` of its network. Prints how
each ended, the longest time and the growth of memory, as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pipeline.errors import PipelineError

#: Half of the damage is where formats have their headers and indices, bytes from either end.
NEAR_AN_END: Final = 2048
HUGE: Final = (b"\xff\xff\xff\xff\x07", b"\xff" * 8, b"\x80" * 12, b"\x00" * 16, b"999999999999")


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One to three things done to the bytes; never the same bytes."""
    made = bytearray(data)
    while bytes(made) == data:
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            _damage(made, chance)
    return bytes(made)


def _damage(data: bytearray, chance: random.Random) -> None:
    if not data:
        return
    place = _place(len(data), chance)
    length = chance.choice((1, 2, 4, 16, 300))
    way = chance.randrange(8)
    if way == 0:
        del data[place:]
    elif way == 1:
        data[place] ^= 1 << chance.randrange(8)
    elif way == 2:
        data[place : place + length] = chance.randbytes(min(length, len(data) - place))
    elif way == 3:
        del data[place : place + length]
    elif way == 4:
        data[place:place] = chance.randbytes(length)
    elif way == 5:
        huge = chance.choice(HUGE)
        data[place : place + len(huge)] = huge
    elif way == 6:
        other = _place(len(data), chance)
        data[place : place + length] = data[other : other + length]
    else:
        data[place] = chance.choice(b"\x00\xff\x7f\x80{}[]\"'0")


def _place(size: int, chance: random.Random) -> int:
    if chance.random() < 0.5 and size > 2 * NEAR_AN_END:
        near = chance.randrange(NEAR_AN_END)
        return near if chance.random() < 0.5 else size - 1 - near
    return chance.randrange(size)


def of_model(folder: Path) -> tuple[Path, Callable[[], str]]:
    """model.onnx: read back, run on the saved inputs, taken as a source, verified."""
    import numpy as np

    from pipeline.graph.readback import read_contract
    from pipeline.parity.onnxruntime_session import run_onnxruntime
    from pipeline.run.verify import verify_directory
    from pipeline.sources.onnx_reader import read_facts

    path = folder / "run" / "model.onnx"
    with np.load(folder / "run" / "samples" / "inputs.npz") as file:
        inputs = {name: file[name] for name in file.files}

    def read() -> str:
        assert verify_directory(folder / "run"), "verify did not see it"
        for mode in ("as written", "optimised"):
            with contextlib.suppress(PipelineError):
                run_onnxruntime(path, {"saved": inputs}, mode=mode)  # type: ignore[arg-type]
        with contextlib.suppress(PipelineError):
            read_facts(path)
        return said(lambda: read_contract(path))

    return path, read


def of_weights(name: str) -> Callable[[Path], tuple[Path, Callable[[], str]]]:
    """A checkpoint: inspected without torch, then loaded into its network."""

    def reader(folder: Path) -> tuple[Path, Callable[[], str]]:
        from pipeline.sources.checkpoint import load_weights
        from tests.end_to_end.networks import build

        path = folder / name
        network = build("Plain", channels=64)
        return path, lambda: said(
            lambda: load_weights(network, str(path), trust_pickle=False, emit=lambda event: None)
        )

    return reader


def of_manifest(folder: Path) -> tuple[Path, Callable[[], str]]:
    """manifest.json, by the commands that read it."""
    from pipeline.__main__ import main

    run = folder / "run"

    def read() -> str:
        codes = []
        for words in (["verify", str(run)], ["verify", "--deep", str(run)], ["reproduce", str(run)],
                      ["compare", str(run), str(run)]):  # fmt: skip
            with (
                contextlib.redirect_stdout(io.StringIO()) as out,
                contextlib.redirect_stderr(io.StringIO()) as err,
            ):
                codes.append(main(words))
            assert "Traceback" not in err.getvalue(), err.getvalue()
            assert out.getvalue() or len(err.getvalue().splitlines()) == 1, err.getvalue()
        assert codes == [1, 1, 2, 2], codes
        return "said"

    return run / "manifest.json", read


def said(read: Callable[[], Any]) -> str:
    """How reading ended: with a sentence, or by taking what is in the file."""
    try:
        read()
    except PipelineError as error:
        sentence = error.reason.sentence()
        assert "\n" not in sentence and len(sentence) < 1500, sentence
        return error.reason.code
    return "taken"


READERS: Final = {
    "model": of_model, "pth": of_weights("weights.pth"), "safetensors": of_weights("weights.safetensors"),
    "manifest": of_manifest,
}  # fmt: skip


def main_(kind: str, folder: str, count: str) -> None:
    """Damage, read and put back; an exception that is not the product's ends this process."""
    chance = random.Random(f"{kind} 11")
    path, read = READERS[kind](Path(folder))
    whole = path.read_bytes()
    ends: Counter[str] = Counter()
    longest = 0.0
    started = 0
    for number in range(int(count)):
        # Another name each: what is remembered of a file by its time stamp must not stand in the way.
        path.unlink()
        path.write_bytes(damaged(whole, chance))
        begun = time.perf_counter()
        try:
            ends[read()] += 1
        except BaseException:
            print(f"file {number} of {kind}", file=sys.stderr)
            raise
        longest = max(longest, time.perf_counter() - begun)
        if number == 10:  # everything is imported and set up by now
            started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started) / 1024
    path.write_bytes(whole)
    print(json.dumps({"ends": ends, "longest_s": round(longest, 3), "grown_mib": round(grown)}))


if __name__ == "__main__":
    main_(*sys.argv[1:])
