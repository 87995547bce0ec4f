"""Names for what a network returns. Imports torch.

A leaf with a key on its way is named after its keys (`{"out": ...}` gives out; `{"a": {"b": ...}}`
a_b); the index of a list is added unless the list has a single entry (a detection model's list of
one dict gives boxes, labels, scores). A leaf without a key is output1, output2 ... by its place.
None is dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch

from pipeline.errors import Refused

_Path = tuple[str | int, ...]
#: How much of a value a sentence shows.
_SHOWN: Final = 40


def flatten_outputs(outputs: Any, names: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
    """Name to tensor, in flattened order.

    Args:
        outputs: what the network returned.
        names: names to use instead, one for each tensor.

    Raises:
        Refused: something is no tensor, there is no tensor, the number of names is another, or two
            tensors would have one name.
    """
    found = list(_leaves(outputs, ()))
    if not found:
        raise Refused("PL-231", "the network returns no tensor", found=type(outputs).__name__, where="model")
    own = [_name(path, index) for index, (path, _) in enumerate(found)]
    if names is not None and len(names) != len(found):
        raise Refused(
            "PL-231", "the number of output names is not the number of outputs", where="model.outputs",
            found=f"{len(names)} names: {', '.join(names)}", expected=f"{len(found)}: {', '.join(own)}",
            next_step=f"Type 'model.outputs=[{','.join(own)}]'",
        )  # fmt: skip
    chosen = list(names) if names is not None else own
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise Refused(
            "PL-231", "two outputs have one name", where="model.outputs", found=twice,
            next_step=f"Type 'model.outputs=[{','.join(f'output{index + 1}' for index in range(len(own)))}]'",
        )  # fmt: skip
    return dict(zip(chosen, (tensor for _, tensor in found), strict=True))


def _leaves(value: Any, path: _Path) -> Iterator[tuple[_Path, torch.Tensor]]:
    if value is None:
        return
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            yield from _leaves(getattr(value, item.name), (*path, item.name))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key in value._fields:
            yield from _leaves(getattr(value, key), (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index) if len(value) > 1 else path)
    else:
        shown = repr(value)
        where = "_".join(map(str, path)) or "the output"
        raise Refused(
            "PL-231", "the network returns something that is no tensor, which an ONNX file cannot hold",
            where=where, found=f"{type(value).__name__} {shown[:_SHOWN]}", expected="tensors, in lists, dicts or dataclasses",
            next_step="Leave it out of forward's result, for example with model.prepare",
        )  # fmt: skip


def _name(path: _Path, position: int) -> str:
    if not any(isinstance(part, str) for part in path):
        return f"output{position + 1}"
    if isinstance(path[0], int):  # a list of dicts: the key first, then which of them
        path = (*path[1:], path[0])
    return "_".join(map(str, path))
