"""onnx.checker on the bare graph: every node's schema, types and shapes, strictly inferred.

The graph is small whatever the network weighs, so there is no limit of 2 GB here. The weights
take part as typed inputs; that their bytes arrive in the file is the contract's concern.
"""

from __future__ import annotations

import re
from typing import Final

from pipeline.errors import StageFailed
from pipeline.graph.bare import BareModel
from pipeline.graph.walk import model_nodes

#: How the checker and the shape inference name a node.
_NODE: Final = re.compile(r"node name: ([^)]+)\)|Name: (\S+) OpType|\bname: (\S+)\s+OpType")
_NOISE: Final = re.compile(
    r"\[(?:Shape|Type)InferenceError\]\s*|Inference error\(s\):\s*|\(op_type:[^)]*\):\s*"
)
_ONNX_DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")


def check(model: BareModel) -> None:
    """Check the graph of `model` in full.

    Raises:
        StageFailed: PL-411, the graph is not valid; PL-412, the installed onnx does not know its
            operator set, so that a check would prove nothing.
    """
    import onnx
    import onnx.checker
    import onnx.shape_inference

    known = onnx.defs.onnx_opset_version()
    for entry in model.parsed().opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > known:
            raise StageFailed(
                "PL-412",
                "the installed onnx does not know the graph's operator set, so it cannot check it",
                where="export.opset",
                found=f"opset {entry.version}",
                expected=f"at most {known}",
                next_step=f"Type export.opset={known}",
            )
    try:
        onnx.checker.check_model(model.proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _failed(str(error), model) from error


def unchecked_domains(model: BareModel) -> dict[str, int]:
    """Domain to number of nodes, for the domains that onnx has no schemas of."""
    counts: dict[str, int] = {}
    proto = model.parsed()
    own = {function.domain for function in proto.functions}
    for node in model_nodes(proto):
        if node.domain not in _ONNX_DOMAINS and node.domain not in own:
            counts[node.domain] = counts.get(node.domain, 0) + 1
    return counts


def _failed(text: str, model: BareModel) -> StageFailed:
    found = _NODE.search(text)
    name = next((group for group in found.groups() if group), None) if found else None
    sentence = " ".join(_NOISE.sub("", text.split("==> Context")[0]).split()).rstrip(".")
    where = f"node {name}" if name else None
    if name and (module := model.scopes.get(name)):
        where += f" of module {module}"  # type: ignore[operator]
    return StageFailed(
        "PL-411",
        f"the graph is not valid ONNX: {sentence}",
        where=where,
        next_step="Type export.exporter=torchscript or dynamo to try the other exporter, or mend the file where it "
        "came from",
    )
