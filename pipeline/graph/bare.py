"""The graph without its weights: what every stage between export and assemble works on.

Large initializers are *held aside*: in the bare proto they stand as typed graph inputs (after
the real ones), and a table leads from each name to dtype, shape, origin and a way to the bytes.
Small tensors (up to SMALL_BYTES), vectors (SMALL_VECTOR_BYTES) and integer tensors
(SMALL_INTEGER_BYTES) stay in the proto as real initializers, so that folding, fusing and shape
inference can use their values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pipeline.errors import InternalError
from pipeline.graph.dtypes import INTEGERS, STRING, raw_size

if TYPE_CHECKING:
    import onnx

#: Tensors up to this size stay in the proto: enough for axes, shapes, scales and scalars.
SMALL_BYTES: Final = 1024
#: Vectors up to this size stay too: onnxsim fuses a bias only when it is a constant. 64 KiB holds a
#: bias of 16,384 float32; with it vit_b_16 has 504 nodes instead of 516, swin_t 507 instead of 547.
SMALL_VECTOR_BYTES: Final = 64 * 1024
#: Integer tensors up to this size stay too: index tables (swin_t's are 19 KB) decide shapes and
#: are folded. Larger ones are quantized weights or lookup tables.
SMALL_INTEGER_BYTES: Final = 64 * 1024
#: Tensors are read and written in pieces of this size. Smaller than a huge page: for larger writes the
#: file system takes huge pages for the file, which virtual machines give back to their host while
#: they are free, and 240 MB then cost 0.5 s of page faults instead of 0.1.
PIECE_BYTES: Final = 1024 * 1024
#: Where a tensor begins in tensors.bin: a cache line, so that a mapped tensor is aligned for every dtype.
ALIGNMENT: Final = 64

PROTO_FILE: Final = "graph.onnx"
TENSORS_FILE: Final = "tensors.bin"
TABLES_FILE: Final = "tables.json"


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

    @property
    def size(self) -> int:
        """Bytes of the raw data."""
        return raw_size(self.dtype, self.shape)

    def pieces(self) -> Iterator[memoryview]:
        """The raw data in pieces of PIECE_BYTES.

        Raises:
            InternalError: `data` gives another number of bytes than dtype and shape say.
        """
        view = memoryview(self.data()).cast("B")
        if view.nbytes != self.size:
            raise InternalError(
                f"held tensor {self.name} has {view.nbytes} bytes; dtype {self.dtype} and shape "
                f"{list(self.shape)} make {self.size}"
            )
        for start in range(0, view.nbytes, PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]


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
            (`keep_initializers_as_inputs`), in order. They are held whatever their size.
        origins: initializer that stays in the proto to the network's own tensor that it equals;
            one that is not listed is a constant of the graph.
        derived: initializer that stays in the proto to the step that made it; one that stands
            neither here nor in `origins` came with the export.
        made_by: node name to the step that made the node; one that is not listed came with the export.
    """

    proto: bytes
    held: Mapping[str, HeldTensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scopes: Mapping[str, str]
    lines: Mapping[str, str]
    shown_parameters: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    made_by: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_proto(
        cls,
        model: bytes | onnx.ModelProto,
        *,
        folder: Path | None = None,
        origins: Mapping[str, str] | None = None,
        scopes: Mapping[str, str] | None = None,
        lines: Mapping[str, str] | None = None,
    ) -> Self:
        """Hold a full model's large initializers aside; see `pipeline.graph.split`."""
        from pipeline.graph.split import split

        return split(cls, model, folder=folder, origins=origins or {}, scopes=scopes or {}, lines=lines or {})

    @property
    def held_bytes(self) -> int:
        """Raw bytes of everything that is held aside."""
        return sum(tensor.size for tensor in self.held.values())

    def parsed(self) -> onnx.ModelProto:
        """The bare proto, parsed; the caller may change it."""
        import onnx

        model = onnx.ModelProto()
        model.ParseFromString(self.proto)
        return model

    def check_invariant(self) -> None:
        """What every stage may rely on.

        Raises:
            InternalError: held tensors and graph inputs disagree in name, order, dtype or sizes.
        """
        graph = self.parsed().graph
        names = tuple(value.name for value in graph.input)
        if names[: len(self.inputs)] != self.inputs or names[len(self.inputs) :] != tuple(self.held):
            raise InternalError(
                f"graph inputs {names} are not the inputs {self.inputs} and then the held tensors "
                f"{tuple(self.held)}"
            )
        outputs = tuple(value.name for value in graph.output)
        if outputs != self.outputs:
            raise InternalError(f"graph outputs {outputs} are not {self.outputs}")
        for value in graph.input[len(self.inputs) :]:
            tensor = self.held[value.name]
            kind = value.type.tensor_type
            shape = tuple(dim.dim_value for dim in kind.shape.dim)
            if tensor.name != value.name or (kind.elem_type, shape) != (tensor.dtype, tensor.shape):
                raise InternalError(
                    f"held tensor {tensor.name} is {tensor.dtype} {list(tensor.shape)}, graph input "
                    f"{value.name} is {kind.elem_type} {list(shape)}"
                )
        initializers = {tensor.name for tensor in graph.initializer}
        if both := sorted(initializers & set(self.held)):
            raise InternalError(f"{both} are held aside and stand in the proto too")
        if unknown := [name for name in self.shown_parameters if name not in self.held]:
            raise InternalError(f"shown parameters {unknown} are not held")

    def store(self, folder: Path) -> None:
        """Write graph.onnx, tensors.bin and tables.json into `folder`; the same model, the same bytes."""
        self.store_rest(folder)
        with (folder / TENSORS_FILE).open("xb", buffering=0) as stream:
            for piece in self.pieces():
                write_all(stream, piece)

    @property
    def large_file(self) -> str:
        """See `pipeline.stage.Streamed`."""
        return TENSORS_FILE

    def pieces(self) -> Iterator[memoryview | bytes]:
        """tensors.bin from front to back."""
        written = 0
        for tensor in self.held.values():
            yield bytes(-written % ALIGNMENT)
            written += -written % ALIGNMENT
            yield from tensor.pieces()
            written += tensor.size

    def store_rest(self, folder: Path) -> None:
        """Everything but tensors.bin."""
        (folder / PROTO_FILE).write_bytes(self.proto)
        rows = []
        offset = 0
        for tensor in self.held.values():
            offset += -offset % ALIGNMENT
            rows.append(
                {
                    "name": tensor.name,
                    "dtype": tensor.dtype,
                    "shape": list(tensor.shape),
                    "offset": offset,
                    "origin": tensor.origin,
                    "derived_by": tensor.derived_by,
                }
            )
            offset += tensor.size
        tables = {
            "held": rows,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "scopes": dict(self.scopes),
            "lines": dict(self.lines),
            "shown_parameters": self.shown_parameters,
            "origins": dict(self.origins),
            "derived": dict(self.derived),
            "made_by": dict(self.made_by),
        }
        text = json.dumps(tables, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        (folder / TABLES_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `store` wrote; tensors stay mapped on disk."""
        tables = json.loads((folder / TABLES_FILE).read_text(encoding="utf-8"))
        file = folder / TENSORS_FILE
        mapped = map_file(file) if tables["held"] else None
        held = {}
        for row in tables["held"]:
            tensor = HeldTensor(
                name=row["name"],
                dtype=row["dtype"],
                shape=tuple(row["shape"]),
                data=_Slice(mapped, row["offset"], raw_size(row["dtype"], row["shape"])),
                origin=row["origin"],
                derived_by=row["derived_by"],
            )
            held[tensor.name] = tensor
        return cls(
            proto=(folder / PROTO_FILE).read_bytes(),
            held=held,
            inputs=tuple(tables["inputs"]),
            outputs=tuple(tables["outputs"]),
            scopes=tables["scopes"],
            lines=tables["lines"],
            shown_parameters=tuple(tables["shown_parameters"]),
            origins=tables["origins"],
            derived=tables["derived"],
            made_by=tables["made_by"],
        )


def stays_in_proto(dtype: int, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is small enough to stay in the proto as a real initializer."""
    if dtype == STRING or prod(shape) == 0:
        return True
    limit = SMALL_BYTES
    if dtype in INTEGERS:
        limit = SMALL_INTEGER_BYTES
    elif sum(size != 1 for size in shape) <= 1:
        limit = SMALL_VECTOR_BYTES
    return raw_size(dtype, shape) <= limit


def map_file(path: Path) -> Any:
    """A file's bytes as a read-only np.memmap of uint8; it must not be empty."""
    import numpy as np

    return np.memmap(path, dtype=np.uint8, mode="r")


def write_all(stream: Any, piece: memoryview | bytes) -> None:
    """Write everything to an unbuffered file: one write may take less (Linux stops at 2 GiB)."""
    view = memoryview(piece)
    while view:
        view = view[stream.write(view) :]


@dataclass(frozen=True)
class _Slice:
    """A part of mapped bytes, as a `HeldTensor.data`."""

    mapped: Any
    offset: int
    size: int

    def __call__(self) -> Any:
        return self.mapped[self.offset : self.offset + self.size]
