"""Read a finished file without its weights: where everything lies, and the small rest.

The file is mapped and walked on the level of the wire format. What comes out is the model with
every large initializer turned into a reference to the place where its bytes lie: small enough to
parse, and exactly what ONNX Runtime takes to map the weights of the file itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import InternalError
from pipeline.graph.dtypes import raw_size
from pipeline.graph.wire import LENGTH_DELIMITED, Field, MalformedError, fields, length_prefix

if TYPE_CHECKING:
    import onnx

GRAPH_FIELD: Final = 7  # of ModelProto
INITIALIZER_FIELD: Final = 5  # of GraphProto
RAW_DATA_FIELD: Final = 9  # of TensorProto
#: Raw data from this size on stays in the file; ONNX Runtime reads smaller tensors for shapes.
REFERENCED_BYTES: Final = 1024


@dataclass(frozen=True)
class TensorPlace:
    """Where an initializer's raw bytes lie.

    Attributes:
        name, dtype, shape: as the file says.
        file: the model file, or the file beside it with external data.
        offset, size: in bytes.
        external: whether the file itself says that the data lies elsewhere.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int
    external: bool


@dataclass(frozen=True)
class FileLayout:
    """A finished file, read without its weights.

    Attributes:
        path: the model file; `size` in bytes.
        skeleton: the model, serialized, with references instead of large raw data.
        tensors: the initializers that are referred to, in the file's order.
    """

    path: Path
    size: int
    skeleton: bytes
    tensors: tuple[TensorPlace, ...]

    def parsed(self) -> onnx.ModelProto:
        """The skeleton, parsed."""
        import onnx

        model = onnx.ModelProto()
        model.ParseFromString(self.skeleton)
        return model


def view_for_runtime(path: Path) -> bytes:
    """The model at `path`, small: its large initializers point into the file, or the one beside it.

    ONNX Runtime opens it with the folder of `path` as
    `session.model_external_initializers_file_folder_path` and maps the weights: the bytes that
    compute are the bytes on the disk, and nothing large is parsed or copied.

    Raises:
        MalformedError: the file is no ONNX model; the text says what is wrong and where.
        OSError: it cannot be read.
    """
    return read_layout(path).skeleton


def read_layout(path: Path) -> FileLayout:
    """Walk the file at `path`.

    Raises:
        MalformedError: the file is no ONNX model; the text says what is wrong and where.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise MalformedError("an empty file")
    data = memoryview(_mapped(path))
    tensors: list[TensorPlace] = []

    def initializer(start: int, end: int) -> bytes | None:
        return _referenced(data, start, end, path, tensors)

    def graph(start: int, end: int) -> bytes:
        return _rebuilt(data, start, end, INITIALIZER_FIELD, initializer)

    if sum(field.number == GRAPH_FIELD for field in fields(data, 0, size)) != 1:
        raise MalformedError("a model has exactly one graph")
    return FileLayout(path, size, _rebuilt(data, 0, size, GRAPH_FIELD, graph), tuple(tensors))


def _mapped(path: Path) -> Any:
    from pipeline.graph.bare import map_file

    return map_file(path)


def _rebuilt(
    data: memoryview, start: int, end: int, number: int, change: Callable[[int, int], bytes | None]
) -> bytes:
    """The message in [start, end) with every field `number` put through `change`; None keeps it."""
    parts: list[bytes | memoryview] = []
    kept_from = start
    for field in fields(data, start, end):
        if field.number != number:
            continue
        _expect_message(field)
        changed = change(field.value, field.end)
        if changed is not None:
            parts += [data[kept_from : field.start], length_prefix(number, len(changed)), changed]
            kept_from = field.end
    parts.append(data[kept_from:end])
    return b"".join(parts)


def _expect_message(field: Field) -> None:
    if field.wire_type != LENGTH_DELIMITED:
        raise MalformedError(f"field {field.number} at byte {field.start} is no message")


def _referenced(
    data: memoryview, start: int, end: int, path: Path, tensors: list[TensorPlace]
) -> bytes | None:
    """The tensor in [start, end) with a reference instead of its raw data; None: it stays as it is."""
    import onnx

    raw: Field | None = None
    header = bytearray()
    for field in fields(data, start, end):
        if field.number == RAW_DATA_FIELD:
            if raw is not None:
                raise MalformedError(f"raw data twice in the tensor at byte {start}")
            _expect_message(field)
            raw = field
        elif raw is None and field.end - field.start > REFERENCED_BYTES and field.number != RAW_DATA_FIELD:
            return None  # values in a typed field: the tensor is not ours to point into
        else:
            header += data[field.start : field.end]
    try:
        tensor = onnx.TensorProto.FromString(bytes(header))
    except Exception as error:  # the parser's own class moves between protobuf versions
        raise MalformedError(f"no tensor at byte {start}") from error
    shape = tuple(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensors.append(
            TensorPlace(tensor.name, tensor.data_type, shape, *_elsewhere(tensor, path), external=True)
        )
        return None
    if raw is None or raw.size < REFERENCED_BYTES:
        return None
    tensors.append(
        TensorPlace(tensor.name, tensor.data_type, shape, path, raw.value, raw.size, external=False)
    )
    entries = {"location": path.name, "offset": str(raw.value), "length": str(raw.size)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    changed: bytes = tensor.SerializeToString(deterministic=True)
    return changed


def _elsewhere(tensor: onnx.TensorProto, path: Path) -> tuple[Path, int, int]:
    """File, offset and size of a tensor's external data, which must lie beside the model or below."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    parts = PurePosixPath(location).parts
    if not parts or ".." in parts or location.startswith("/"):
        raise MalformedError(f"external data of {tensor.name!r} lies in {location!r}, not beside the model")
    try:
        offset = int(entries.get("offset") or 0)
        size = int(entries["length"]) if entries.get("length") else raw_size(tensor.data_type, tensor.dims)
    except (InternalError, ValueError):
        raise MalformedError(f"external data of {tensor.name!r} has no offset and length") from None
    if offset < 0 or size < 0:
        raise MalformedError(f"external data of {tensor.name!r} has a negative offset or length")
    return path.parent.joinpath(*parts), offset, size
