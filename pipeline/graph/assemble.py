"""Write the finished file once: streamed, hashed while it is written, the same bytes every time.

The file is what `onnx.ModelProto` itself would serialise (fields in the order of their numbers),
but no protobuf ever holds a large tensor: the header of each is written, then its raw bytes from
where they lie.

Above the limit of protobuf (2 GiB a message), or when asked, large tensors go to `<name>.data`.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pipeline.errors import InternalError, StageFailed
from pipeline.graph.bare import BareModel, HeldTensor, write_all
from pipeline.graph.finish import finish
from pipeline.graph.wire import length_prefix
from pipeline.graph.writeback import Writeback

if TYPE_CHECKING:
    import onnx

#: No protobuf message may be longer (its sizes are signed 32 bits in most parsers).
PROTOBUF_LIMIT: Final = 2**31 - 1
#: From this size on `auto` moves tensors beside the file: 7 % below the limit, so that tools that
#: add shapes or metadata can still save the model.
AUTO_LIMIT: Final = 2_000_000_000
#: Where a tensor begins in the data file: a page, so that each can be mapped by itself.
PAGE: Final = 4096
DATA_SUFFIX: Final = ".data"
#: Pieces that may wait for the digest: bounds the memory of tensors that are copies.
PIECES_AHEAD: Final = 16

GRAPH_FIELD: Final = 7  # of ModelProto
INITIALIZER_FIELD: Final = 5  # of GraphProto
RAW_DATA_FIELD: Final = 9  # of TensorProto

ExternalData = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class PlacedTensor:
    """Where an initializer's raw bytes lie: `offset` in the data file if `external`, else in the model file."""

    name: str
    offset: int
    size: int
    external: bool


@dataclass(frozen=True)
class ModelFile:
    """A finished file.

    Attributes:
        path: the .onnx file; `size` its bytes, `sha256` their digest, taken while it was written.
        data_path: the file with external data, or None; `data_size` and `data_sha256` as above.
        tensors: every initializer that was held aside.
    """

    path: Path
    size: int
    sha256: str
    tensors: tuple[PlacedTensor, ...]
    data_path: Path | None = None
    data_size: int = 0
    data_sha256: str | None = None


def assemble(
    model: BareModel,
    path: Path,
    *,
    external_data: ExternalData = "auto",
    metadata: Mapping[str, str] | None = None,
    ir_version: int | None = None,
    sync: bool = False,
) -> ModelFile:
    """Write `model` with its tensors to `path`, which must not exist.

    Args:
        model: the graph and what is held aside.
        path: the .onnx file; external data goes to the same name with DATA_SUFFIX.
        external_data: auto moves held tensors beside the file above AUTO_LIMIT; always and never
            say so.
        metadata: the model's metadata_props; nothing else stands there.
        ir_version: the IR version to write; None: the one that the opset brought.
        sync: bring the bytes to the disk before returning.

    Raises:
        StageFailed: PL-401, the file would pass the protobuf limit although external_data=never;
            PL-402, the graph needs a newer IR version than was asked.
        OSError: what writing raises (a full disk: ENOSPC).
    """
    proto = finish(model, metadata=metadata or {}, ir_version=ir_version)
    order = tensor_order(proto.graph, model.held)
    inline = _Message(proto, order, model.held, data_name=None)
    # Without tensors (export_params=false makes them inputs) there is nothing to put beside the file.
    wanted = external_data == "always" or (external_data == "auto" and inline.size > AUTO_LIMIT)
    external = wanted and any(isinstance(item, str) for item in order)
    if not external:
        if inline.size > PROTOBUF_LIMIT:
            raise StageFailed(
                "PL-401",
                "the file would be larger than protobuf allows",
                where="export.external_data",
                found=f"{inline.size} bytes",
                expected=f"at most {PROTOBUF_LIMIT}",
                next_step="Type export.external_data=auto",
            )
        size, sha256 = _write(path, inline.pieces(), sync)
        _expect(path, size, inline.size)
        return ModelFile(path, size, sha256, inline.placed)
    data_path = path.with_name(path.name + DATA_SUFFIX)
    message = _Message(proto, order, model.held, data_name=data_path.name)
    if message.size > PROTOBUF_LIMIT:
        raise StageFailed(
            "PL-401",
            "the graph itself is larger than protobuf allows",
            found=f"{message.size} bytes without its large tensors",
            expected=f"at most {PROTOBUF_LIMIT}",
        )
    data_size, data_sha256 = _write(data_path, message.data_pieces(), sync)
    _expect(data_path, data_size, message.data_size)
    size, sha256 = _write(path, message.pieces(), sync)
    _expect(path, size, message.size)
    return ModelFile(path, size, sha256, message.placed, data_path, data_size, data_sha256)


def tensor_order(graph: onnx.GraphProto, held: Mapping[str, HeldTensor]) -> list[str | onnx.TensorProto]:
    """Every initializer in the order in which the nodes first use it: a name if held, else itself.

    So the file is read from front to back, and the order depends on the graph alone.
    """
    inside = {tensor.name: tensor for tensor in graph.initializer}
    names = (*_uses(graph.node), *(value.name for value in graph.output), *inside, *held)
    order = dict.fromkeys(name for name in names if name in held or name in inside)
    return [name if name in held else inside[name] for name in order]


