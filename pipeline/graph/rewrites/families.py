"""The rules themselves, gathered from their families by the table of names. Imports onnx-ir."""

from __future__ import annotations

from importlib import import_module

from pipeline.errors import InternalError
from pipeline.graph.rewrites.names import LEGALISATION, LOWERING, NAMES
from pipeline.graph.rewrites.rule import Kind, Rule


def rules_of(kind: Kind, off: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """Every rule of a kind in the order of the table, but those that are switched off.

    Raises:
        InternalError: the table and a family disagree.
    """
    table = LOWERING if kind == "lower" else LEGALISATION
    found: list[Rule] = []
    for module, names in table.items():
        rules: tuple[Rule, ...] = import_module(f"pipeline.graph.rewrites.{module}").RULES
        if tuple(rule.name for rule in rules) != names or any(rule.kind != kind for rule in rules):
            raise InternalError(f"the rules of {module} are not those of the table of names")
        found += [rule for rule in rules if rule.name not in off]
    return tuple(found)


def rule(name: str) -> Rule:
    """The rule of a name."""
    module = NAMES[name][1]
    rules: tuple[Rule, ...] = import_module(module).RULES
    return next(one for one in rules if one.name == name)
