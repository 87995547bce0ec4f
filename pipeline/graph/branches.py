"""Types that an exporter states for the results of branches, and that may be wrong.

TorchScript's shape inference states one size for both branches of an If; where they differ, the
format allows it and ONNX Runtime believes it: it allocates that size and fails (mvit_v1_b, whose
pooling squeezes a dimension in one branch). Nothing needs these sizes, so they are left open.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.graph.bare import BareModel
from pipeline.graph.walk import subgraphs

if TYPE_CHECKING:
    import onnx


def with_open_branches(model: BareModel) -> BareModel:
    """`model` without the sizes that are stated for results of branches; itself when there are none."""
    proto = model.parsed()
    if not open_branches(proto.graph):
        return model
    return replace(model, proto=proto.SerializeToString(deterministic=True))


def open_branches(graph: onnx.GraphProto) -> bool:
    """Take those sizes away, here and further inside; whether there were any."""
    changed = False
    for node in graph.node:
        for inner in subgraphs(node):
            changed |= open_branches(inner)
            if node.op_type != "If":  # the shape of a Loop's or Scan's state is part of its meaning
                continue
            for value in inner.output:
                if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
                    value.type.tensor_type.ClearField("shape")
                    changed = True
    return changed
