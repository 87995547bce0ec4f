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

#: Containers whose contents are put back too, of exactly these types.
_CONTAINERS: Final = (dict, OrderedDict, list, set)
#: torch's own layers keep nothing of a run but in their buffers, and are most of what there is to look at. A class
#: of the user's with a parametrization has become one of torch's, derived from the user's.
_KEEPS_NOTHING: Final = "torch.nn."
#: What every module has and no run changes: hooks of all kinds.
_OF_EVERY_MODULE: Final = frozenset(vars(torch.nn.Module())) - {"_parameters", "_buffers", "_modules"}


@contextmanager
def attributes_put_back(module: torch.nn.Module) -> Iterator[None]:
    """Afterwards attributes of the module and of its children are as before, contents of containers in them too.

    What is kept anywhere else (in objects that are no modules, in globals) stays.
    """
    before = [
        (inner, dict(vars(inner)), _contents(vars(inner)))
        for inner in module.modules()
        if not all(base.__module__.startswith(_KEEPS_NOTHING) for base in type(inner).__mro__[:-1])
    ]
    try:
        yield
    finally:
        for inner, attributes, contents in before:
            if not _same(attributes, vars(inner)):
                vars(inner).clear()
                vars(inner).update(attributes)
            for container, items in contents:
                if not _same(items, container):
                    container.clear()
                    (container.extend if isinstance(container, list) else container.update)(items)


def _contents(attributes: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [
        (value, value.copy())
        for name, value in attributes.items()
        if type(value) in _CONTAINERS and name not in _OF_EVERY_MODULE
    ]


def _same(one: Any, other: Any) -> bool:
    """Whether both hold the same objects under the same keys, in the same order."""
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(a is c and b is d for (a, b), (c, d) in zip(one.items(), other.items(), strict=True))
    return all(a is b for a, b in zip(one, other, strict=True))
