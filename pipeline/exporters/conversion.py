"""Bringing an exported graph to another opset: upwards with the converters, downwards with our rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import StageFailed

if TYPE_CHECKING:
    from pipeline.graph.bare import BareModel, HeldTensor
    from pipeline.graph.rewrites.rewriting import Rewriting
    from pipeline.sources.network import Network

#: torch's own translations to older opsets (symbolic_opset7 to 10) are not tended any more: sort's order is lost
#: below 10, LSTM at 7 and gelu at 8 become operators that those opsets do not have.
TENDED_FROM: Final = 11
#: How many times the rounding of another order of additions a graph must be off to be wrong without a doubt.
WRONG_BEYOND: Final = 100.0


def raised(model: BareModel, opset: int, values: Mapping[str, Any]) -> BareModel:
    """Bring a graph up to a newer opset with the converters that exist; the result is proved.

    Args:
        model: it is not changed.
        opset: newer than the model's.
        values: the export inputs.

    Raises:
        StageFailed: PL-314, no converter does it.
    """
    from pipeline.graph.rewrites.raising import raise_opset

    return raise_opset(model, opset, values)


def lowered(
    model: BareModel,
    opset: int,
    values: Mapping[str, Any],
    rules: Mapping[str, Any],
    *,
    private_apis: bool = False,
    keep: Collection[str] = (),
) -> tuple[BareModel, Rewriting]:
    """Bring a graph down to an older opset with our rules, and prove it.

    TorchScript computes sizes and indices in the graph. Where rules have to know them, the graph is
    simplified first: what depends on constants alone is folded then.

    Args:
        model: it is not changed.
        opset: older than the model's.
        values: the export inputs.
        rules: rule to False where it is switched off.
        private_apis: see `simplify`.
        keep: see `simplify`.

    Raises:
        StageFailed: PL-430, no rule brings an operator so far down; PL-431, a rule changed what the
            graph computes.
    """
    from pipeline.graph.rewrites.lower import LoweringFailed, lower
    from pipeline.graph.rewrites.prove import prove
    from pipeline.graph.simplify import simplify

    off = [name for name, on in rules.items() if on is False]
    before = model
    try:
        made, rewriting = lower(before, opset, off=off)
    except LoweringFailed as failed:
        before, _ = simplify(model, values, private_apis=private_apis, keep=keep)
        try:
            made, rewriting = lower(before, opset, off=off)
        except LoweringFailed as again:
            raise (again if again.nearest <= failed.nearest else failed) from None
    prove(before, made, rewriting, values, key="export.rules")
    return made, rewriting


def refuse_unrunnable(
    model: BareModel, values: Mapping[str, Any], parameters: Mapping[str, HeldTensor]
) -> None:
    """Refuse a graph with branches that ONNX Runtime does not run on the inputs that it was exported with.

    TorchScript writes an If where a size decides (mvit_v1_b's pools) whose branches do not fit one
    another; checker and simplifier pass it. Graphs without branches are left to parity.

    Raises:
        StageFailed: PL-315.
    """
    from pipeline.graph.walk import graphs

    if next(iter(list(graphs(model.parsed().graph))[1:]), None) is not None:
        _run(
            model, values, parameters,
            "the exporter wrote branches that do not run on the inputs that it was given",
        )  # fmt: skip


def refuse_wrong(
    model: BareModel,
    values: Mapping[str, Any],
    parameters: Mapping[str, HeldTensor],
    network: Network | None,
) -> None:
    """Refuse a graph that does not run, or gives something else than the network, on its export inputs.

    For opsets that torch's translations are not tended for any more, where another road is left. The
    tolerance is wide: what is in doubt is left to parity.

    Args:
        model: what TorchScript wrote.
        values: the export inputs.
        parameters: of the network that are inputs of the graph (export.export_params=false).
        network: None where its outputs say nothing of the graph's (training mode, sizes by values).

    Raises:
        StageFailed: PL-315.
    """
    from pipeline.graph.equivalence import compare_outputs

    found = _run(
        model, values, parameters, "the exporter's graph does not run on the inputs that it was given"
    )
    if network is None:
        return
    outputs = network.run(values)
    expected = [outputs[name] for name in model.outputs]
    wrong = compare_outputs(model.outputs, expected, found, slack=WRONG_BEYOND).difference
    if wrong is not None:
        raise StageFailed(
            "PL-315", "the exporter's graph does not compute what the network computes", found=wrong
        )


def _run(
    model: BareModel, values: Mapping[str, Any], parameters: Mapping[str, HeldTensor], problem: str
) -> list[Any]:
    from pipeline.graph.session import array_value, held_value, run_bare

    feeds = {name: array_value(value) for name, value in values.items()}
    feeds.update({name: held_value(tensor) for name, tensor in {**model.held, **parameters}.items()})
    try:
        return run_bare(model.proto, feeds)
    except Exception as error:
        raise StageFailed(
            "PL-315",
            problem,
            found=(str(error).strip().splitlines() or [type(error).__name__])[0],
        ) from error
