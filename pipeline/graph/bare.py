"""The graph without its weights: what every stage between export and assemble works on.

Large initializers are *held aside*: in the bare proto they stand as typed graph inputs (after
the real ones), and a table leads from each name to dtype, shape, digest and a way to the bytes.
Small tensors (up to SMALL_BYTES) and integer tensors stay in the proto as real initializers, so
that folding and shape inference can use their values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

#: Tensors up to this size stay in the proto: enough for axes, shapes, scales and scalars.
SMALL_BYTES: Final = 1024


@dataclass(frozen=True)
class HeldTensor:
    """An initializer that is held aside.

    Attributes:
        name: its name in the graph.
        dtype: onnx.TensorProto.DataType.
        shape: sizes.
        origin: the network's own tensor that it equals bit for bit ("features.0.weight"), or None
            when it is derived; `derived_by` then names the step ("export: Conv+BatchNorm fused").
        data: a call that gives the raw little-endian bytes as a C-contiguous uint8 numpy array
            (a view where possible); called when they are needed, never kept.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    data: Callable[[], Any]
    origin: str | None = None
    derived_by: str | None = None


@dataclass(frozen=True)
class BareModel:
    """A graph and the table of what is held aside.

    Attributes:
        proto: a serialized ModelProto without the held tensors' bytes. The real inputs come
            first, then one typed input a held tensor.
        held: name in the graph to tensor; exactly the graph inputs after the real ones.
        inputs, outputs: names of the real graph inputs and outputs, in order.
        scopes: value or node name to module path ("features.0"), for the source map.
        lines: the same names to "file:line", where the exporter knows it.
        shown_parameters: held tensors that the finished file lists as graph inputs too
            (`keep_initializers_as_inputs`), in order.
    """

    proto: bytes
    held: Mapping[str, HeldTensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scopes: Mapping[str, str]
    lines: Mapping[str, str]
    shown_parameters: tuple[str, ...] = ()

    def store(self, folder: Path) -> None:
        """Write graph.onnx, tensors.bin and tables.json into `folder`."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `store` wrote; tensors stay mapped on disk."""
        raise NotImplementedError
