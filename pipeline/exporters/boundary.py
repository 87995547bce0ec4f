"""The inputs and outputs of an exported graph: names, order, types and sizes as they were asked.

Exporters drop inputs that nobody uses, give one name to an output that is returned twice, and call
dimensions `s77`. Here the graph gets the inputs of the specification and the outputs of the
signature, whatever the exporter left; where that would be a lie, it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.errors import StageFailed
from pipeline.exporters.attempts import FrozenPlace
from pipeline.graph.dtypes import ELEMENT_TYPES, NUMBERS
from pipeline.graph.walk import graphs

if TYPE_CHECKING:
    import onnx

    from pipeline.parity.signature import OutputSpec, Signature
    from pipeline.samples.spec import TensorSpec

IDENTITY: Final = "Identity"
#: Element types that numpy does not have: their outputs are compared as float32.
_AS_FLOAT32: Final = ("bfloat16",)


@dataclass(frozen=True)
class Boundary:
    """What goes in and what comes out."""

    leaves: tuple[TensorSpec, ...]
    signature: Signature


def settle(
    graph: onnx.GraphProto, boundary: Boundary, *, specialised_is_wrong: bool
) -> tuple[tuple[FrozenPlace, ...], dict[str, str]]:
    """Give the graph its inputs and outputs; parameters among the inputs are taken away.

    Args:
        graph: its inputs bear the leaves' names; its outputs stand in the signature's order.
        boundary: what was asked.
        specialised_is_wrong: whether an input dimension that the exporter made static, although it
            was to be dynamic, shows that the graph is only right for that size.

    Returns:
        Output dimensions that the exporter believes to be static although they vary, and the values
        that got another name, with that name.

    Raises:
        StageFailed: PL-321, number, types or ranks are not what was asked.
    """
    _settle_inputs(graph, boundary.leaves, specialised_is_wrong)
    return _settle_outputs(graph, boundary.signature)


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> dict[str, str]:
    """Give values other names in every scope; a value that has one of the new names gets another.

    Args:
        graph: is changed.
        names: old name to new name, all new names different.

    Returns:
        Every value that got another name, with that name.
    """
    present = _value_names(graph)
    mapping = {old: new for old, new in names.items() if old != new}
    taken = present | set(mapping.values())
    for new in list(mapping.values()):
        if new in present and new not in mapping:
            mapping[new] = fresh(new, taken)
    if not mapping:
        return mapping
    for inner in graphs(graph):
        for node in inner.node:
            _replace(node.input, mapping)
            _replace(node.output, mapping)
        for value in (*inner.input, *inner.output, *inner.value_info, *inner.initializer):
            value.name = mapping.get(value.name, value.name)
    return mapping


def fresh(name: str, taken: set[str]) -> str:
    """`name` with the first number that makes it free; it is taken afterwards."""
    number = 1
    while (candidate := f"{name}_{number}") in taken:
        number += 1
    taken.add(candidate)
    return candidate


def _settle_inputs(graph: onnx.GraphProto, leaves: Sequence[TensorSpec], specialised_is_wrong: bool) -> None:
    found = {value.name: value for value in graph.input}
    wanted = []
    for leaf in leaves:
        value = stated(leaf.name, NUMBERS[leaf.dtype], _leaf_dimensions(leaf))
        if leaf.name in found:
            _compare_input(found[leaf.name], leaf, specialised_is_wrong)
        wanted.append(value)
    del graph.input[:]
    graph.input.extend(wanted)


def _leaf_dimensions(leaf: TensorSpec) -> tuple[int | str, ...]:
    return tuple(
        leaf.dynamic[index].name if index in leaf.dynamic else size for index, size in enumerate(leaf.shape)
    )


def _compare_input(value: onnx.ValueInfoProto, leaf: TensorSpec, specialised_is_wrong: bool) -> None:
    kind = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim]
    static = [dim for index, dim in enumerate(dims) if index not in leaf.dynamic]
    asked = [size for index, size in enumerate(leaf.shape) if index not in leaf.dynamic]
    if kind.elem_type != NUMBERS[leaf.dtype] or len(dims) != len(leaf.shape) or static != asked:
        raise StageFailed(
            "PL-321",
            "the exporter gives an input another type or size than the network has",
            where=leaf.name,
            found=f"{_type_name(kind.elem_type)}{dims}",
            expected=f"{leaf.dtype}{list(leaf.shape)}",
        )
    if not specialised_is_wrong:
        return
    for index, axis in leaf.dynamic.items():
        if isinstance(dims[index], int):
            raise StageFailed(
                "PL-322",
                f"the exporter fixed the dynamic axis {axis.name} at the size {dims[index]}",
                where=f"model.inputs.{leaf.name}.dynamic",
                found=f"the network uses dimension {index} of {leaf.name} as a Python number",
                expected="a size that the network only takes from the tensor's shape",
                next_step="Take the size from x.shape in forward, or leave the axis out of dynamic",
            )


def _settle_outputs(
    graph: onnx.GraphProto, signature: Signature
) -> tuple[tuple[FrozenPlace, ...], dict[str, str]]:
    if len(graph.output) != len(signature.outputs):
        raise StageFailed(
            "PL-321",
            "the exporter gives another number of outputs than the network has",
            found=str(len(graph.output)),
            expected=f"{len(signature.outputs)}: {', '.join(signature.names)}",
        )
    inputs = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output}
    frozen: list[FrozenPlace] = []
    renamed: dict[str, str] = {}
    copies: list[tuple[str, str]] = []  # value, name of the output that repeats it
    for value, output in zip(graph.output, signature.outputs, strict=True):
        _compare_output(value, output)
        frozen += _baked(value, output)
        if value.name in made and value.name not in inputs and value.name not in renamed:
            renamed[value.name] = output.name
        else:
            copies.append((value.name, output.name))
    types = [value.type.tensor_type.elem_type for value in graph.output]
    del graph.output[:]
    # Names of copies are kept free too: no value may have them.
    moved = rename(graph, {**renamed, **{f"\0{name}": name for _, name in copies}})
    for source, name in copies:
        graph.node.add(
            op_type=IDENTITY, name=f"/{IDENTITY}/{name}", input=[moved.get(source, source)], output=[name]
        )
    for number, output in zip(types, signature.outputs, strict=True):
        graph.output.append(stated(output.name, number, output.dimensions()))
    return tuple(frozen), moved


def _compare_output(value: onnx.ValueInfoProto, output: OutputSpec) -> None:
    kind = value.type.tensor_type
    name = _type_name(kind.elem_type)
    same_type = name == output.dtype or (name in _AS_FLOAT32 and output.dtype == "float32")
    same_rank = not kind.HasField("shape") or len(kind.shape.dim) == len(output.shape)
    if not same_type or not same_rank:
        found = f"{name} with {len(kind.shape.dim)} dimensions"
        raise StageFailed(
            "PL-321",
            "the exporter gives an output another type or rank than the network has",
            where=output.name,
            found=found,
            expected=f"{output.dtype} with {len(output.shape)} dimensions",
        )


def _baked(value: onnx.ValueInfoProto, output: OutputSpec) -> Iterable[FrozenPlace]:
    for index, dim in enumerate(value.type.tensor_type.shape.dim):
        if index in output.varies and dim.HasField("dim_value"):
            yield FrozenPlace(f"output {output.name}, dimension {index}", f"the size {dim.dim_value}")


def stated(name: str, number: int, dimensions: Iterable[int | str]) -> onnx.ValueInfoProto:
    """A value's name, element type and sizes; a word is the name of a dynamic axis."""
    import onnx

    value = onnx.ValueInfoProto(name=name)
    kind = value.type.tensor_type
    kind.elem_type = number
    kind.shape.SetInParent()
    for dimension in dimensions:
        if isinstance(dimension, int):
            kind.shape.dim.add().dim_value = dimension
        else:
            kind.shape.dim.add().dim_param = dimension
    return value


def _type_name(number: int) -> str:
    kind = ELEMENT_TYPES.get(number)
    return kind.name if kind else f"element type {number}"


def _value_names(graph: onnx.GraphProto) -> set[str]:
    return {
        name
        for inner in graphs(graph)
        for name in (
            *(name for node in inner.node for name in (*node.input, *node.output)),
            *(value.name for value in (*inner.input, *inner.output, *inner.initializer)),
        )
    }


def _replace(names: MutableSequence[str], mapping: Mapping[str, str]) -> None:
    for index, name in enumerate(names):
        if name in mapping:
            names[index] = mapping[name]
