"""Prove that rules left what a graph computes, and name the first one that did not.

Both graphs are run on the same inputs and weights. Where their outputs differ, every value that a rule
replaced is made an output of both graphs (it bears the same name in both), and the first of them that
differs, in the order of computation, names the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx

from pipeline.errors import StageFailed
from pipeline.graph.bare import BareModel
from pipeline.graph.equivalence import NotRunnableError, compare_graphs
from pipeline.graph.rewrites.rewriting import Applied, Rewriting

if TYPE_CHECKING:
    from collections.abc import Sequence


def prove(
    before: BareModel, after: BareModel, rewriting: Rewriting, values: Mapping[str, Any], *, key: str
) -> float | None:
    """Check the rewritten graph and compare it with the one before.

    Args:
        before: the graph that counts.
        after: what rules made of it.
        rewriting: which rules.
        values: arrays by input name.
        key: "export.rules" or "target.rules", for the sentence.

    Returns:
        The largest relative difference; None when ONNX Runtime does not run the graph before, so that
        nothing could be compared.

    Raises:
        StageFailed: PL-431, with the first rule that broke something.
    """
    checked = _invalid(after)
    if checked is not None:
        raise _broken(_named_in(checked, after, rewriting), f"the checker says: {checked}", key)
    try:
        equal = compare_graphs(before, after, values)
    except NotRunnableError:
        return None
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _broken(_named_in(text, after, rewriting), f"ONNX Runtime says: {text}", key) from error
    if equal.difference is None:
        return equal.error
    applied, difference = first_difference(before, after, rewriting, values)
    raise _broken(applied, difference or equal.difference, key)


def first_difference(
    before: BareModel, after: BareModel, rewriting: Rewriting, values: Mapping[str, Any]
) -> tuple[Applied | None, str | None]:
    """The first replaced node whose outputs differ, and how."""
    by_output = {name: one for one in rewriting.applied for name in one.outputs}
    defined = [_defined(before), _defined(after)]
    order = [name for name in defined[1] if name in by_output and name in defined[0]]
    names = [name for name in order if name not in after.outputs]
    tapped = [_tapped(model, names) for model in (before, after)]
    for name in order:
        # One at a time: the first difference ends the comparison, whatever comes after it.
        pair = [replace(model, outputs=(name,), proto=_only_output(model, name)) for model in tapped]
        try:
            equal = compare_graphs(pair[0], pair[1], values)
        except NotRunnableError:
            continue
        except Exception as error:  # noqa: BLE001 - the graph after does not run up to here
            return by_output[name], (str(error).strip().splitlines() or [type(error).__name__])[0]
        if equal.difference is not None:
            return by_output[name], equal.difference.replace(f"output {name}: ", "")
    return None, None


def _defined(model: BareModel) -> list[str]:
    return [name for node in model.parsed().graph.node for name in node.output if name]


def _tapped(model: BareModel, names: Sequence[str]) -> BareModel:
    proto = model.parsed()
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return replace(model, proto=proto.SerializeToString(), outputs=(*model.outputs, *names))


def _only_output(model: BareModel, name: str) -> bytes:
    """The part of the graph that leads to one value."""
    proto = model.parsed()
    kept = [value for value in proto.graph.output if value.name == name]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    part: bytes = proto.SerializeToString()
    return part


def _invalid(model: BareModel) -> str | None:
    import onnx.checker

    try:
        onnx.checker.check_model(model.parsed(), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None


def _named_in(text: str, after: BareModel, rewriting: Rewriting) -> Applied | None:
    """The rule of the node that a message names."""
    rules = {one.rule: one for one in reversed(rewriting.applied)}
    for node, step in sorted(after.made_by.items(), key=lambda pair: -len(pair[0])):
        if node in text and (rule := step.removeprefix("rule ")) in rules:
            return rules[rule]
    return None


def _broken(applied: Applied | None, difference: str, key: str) -> StageFailed:
    if applied is None:
        return StageFailed(
            "PL-431", "rewrite rules changed what the graph computes", where=key, found=difference,
            next_step="Please report it, with the network and the command",
        )  # fmt: skip
    return StageFailed(
        "PL-431",
        f"the rewrite rule {applied.rule} changed what the graph computes",
        where=applied.scope or f"node {applied.node}",
        found=difference,
        expected=f"what {applied.operator} gives",
        next_step=f"Please report it; type {key}.{applied.rule}=false to go without the rule",
    )
