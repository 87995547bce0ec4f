"""Checks of values that a type alone does not make: ranges, names of folders, a model that is missing.

What only a room can judge (an opset against the installed packages, inputs against names) is refused
there, when the plan is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, cast

from pipeline.config.request import Config
from pipeline.errors import Refused


@dataclass(frozen=True)
class Range:
    """What a number may be: `least` itself is taken unless `above`."""

    key: str
    least: float
    most: float | None = None
    above: bool = False
    instead: str = ""  #: what to type

    def holds(self, value: float) -> bool:
        """Whether `value` lies in it."""
        return (value > self.least if self.above else value >= self.least) and (
            self.most is None or value <= self.most
        )

    @property
    def words(self) -> str:
        if self.most is not None:
            return f"{self.least:g} to {int(self.most)}"
        return f"more than {self.least:g}" if self.above else f"{self.least:g} or more"


#: The newest IR version that onnx 1.23 and ONNX Runtime 1.32 both read (seen with a file of ours).
NEWEST_IR: Final = 14

RANGES: Final = (
    Range("seed", 0, most=2**63 - 1, instead="0"),  # what torch and numpy both take
    Range("wait_s", 0, instead="600"),
    Range("timeout_s", 0, above=True, instead="null for no limit"),
    Range("target.timeout_s", 0, above=True, instead="600"),
    Range(
        "export.ir_version", 3, most=NEWEST_IR, instead="null for what the opset brings"
    ),  # 3 is ONNX 1.0's
    Range("parity.seeds", 1, most=100, instead="3"),
    Range("parity.k", 0, above=True, instead="16"),
    Range("parity.floor", 0, instead="null for the dtype's own"),
    Range("parity.rtol", 0, instead="1e-3"),
    Range("parity.atol", 0, instead="1e-5"),
)


def check(config: Config) -> None:
    """Raise the first contradiction.

    Raises:
        Refused: a value out of range, or keys that contradict each other.
    """
    if config.model == type(config.model)():
        raise Refused(
            "PL-110", "no model was chosen",
            next_step="Type model=NAME, for example model=alexnet, or model=torchvision model.name=NAME; "
            "python -m pipeline --help lists the names",
        )  # fmt: skip
    for allowed in RANGES:
        value: Any = reduce(getattr, allowed.key.split("."), cast("Any", config))
        if value is not None and not allowed.holds(value):
            raise Refused(
                "PL-103", f"{allowed.key} is out of range", found=str(value), expected=allowed.words,
                next_step=f"Type {allowed.key}={allowed.instead}",
            )  # fmt: skip
    if not config.out.strip():
        raise Refused("PL-103", "out is empty", expected="a folder", next_step="Type out=outputs")
    check_sweep_name(config.sweep)
    _check_names(config)


def _check_names(config: Config) -> None:
    """Names of the graph's inputs and outputs, as far as they are wrong whatever the network is."""
    given = {
        "model.outputs": config.model.outputs, "export.input_names": config.export.input_names,
        "export.output_names": config.export.output_names,
    }  # fmt: skip
    for key, names in given.items():
        if names is not None and not names and key != "export.input_names":  # there every input has one
            raise Refused(
                "PL-103", f"{key} is empty", expected="a name for each output",
                next_step=f"Type {key}=null for the network's own names",
            )  # fmt: skip
        # ONNX asks for C identifiers; dots, slashes and colons are common and taken by every runtime.
        blank = [
            name for name in names or () if any(sign.isspace() or not sign.isprintable() for sign in name)
        ]
        if blank:
            better = ",".join("_".join(name.split()) or "NAME" for name in names or ())
            raise Refused(
                "PL-103", f"{key} holds a name with a blank", where=key, found=repr(blank[0]),
                expected="letters, digits and signs without blanks", next_step=f"Type {key}=[{better}]",
            )  # fmt: skip


def check_sweep_name(name: str | None) -> None:
    """Raise when `sweep` is not the name of one folder.

    Raises:
        Refused: see above.
    """
    signs = str.maketrans("", "", "._-")
    if name is not None and (not name.translate(signs).isalnum() or name.startswith(".")):
        raise Refused(
            "PL-103", f"sweep cannot be '{name}'", where="sweep", expected="letters, digits, '.', '_' and '-'",
            next_step="Type sweep=NAME",
        )  # fmt: skip