def _uses(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """What nodes take, and the graphs inside them, in order.

    No function inside another: one that calls itself would hold the weights until the next garbage
    collection, which the command line puts off.
    """
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _uses(subgraph.node)
                yield from (value.name for value in subgraph.output)


class _Message:
    """The bytes of the model file, known before they are written.

    With `data_name`, held tensors are references into the file of that name.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        order: list[str | onnx.TensorProto],
        held: Mapping[str, HeldTensor],
        *,
        data_name: str | None,
    ) -> None:
        before, after = _around(proto, "graph", GRAPH_FIELD)
        graph_before, graph_after = _around(proto.graph, "initializer", INITIALIZER_FIELD)
        self._parts: list[bytes | HeldTensor] = []
        self._held = [held[name] for name in order if isinstance(name, str)]
        self.data_size = 0
        placed: list[tuple[HeldTensor, int, int]] = []  # tensor, offset in the data file, index of its part
        for item in order:
            if not isinstance(item, str):
                body = item.SerializeToString(deterministic=True)
                self._parts.append(length_prefix(INITIALIZER_FIELD, len(body)) + body)
                continue
            tensor = held[item]
            offset = self.data_size + (-self.data_size % PAGE)
            header = _header(tensor, data_name, offset)
            if data_name is None:
                header += length_prefix(RAW_DATA_FIELD, tensor.size)
                total = len(header) + tensor.size
            else:
                total = len(header)
                self.data_size = offset + tensor.size
            self._parts.append(length_prefix(INITIALIZER_FIELD, total) + header)
            placed.append((tensor, offset, len(self._parts)))
            if data_name is None:
                self._parts.append(tensor)
        inner = sum(map(_size, self._parts)) + len(graph_before) + len(graph_after)
        start = before + length_prefix(GRAPH_FIELD, inner) + graph_before
        self._parts = [start, *self._parts, graph_after + after]
        self.size = sum(map(_size, self._parts))
        self.placed = tuple(self._places(placed, external=data_name is not None))

    def _places(self, placed: list[tuple[HeldTensor, int, int]], *, external: bool) -> Iterable[PlacedTensor]:
        if external:
            for tensor, offset, _ in placed:
                yield PlacedTensor(tensor.name, offset, tensor.size, external=True)
            return
        offset = 0
        for part in self._parts:
            if isinstance(part, HeldTensor):
                yield PlacedTensor(part.name, offset, part.size, external=False)
            offset += _size(part)

    def pieces(self) -> Iterable[memoryview | bytes]:
        """The model file from front to back."""
        for part in self._parts:
            if isinstance(part, HeldTensor):
                yield from part.pieces()
            else:
                yield part

    def data_pieces(self) -> Iterable[memoryview | bytes]:
        """The data file from front to back, gaps filled with zeros."""
        written = 0
        for tensor in self._held:
            yield bytes(-written % PAGE)
            written += -written % PAGE
            yield from tensor.pieces()
            written += tensor.size


def _size(part: bytes | HeldTensor) -> int:
    return part.size if isinstance(part, HeldTensor) else len(part)


def _around(message: onnx.ModelProto | onnx.GraphProto, name: str, number: int) -> tuple[bytes, bytes]:
    """The serialized fields of a message before and behind the one called `name`."""
    before, after = type(message)(), type(message)()
    for part in (before, after):
        for field, value in message.ListFields():
            if field.name == name or (field.number < number) != (part is before):
                continue
            if field.is_repeated:
                getattr(part, field.name).extend(value)
            else:
                setattr(part, field.name, value)
    return before.SerializeToString(deterministic=True), after.SerializeToString(deterministic=True)


def _header(tensor: HeldTensor, data_name: str | None, offset: int) -> bytes:
    """A TensorProto without its raw data, whose field comes last; or one that refers to a data file."""
    import onnx

    proto = onnx.TensorProto(dims=tensor.shape, data_type=tensor.dtype, name=tensor.name)
    if data_name is not None:
        entries = {"location": data_name, "offset": str(offset), "length": str(tensor.size)}
        for key, value in entries.items():
            proto.external_data.add(key=key, value=value)
        proto.data_location = onnx.TensorProto.EXTERNAL
    header: bytes = proto.SerializeToString(deterministic=True)
    return header


def _write(path: Path, pieces: Iterable[memoryview | bytes], sync: bool) -> tuple[int, str]:
    """Write the pieces to a new file; its size and sha256, which a second thread takes meanwhile."""
    digest = hashlib.sha256()
    waiting: queue.Queue[memoryview | bytes | None] = queue.Queue(PIECES_AHEAD)

    def hash_pieces() -> None:
        while (piece := waiting.get()) is not None:
            digest.update(piece)

    size = 0
    hasher = threading.Thread(target=hash_pieces, name="sha256", daemon=True)
    hasher.start()
    try:
        with path.open("xb", buffering=0) as stream:
            writeback = Writeback(stream.fileno())
            for piece in pieces:
                waiting.put(piece)
                write_all(stream, piece)
                size += len(piece)
                writeback.written(size)
            writeback.written(size, last=True)
            if sync:
                os.fsync(stream.fileno())
    finally:
        waiting.put(None)
        hasher.join()
    return size, digest.hexdigest()


def _expect(path: Path, written: int, computed: int) -> None:
    on_disk = path.stat().st_size
    if not written == computed == on_disk:
        raise InternalError(
            f"{path.name}: {computed} bytes were computed, {written} written, {on_disk} stand on the disk"
        )
