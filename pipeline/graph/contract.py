"""The contract: what the configuration promised, read back from the finished file and asserted.

Nothing here trusts the proto that was written: the file is opened anew, walked on the level of
the wire format, and its weights are compared with the network's where they lie. A breach is a
failure, never a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Protocol

from pipeline.errors import StageFailed
from pipeline.graph.assemble import ModelFile
from pipeline.graph.bare import BareModel, HeldTensor
from pipeline.graph.dtypes import element_type
from pipeline.graph.ir_version import chosen
from pipeline.graph.readback import Contract, Dimensions, Value, damaged, read_contract
from pipeline.graph.split import raw_bytes
from pipeline.graph.training_mode import training_nodes
from pipeline.graph.view import TensorPlace
from pipeline.samples.spec import TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["Contract", "PromisedOutputs", "Promises", "assert_contract", "read_contract"]

#: How many names a sentence shows.
NAMED: Final = 4
#: The file is read back in pieces of this size, which stay in the processor's cache.
READ_BYTES: Final = 1024 * 1024
#: Element types that numpy lacks, and the dtype under which the reference has their outputs.
AS_NUMPY_HAS_IT: Final = {"bfloat16": "float32"}


class PromisedOutput(Protocol):
    """An output as the reference run saw it (`pipeline.parity.signature.OutputSpec`)."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    def dimensions(self) -> Sequence[int | str]:
        """Sizes as the file should state them: an int, or a name where it varies."""


class PromisedOutputs(Protocol):
    """Every output in flattened order (`pipeline.parity.signature.Signature`)."""

    @property
    def outputs(self) -> Sequence[PromisedOutput]: ...
    @property
    def value_dependent(self) -> bool:
        """Other sizes may come than were seen: a size may be left open where an int was seen."""


@dataclass(frozen=True)
class Promises:
    """What the configuration says about the file.

    Attributes:
        opset: of ai.onnx.
        inputs: the real inputs in order, with their names in the file.
        custom_opsets: domain to version, asserted for every domain that some node uses.
        ir_version: None: the one that the opset brought, or the graph needs.
        training: eval: no node in training mode; train: normalisation in training mode;
            preserve: nothing is promised.
        shown_parameters: parameters stand among the graph inputs too.
        parameter_names: names that parameters must bear, in this order.
        export_params: False: parameters are inputs without values, after the real ones.
        metadata: exactly what stands in the model's metadata_props.
    """

    opset: int
    inputs: tuple[TensorSpec, ...]
    custom_opsets: Mapping[str, int] = field(default_factory=dict)
    ir_version: int | None = None
    training: Literal["eval", "train", "preserve"] = "eval"
    shown_parameters: bool = False
    parameter_names: tuple[str, ...] = ()
    export_params: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)


def assert_contract(
    path: Path, promises: Promises, *, model: BareModel, file: ModelFile, outputs: PromisedOutputs
) -> Contract:
    """Read the finished file at `path` and assert every promise.

    Args:
        path: the .onnx file.
        promises: what the configuration says.
        model: the graph that was written, with the network's tensors.
        file: what writing said about the file.
        outputs: what the network gives.

    Raises:
        StageFailed: the first promise that is broken, by name.
    """
    contract = read_contract(path)
    _assert_whole(contract, file)
    _assert_versions(contract, promises)
    _assert_inputs(contract, promises, model)
    _assert_outputs(contract, outputs)
    _assert_parameters(contract, promises, model)
    _assert_mode(contract, promises)
    _assert_weights(contract, model)
    return contract


# the file as such


def _assert_whole(contract: Contract, file: ModelFile) -> None:
    """Size on the disk, and every tensor where it was written."""
    sizes = [(file.path, file.size)]
    if file.data_path is not None:
        sizes.append((file.data_path, file.data_size))
    for path, size in sizes:
        if not path.is_file():
            damaged(path, "no file of that name")
        on_disk = path.stat().st_size
        if on_disk != size:
            damaged(path, f"{on_disk} bytes, {size} were written")
    read = {place.name: (place.offset, place.size, place.external) for place in contract.layout.tensors}
    for tensor in file.tensors:
        place = (tensor.offset, tensor.size, tensor.external)
        if tensor.name in read and read[tensor.name] != place:
            damaged(file.path, f"{tensor.name!r} does not lie where it was written")


# versions


