"""What a network keeps of a run besides its tensors is put back. Imports torch.

Networks keep position grids, masks and sizes that they have computed once in attributes. Kept from a run in
float64, or from one that was traced, they make the next run another one, or fail it; and the exported graph
would depend on what ran before. So every run starts from what the network was when it was built.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.nn.parameter import is_lazy

#: Containers whose contents are put back too, of exactly these types.
_CONTAINERS: Final = (dict, OrderedDict, list, set)
#: torch's own layers keep nothing of a run but in their buffers, and are most of what there is to look at. A class
#: of the user's with a parametrization has become one of torch's, derived from the user's.
_KEEPS_NOTHING: Final = "torch.nn."
#: What every module has and no run changes: hooks of all kinds.
_REGISTERED: Final = ("_parameters", "_buffers", "_modules")
_OF_EVERY_MODULE: Final = frozenset(vars(torch.nn.Module())) - set(_REGISTERED)


@contextmanager
def attributes_put_back(module: torch.nn.Module) -> Iterator[None]:
    """Afterwards attributes of the module and of its children are as before, contents of containers in them too.

    What is kept anywhere else (in objects that are no modules, in globals) stays.
    """
    before = [_Kept(inner) for inner in module.modules() if not _is_of_torch(inner)]
    try:
        yield
    finally:
        for kept in before:
            kept.put_back()


@contextmanager
def first_run(module: torch.nn.Module) -> Iterator[None]:
    """The same, but for modules that get parameters, buffers or layers meanwhile, or sizes of lazy ones."""
    before = [(_Kept(inner), _registered(inner)) for inner in module.modules() if not _is_of_torch(inner)]
    yield
    for kept, registered in before:
        if _registered(kept.module) == registered:
            kept.put_back()


class _Kept:
    """A module's attributes, and the contents of containers among them."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self._attributes = dict(vars(module))
        self._contents = [
            (value, value.copy())
            for name, value in vars(module).items()
            if type(value) in _CONTAINERS and name not in _OF_EVERY_MODULE
        ]

    def put_back(self) -> None:
        attributes = vars(self.module)
        if not _same(self._attributes, attributes):
            attributes.clear()
            attributes.update(self._attributes)
        for container, items in self._contents:
            if not _same(items, container):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(items)


def _is_of_torch(module: torch.nn.Module) -> bool:
    return all(base.__module__.startswith(_KEEPS_NOTHING) for base in type(module).__mro__[:-1])


def _registered(module: torch.nn.Module) -> set[tuple[str, str]]:
    """Names of what is registered and there: of parameters, buffers, modules."""
    return {
        (kind, name)
        for kind in _REGISTERED
        for name, value in vars(module)[kind].items()
        if value is not None and not (isinstance(value, torch.Tensor) and is_lazy(value))
    }


def _same(one: Any, other: Any) -> bool:
    """Whether both hold the same objects under the same keys, in the same order; sets, equal ones."""
    if isinstance(one, set):
        return bool(one == other)
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(a is c and b is d for (a, b), (c, d) in zip(one.items(), other.items(), strict=True))
    return all(a is b for a, b in zip(one, other, strict=True))
