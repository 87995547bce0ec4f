"""How many nodes the functions of a model come to when every call is written out. No onnx.

A function that calls ten others, each of which calls ten more, takes a few bytes and makes billions of
nodes; one that calls itself makes no end of them.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Domain and name of an operator or function.
Name = tuple[str, str]
#: Nodes of a function, and how often it calls what.
Body = tuple[int, Mapping[Name, int]]


class CallsItselfError(ValueError):
    """The text is the function's name."""


def nodes_of_calls(calls: Mapping[Name, int], bodies: Mapping[Name, Body]) -> int:
    """Nodes inside all functions that `calls` lead to; no recursion, however long the chain is.

    Args:
        calls: operator to how often the graph holds it; those that are no functions count nothing.
        bodies: the model's functions.

    Raises:
        CallsItselfError: a function leads back to itself.
    """
    written: dict[Name, int] = {}
    begun: set[Name] = set()
    waiting = [name for name in calls if name in bodies]
    while waiting:
        name = waiting[-1]
        if name in written:
            waiting.pop()
            continue
        nodes, inner = bodies[name]
        missing = [other for other in inner if other in bodies and other not in written]
        if any(other in begun or other == name for other in missing):
            raise CallsItselfError(f"{name[0]}.{name[1]}")
        if missing:
            begun.add(name)
            waiting += missing
            continue
        written[name] = nodes + sum(written.get(other, 0) * count for other, count in inner.items())
        begun.discard(name)
        waiting.pop()
    return sum(written.get(name, 0) * count for name, count in calls.items())
