"""Hold the large initializers of a full model aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import StageFailed
from pipeline.graph.bare import BareModel, HeldTensor, map_file, stays_in_proto
from pipeline.graph.dtypes import STRING, raw_size

if TYPE_CHECKING:
    import onnx

Bare = TypeVar("Bare", bound=BareModel)

#: How a large constant of the graph that is no tensor of the network is listed.
EXPORT_CONSTANT = "export: a constant of the graph"


def split(
    kind: type[Bare],
    model: bytes | onnx.ModelProto,
    *,
    folder: Path | None,
    origins: Mapping[str, str],
    scopes: Mapping[str, str],
    lines: Mapping[str, str],
    derived_by: str = EXPORT_CONSTANT,
) -> Bare:
    """A bare model of a full one.

    Args:
        kind: BareModel.
        model: with all its initializers; it is not changed. External data is mapped, never read.
        folder: where external data lies; None when there is none.
        origins: initializer to the network's own tensor that it equals.
        scopes: as in `BareModel`.
        lines: as in `BareModel`.
        derived_by: the step that is named for held tensors without an origin.

    Raises:
        StageFailed: PL-400, external data is missing, too short or outside `folder`.
    """
    import onnx

    full = onnx.ModelProto.FromString(model) if isinstance(model, bytes) else model
    bare = _without_tensors(full)
    initializers = {tensor.name for tensor in full.graph.initializer}
    shown = tuple(value.name for value in full.graph.input if value.name in initializers)
    inputs = tuple(value.name for value in full.graph.input if value.name not in initializers)
    bare.graph.input.extend(value for value in full.graph.input if value.name not in initializers)

    held: dict[str, HeldTensor] = {}
    for tensor in full.graph.initializer:
        shape = tuple(tensor.dims)
        if tensor.data_type == STRING or (
            stays_in_proto(tensor.data_type, shape) and tensor.name not in shown
        ):
            bare.graph.initializer.append(_loaded(tensor, folder))
        else:
            held[tensor.name] = _hold(tensor, folder, origins.get(tensor.name), derived_by)
    kept = {tensor.name for tensor in bare.graph.initializer}
    bare.graph.input.extend(typed_input(tensor) for tensor in held.values())
    return kind(
        proto=bare.SerializeToString(deterministic=True),
        held=held,
        inputs=inputs,
        outputs=tuple(value.name for value in bare.graph.output),
        scopes=dict(scopes),
        lines=dict(lines),
        shown_parameters=shown,
        origins={name: origin for name, origin in origins.items() if name in kept},
    )


def typed_input(tensor: HeldTensor) -> onnx.ValueInfoProto:
    """The graph input that stands for a held tensor."""
    import onnx

    value = onnx.ValueInfoProto(name=tensor.name)
    value.type.tensor_type.elem_type = tensor.dtype
    value.type.tensor_type.shape.SetInParent()
    for size in tensor.shape:
        value.type.tensor_type.shape.dim.add().dim_value = size
    return value


def hold_values(tensor: onnx.TensorProto, *, origin: str | None, derived_by: str | None) -> HeldTensor:
    """A held tensor whose bytes are those of a TensorProto in memory."""
    return HeldTensor(
        name=tensor.name,
        dtype=tensor.data_type,
        shape=tuple(tensor.dims),
        data=_Values(raw_bytes(tensor)),
        origin=origin,
        derived_by=None if origin else derived_by,
    )


def raw_bytes(tensor: onnx.TensorProto) -> bytes:
    """The raw little-endian bytes of a tensor, whatever field its values stand in."""
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    import numpy as np
    import onnx.numpy_helper

    size = raw_size(tensor.data_type, tensor.dims)
    array = onnx.numpy_helper.to_array(tensor)
    if array.nbytes != size:  # sub-byte elements come unpacked
        return onnx.numpy_helper.from_array(array).raw_data
    return np.ascontiguousarray(array).tobytes()


@dataclass(frozen=True)
class _Values:
    raw: bytes

    def __call__(self) -> Any:
        import numpy as np

        return np.frombuffer(self.raw, np.uint8)


def _without_tensors(full: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without initializers and inputs; nothing large is copied on the way."""
    import onnx

    bare = onnx.ModelProto()
    _copy_fields(full, bare, skip=("graph",))
    bare.graph.SetInParent()
    _copy_fields(full.graph, bare.graph, skip=("initializer", "input"))
    return bare


def _copy_fields(source: Any, target: Any, *, skip: tuple[str, ...]) -> None:
    for field, value in source.ListFields():
        if field.name in skip:
            continue
        if field.is_repeated:
            getattr(target, field.name).extend(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _hold(tensor: onnx.TensorProto, folder: Path | None, origin: str | None, derived_by: str) -> HeldTensor:
    if tensor.external_data:
        data: Callable[[], Any] = _External(*_external_place(tensor, folder))
        return HeldTensor(
            tensor.name, tensor.data_type, tuple(tensor.dims), data, origin, None if origin else derived_by
        )
    return hold_values(tensor, origin=origin, derived_by=derived_by)


def _loaded(tensor: onnx.TensorProto, folder: Path | None) -> onnx.TensorProto:
    import onnx

    if not tensor.external_data:
        return tensor
    inside = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
    inside.raw_data = _External(*_external_place(tensor, folder))().tobytes()
    return inside


@dataclass(frozen=True)
class _External:
    path: Path
    offset: int
    size: int

    def __call__(self) -> Any:
        return map_file(self.path)[self.offset : self.offset + self.size]


def _external_place(tensor: onnx.TensorProto, folder: Path | None) -> tuple[Path, int, int]:
    """File, offset and size of a tensor's external data, checked."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    size = raw_size(tensor.data_type, tensor.dims)
    offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))

    def refuse(found: str) -> StageFailed:
        return StageFailed(
            "PL-400",
            "external data of an initializer cannot be read",
            where=tensor.name,
            found=found,
            expected=f"{size} bytes beside the model file",
            next_step="Put the data file beside the model file, as it was saved",
        )

    if folder is None:
        raise refuse(f"a reference to {location!r}, and no folder")
    path = folder / location
    if not location or not path.resolve().is_relative_to(folder.resolve()):
        raise refuse(f"the location {location!r}")
    if length != size:
        raise refuse(f"a length of {length} bytes")
    if not path.is_file():
        raise refuse(f"no file {location!r}")
    if offset < 0 or offset + size > path.stat().st_size:
        raise refuse(f"{path.stat().st_size} bytes in {location!r}, offset {offset}")
    return path, offset, size
