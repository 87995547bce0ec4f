"""Which opsets each exporter writes, and the newest that everything installed knows. No torch.

The packages' own text is read, not the packages: importing torch takes longer than a refusal may.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Final, Literal

from pipeline.errors import Refused

Exporter = Literal["torchscript", "dynamo"]

#: The lowest opset that both the exporters' tables and ONNX Runtime's kernels reach.
LOWEST: Final = 7
#: TorchScript's operators end here; above it the same operators are stamped with a newer opset, as
#: long as no operator that it writes has changed.
TORCHSCRIPT_OPERATORS_END: Final = 20
#: From here on TorchScript writes every operator that it knows, but for one whose meaning changed (20).
TORCHSCRIPT_COMPLETE: Final = 17
#: What dynamo is written for (torch/onnx/_internal/exporter/_constants.py). It reaches newer opsets with
#: converters; asked for an older one it silently leaves this opset, so it is never asked for one.
DYNAMO_NATIVE: Final = 18
#: From here on `auto` asks dynamo first.
DYNAMO_FIRST: Final = 18
#: Newest opset that ONNX Runtime loads, by its first two version numbers; measured with a one-node
#: model. An unlisted version is taken for the newest listed one before it.
ONNXRUNTIME_NEWEST: Final = {(1, 32): 28}
#: What is believed of a package whose text cannot be read.
_TORCH_NEWEST: Final = 23
_ONNX_NEWEST: Final = 25


def order(opset: int) -> tuple[Exporter, ...]:
    """The exporters in the order in which `auto` tries them.

    Up to opset 17 only TorchScript writes the operators of that opset; from 18 on dynamo does, and
    it knows more networks.
    """
    return ("torchscript", "dynamo") if opset < DYNAMO_FIRST else ("dynamo", "torchscript")


def roads(opset: int, exporters: tuple[Exporter, ...]) -> tuple[tuple[Exporter, int], ...]:
    """What to try, in order: an exporter, and the opset that it is asked for.

    An exporter writes the asked opset where it can. Otherwise it writes the nearest that it can, and a
    converter (upwards) or our rules (downwards) do the rest. The last road is TorchScript at a newer
    opset: what it cannot write at an old one, rules may.
    """
    found: list[tuple[Exporter, int]] = []
    for exporter in exporters:
        written = min(opset, torchscript_newest()) if exporter == "torchscript" else max(opset, DYNAMO_NATIVE)
        found.append((exporter, written))
    if "torchscript" in exporters and opset < TORCHSCRIPT_COMPLETE:
        found.append(("torchscript", TORCHSCRIPT_COMPLETE))
    return tuple(found)


@lru_cache(maxsize=1)
def torchscript_newest() -> int:
    """The newest opset that the TorchScript exporter stamps (torch/onnx/_constants.py)."""
    text = _text("torch", "torch/onnx/_constants.py")
    match = re.search(r"^ONNX_MAX_OPSET = (\d+)", text, re.MULTILINE)
    return int(match[1]) if match else _TORCH_NEWEST


@lru_cache(maxsize=1)
def onnx_newest() -> int:
    """The newest opset of ai.onnx that onnx knows (VERSION_TABLE in onnx/helper.py)."""
    text = _text("onnx", "onnx/helper.py")
    table = text.partition("VERSION_TABLE")[2].partition("\n]")[0]
    rows = re.findall(r'^\s*\("[\d.]+", \d+, (\d+),', table, re.MULTILINE)
    return max(map(int, rows), default=_ONNX_NEWEST)


@lru_cache(maxsize=1)
def onnxruntime_newest() -> int:
    """The newest opset of ai.onnx that the installed ONNX Runtime loads."""
    match = re.match(r"(\d+)\.(\d+)", _version("onnxruntime"))
    installed = (int(match[1]), int(match[2])) if match else (0, 0)
    known = [newest for listed, newest in sorted(ONNXRUNTIME_NEWEST.items()) if listed <= installed]
    return known[-1] if known else min(ONNXRUNTIME_NEWEST.values())


def newest() -> int:
    """The newest opset that can be written and run: converters go as far as onnx does."""
    return min(onnx_newest(), onnxruntime_newest())


def check_opset(asked: int, exporter: str = "auto") -> None:
    """Refuse an opset that nothing installed knows.

    Args:
        asked: export.opset.
        exporter: auto, torchscript or dynamo.

    Raises:
        Refused: PL-300.
    """
    if LOWEST <= asked <= newest():
        return
    low = asked < LOWEST
    raise Refused(
        "PL-300",
        "no exporter writes so old an opset"
        if low
        else "the opset is newer than the installed packages know",
        where="export.opset",
        found=str(asked),
        expected=f"{LOWEST} to {newest()} (onnx {_version('onnx')} knows {onnx_newest()}, "
        f"onnxruntime {_version('onnxruntime')} {onnxruntime_newest()})",
        next_step=f"Type export.opset={_near(asked, exporter)}",
    )


def _near(asked: int, exporter: str) -> int:
    if asked < LOWEST:
        return DYNAMO_NATIVE if exporter == "dynamo" else LOWEST
    return newest()


@lru_cache(maxsize=1)
def first_opsets() -> dict[str, int]:
    """Operator ("aten::grid_sampler") to the first opset at which TorchScript can write it.

    Read from the decorators in torch's symbolic_opset<N>.py.
    """
    found: dict[str, int] = {}
    for number in range(TORCHSCRIPT_OPERATORS_END, LOWEST - 1, -1):
        text = _text("torch", f"torch/onnx/_internal/torchscript_exporter/symbolic_opset{number}.py")
        for name in re.findall(r'_onnx_symbolic\(\s*"([\w:]+)"', text):
            found[name] = number
    return found


def _text(package: str, path: str) -> str:
    try:
        return Path(str(distribution(package).locate_file(path))).read_text(encoding="utf-8")
    except (OSError, PackageNotFoundError):
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
