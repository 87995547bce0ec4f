"""What a network keeps of a run besides its tensors is put back. Imports torch.

Networks keep position grids, masks and sizes that they have computed once in attributes. Kept from a run in
float64, or from one that was traced, they make the next run another one, or fail it; and the exported graph
would depend on what ran before. So every run starts from what the network was when it was built.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
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
_OF_EVERY_MODULE: Final = frozenset(vars(torch.nn.Module())) - {"_parameters", "_buffers", "_modules"}
#: Values that are the same when they are equal.
_PLAIN: Final = (bool, int, float, complex, str, bytes, torch.Size)


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


def settle(module: torch.nn.Module, run: Callable[[], object]) -> None:
    """Let it make at its first use what it makes once; what changes in every run is as before.

    Layers, buffers, tables and sizes that are the same after a second run stay. Hidden states, counters and
    collected outputs are not, and are put back, as are the values of buffers. When a run fails, all is put back.

    Args:
        module: in eval mode.
        run: runs it, each time on the same input.
    """
    values = [(buffer, buffer.detach().clone()) for buffer in module.buffers() if not is_lazy(buffer)]
    before = [_Kept(inner) for inner in module.modules() if not _is_of_torch(inner)]
    try:
        run()
        if any(kept.has_changed() for kept in before):
            once = [_Kept(kept.module) for kept in before]
            run()
            for kept, after in zip(before, once, strict=True):
                kept.put_back_what_changed_again(after)
    except BaseException:
        for kept in before:
            kept.put_back()
        raise
    finally:
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


class _Kept:
    """A module's attributes, and the contents of containers among them."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self._attributes = dict(vars(module))
        self._contents = {
            id(value): (value, value.copy())
            for name, value in vars(module).items()
            if type(value) in _CONTAINERS and name not in _OF_EVERY_MODULE
        }

    def has_changed(self) -> bool:
        """Whether anything of it is another object now."""
        contents = (_same(items, container) for container, items in self._contents.values())
        return not (_same(self._attributes, vars(self.module)) and all(contents))

    def put_back(self) -> None:
        attributes = vars(self.module)
        if not _same(self._attributes, attributes):
            attributes.clear()
            attributes.update(self._attributes)
        for container, items in self._contents.values():
            if not _same(items, container):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(items)

    def put_back_what_changed_again(self, after: _Kept) -> None:
        """Of what is not as in `after`, which is later than this: be it as it was."""
        _put_back_entries(vars(self.module), after._attributes, self._attributes)
        for key, (container, items) in after._contents.items():
            first = self._contents[key][1] if key in self._contents else None
            if first is None or _same(items, container):
                continue
            if isinstance(container, dict):
                _put_back_entries(container, items, first)
            else:
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(first)


def _put_back_entries(now: dict[Any, Any], after: dict[Any, Any], before: dict[Any, Any]) -> None:
    for name in [name for name in {**now, **after} if not _is(now.get(name), after.get(name))]:
        if name in before:
            now[name] = before[name]
        else:
            now.pop(name, None)


def _is_of_torch(module: torch.nn.Module) -> bool:
    return all(base.__module__.startswith(_KEEPS_NOTHING) for base in type(module).__mro__[:-1])


def _same(one: Any, other: Any) -> bool:
    """Whether both hold the same objects under the same keys, in the same order; sets, equal ones."""
    if isinstance(one, set):
        return bool(one == other)
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return all(a == c and _is(b, d) for (a, b), (c, d) in pairs)
    return all(_is(a, b) for a, b in zip(one, other, strict=True))


def _is(one: Any, other: Any) -> bool:
    """The same object, or the same number or text."""
    return one is other or (type(one) is type(other) and type(one) in _PLAIN and one == other)
