"""What a failed comparison points at: a frozen branch, a baked-in size, outputs that changed places. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StageFailed
from pipeline.parity.compare import SIZES, OutputComparison, axes_of
from pipeline.parity.reference import Reference

if TYPE_CHECKING:
    from pipeline.exporters.attempts import FrozenPlace

Arrays = Mapping[str, NDArray[Any]]

#: The seeds whose inputs are made to flip branches (see `pipeline.samples`).
VARIANTS: Final = {"seed1": "negated", "seed2": "scaled"}
#: The other side of a branch computes something else: tolerance / error below this. Nearer to the limit
#: it is rounding that is larger on those inputs.
GROSS_MARGIN: Final = 0.1
#: How many places where tracing froze a value a sentence names.
NAMED: Final = 3


class ParityFailed(StageFailed):
    """PL-520, with the figures for run.json."""


def failure(
    comparisons: Sequence[OutputComparison],
    reference: Reference,
    outputs: Mapping[str, Arrays],
    frozen: Sequence[FrozenPlace],
) -> ParityFailed:
    """The error for comparisons of which at least one failed.

    Args:
        comparisons: all of them.
        reference: what the network gave.
        outputs: label of the inputs to output name to array, as the file gave it.
        frozen: places where tracing made constants of values.
    """
    failed = [item for item in comparisons if not item.passed]
    worst = min(failed, key=lambda item: (item.margin, not item.problem))
    cause, step = _cause(failed, comparisons, reference, outputs)
    if not cause and worst.margin < GROSS_MARGIN and any(one.decides_a_branch for one in frozen):
        step = _BRANCH_STEP
    text = f"output {worst.output} is not what the network computes" + (f", {cause}" if cause else "")
    text += _suspects(frozen, branches_first="size" not in cause)
    error = ParityFailed(
        "PL-520",
        text,
        where=f"{worst.output}, inputs {describe(worst.label)}",
        found=worst.problem or f"an error of {worst.error:.2g}{_of(worst)}",
        expected=None if worst.problem else f"at most {worst.tolerance:.2g}{_why(worst)}",
        next_step=step,
    )
    error.measured = {"parity": [item.line() for item in comparisons]}
    return error


def baked_size(
    label: str, error: StageFailed, comparisons: Sequence[OutputComparison], frozen: Sequence[FrozenPlace]
) -> ParityFailed:
    """The error for a file that runs with the example sizes and not with others."""
    text = f"the file does not run with another size: the size depends on {axes_of(label)} and was baked in"
    found = ParityFailed(
        "PL-520",
        text + _suspects(frozen, branches_first=False),
        where=f"inputs {describe(label)}",
        found=error.reason.message,
        expected="a file that takes every size that the axis is declared with",
        next_step=_SIZE_STEP,
    )
    found.measured = {"parity": [item.line() for item in comparisons]}
    return found


def _suspects(frozen: Sequence[FrozenPlace], *, branches_first: bool) -> str:
    """Where tracing made constants of values: where to look."""
    branches = [one for one in frozen if one.decides_a_branch]
    values = [one for one in frozen if not one.decides_a_branch]
    parts = [
        ("tracing kept one side of a branch at", branches),
        ("tracing made constants of values at", values),
    ]
    named = parts if branches_first else parts[::-1]
    return "".join(f"; {what} {_places(places)}" for what, places in named if places)


def _places(places: Sequence[FrozenPlace]) -> str:
    shown = ", ".join(one.place for one in places[:NAMED])
    return shown + (f" and {len(places) - NAMED} more" if len(places) > NAMED else "")


_SIZE_STEP: Final = (
    "Write sizes as x.shape[i] or -1, without int() or len(), or type export.exporter=dynamo; "
    "or take the axis out of dynamic"
)
_BRANCH_STEP: Final = "Write the branch with torch.where, or type export.exporter=dynamo, which refuses it"
_STEP: Final = (
    "Type simplify=none, then export.exporter=dynamo or torchscript, to see which step changes the result"
)


def describe(label: str) -> str:
    """A label in words: "seed1 (negated)"."""
    return f"{label} ({VARIANTS[label]})" if label in VARIANTS else label


def _cause(
    failed: Sequence[OutputComparison],
    comparisons: Sequence[OutputComparison],
    reference: Reference,
    outputs: Mapping[str, Arrays],
) -> tuple[str, str]:
    labels = {item.label for item in failed}
    every = {item.label for item in comparisons}
    other = _changed_places(failed, reference, outputs)
    if other:
        return other, "Compare export.output_names with the order of the network's outputs"
    if all(label.startswith(SIZES) for label in labels) and labels < every:
        axes = axes_of(min(labels))
        return f"only with other sizes: a size that depends on {axes} was baked in", _SIZE_STEP
    seeds = {label for label in labels if not label.startswith(SIZES)}
    gross = max(item.margin for item in failed) < GROSS_MARGIN
    if gross and "seed0" in every - labels and seeds and seeds <= set(VARIANTS):
        words = " and ".join(VARIANTS[label] for label in sorted(seeds))
        return f"only with {words} inputs: a branch was frozen", _BRANCH_STEP
    return "", _STEP


def _changed_places(
    failed: Sequence[OutputComparison], reference: Reference, outputs: Mapping[str, Arrays]
) -> str:
    """The name of the network's output that a failed one equals."""
    for item in failed:
        outcome = outputs[item.label][item.output]
        for name, array in reference.outputs[item.label].items():
            if name == item.output or array.shape != outcome.shape or array.dtype != outcome.dtype:
                continue
            if (
                array.size
                and array.any()
                and np.allclose(outcome, array, rtol=1e-4, atol=1e-6 * np.abs(array).max())
            ):
                return f"but what it gives as {name}"
    return ""


def _of(item: OutputComparison) -> str:
    place = f" at {item.place}" if item.place else ""
    words = {
        "scale": " of the largest value",
        "channel": " of the largest value of its channel",
        "element": " of the value itself",
        "fixed": " of what rtol and atol allow",
        "exact": " of the elements",
        "set": "",
    }
    return words[item.criterion] + place


def _why(item: OutputComparison) -> str:
    if item.noise is None or item.criterion == "fixed":
        return ""
    return f" (the network's own noise is {item.noise:.2g})"
