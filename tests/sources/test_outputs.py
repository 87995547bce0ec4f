"""Names of outputs."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch

from pipeline.errors import Refused
from pipeline.sources.outputs import flatten_outputs

T = torch.zeros(1)
Pair = namedtuple("Pair", ["mean", "spread"])


@dataclass
class Result:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...] | None = None


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (T, ["output1"]),
        ([T], ["output1"]),
        ((T, T, T), ["output1", "output2", "output3"]),
        ((T, (T, [T])), ["output1", "output2", "output3"]),
        (OrderedDict(out=T, aux=T), ["out", "aux"]),
        ({"z": T, "a": None, "b": T}, ["z", "b"]),
        ({"a": {"b": T, "c": T}}, ["a_b", "a_c"]),
        ({"features": [T, T]}, ["features_0", "features_1"]),
        ([{"boxes": T, "scores": T}], ["boxes", "scores"]),
        ([{"boxes": T}, {"boxes": T}], ["boxes_0", "boxes_1"]),
        ((T, {"loss": T}), ["output1", "loss_1"]),
        (Pair(T, T), ["mean", "spread"]),
        (Result(T), ["logits"]),
        (Result(T, (T, T)), ["logits", "hidden_0", "hidden_1"]),
        ({3: T}, ["3"]),
    ],
)
def test_names(outputs: object, names: list[str]) -> None:
    assert list(flatten_outputs(outputs)) == names


def test_given_names_stand_for_the_own_ones_in_order() -> None:
    first, second = torch.ones(1), torch.zeros(1)
    assert flatten_outputs({"b": first, "a": second}, ("x", "y")) == {"x": first, "y": second}


@pytest.mark.parametrize(
    ("outputs", "names", "sentence"),
    [
        (
            (T, T),
            ("y",),
            (
                "PL-231: model.outputs: the number of output names is not the number of outputs; found 1 names: y, "
                "expected 2: output1, output2. Type 'model.outputs=[output1,output2]'"
            ),
        ),
        (
            {"out": T, "size": 5},
            None,
            (
                "PL-231: size: the network returns something that is no tensor, which an ONNX file cannot hold; "
                "found int 5, expected tensors, in lists, dicts or dataclasses. "
                "Leave it out of forward's result, for example with model.prepare"
            ),
        ),
        (None, None, "PL-231: model: the network returns no tensor; found NoneType"),
        (
            {"a_b": T, "a": {"b": T}},
            None,
            "PL-231: model.outputs: two outputs have one name; found a_b. Type 'model.outputs=[output1,output2]'",
        ),
    ],
)
def test_refusals(outputs: object, names: tuple[str, ...] | None, sentence: str) -> None:
    with pytest.raises(Refused) as caught:
        flatten_outputs(outputs, names)
    assert str(caught.value) == sentence
