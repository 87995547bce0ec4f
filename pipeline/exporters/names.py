"""Names of inputs, parameters and outputs: what can be refused without the network. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from pipeline.errors import Refused
from pipeline.exporters.config import ExportConfig

INPUTS_KEY: Final = "export.input_names"
OUTPUTS_KEY: Final = "export.output_names"
#: How many names a sentence shows.
SHOWN: Final = 4


def check_names(
    leaf_count: int,
    config: ExportConfig,
    *,
    leaf_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> None:
    """Refuse names that contradict each other.

    Args:
        leaf_count: tensors that go into the network.
        config: what was asked; `input_names` may go on past the inputs.
        leaf_names: names of the inputs where `input_names` is not given.
        output_names: names of the outputs where `output_names` is not given.

    Raises:
        Refused: PL-301, too few; PL-302, the same name twice; PL-303, an empty one.
    """
    inputs = tuple(config.input_names) if config.input_names is not None else tuple(leaf_names)
    outputs = tuple(config.output_names) if config.output_names is not None else tuple(output_names)
    if config.input_names is not None and len(inputs) < leaf_count:
        raise Refused(
            "PL-301",
            "there are fewer names than inputs",
            where=INPUTS_KEY,
            found=f"{len(inputs)} {_plural(len(inputs), 'name')} ({listed(inputs) or 'none'})",
            expected=f"one for each of the {leaf_count} inputs, and then, if wanted, for parameters",
            next_step="Name every input, or leave the key out to keep the names of model.inputs",
        )
    for key, names in ((INPUTS_KEY, inputs), (OUTPUTS_KEY, outputs)):
        if "" in names:
            raise Refused("PL-303", "a name is empty", where=key, expected="a name of at least one character")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise Refused(
                "PL-302",
                f"the name {twice[0]!r} is given twice",
                where=key,
                expected="every name once",
                next_step=f"Give the second {twice[0]!r} another name",
            )
    if both := [name for name in inputs if name in set(outputs)]:
        raise Refused(
            "PL-302",
            f"{both[0]!r} names an input and an output",
            where=INPUTS_KEY if config.input_names is not None else OUTPUTS_KEY,
            expected="every name once",
            next_step=f"Give one of them another name, for example {both[0] + '_out'!r}",
        )


def check_against_network(
    inputs: Sequence[str],
    outputs: Sequence[str],
    parameter_names: Sequence[str],
    parameters: Sequence[str],
    others: Sequence[str] = (),
) -> None:
    """Refuse names that contradict the network's own.

    Args:
        inputs: names of the graph inputs.
        outputs: names of the graph outputs.
        parameter_names: new names for the first of `parameters`.
        parameters: the network's own parameters and persistent buffers, in the order of its state.
        others: further tensors of the network, which cannot be renamed.

    Raises:
        Refused: PL-304, more names than inputs and parameters; PL-302, a name that a parameter has.
    """
    if len(parameter_names) > len(parameters):
        asked = len(inputs) + len(parameter_names)
        raise Refused(
            "PL-304",
            "there are more names than inputs and parameters together",
            where=INPUTS_KEY,
            found=f"{asked} names",
            expected=f"at most {len(inputs) + len(parameters)}: {len(inputs)} "
            f"{_plural(len(inputs), 'input')} and {len(parameters)} {_plural(len(parameters), 'parameter')}",
            next_step="Leave out the last " + str(asked - len(inputs) - len(parameters)),
        )
    kept = {*parameters[len(parameter_names) :], *others}
    for kind, names in (("input", inputs), ("output", outputs), ("parameter", parameter_names)):
        if taken := [name for name in names if name in kept]:
            raise Refused(
                "PL-302",
                f"{taken[0]!r} names an {kind} and is the name of a parameter of the network"
                if kind != "parameter"
                else f"{taken[0]!r} names a parameter and is the name of another one",
                where=OUTPUTS_KEY if kind == "output" else INPUTS_KEY,
                expected="every name once",
                next_step=f"Give the {kind} another name",
            )


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    text = ", ".join(names[:SHOWN])
    return text + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else noun + "s"
