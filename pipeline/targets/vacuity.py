"""Whether a comparison on a target can prove anything: the judgement of parity on the same reference."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import Reason
from pipeline.parity.config import ParityConfig
from pipeline.parity.reference import Reference
from pipeline.parity.vacuous import find_vacuous, judge_vacuous
from pipeline.targets.compare import rule_of


def judge_on_target(
    reference: Reference, names: Sequence[str], *, tolerance: float, k: float
) -> tuple[Reason | None, tuple[str, ...]]:
    """Judge the outputs of a network for what a comparison with them proves.

    Args:
        reference: what the network gave.
        names: of its outputs.
        tolerance: the target's.
        k: `parity.k`.

    Returns:
        why the whole is vacuous (PL-521) or None, by the limits of parity, and a sentence on every output
        that proves little. The target's tolerance is the larger one: what depends on the input far more
        than parity allows may not do so for it, which is a warning.
    """
    reason = judge_vacuous(find_vacuous(reference, ParityConfig(kind="noise", k=k)), names)
    found = find_vacuous(reference, rule_of(reference, tolerance=tolerance, k=k))
    return reason, tuple(one.sentence for one in found)
