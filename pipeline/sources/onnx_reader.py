"""What a ready .onnx file says of itself, read on the level of the wire format. No onnx, no numpy.

The file comes from anywhere: nothing of it is believed. Every length is held to the bytes that are
there, so that a file of a few bytes cannot ask for gigabytes, and nothing outside the model's folder
is opened. What only a parser can see (types, attributes, names) is the checker's concern, afterwards.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Final

from pipeline.errors import Refused
from pipeline.graph.dtypes import ELEMENT_TYPES, STRING, raw_size
from pipeline.graph.wire import LENGTH_DELIMITED, VARINT, Field, MalformedError, fields, read_varint
from pipeline.sources.onnx_calls import Body, CallsItselfError, Name, nodes_of_calls
from pipeline.sources.onnx_refusals import damaged, unsafe

Dimension = int | str | None
Span = tuple[int, int]

#: No protobuf message may be longer, so no .onnx file is.
LARGEST_FILE: Final = 2**31 - 1
#: Graphs inside of nodes: protobuf's own parsers stop at 100 messages in each other, three a graph.
DEEPEST: Final = 30
#: Nodes with every call of a function written out: a hundred times the largest network seen.
MOST_NODES: Final = 1_000_000
#: Tensors may share bytes of an external data file (tied weights), but not without end: written out
#: they take at most so many times the size of the files.
MOST_SHARING: Final = 4
#: A tensor of more dimensions is no tensor of a network.
LARGEST_RANK: Final = 64


@dataclass(frozen=True)
class FileValue:
    """A graph input or output.

    Attributes:
        dtype: onnx.TensorProto.DataType; 0 where the file does not say.
        shape: sizes, names, or None where the file leaves one open; None: no shape at all.
        kind: "tensor", or what it is instead ("sequence", "map" ...).
    """

    name: str
    dtype: int
    shape: tuple[Dimension, ...] | None
    kind: str = "tensor"


@dataclass(frozen=True)
class FileFacts:
    """A file, as far as the configuration needs it.

    Attributes:
        inputs: the real ones; an input with an initializer is a parameter and not listed.
        opsets: domain to version; ai.onnx is "".
        metadata: the model's metadata_props.
        data_files: files with external data, as they are written in the file ("weights/a.bin").
        nodes: in every graph and function, each call written out.
    """

    path: Path
    ir_version: int
    opsets: Mapping[str, int]
    inputs: tuple[FileValue, ...]
    outputs: tuple[FileValue, ...]
    metadata: Mapping[str, str]
    data_files: tuple[str, ...]
    nodes: int

    @property
    def opset(self) -> int:
        """Of ai.onnx."""
        return self.opsets[""]


def read_facts(path: Path) -> FileFacts:
    """Read `path`; remembered as long as its size and time stamp stay.

    Raises:
        Refused: PL-240, it cannot be read; PL-241, it is damaged or no ONNX model; PL-242, it asks for
            more than it holds, or for something outside its folder.
    """
    try:
        status = path.stat()
        if not path.is_file():
            raise OSError(None, "no regular file")
        return _read(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise Refused(
            "PL-240", "the .onnx file cannot be read", where="model.path",
            found=f"'{path}' ({error.strerror or error})", next_step="Type model.path=path/to/model.onnx",
        ) from error  # fmt: skip


@lru_cache(maxsize=16)
def _read(path: Path, inode: int, size: int, mtime_ns: int) -> FileFacts:
    if size == 0:
        raise damaged(path, "no bytes")
    if size > LARGEST_FILE:
        raise damaged(path, f"{size} bytes, and protobuf allows {LARGEST_FILE}")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        try:
            return _Reader(view, path).facts()
        except MalformedError as error:
            raise damaged(path, str(error)) from None
        except UnicodeDecodeError:
            raise damaged(path, "a name that is no text") from None
        finally:
            view.release()


@dataclass
class _Reader:
    """One walk through a file; the counts grow on the way."""

    data: memoryview
    path: Path
    sizes: dict[str, int] = field(default_factory=dict)  #: external file to its bytes
    referred: int = 0  #: bytes of external data that tensors ask for
    nodes: int = 0  #: outside of functions
    calls: dict[Name, int] = field(default_factory=dict)  #: what these nodes are

    def facts(self) -> FileFacts:
        ir_version, graph = 0, None
        opsets: dict[str, int] = {}
        metadata: dict[str, str] = {}
        functions: list[Span] = []
        for one in fields(self.data, 0, len(self.data)):
            if one.number == 1 and one.wire_type == VARINT:
                ir_version = one.value
            elif one.number == 7:
                if graph is not None:
                    raise MalformedError("a second graph")
                graph = _span(one)
            elif one.number == 8:
                self._opset(_span(one), opsets)
            elif one.number == 14:
                texts = self._texts(_span(one), (1, 2))
                metadata[texts.get(1, "")] = texts.get(2, "")
            elif one.number == 25:
                functions.append(_span(one))
        if graph is None:
            raise MalformedError("no graph in it")
        if not ir_version:
            raise MalformedError("no IR version in it")
        if "" not in opsets:
            raise MalformedError("it names no operator set of ai.onnx")
        initializers: set[str] = set()
        inputs, outputs = self._graph(graph, 0, initializers)
        self._functions(functions)
        whole = sum(self.sizes.values())
        if self.referred > MOST_SHARING * whole:
            raise unsafe(
                self.path, "tensors of the .onnx file refer to the same external data over and over",
                f"{self.referred} bytes asked for, {whole} there",
            )  # fmt: skip
        return FileFacts(
            self.path, ir_version, opsets,
            tuple(value for value in inputs if value.name not in initializers), tuple(outputs),
            metadata, tuple(sorted(self.sizes)), self.nodes,
        )  # fmt: skip

    def _text(self, one: Field) -> str:
        start, end = _span(one)
        return bytes(self.data[start:end]).decode("utf-8")

    def _texts(self, span: Span, numbers: tuple[int, ...]) -> dict[int, str]:
        return {one.number: self._text(one) for one in fields(self.data, *span) if one.number in numbers}

    def _opset(self, span: Span, opsets: dict[str, int]) -> None:
        domain, version = "", 0
        for one in fields(self.data, *span):
            if one.number == 1:
                domain = self._text(one)
            elif one.number == 2 and one.wire_type == VARINT:
                version = one.value
        domain = "" if domain == "ai.onnx" else domain
        if opsets.setdefault(domain, version) != version:
            raise MalformedError(f"two versions of the operator set {domain or 'ai.onnx'}")

    def _graph(
        self, span: Span, depth: int, initializers: set[str]
    ) -> tuple[list[FileValue], list[FileValue]]:
        if depth > DEEPEST:
            raise unsafe(self.path, "graphs lie too deep in each other", f"more than {DEEPEST}")
        inputs: list[FileValue] = []
        outputs: list[FileValue] = []
        for one in fields(self.data, *span):
            if one.number == 1:
                self._node(_span(one), depth, self.calls)
            elif one.number == 5:
                initializers.add(self._tensor(_span(one), external=depth == 0))
            elif one.number in (11, 12) and depth == 0:
                (inputs if one.number == 11 else outputs).append(self._value(_span(one)))
            elif one.number == 15:
                raise Refused(
                    "PL-243", "the .onnx file holds sparse initializers, which few tools take",
                    where=self.path.name, next_step="Save them as dense tensors",
                )  # fmt: skip
        return inputs, outputs

    def _node(self, span: Span, depth: int, calls: dict[Name, int]) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise self._too_many()
        operator, domain = "", ""
        for one in fields(self.data, *span):
            if one.number == 4:
                operator = self._text(one)
            elif one.number == 7:
                domain = self._text(one)
            elif one.number == 5:
                self._attribute(_span(one), depth)
        calls[domain, operator] = calls.get((domain, operator), 0) + 1

    def _attribute(self, span: Span, depth: int) -> None:
        for one in fields(self.data, *span):
            if one.number in (5, 10):
                self._tensor(_span(one), external=False)
            elif one.number in (6, 11):
                self._graph(_span(one), depth + 1, set())
            elif one.number in (22, 23):
                self._sparse(_span(one))

    def _sparse(self, span: Span) -> None:
        for one in fields(self.data, *span):
            if one.number in (1, 2):
                self._tensor(_span(one), external=False)

    def _functions(self, spans: list[Span]) -> None:
        """Count every node with all calls written out; a function that calls itself has no end."""
        bodies: dict[Name, Body] = {}
        before, own = self.nodes, self.calls
        for span in spans:
            texts = self._texts(span, (1, 10))
            self.calls, start = {}, self.nodes
            for one in fields(self.data, *span):
                if one.number == 7:
                    self._node(_span(one), 0, self.calls)
            bodies[texts.get(10, ""), texts.get(1, "")] = (self.nodes - start, self.calls)
        self.nodes, self.calls = before, own
        try:
            self.nodes += nodes_of_calls(own, bodies)
        except CallsItselfError as error:
            raise unsafe(self.path, "a function of the .onnx file calls itself", str(error)) from None
        if self.nodes > MOST_NODES:
            raise self._too_many()

    def _too_many(self) -> Refused:
        return unsafe(
            self.path, "the .onnx file has too many nodes, with every call of a function written out",
            f"{self.nodes} or more", f"at most {MOST_NODES}",
        )  # fmt: skip

    def _tensor(self, span: Span, *, external: bool) -> str:
        name, number, dims = "", 0, []
        raw: int | None = None
        values = 0  # bytes of the fields that hold typed values
        entries: dict[str, str] = {}
        elsewhere = False
        for one in fields(self.data, *span):
            if one.number == 1:
                dims += self._dims(one)
            elif one.number == 2 and one.wire_type == VARINT:
                number = one.value
            elif one.number == 8:
                name = self._text(one)
            elif one.number == 9:
                raw = _span(one)[1] - one.value
            elif one.number in (4, 5, 6, 7, 10, 11):
                values += one.end - one.start
            elif one.number == 13:
                texts = self._texts(_span(one), (1, 2))
                entries[texts.get(1, "")] = texts.get(2, "")
            elif one.number == 14 and one.wire_type == VARINT:
                elsewhere = one.value == 1
        self._fits(name, number, dims, raw, values, entries if elsewhere or entries else None, external)
        return name

    def _dims(self, one: Field) -> list[int]:
        if one.wire_type == VARINT:
            return [_signed(one.value)]
        found = []
        offset, end = _span(one)
        while offset < end:
            value, offset = read_varint(self.data, offset, end)
            found.append(_signed(value))
            if len(found) > LARGEST_RANK:
                raise MalformedError(f"a tensor of more than {LARGEST_RANK} dimensions")
        return found

    def _fits(
        self, name: str, number: int, dims: list[int], raw: int | None, values: int,
        entries: dict[str, str] | None, external: bool,
    ) -> None:  # fmt: skip
        """The bytes that are there are those that type and shape ask for."""
        if number not in ELEMENT_TYPES:
            raise MalformedError(f"tensor {name!r} has the element type {number}")
        if any(size < 0 for size in dims) or len(dims) > LARGEST_RANK:
            raise MalformedError(f"tensor {name!r} has the shape {dims[:8]}")
        elements = prod(dims)
        if entries is not None:
            if not external:
                raise MalformedError(f"tensor {name!r} in a node has external data, which we do not read")
            if number == STRING:
                raise MalformedError(f"strings {name!r} have external data")
            self._external(name, entries, raw_size(number, dims))
            return
        asked = elements if raw is None or number == STRING else raw_size(number, dims)
        there = raw if raw is not None else values
        # A typed value takes at least a byte (packed 4-bit values half of one), a raw one exactly its size.
        if (raw is not None and there != asked) or (raw is None and asked > 4 * max(there, 0)):
            raise unsafe(
                self.path, f"tensor {name!r} of the .onnx file is larger than its data",
                f"{there} bytes for the shape {dims[:8]}",
            )  # fmt: skip

    def _external(self, name: str, entries: dict[str, str], asked: int) -> None:
        location = entries.get("location", "")
        folder = self.path.parent
        try:
            offset, length = int(entries.get("offset") or 0), int(entries.get("length") or asked)
        except ValueError:
            raise MalformedError(f"external data of {name!r} has no number as offset or length") from None
        target = folder / location
        inside = location and "\0" not in location and target.resolve().is_relative_to(folder.resolve())
        if not inside or Path(location).is_absolute() or ".." in Path(location).parts:
            raise unsafe(
                self.path, f"external data of {name!r} lies outside the model's folder", repr(location),
                "a path below the folder of the .onnx file",
            )  # fmt: skip
        if not target.is_file():
            raise Refused(
                "PL-240", f"external data of {name!r} is missing", where=self.path.name, found=location,
                next_step="Put the data file beside the .onnx file, under the name that it was saved with",
            )  # fmt: skip
        size = self.sizes.setdefault(location, target.stat().st_size)
        if offset < 0 or length != asked or offset + length > size:
            raise unsafe(
                self.path, f"external data of {name!r} is not there as it should be",
                f"{length} bytes from {offset} in {location} of {size} bytes", f"{asked} bytes",
            )  # fmt: skip
        self.referred += length

    def _value(self, span: Span) -> FileValue:
        name, kind, dtype = "", "value without a type", 0
        shape: tuple[Dimension, ...] | None = None
        for one in fields(self.data, *span):
            if one.number == 1:
                name = self._text(one)
            elif one.number == 2:
                for inner in fields(self.data, *_span(one)):
                    if inner.number == 1:
                        kind = "tensor"
                        dtype, shape = self._tensor_type(_span(inner))
                    elif inner.number in (4, 5, 8, 9):
                        kind = {4: "sequence", 5: "map", 8: "sparse tensor", 9: "optional"}[inner.number]
        return FileValue(name, dtype, shape, kind)

    def _tensor_type(self, span: Span) -> tuple[int, tuple[Dimension, ...] | None]:
        dtype, shape = 0, None
        for one in fields(self.data, *span):
            if one.number == 1 and one.wire_type == VARINT:
                dtype = one.value
            elif one.number == 2:
                shape = tuple(
                    self._dimension(_span(dim)) for dim in fields(self.data, *_span(one)) if dim.number == 1
                )
        return dtype, shape

    def _dimension(self, span: Span) -> Dimension:
        found: Dimension = None
        for one in fields(self.data, *span):
            if one.number == 1 and one.wire_type == VARINT:
                found = _signed(one.value)
            elif one.number == 2:
                found = self._text(one) or None
        # Some writers say -1 or 0 where they mean that any size will do.
        return None if isinstance(found, int) and found < 1 else found


def _span(one: Field) -> Span:
    if one.wire_type != LENGTH_DELIMITED:
        raise MalformedError(f"field {one.number} at byte {one.start} is no message")
    return one.value, one.end


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
