"""What goes into a network: named tensors, in the structure of the call. No torch, no numpy.

`parse_inputs` turns `model.inputs` (see interface: one notation for tensors, lists and dicts)
into `InputSpecs`. A leaf's name is the argument's name, joined with `_` and the index or key
where the argument is a list or a dict (`images_0`), and is the name of the graph input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

from pipeline.config.canonical import file_sha256
from pipeline.errors import Refused

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
        configured: the name that it has in `model.inputs` when the graph input is called
            otherwise (`export.input_names`); None when it is the same.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    fill: Fill = Fill()
    dynamic: Mapping[int, Axis] = field(default_factory=dict)
    configured: str | None = None

    @property
    def key(self) -> str:
        """What samples and messages know it by: renaming a graph input changes no number."""
        return self.configured or self.name


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

    @property
    def axes(self) -> dict[str, tuple[Axis, int]]:
        """Name of each dynamic axis to the axis and its example size, in the order of the call."""
        found: dict[str, tuple[Axis, int]] = {}
        for leaf in self.leaves:
            for index, axis in sorted(leaf.dynamic.items()):
                found.setdefault(axis.name, (axis, leaf.shape[index]))
        return found

    def renamed(self, names: Sequence[str]) -> InputSpecs:
        """The same inputs with other names in the graph.

        Args:
            names: one for each leaf; what comes after them names parameters and is left alone.

        Raises:
            Refused: fewer names than inputs, or a name twice.
        """
        leaves = self.leaves
        if len(names) < len(leaves):
            raise Refused(
                "PL-204", "there are fewer input names than inputs", where="export.input_names",
                found=f"{len(names)} names", expected=f"{len(leaves)}: {', '.join(leaf.name for leaf in leaves)}",
                next_step=f"Type 'export.input_names=[{','.join([*names, *(leaf.name for leaf in leaves[len(names) :])])}]'",
            )  # fmt: skip
        twice = next((name for name in names if list(names).count(name) > 1), None)
        if twice is not None:
            raise Refused(
                "PL-204", "a name stands twice", where="export.input_names", found=twice,
                next_step="Give every input and parameter a name of its own",
            )  # fmt: skip
        rest = iter(names)

        def with_names(tree: Tree) -> Tree:
            if isinstance(tree, TensorSpec):
                return replace(tree, name=next(rest), configured=tree.key)
            if isinstance(tree, dict):
                return {branch: with_names(inner) for branch, inner in tree.items()}
            return tuple(with_names(inner) for inner in tree)

        return InputSpecs(tuple(replace(one, tree=with_names(one.tree)) for one in self.arguments))

    def data(self) -> list[Any]:
        """JSON data that is the same for the same inputs; a file is in it by its content."""
        from pipeline.samples.files import path_of

        def described(tree: Tree) -> Any:
            if isinstance(tree, TensorSpec):
                fill: dict[str, Any] = {"kind": tree.fill.kind, "low": tree.fill.low, "high": tree.fill.high,
                        "value": tree.fill.value}  # fmt: skip
                if tree.fill.kind == "file":
                    fill["sha256"] = file_sha256(path_of(tree.fill.path))
                return {
                    "name": tree.name, "key": tree.key, "shape": list(tree.shape), "dtype": tree.dtype,
                    "fill": fill,
                    "dynamic": [
                        [index, axis.name, axis.min, axis.max, axis.multiple_of]
                        for index, axis in sorted(tree.dynamic.items())
                    ],
                }  # fmt: skip
            if isinstance(tree, dict):
                return {"dict": [[branch, described(inner)] for branch, inner in tree.items()]}
            return {"list": [described(inner) for inner in tree]}

        return [[one.name, one.passing, described(one.tree)] for one in self.arguments]

    def files(self) -> dict[str, str]:
        """Path text of every file that fills an input -> sha256 of its bytes."""
        from pipeline.samples.files import path_of

        paths = sorted({leaf.fill.path for leaf in self.leaves if leaf.fill.kind == "file"})
        return {text: file_sha256(path_of(text)) for text in paths}

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
