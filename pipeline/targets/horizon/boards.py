"""The boards: march, tool, container. Facts only; limits and operators are in conf/target/profiles.

Sources: D-Robotics/rdk_x_doc and rdk_s_doc, environment_config.md and 01_overview.md (commits 543d6077 and
6e104b19); HorizonRobotics/OE-Skills, horizon-tc-ui (commit 0c35b732).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.targets.horizon.schema import COMPILE_MARCHES, HB_COMPILE, HB_MAPPER, MAPPER_MARCHES


@dataclass(frozen=True)
class Board:
    """One board.

    Attributes:
        title: for people.
        march: of its BPU.
        tool: hb_mapper or hb_compile.
        image: of the vendor's container; `image_note` what is not certain about it.
        product: ending of the deployable file.
    """

    title: str
    march: str
    tool: str
    image: str
    image_note: str = ""

    @property
    def product(self) -> str:
        return ".bin" if self.tool == HB_MAPPER else ".hbm"

    @property
    def marches(self) -> tuple[str, ...]:
        """What else `target.options.march` may name: the marches of the same tool."""
        return MAPPER_MARCHES if self.tool == HB_MAPPER else COMPILE_MARCHES


_X3 = "openexplorer/ai_toolchain_ubuntu_20_x3j5_gpu:VERSION"
_X3_NOTE = (
    "VERSION is that of your OpenExplorer package; a ..._x3j5_cpu image is named by analogy, not verified"
)

#: Profile name to board; a profile of the user's that extends one of them is for the same board.
BOARDS: Final[Mapping[str, Board]] = {
    "horizon_x3": Board("RDK X3 (BPU Bernoulli2)", "bernoulli2", HB_MAPPER, _X3, _X3_NOTE),
    "horizon_rdk_ultra": Board("RDK Ultra (BPU Bayes)", "bayes", HB_MAPPER, _X3, _X3_NOTE),
    "horizon_x5": Board(
        "RDK X5 (BPU Bayes-e)", "bayes-e", HB_MAPPER, "openexplorer/ai_toolchain_ubuntu_20_x5_cpu:v1.2.8"
    ),
    "horizon_s100": Board(
        "RDK S100 (BPU Nash-e)", "nash-e", HB_COMPILE, "ai_toolchain_ubuntu_22_s100_s600_cpu:v3.7.0",
        "the image comes with the OpenExplorer package of the S series: docker load it first",
    ),
}  # fmt: skip


def board_of(names: Iterable[str]) -> Board | None:
    """The board of a profile: its own name, or the nearest that it extends."""
    return next((BOARDS[name] for name in names if name in BOARDS), None)
