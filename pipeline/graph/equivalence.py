"""Whether two bare graphs compute the same, by running both on the same inputs and weights.

A simplifier may add in another order (a MatMul and an Add become a Gemm), so floating outputs are
compared within a tolerance; it is tight, because nothing but the order may differ. What the file
computes is proved later, against the network itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pipeline.graph.bare import BareModel
from pipeline.graph.dtypes import element_type
from pipeline.graph.session import array_value, held_value, run_bare

if TYPE_CHECKING:
    import onnxruntime

#: Largest difference over the largest magnitude of an output, by numpy's name of the dtype: about
#: a thousand roundings of float64 and float32, a few of the half-precision types. Measured on
#: torchvision's networks in float32: at most 2e-6 where nodes were fused, 0 elsewhere.
TOLERANCES: Final[Mapping[str, float]] = {
    "float64": 2e-13,
    "float32": 1e-4,
    "float16": 1e-2,
    "bfloat16": 5e-2,
}
#: Values of an input that no samples were made for (parameters left outside): standard normal.
FILL_SEED: Final = 0


class NotRunnableError(Exception):
    """The exported graph itself does not run here, so that nothing can be compared."""


@dataclass(frozen=True)
class Equivalence:
    """How two graphs compare.

    Attributes:
        error: largest difference over the largest magnitude, over all floating outputs.
        difference: a sentence about the first output that differs, or None when all agree.
    """

    error: float
    difference: str | None = None


def compare_graphs(before: BareModel, after: BareModel, values: Mapping[str, Any]) -> Equivalence:
    """Run both graphs and compare every output.

    Args:
        before: the graph that counts.
        after: the graph that should compute the same; its real inputs have the same names.
        values: arrays by input name; an input that is missing here gets random values.

    Raises:
        NotRunnableError: `before` cannot be loaded or run; the text says why.
        Exception: what ONNX Runtime raises when it cannot load or run `after`.
    """
    feeds = {name: array_value(value) for name, value in values.items()}
    try:
        feeds.update(_filled(before, feeds))
        feeds.update({name: held_value(tensor) for name, tensor in before.held.items()})
        expected = run_bare(before.proto, feeds)
    except Exception as error:
        raise NotRunnableError(_first_line(error)) from error
    feeds.update({name: held_value(tensor) for name, tensor in after.held.items() if name not in before.held})
    return compare_outputs(before.outputs, expected, run_bare(after.proto, feeds))


def compare_outputs(
    names: Iterable[str], expected: Sequence[Any], found: Sequence[Any], *, slack: float = 1.0
) -> Equivalence:
    """Compare what two computations gave, arrays in the order of `names`.

    Args:
        names: of the outputs.
        expected: what counts.
        found: what should be the same.
        slack: how many times the tolerance of graphs that differ in the order of additions alone.
    """
    worst = 0.0
    for name, one, other in zip(names, expected, found, strict=True):
        relative, difference = _compare(one, other, slack)
        if difference is not None:
            return Equivalence(relative, f"output {name}: {difference}")
        worst = max(worst, relative)
    return Equivalence(worst)


def _compare(one: Any, other: Any, slack: float) -> tuple[float, str | None]:
    """The relative error of an output, and what is wrong with it."""
    import numpy as np

    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return 0.0, None if repr(one) == repr(other) else "the sequences differ"
    if one.dtype != other.dtype or one.shape != other.shape:
        return 0.0, f"{other.dtype}{list(other.shape)} instead of {one.dtype}{list(one.shape)}"
    tolerance = TOLERANCES.get(one.dtype.name)
    if tolerance is None:
        if one.dtype.kind == "c":
            return _compare(one.view(one.real.dtype), other.view(one.real.dtype), slack)
        wrong = int((one != other).sum())
        return 0.0, f"{wrong} of {one.size} elements differ" if wrong else None
    wide, twin = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(finite, np.isfinite(twin)) or not np.array_equal(
        wide[~finite], twin[~finite], equal_nan=True
    ):
        return 0.0, "not-a-number or infinity stand at other places"
    scale = float(np.abs(wide[finite]).max(initial=0.0))
    error = float(np.abs(wide[finite] - twin[finite]).max(initial=0.0))
    relative = error / scale if scale else (0.0 if error == 0 else float("inf"))
    if relative > slack * tolerance:
        return (
            relative,
            f"it differs by {relative:.1e} of its largest magnitude, more than {slack * tolerance:.0e}",
        )
    return relative, None


def _filled(model: BareModel, given: Mapping[str, Any]) -> dict[str, onnxruntime.OrtValue]:
    """Random values for inputs that no samples were made for."""
    import numpy as np

    random = np.random.default_rng(FILL_SEED)
    found = {}
    for value in model.parsed().graph.input:
        if value.name in given or value.name in model.held:
            continue
        tensor = value.type.tensor_type
        shape = [dim.dim_value or 1 for dim in tensor.shape.dim]
        array = random.standard_normal(shape).astype(element_type(tensor.elem_type).name)
        found[value.name] = array_value(array)
    return found


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
