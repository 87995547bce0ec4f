"""Where every name of `vocabulary` gets its value from, for one node."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, Final

from pipeline.targets import shape_rules
from pipeline.targets.predicates import Fact, Unclear

if TYPE_CHECKING:
    from pipeline.targets.node_facts import NodeFacts

#: Axis letters by rank: which axis they stand for. Where a rank has no such axis the size is 1.
_LETTERS: Final[dict[str, dict[int, int | None]]] = {
    "N": {1: 0, 2: 0, 3: 0, 4: 0, 5: 0},
    "C": {1: None, 2: 1, 3: 1, 4: 1, 5: 1},
    "D": {1: None, 2: None, 3: None, 4: None, 5: 2},
    "H": {1: None, 2: None, 3: None, 4: 2, 5: 3},
    "W": {1: None, 2: None, 3: 2, 4: 3, 5: 4},
}


def _letter(letter: str, out: bool) -> Callable[[NodeFacts], Fact]:
    def made(facts: NodeFacts) -> Fact:
        name = facts.output() if out else facts.first()
        if name is None:
            return Unclear("there is no such input")
        shape = facts.shape_of(name)
        if isinstance(shape, Unclear):
            return shape
        if len(shape) not in _LETTERS[letter]:
            return Unclear(f"rank {len(shape)} has no axis {letter}")
        index = _LETTERS[letter][len(shape)]
        size = 1 if index is None else shape[index]
        return Unclear(f"{letter} of {name} is dynamic") if size is None else size

    return made


def _each(
    names: Callable[[NodeFacts], list[str]], of: Callable[[NodeFacts, str], Fact]
) -> Callable[[NodeFacts], Fact]:
    def made(facts: NodeFacts) -> Fact:
        found = tuple(of(facts, name) for name in names(facts))
        return next((one for one in found if isinstance(one, Unclear)), found)

    return made


def _dtype(facts: NodeFacts, name: str | None) -> Fact:
    if name is None:
        return Unclear("there is no such input")
    found = facts.scope.dtypes.get(name)
    return Unclear(f"the element type of {name} is not known") if found is None else found


def _rank_of(facts: NodeFacts, name: str) -> Fact:
    shape = facts.shape_of(name)
    return shape if isinstance(shape, Unclear) else len(shape)


def _activations(facts: NodeFacts) -> list[str]:
    return [name for name in facts.inputs if not facts.is_constant(name)]


def _nonsingleton(facts: NodeFacts) -> Fact:
    names = _activations(facts) or facts.inputs
    shape = facts.shape_of(names[0]) if names else Unclear("there is no input")
    return shape if isinstance(shape, Unclear) else sum(size != 1 for size in shape)


def _sizes(facts: NodeFacts, out: bool) -> Fact:
    return facts.dims(facts.output() if out else facts.first())


def _elements(facts: NodeFacts, name: str | None) -> Fact:
    found = facts.dims(name)
    return found if isinstance(found, Unclear) else prod(found)


def _all_dims(facts: NodeFacts) -> Fact:
    found: list[int] = []
    for name in (*facts.inputs, *facts.outputs):
        sizes = facts.dims(name)
        if isinstance(sizes, Unclear):
            return sizes
        found += sizes
    return tuple(found)


def _neighbour(facts: NodeFacts, operator: str, *, after: bool) -> bool:
    if after:
        return any(
            one.op_type == operator for name in facts.outputs for one in facts.scope.consumers.get(name, ())
        )
    made = (facts.scope.producers.get(name) for name in facts.inputs)
    return any(one is not None and one.op_type == operator for one in made)


def _axes_from_end(facts: NodeFacts) -> Fact:
    axes, rank = facts.axes(), facts.rank()
    if isinstance(axes, Unclear) or isinstance(rank, Unclear):
        return axes if isinstance(axes, Unclear) else rank
    return tuple(one - rank for one in axes)


def _axis(facts: NodeFacts) -> Fact:
    return facts.axis(facts.attribute("axis"))


def _axis_from_end(facts: NodeFacts) -> Fact:
    axis, rank = _axis(facts), facts.rank()
    if isinstance(axis, Unclear) or isinstance(rank, Unclear) or axis is None:
        return axis if isinstance(axis, Unclear) or axis is None else rank
    return axis - rank


def _axis_size(facts: NodeFacts) -> Fact:
    axis, sizes = _axis(facts), _sizes(facts, False)
    if isinstance(axis, Unclear) or isinstance(sizes, Unclear):
        return axis if isinstance(axis, Unclear) else sizes
    return sizes[axis] if isinstance(axis, int) and axis < len(sizes) else Unclear("the axis is out of range")


def _axes_given(facts: NodeFacts) -> Fact:
    return bool(facts.stated().get("axes")) or facts.input_name(facts.axes_input()) is not None


def _reduced(facts: NodeFacts) -> Fact:
    axes, sizes = facts.axes(), _sizes(facts, False)
    if isinstance(axes, Unclear) or isinstance(sizes, Unclear):
        return axes if isinstance(axes, Unclear) else sizes
    return tuple(sizes[one] for one in axes if one < len(sizes))


def _bound(attribute: str, index: int) -> Callable[[NodeFacts], Fact]:
    def made(facts: NodeFacts) -> Fact:
        stated = facts.stated().get(attribute)
        if stated is not None:
            return stated
        name = facts.input_name(index)
        return None if name is None else facts.constant(name)

    return made


def _size_at(facts: NodeFacts, name: str, axis: int) -> Fact:
    shape = facts.shape_of(name)
    if isinstance(shape, Unclear):
        return shape
    size = shape[axis] if axis < len(shape) else 1
    return Unclear(f"axis {axis} of {name} is dynamic") if size is None else size


def _source(letter: str) -> Callable[[NodeFacts], Fact]:
    """Of the plane that a Flatten or Reshape in front of the node made flat."""

    def made(facts: NodeFacts) -> Fact:
        name = facts.first()
        maker = facts.scope.producers.get(name or "")
        if maker is not None and maker.op_type in ("Flatten", "Reshape"):
            sizes, flat = facts.dims(maker.input[0]), facts.dims(name)
            for part in (sizes, flat):
                if isinstance(part, Unclear):
                    return part
            if len(sizes) == 4 and tuple(flat) == (sizes[0], prod(sizes[1:])):  # type: ignore[arg-type,index]
                return sizes["nchw".index(letter)]  # type: ignore[index]
        return 1 if letter in "hw" else _letter("C", out=False)(facts)

    return made


def _slots(facts: NodeFacts) -> int:
    names = list(facts.node.input)
    while names and not names[-1]:
        names.pop()
    return len(names)


def _residual(facts: NodeFacts) -> bool:
    return any(
        one.op_type == "Add" and not any(facts.is_constant(name) for name in one.input)
        for output in facts.outputs
        for one in facts.scope.consumers.get(output, ())
    )


def _indices_within(facts: NodeFacts) -> Fact:
    data, indices, axis = facts.dims(facts.input_name(0)), facts.dims(facts.input_name(1)), _axis(facts)
    for part in (data, indices, axis):
        if isinstance(part, Unclear):
            return part
    pairs = enumerate(zip(indices, data, strict=False))  # type: ignore[arg-type]
    return all(number == axis or index <= size for number, (index, size) in pairs)


def _to(facts: NodeFacts) -> Fact:
    from pipeline.targets.graph_facts import dtype_name

    code = facts.stated().get("to")
    return dtype_name(code) if isinstance(code, int) else _dtype(facts, facts.output())


def _parts(facts: NodeFacts) -> Fact:
    """Sizes of the parts of a Split, as the outputs have them."""
    axis = _axis(facts)
    if isinstance(axis, Unclear):
        return axis
    found = []
    for name in facts.outputs:
        sizes = facts.shape_of(name)
        if isinstance(sizes, Unclear):
            return sizes
        size = sizes[axis] if axis < len(sizes) else None
        if size is None:
            return Unclear(f"{name} has a dynamic axis")
        found.append(size)
    return tuple(found)


def _attributes_only(facts: NodeFacts, *names: str) -> bool:
    return set(facts.stated()) <= set(names)


def _input_shape(facts: NodeFacts, index: int) -> Fact:
    return facts.dims(facts.input_name(int(index)), f"input {index}")


def _value(facts: NodeFacts, index: int) -> Fact:
    name = facts.input_name(int(index))
    return Unclear(f"input {index} is not given") if name is None else facts.constant(name)


def _dim(facts: NodeFacts, index: int, axis: int) -> Fact:
    name = facts.input_name(int(index))
    shape = Unclear(f"input {index} is not given") if name is None else facts.shape_of(name)
    if isinstance(shape, Unclear):
        return shape
    if not -len(shape) <= axis < len(shape):
        return Unclear(f"{name} has no axis {axis}")
    size = shape[int(axis)]
    return Unclear(f"axis {axis} of {name} is dynamic") if size is None else size


def _constant_input(facts: NodeFacts, index: int) -> Fact:
    name = facts.input_name(int(index))
    return name is not None and facts.is_constant(name)


def _conv(name: str) -> Callable[[NodeFacts], Fact]:
    return lambda facts: shape_rules.convolution(facts).get(name, Unclear("it is no convolution or pooling"))


def _pair(name: str) -> Callable[[NodeFacts], Fact]:
    return lambda facts: shape_rules.broadcasting(facts)[name]


VARIABLES_OF: Final[dict[str, Callable[[NodeFacts], Fact]]] = {
    "opset": lambda facts: facts.opsets.get(facts.domain, 1),
    "rank": lambda facts: facts.rank(),
    "rank_out": lambda facts: _rank_of(facts, facts.output() or ""),
    "ranks": _each(lambda facts: facts.inputs, _rank_of),
    "nonsingleton_rank": _nonsingleton,
    **{letter: _letter(letter, out=False) for letter in _LETTERS},
    **{f"{letter}_out": _letter(letter, out=True) for letter in "NCHW"},
    "dims": lambda facts: _sizes(facts, False),
    "dims_out": lambda facts: _sizes(facts, True),
    "all_dims": _all_dims,
    "channels": _each(lambda facts: facts.inputs, lambda facts, name: _size_at(facts, name, 1)),
    **{f"source_{letter}": _source(letter) for letter in "hwc"},
    "elements": lambda facts: _elements(facts, facts.first()),
    "elements_out": lambda facts: _elements(facts, facts.output()),
    "inputs": lambda facts: len(facts.inputs),
    "outputs": lambda facts: len(facts.outputs),
    "input_slots": _slots,
    "activations": lambda facts: len(_activations(facts)),
    "constants": lambda facts: len(facts.inputs) - len(_activations(facts)),
    "dtype": lambda facts: _dtype(facts, facts.first() or facts.output()),
    "dtype_out": lambda facts: _dtype(facts, facts.output()),
    "dtypes": _each(lambda facts: [*facts.inputs, *facts.outputs], _dtype),
    "activation_dtypes": _each(lambda facts: [*_activations(facts), *facts.outputs], _dtype),
    "to": _to,
    **{name: _conv(name) for name in shape_rules.CONVOLUTION},
    "axis": _axis,
    "axis_from_end": _axis_from_end,
    "axis_size": _axis_size,
    "axes": lambda facts: facts.axes(),
    "axes_from_end": _axes_from_end,
    "axes_given": _axes_given,
    "reduced": _reduced,
    "pads": shape_rules.pads,
    "padded_axes": shape_rules.padded_axes,
    "perm": shape_rules.perm,
    "batch_kept": lambda facts: shape_rules.perm(facts)[:1] == (0,),
    "scales": shape_rules.scales,
    "scale_h": lambda facts: shape_rules.scale(facts, -2),
    "scale_w": lambda facts: shape_rules.scale(facts, -1),
    "parts": _parts,
    "steps": shape_rules.steps,
    "sliced_axes": shape_rules.sliced_axes,
    "changed_dims": shape_rules.changed_dims,
    "clip_min": _bound("min", 1),
    "clip_max": _bound("max", 2),
    **{name: _pair(name) for name in shape_rules.BROADCASTING},
    "batch_broadcast_left": lambda facts: shape_rules.batch_broadcast(facts)[0],
    "batch_broadcast_right": lambda facts: shape_rules.batch_broadcast(facts)[1],
    "indices_within": _indices_within,
    "residual": _residual,
    "is_input": lambda facts: any(name in facts.scope.inputs for name in facts.inputs),
    "is_output": lambda facts: any(name in facts.scope.outputs for name in facts.outputs),
    "requested": lambda facts: facts.requested,
}

FUNCTIONS_OF: Final[dict[str, Callable[..., Fact]]] = {
    "rank": lambda facts, index: (
        shape if isinstance(shape := _shape_or_unclear(facts, index), Unclear) else len(shape)
    ),
    "dim": _dim,
    "shape": _input_shape,
    "size": lambda facts, index: _elements(facts, facts.input_name(int(index))),
    "dtype": lambda facts, index: _dtype(facts, facts.input_name(int(index))),
    "constant": _constant_input,
    "given": lambda facts, index: facts.input_name(int(index)) is not None,
    "output_given": lambda facts, index: (
        len(facts.node.output) > index and bool(facts.node.output[int(index)])
    ),
    "value": _value,
    "attribute_set": lambda facts, name: name in facts.stated(),
    "attributes_only": _attributes_only,
    "feeds": lambda facts, operator: _neighbour(facts, operator, after=True),
    "produced_by": lambda facts, operator: _neighbour(facts, operator, after=False),
    "count": lambda facts, items: len(_tuple(items)),
    "product": lambda facts, items: prod(_tuple(items)),
    "equal": lambda facts, items: len(set(_tuple(items))) <= 1,
    "tail": lambda facts, items, number: _tuple(items)[int(number) :],
    "head": lambda facts, items, number: _tuple(items)[: max(0, len(_tuple(items)) - int(number))],
    "round_up": lambda facts, size, multiple: -(-size // multiple) * multiple,
    "power_of_two": lambda facts, items: all(shape_rules.power_of_two(one) for one in _tuple(items)),
    "whole": lambda facts, items: all(float(one).is_integer() for one in _tuple(items)),
    "min": lambda facts, *items: min(items),
    "max": lambda facts, *items: max(items),
    "forms": lambda facts, *texts: shape_rules.forms(facts, texts, ordered=False),
    "ordered_forms": lambda facts, *texts: shape_rules.forms(facts, texts, ordered=True),
}


def _shape_or_unclear(facts: NodeFacts, index: int) -> Any:
    name = facts.input_name(int(index))
    return Unclear(f"input {index} is not given") if name is None else facts.shape_of(name)


def _tuple(items: Fact) -> tuple[Any, ...]:
    return items if isinstance(items, tuple) else (items,)