def _assert_versions(contract: Contract, promises: Promises) -> None:
    wanted = {"": promises.opset}
    wanted.update({d: v for d, v in promises.custom_opsets.items() if d in contract.opsets})
    for domain, version in wanted.items():
        if contract.opsets.get(domain) != version:
            found = contract.opsets.get(domain)
            raise StageFailed(
                "PL-421",
                "the finished file has another operator set than was asked",
                where=f"export.custom_opsets.{domain}" if domain else "export.opset",
                found=f"{domain or 'ai.onnx'} {found}" if found is not None else "none",
                expected=f"{domain or 'ai.onnx'} {version}",
            )
    dtypes = {tensor.dtype for tensor in contract.layout.tensors}
    ir_version = promises.ir_version or chosen(contract.model, None, dtypes)
    if contract.ir_version != ir_version:
        raise StageFailed(
            "PL-421",
            "the finished file has another IR version than was asked",
            where="export.ir_version",
            found=str(contract.ir_version),
            expected=str(ir_version),
        )


# inputs and outputs


def _assert_inputs(contract: Contract, promises: Promises, model: BareModel) -> None:
    wanted = [
        Value(
            spec.name,
            spec.dtype,
            tuple(
                spec.dynamic[index].name if index in spec.dynamic else size
                for index, size in enumerate(spec.shape)
            ),
        )
        for spec in promises.inputs
    ]
    shown = set(contract.parameters)
    found = [value for value in contract.inputs if value.name not in shown]
    if not promises.export_params:
        extra = model.inputs[len(wanted) :]
        found = [value for value in found if value.name not in extra]
    _assert_values("inputs", found, wanted, open_sizes=False)


def _assert_outputs(contract: Contract, outputs: PromisedOutputs) -> None:
    wanted = [Value(out.name, out.dtype, tuple(out.dimensions())) for out in outputs.outputs]
    _assert_values("outputs", contract.outputs, wanted, open_sizes=outputs.value_dependent)


def _assert_values(what: str, found: Sequence[Value], wanted: Sequence[Value], *, open_sizes: bool) -> None:
    names = [value.name for value in found]
    if names != [value.name for value in wanted]:
        raise StageFailed(
            "PL-422",
            f"the finished file has other {what} than were asked, or another order",
            where=f"model.{what}",
            found=_listed(names),
            expected=_listed(value.name for value in wanted),
        )
    for value, promise in zip(found, wanted, strict=True):
        if value.dtype != promise.dtype and AS_NUMPY_HAS_IT.get(value.dtype) != promise.dtype:
            _value_breach(what, value.name, "dtype", value.dtype, promise.dtype)
        if len(value.shape) != len(promise.shape) or not all(
            _same_size(size, wish, open_sizes) for size, wish in zip(value.shape, promise.shape, strict=True)
        ):
            _value_breach(what, value.name, "shape", _shape(value.shape), _shape(promise.shape))


def _same_size(found: int | str | None, wanted: int | str | None, open_sizes: bool) -> bool:
    """A number must be that number and a dynamic axis bear its name; see `PromisedOutputs`."""
    return found == wanted or (open_sizes and not isinstance(found, int))


def _value_breach(what: str, name: str, property_: str, found: str, expected: str) -> NoReturn:
    raise StageFailed(
        "PL-422",
        f"the finished file's {what[:-1]} {name!r} has another {property_} than was asked",
        where=f"model.{what}.{name}" if what == "inputs" else f"output {name}",
        found=found,
        expected=expected,
    )


def _shape(sizes: Dimensions) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in sizes) + "]"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    text = ", ".join(every[:NAMED]) or "none"
    return text + (f" and {len(every) - NAMED} more" if len(every) > NAMED else "")


# parameters, mode, metadata


def _assert_parameters(contract: Contract, promises: Promises, model: BareModel) -> None:
    shown = list(contract.parameters)
    wanted = list(model.shown_parameters) if promises.shown_parameters else []
    order = [value.name for value in contract.inputs]
    if shown != wanted or order[len(order) - len(shown) :] != shown:
        raise StageFailed(
            "PL-425",
            "the finished file shows other parameters as graph inputs than were asked",
            where="export.keep_initializers_as_inputs",
            found=_listed(shown),
            expected=_listed(wanted),
        )
    inside = {tensor.name for tensor in contract.model.graph.initializer} | set(order)
    if lost := [name for name in promises.parameter_names if name not in inside]:
        raise StageFailed(
            "PL-425",
            "a name that was asked for a parameter does not stand in the finished file",
            where="export.input_names",
            found=_listed(inside),
            expected=_listed(lost),
        )
    metadata = {entry.key: entry.value for entry in contract.model.metadata_props}
    if metadata != dict(promises.metadata):
        raise StageFailed(
            "PL-425",
            "the finished file has other metadata than was asked",
            found=_listed(sorted(metadata)),
            expected=_listed(sorted(promises.metadata)),
        )


