"""What a backend is: compile a finished ONNX file, load what came out in a fresh process, run it.

An implementation lives in one file, imports its own package only inside its methods, and is driven
by `pipeline.targets.worker` in a child process: the pipeline's own process never sees the package.
It never judges itself: names, shapes and dtypes are validated before it is called, and numbers are
compared by the caller. It says what it found (files, names, precision as read back), raises
`BackendError` when the tool failed, and never takes an exit code or a file's existence for proof.
`pipeline.targets.contract_tests` is the suite that an implementation passes, ours and third parties'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BackendError(Exception):
    """The tool could not; the message is one sentence, `node` and `operator` what it named.

    Attributes:
        sentence: what the tool said, without a traceback.
        node: name of the ONNX node that it named, or None.
        operator: the operator that it named, or None.
    """

    def __init__(self, sentence: str, *, node: str | None = None, operator: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence, self.node, self.operator = sentence, node, operator


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the model.

    Attributes:
        name: as in the ONNX file.
        dtype: numpy's name ("float32").
        shape: sizes; a dynamic axis has its name instead.
        example: sizes of the sample inputs (outputs: of the reference's outputs).
        smallest, largest: bounds of dynamic axes (sizes of every axis), where the request says them.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    example: tuple[int, ...]
    smallest: tuple[int, ...] = ()
    largest: tuple[int, ...] = ()


@dataclass(frozen=True)
class Job:
    """What compile and load get.

    Attributes:
        model: the ONNX file (and model.onnx.data beside it); never written to.
        folder: where the compiled files go; empty when compile is called, complete when load is.
        scratch: an empty folder of this process, also its working directory; thrown away.
        inputs, outputs: in the file's order.
        precision: "float32" or "float16".
        options: the profile's and the request's (`target.options`), for this backend.
        threads: how many the runtime may use.
        timeout_s: how long the whole step may take; it is killed afterwards.
        tolerance: what the bundle's program accepts: max |difference| / max |expected| of an output.
    """

    model: Path
    folder: Path
    scratch: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    timeout_s: float = 600.0
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Compiled:
    """What compile made.

    Attributes:
        files: names in the job's folder that the runtime needs, the main one first.
        names: ONNX input or output name to the runtime's own; empty when they are kept.
        precision: as read back from the tool or its files ("float32", "float16", "bfloat16"); more words
            may follow the first, where weights and arithmetic differ ("float16 weights, float32 arithmetic").
        proof: where that was read ("INFERENCE_PRECISION_HINT after compile").
        facts: more for run.json and the bundle's page; JSON data.
        others: names of files in the job's folder for people (the optimised model as ONNX): they go into
            the bundle and do not count as the artifact's size.
    """

    files: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float32"
    proof: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def serves(asked: str, found: str) -> bool:
    """Whether a precision that was read back is the one that was asked.

    Asked float32, nothing may hold fewer digits. Asked float16, some part of the model is in float16,
    and none in bfloat16.

    >>> serves("float16", "float16 weights, float32 arithmetic")
    True
    >>> serves("float32", "float32 weights, bfloat16 arithmetic")
    False
    """
    types = set(re.findall(r"\bb?float\d+", found))
    if asked == "float32":
        return bool(types) and types <= {"float32", "float64"}
    return asked in types and types <= {asked, "float32", "float64"}


class Runner(Protocol):
    """A loaded model, ready to run."""

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All outputs by ONNX name, C-contiguous, for inputs by ONNX name.

        Raises:
            BackendError: the runtime refused.
        """

    def precision(self) -> tuple[str, str]:
        """The precision in force while it runs, and where that was read."""


class Backend(Protocol):
    """One tool chain. Implementations are frozen dataclasses without fields."""

    @property
    def name(self) -> str:
        """The target that it serves."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions that must be installed; their public versions take part in keys."""

    @property
    def extra(self) -> str:
        """What `pip install onnx-export-pipeline[EXTRA]` brings them."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """What `target.precision` may be."""

    @property
    def option_names(self) -> Mapping[str, Any]:
        """Options with their defaults; anything else in `target.options` is refused."""

    def compile(self, job: Job) -> Compiled:
        """Compile `job.model` into `job.folder`; called in a child process.

        Raises:
            BackendError: the tool failed, or what it made is not there or not what was asked.
        """

    def load(self, job: Job, compiled: Compiled) -> Runner:
        """Load `job.folder` in a fresh process in which compile has not run.

        Raises:
            BackendError: the files cannot be loaded.
        """

    def program(self, job: Job, compiled: Compiled) -> str:
        """Source of the bundle's run.py: it uses the runtime's own package and numpy alone.

        It reads inputs.npz and expected.npz beside it, loads the compiled files from its folder,
        compares with the stated tolerance (max |difference| / max |expected|) and exits with 0 or 1.
        """

    def page(self, job: Job, compiled: Compiled) -> str:
        """Markdown on how to deploy: files, versions, precision, names, what is not covered."""
