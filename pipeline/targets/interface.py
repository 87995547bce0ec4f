"""What the finished file takes and gives, in a backend's words, checked before a backend sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import StageFailed
from pipeline.parity.signature import Signature
from pipeline.samples.spec import Axis, InputSpecs
from pipeline.targets.backend import TensorSpec


def input_specs(specs: InputSpecs, samples: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """The inputs with the sizes of `samples` as example."""
    found = []
    for leaf in specs.leaves:
        shape = tuple(
            leaf.dynamic[index].name if index in leaf.dynamic else size
            for index, size in enumerate(leaf.shape)
        )
        smallest = tuple(
            _least(leaf.dynamic[index]) if index in leaf.dynamic else size
            for index, size in enumerate(leaf.shape)
        )
        largest = tuple(
            leaf.dynamic[index].max if index in leaf.dynamic else size
            for index, size in enumerate(leaf.shape)
        )
        bounded = tuple(size for size in largest if size is not None)
        example = tuple(int(size) for size in samples[leaf.name].shape)
        found.append(
            TensorSpec(
                leaf.name, leaf.dtype, shape, example,
                smallest if leaf.dynamic else (),
                bounded if leaf.dynamic and len(bounded) == len(largest) else (),
            )
        )  # fmt: skip
    return tuple(found)


def _least(axis: Axis) -> int:
    return -(-axis.min // axis.multiple_of) * axis.multiple_of


def output_specs(signature: Signature) -> tuple[TensorSpec, ...]:
    """The outputs with the reference's sizes as example."""
    return tuple(
        TensorSpec(output.name, output.dtype, output.dimensions(), output.shape)
        for output in signature.outputs
    )


def check_file(path: Path, specs: InputSpecs, signature: Signature, target: str) -> None:
    """The file's inputs and outputs are the request's, by name and in order, and nothing else is asked for.

    Raises:
        StageFailed: PL-652.
    """
    from pipeline.graph.readback import read_contract

    contract = read_contract(path)
    for what, found, wanted in (
        ("inputs", [one.name for one in contract.inputs], [leaf.name for leaf in specs.leaves]),
        ("outputs", [one.name for one in contract.outputs], list(signature.names)),
    ):
        if found != wanted:
            raise StageFailed(
                "PL-652", f"the {what} of the file are not those that {target} can be given", where=path.name,
                found=", ".join(found) or "none", expected=", ".join(wanted) or "none",
                next_step="Type export.export_params=true and export.keep_initializers_as_inputs=false",
            )  # fmt: skip
    for one in (*contract.inputs, *contract.outputs):
        if "\0" in one.name or not one.name.isprintable():
            raise StageFailed("PL-652", "a name that tools cannot be given", where=path.name,
                              found=repr(one.name))  # fmt: skip