def _assert_mode(contract: Contract, promises: Promises) -> None:
    if promises.training == "preserve":
        return
    training, inference = training_nodes(contract.model, contract.opsets.get("", 0))
    if promises.training == "eval" and training:
        raise StageFailed(
            "PL-423",
            "the finished file holds nodes in training mode although export.training=eval",
            where=f"node {training[0]}",
            found=f"{len(training)} of them",
            expected="none",
            next_step="Call .eval() in model.prepare, or type export.training=preserve if it is meant",
        )
    if promises.training == "train" and inference and not training:
        raise StageFailed(
            "PL-423",
            "the finished file holds no node in training mode although export.training=train",
            where=f"node {inference[0]}",
            found="inference mode",
            expected="training mode",
            next_step="Type export.exporter=torchscript, which honours export.training",
        )


# weights


def _assert_weights(contract: Contract, model: BareModel) -> None:
    """Every initializer is one that was written, with the bytes of the network's own tensor."""
    written = {tensor.name: tensor for tensor in model.parsed().graph.initializer}
    places = {place.name: place for place in contract.layout.tensors}
    names = {tensor.name for tensor in contract.model.graph.initializer}
    expected = set(written) | set(model.held)
    if names != expected:
        odd = sorted(names ^ expected)
        raise StageFailed(
            "PL-424",
            "the finished file does not hold the weights of the network",
            where=odd[0],
            found="a tensor that is none of the network's" if odd[0] in names else "no such initializer",
            expected=f"{len(expected)} initializers",
        )
    with ExitStack() as stack:
        files = {file: _Reader(stack.enter_context(file.open("rb", buffering=0)))
                 for file in {place.file for place in places.values()}}  # fmt: skip
        for tensor in contract.model.graph.initializer:
            _assert_weight(tensor, model.held.get(tensor.name), written, places.get(tensor.name), files)


def _assert_weight(
    tensor: onnx.TensorProto,
    source: HeldTensor | None,
    written: Mapping[str, onnx.TensorProto],
    place: TensorPlace | None,
    files: Mapping[Path, _Reader],
) -> None:
    dtype, shape = tensor.data_type, tuple(tensor.dims)
    if source is not None:
        same, wanted = (dtype, shape) == (source.dtype, source.shape), source.pieces()
    else:
        twin = written[tensor.name]
        same, wanted = (dtype, shape) == (twin.data_type, tuple(twin.dims)), iter([memoryview(_raw(twin))])
    if same:
        same = (
            files[place.file].holds(place, wanted) if place is not None else _raw(tensor) == b"".join(wanted)
        )
    if not same:
        raise StageFailed(
            "PL-424",
            "an initializer of the finished file is not the network's tensor",
            where=tensor.name,
            found=f"other bytes, {element_type(dtype).name}{list(shape)}",
            expected=source.origin or source.derived_by if source is not None else "the exported constant",
        )


def _raw(tensor: onnx.TensorProto) -> bytes:
    """Raw bytes, or the strings themselves in a form that can be compared."""
    if tensor.string_data:
        return b"".join(len(text).to_bytes(8, "little") + text for text in tensor.string_data)
    return raw_bytes(tensor)


class _Reader:
    """Reads a file in pieces, so that no more of it than a piece is in memory at a time."""

    def __init__(self, stream: Any) -> None:
        import numpy as np

        self._stream = stream
        self._buffer = np.empty(READ_BYTES, np.uint8)

    def holds(self, place: TensorPlace, wanted: Iterable[memoryview]) -> bool:
        """Whether exactly the bytes `wanted` stand at `place`."""
        self._stream.seek(place.offset)
        left = place.size
        for piece in wanted:
            left -= piece.nbytes
            if left < 0 or not all(
                self._next_is(piece[start : start + READ_BYTES])
                for start in range(0, piece.nbytes, READ_BYTES)
            ):
                return False
        return left == 0

    def _next_is(self, wanted: memoryview) -> bool:
        import numpy as np

        found = self._buffer[: wanted.nbytes]
        read = self._stream.readinto(found)
        if read != wanted.nbytes:
            return False
        # Eight bytes at a time: the comparison gives an array of as many booleans as elements.
        whole = wanted.nbytes - wanted.nbytes % 8
        return (
            np.array_equal(found[:whole].view(np.uint64), np.frombuffer(wanted[:whole], np.uint64))
            and found[whole:].tobytes() == wanted[whole:].tobytes()
        )
