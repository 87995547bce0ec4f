"""What a tool takes and computes wrongly without a word: refused by attribute, before it sees the model.

Each pair was measured: the tool's outputs differ from ONNX Runtime's and from the network's by a third
to nine tenths of the largest value, while the tool reports success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.targets.backend import BackendError

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class KnownWrong:
    """An operator with an attribute that a tool ignores.

    Attributes:
        operator: of the default domain.
        matches: whether a node with these attributes is of that kind.
        what: the kind in words, after "computes".
    """

    operator: str
    matches: Callable[[Mapping[str, Any]], bool]
    what: str


ANTIALIAS: Final = KnownWrong(
    "Resize", lambda given: given.get("antialias", 0) == 1, "Resize with antialias=1"
)
BICUBIC_GRID: Final = KnownWrong(
    "GridSample", lambda given: given.get("mode") in (b"bicubic", b"cubic"), "GridSample with mode=bicubic"
)


def refuse_known_wrong(path: Path, tool: str, pairs: tuple[KnownWrong, ...]) -> None:
    """Look through every node of the file, inner graphs included.

    Raises:
        BackendError: one is of a kind that the tool computes wrongly.
    """
    import onnx

    for node in _nodes(onnx.load(path, load_external_data=False).graph):
        for pair in pairs:
            if (
                node.domain in ("", "ai.onnx")
                and node.op_type == pair.operator
                and pair.matches(_attributes(node))
            ):
                raise BackendError(
                    f"{tool} takes {pair.what} and computes something else", node=node.name or node.output[0],
                    operator=node.op_type,
                )  # fmt: skip


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    import onnx

    """Integers and texts: no pair needs another kind."""
    return {one.name: one.i if one.type == onnx.AttributeProto.INT else one.s for one in node.attribute}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
