"""Reading a finished file back: what it says of itself, without loading its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.errors import InternalError, StageFailed
from pipeline.graph.dtypes import element_type, raw_size
from pipeline.graph.view import FileLayout, TensorPlace, read_layout
from pipeline.graph.wire import MalformedError, fields

if TYPE_CHECKING:
    import onnx

Dimensions = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Value:
    """A graph input or output as the file states it; None is a size that it leaves open."""

    name: str
    dtype: str
    shape: Dimensions

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Contract:
    """What a finished file says.

    Attributes:
        layout: where everything lies.
        model: the file without its large weights, parsed.
        inputs: real inputs, then shown parameters; `parameters` names the latter.
    """

    layout: FileLayout
    model: onnx.ModelProto
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    opsets: Mapping[str, int]
    ir_version: int
    parameters: tuple[str, ...]

    def recorded(self) -> dict[str, Any]:
        """The facts for manifest.json."""
        shown = set(self.parameters)
        return {
            "inputs": [value.to_json() for value in self.inputs if value.name not in shown],
            "outputs": [value.to_json() for value in self.outputs],
            "opsets": dict(sorted(self.opsets.items())),
            "ir_version": self.ir_version,
        }


def read_contract(path: Path) -> Contract:
    """Read a finished file without loading its weights.

    Raises:
        StageFailed: PL-420, the file cannot be read as a model, or external data is missing, too
            short, or overlaps.
    """
    try:
        layout = read_layout(path)
        model = layout.parsed()
        _expect_nothing_unknown(model)
        _expect_ranges(layout)
        return Contract(
            layout=layout,
            model=model,
            inputs=tuple(map(_value, model.graph.input)),
            outputs=tuple(map(_value, model.graph.output)),
            opsets=_opsets(model),
            ir_version=model.ir_version,
            parameters=_shown(model),
        )
    except (MalformedError, InternalError, OSError) as error:
        damaged(path, str(error), error)
    except Exception as error:
        # protobuf's DecodeError has moved between modules from version to version.
        if type(error).__name__ != "DecodeError":
            raise
        damaged(path, str(error), error)


def damaged(path: Path, found: str, error: BaseException | None = None) -> NoReturn:
    """Raise what a file that cannot be trusted is reported as."""
    raise StageFailed(
        "PL-420", "the finished file is damaged", where=path.name, found=found, expected="the file as written"
    ) from error


def _expect_nothing_unknown(model: onnx.ModelProto) -> None:
    """A field that the format does not know is kept by parsers in silence: it is damage here."""
    for what, message in (("model", model), ("graph", model.graph)):
        known = {entry.number for entry in message.DESCRIPTOR.fields}
        data = message.SerializeToString()
        for entry in fields(data, 0, len(data)):
            if entry.number not in known:
                raise MalformedError(f"the {what} has a field {entry.number} that ONNX does not know")
    names = [tensor.name for tensor in model.graph.initializer]
    if len(set(names)) != len(names):
        raise MalformedError("an initializer stands in the file twice")


def _expect_ranges(layout: FileLayout) -> None:
    """Every tensor's bytes lie in their file, have the size of dtype and shape, and belong to it alone."""
    ranges: dict[Path, list[TensorPlace]] = {}
    for tensor in layout.tensors:
        if tensor.size != raw_size(tensor.dtype, tensor.shape):
            raise MalformedError(
                f"{tensor.name!r} has {tensor.size} bytes, its dtype and shape make "
                f"{raw_size(tensor.dtype, tensor.shape)}"
            )
        ranges.setdefault(tensor.file, []).append(tensor)
    for file, tensors in ranges.items():
        size = file.stat().st_size if file.is_file() else -1
        if size < 0:
            raise MalformedError(f"the file {file.name!r} with external data is missing")
        end, before = 0, ""
        for tensor in sorted(tensors, key=lambda place: place.offset):
            if tensor.offset < end:
                raise MalformedError(f"the bytes of {tensor.name!r} and {before!r} overlap")
            end, before = tensor.offset + tensor.size, tensor.name
            if end > size:
                raise MalformedError(f"{tensor.name!r} ends at byte {end} of {file.name!r}, which has {size}")


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if domain in found:
            raise MalformedError(f"the operator set {domain or 'ai.onnx'!r} is imported twice")
        found[domain] = entry.version
    return found


def _value(value: onnx.ValueInfoProto) -> Value:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return Value(value.name, str(value.type.WhichOneof("value")), ())
    sizes: list[int | str | None] = []
    for dim in tensor.shape.dim:
        kind = dim.WhichOneof("value")
        sizes.append(dim.dim_value if kind == "dim_value" else dim.dim_param or None)
    return Value(value.name, element_type(tensor.elem_type).name, tuple(sizes))


def _shown(model: onnx.ModelProto) -> tuple[str, ...]:
    initializers = {tensor.name for tensor in model.graph.initializer}
    return tuple(value.name for value in model.graph.input if value.name in initializers)
