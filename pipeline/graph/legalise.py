"""Turn what a target refuses into what it takes, by the rules that its profile wants, and prove the result.

Rules of the whole graph come first (a frozen batch lets sizes be folded), then those that only
approximate (never wanted unless asked for), then the rest round by round, those that pay on a target with
two places (`rewrites.weighing`). The simplifier runs again afterwards; where it would undo a rule, its
result is rewritten again or left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.errors import InternalError, StageFailed
from pipeline.graph.bare import BareModel
from pipeline.graph.equivalence import NotRunnableError, compare_graphs
from pipeline.graph.rewrites.engine import rewrite
from pipeline.graph.rewrites.families import rules_of
from pipeline.graph.rewrites.legal_types import OF_THE_WHOLE, frozen_values
from pipeline.graph.rewrites.names import LEGALISATION
from pipeline.graph.rewrites.prove import prove
from pipeline.graph.rewrites.rewriting import Rewriting
from pipeline.graph.rewrites.rule import Rule
from pipeline.graph.rewrites.weighing import Cost, Undone, weigh
from pipeline.graph.simplify import count_nodes, simplify

#: Where rules are switched on and off.
KEY: Final = "target.rules"
#: An approximation may move an output by this share of its largest magnitude at most; beyond it the
#: network does something else, whatever the user asked for.
LARGEST_APPROXIMATION: Final = 0.1


@dataclass(frozen=True)
class Legalised:
    """What became of a graph.

    Attributes:
        model: the graph for the target.
        rewriting: rules that were applied, and nodes that they declined in the end.
        error: largest relative difference to the graph before; None where nothing could be compared.
        approximation: the same for the rules that only approximate; None when none was applied.
        simplified: whether the simplifier's second result is used.
        undone: rules that were wanted and do not pay on the target.
    """

    model: BareModel
    rewriting: Rewriting
    error: float | None = None
    approximation: float | None = None
    simplified: bool = False
    undone: tuple[Undone, ...] = ()


def wanted_rules(wants: Iterable[str], given: Mapping[str, bool] | None = None) -> tuple[str, ...]:
    """The names that are on: a profile's wishes and the request's `target.rules`, in the order of the table.

    Args:
        wants: of the profile.
        given: rule name to true (asked for) or false (switched off).
    """
    given, wants = given or {}, set(wants)
    names = [name for family in LEGALISATION.values() for name in family]
    if unknown := sorted({*wants, *given} - set(names)):
        raise InternalError(f"{unknown} are no legalisation rules")
    return tuple(name for name in names if given.get(name, name in wants))


def legalise(
    model: BareModel, wants: Collection[str], *, off: Collection[str] = (), opset: int | None = None
) -> tuple[BareModel, Rewriting]:
    """Apply the wanted rules; nothing is run or proved.

    Args:
        model: it is not changed.
        wants: names of rules; they are applied in the order of the table of names.
        off: names that are left out.
        opset: what the graph's opset must be; None: whatever it is.

    Raises:
        InternalError: a name that is no rule, or another opset.
    """
    names = wanted_rules(set(wants) - set(off))
    if opset is not None and (found := _opset(model)) != opset:
        raise InternalError(f"the graph is of opset {found}, not {opset}")
    model, rewriting = _whole(model, names)
    for rules in _passes(names):
        model, done = rewrite(model, rules)
        rewriting = rewriting.then(done)
    return model, rewriting


def legalise_and_prove(
    model: BareModel,
    wants: Collection[str],
    values: Mapping[str, Any],
    *,
    simplifies: bool = True,
    private_apis: bool = False,
    keep: Collection[str] = (),
    cost: Cost | None = None,
    asked: Collection[str] = (),
) -> Legalised:
    """Apply the wanted rules, prove them on ONNX Runtime, and simplify what is left.

    Args:
        model: it is not changed.
        wants: names of rules that are on.
        values: the export inputs, arrays by name.
        simplifies: whether the simplifier runs again; False where the request wants none.
        private_apis: see `onnxsim_core.run_onnxsim`.
        keep: held tensors that must stay what they are, under their own names.
        cost: of a graph on the target: rules that do not pay are left out; None: none is weighed.
        asked: names of rules that are used whatever they cost.

    Raises:
        StageFailed: PL-431, with the first rule that broke something.
    """
    names = wanted_rules(wants)
    current, rewriting, errors = model, Rewriting(), []
    whole, done = _whole(model, names)
    if done.applied:
        if any(one.rule == "freeze_batch" for one in done.applied):
            values = frozen_values(model, values)
        errors.append(_prove_whole(current, whole, done, values))
        current = whole
        if simplifies:
            current, _ = simplify(whole, values, private_apis=private_apis, keep=keep)
    rewriting = rewriting.then(done)
    approximate, exact = _passes(names)
    approximated, done = rewrite(current, approximate, fixed=keep)
    rewriting = rewriting.then(done)
    approximation = _approximation(current, approximated, done, values) if done.applied else None
    current = approximated
    undone: tuple[Undone, ...] = ()
    if cost is not None:
        exact, undone = weigh(current, exact, cost, asked=asked, fixed=keep)
    ruled, done = rewrite(current, exact, fixed=keep)
    rewriting = rewriting.then(done)
    if not rewriting.applied:
        return Legalised(model, rewriting, undone=undone)
    errors.append(prove(current, ruled, done, values, key=KEY) if done.applied else 0.0)
    result, simplified = ruled, False
    if simplifies:
        result, simplified = _simplified(ruled, exact, values, private_apis, keep)
    error = None if None in errors else max(one for one in errors if one is not None)
    return Legalised(result, rewriting, error, approximation, simplified, undone)


def _opset(model: BareModel) -> int:
    return next((one.version for one in model.parsed().opset_import if one.domain in ("", "ai.onnx")), 0)


def _whole(model: BareModel, names: Sequence[str]) -> tuple[BareModel, Rewriting]:
    rewriting = Rewriting()
    for name in names:
        if name in OF_THE_WHOLE:
            model, done = OF_THE_WHOLE[name](model)
            rewriting = rewriting.then(done)
    return model, rewriting


def _passes(names: Sequence[str]) -> tuple[list[Rule], list[Rule]]:
    """The rules that approximate, and the rest."""
    rules = [rule for rule in rules_of("legalise") if rule.name in names and rule.name not in OF_THE_WHOLE]
    return (
        [rule for rule in rules if rule.promise == "approximation"],
        [rule for rule in rules if rule.promise != "approximation"],
    )


def _prove_whole(
    before: BareModel, after: BareModel, done: Rewriting, values: Mapping[str, Any]
) -> float | None:
    """As `prove`, for rules that replace no single node: the last one that was applied is named."""
    try:
        equal = compare_graphs(before, after, values)
    except NotRunnableError:
        return None
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _broken(done, f"ONNX Runtime says: {text}") from error
    if equal.difference is not None:
        raise _broken(done, equal.difference)
    return equal.error


def _approximation(
    before: BareModel, after: BareModel, done: Rewriting, values: Mapping[str, Any]
) -> float | None:
    try:
        error = compare_graphs(before, after, values).error
    except NotRunnableError:
        return None
    if error > LARGEST_APPROXIMATION:
        raise _broken(done, f"it moves an output by {error:.1e} of its largest magnitude")
    return error


def _broken(done: Rewriting, found: str) -> StageFailed:
    names = sorted({one.rule for one in done.applied})
    return StageFailed(
        "PL-431",
        f"the rewrite rule {names[-1]} changed what the graph computes",
        where=KEY,
        found=found,
        next_step=f"Type {KEY}.{names[-1]}=false to go without the rule",
    )


def _simplified(
    ruled: BareModel,
    rules: Sequence[Rule],
    values: Mapping[str, Any],
    private_apis: bool,
    keep: Collection[str],
) -> tuple[BareModel, bool]:
    """The rewritten graph simplified, where that neither undoes a rule nor adds a node."""
    simpler, done = simplify(ruled, values, private_apis=private_apis, keep=keep)
    if done.outcome != "simplified":
        return simpler, False
    again, undone = rewrite(simpler, rules, fixed=keep)
    if not undone.applied:
        return simpler, True
    # The simplifier fused what a rule had taken apart: the rules have the last word.
    if count_nodes(again) > count_nodes(ruled):
        return ruled, False
    prove(ruled, again, undone, values, key=KEY)
    return again, True
