"""What goes into a network: named tensors, in the structure of the call. No torch, no numpy.

`parse_inputs` turns `model.inputs` (see interface: one notation for tensors, lists and dicts)
into `InputSpecs`. A leaf's name is the argument's name, joined with `_` and the index or key
where the argument is a list or a dict (`images_0`), and is the name of the graph input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Axis:
    """A dynamic axis: its name in the file and the sizes that it may take."""

    name: str
    min: int = 1
    max: int | None = None
    multiple_of: int = 1


@dataclass(frozen=True)
class Fill:
    """How a tensor's elements are made.

    Attributes:
        kind: normal (mean 0, standard deviation 1), uniform [low, high), integers [low, high),
            constant, or file (.npy, .npz, an image).
        path: kind=file: as it was written, so that it means the same in every checkout.
    """

    kind: Literal["normal", "uniform", "integers", "constant", "file"] = "normal"
    low: float = 0.0
    high: float = 1.0
    value: float = 0.0
    path: str = ""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor.

    Attributes:
        name: the graph input's name.
        shape: sizes used for the export; dynamic axes have their example size here.
        dtype: numpy's name (float32, float64, float16, int64, int32, uint8, bool ...).
        fill: how the elements are made.
        dynamic: axis index to `Axis`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    fill: Fill = Fill()
    dynamic: Mapping[int, Axis] = field(default_factory=dict)


Tree: TypeAlias = "TensorSpec | tuple[Tree, ...] | dict[str, Tree]"


@dataclass(frozen=True)
class Argument:
    """One argument of the network's call."""

    name: str
    tree: Tree
    passing: Literal["positional", "keyword"] = "positional"


@dataclass(frozen=True)
class InputSpecs:
    """All arguments in the order of the call."""

    arguments: tuple[Argument, ...]

    @property
    def leaves(self) -> tuple[TensorSpec, ...]:
        """Every tensor, in the order of the flattened call."""
        return tuple(leaf for argument in self.arguments for leaf in _leaves(argument.tree))

    def call_arguments(
        self, values: Mapping[str, Any], convert: Callable[[Any], T]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`(args, kwargs)` of the call, each leaf `convert(values[leaf.name])`; lists are lists."""
        positional = tuple(
            _build(argument.tree, values, convert)
            for argument in self.arguments
            if argument.passing == "positional"
        )
        keyword = {
            argument.name: _build(argument.tree, values, convert)
            for argument in self.arguments
            if argument.passing == "keyword"
        }
        return positional, keyword


def parse_inputs(node: Any, *, key: str = "model.inputs") -> InputSpecs:
    """What `model.inputs` says, checked whole.

    Args:
        node: plain data: argument name to a tensor (a mapping with `shape` or `fill`), a list of
            tensors, or a mapping of tensors; in the order of the call.
        key: where the node stands in the configuration, for messages.

    Raises:
        Refused: anything that is not in the notation, contradicts itself, or names a file that is
            not there or does not fit.
    """
    from pipeline.samples.notation import parse  # it builds the classes above

    return parse(node, key)


def _leaves(tree: Tree) -> Iterator[TensorSpec]:
    if isinstance(tree, TensorSpec):
        yield tree
    else:
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(branch)


def _build(tree: Tree, values: Mapping[str, Any], convert: Callable[[Any], T]) -> Any:
    if isinstance(tree, TensorSpec):
        return convert(values[tree.name])
    if isinstance(tree, dict):
        return {key: _build(branch, values, convert) for key, branch in tree.items()}
    return [_build(branch, values, convert) for branch in tree]
