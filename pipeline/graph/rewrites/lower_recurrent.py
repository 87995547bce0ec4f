"""LSTM, GRU and RNN: before opset 14 the sequence comes first and the batch second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pipeline.graph.rewrites.lower_axes import input_of
from pipeline.graph.rewrites.rule import NOT_NEEDED, Declined, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from pipeline.graph.rewrites.context import Context

#: Places of inputs with a batch first: the sequence, the initial hidden and cell states.
_BATCHED: Final = (0, 5, 6)
#: [sequence, directions, batch, hidden] to [batch, sequence, directions, hidden].
_WHOLE: Final = (2, 0, 1, 3)
#: The first two axes change places.
_STATE: Final = (1, 0, 2)


def _check(node: ir.Node, context: Context) -> Declined | None:
    return None if context.attribute(node, "layout", 0) else NOT_NEEDED


def _sequence_first(node: ir.Node, context: Context) -> Sequence[ir.Value | None]:
    inputs = [
        context.op("Transpose", [value], perm=list(_STATE))
        if index in _BATCHED and value is not None
        else value
        for index, value in enumerate(input_of(node, index) for index in range(len(node.inputs)))
    ]
    made = context.again(node, inputs, layout=None)
    perms = (_WHOLE, _STATE, _STATE)
    return [
        context.op("Transpose", [value], perm=list(perm))
        if before.uses() or before.is_graph_output()
        else None
        for before, value, perm in zip(node.outputs, made, perms, strict=False)
    ]


RULES: Final = (
    Rule("recurrent_layout", "lower", ("LSTM", "GRU", "RNN"), ("LSTM", "GRU", "RNN", "Transpose"), "exact",
         "a recurrent layer with the batch first gets transposes around it", _sequence_first, _check, "", 14),
)  # fmt: skip
