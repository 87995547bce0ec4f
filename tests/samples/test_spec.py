"""The structure of the call, and the names of its tensors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import Refused
from pipeline.samples.spec import Axis, parse_inputs

LEAF = {"shape": [1, 4]}
NESTED = {
    "images": [LEAF, LEAF],
    "extra": {"mask": LEAF, "deep": [LEAF]},
    "scale": {**LEAF, "pass": "keyword"},
}


def test_leaves_are_named_after_argument_index_and_key() -> None:
    names = [leaf.name for leaf in parse_inputs(NESTED).leaves]
    assert names == ["images_0", "images_1", "extra_mask", "extra_deep_0", "scale"]


def test_the_call_has_the_structure_that_was_written() -> None:
    specs = parse_inputs(NESTED)
    args, kwargs = specs.call_arguments({leaf.name: leaf.name for leaf in specs.leaves}, str.upper)
    assert args == (["IMAGES_0", "IMAGES_1"], {"mask": "EXTRA_MASK", "deep": ["EXTRA_DEEP_0"]})
    assert kwargs == {"scale": "SCALE"}


def test_renaming_goes_through_lists_and_dicts_and_keeps_the_call() -> None:
    specs = parse_inputs(NESTED).renamed(["a", "b", "c", "d", "e", "weight"])
    assert [(leaf.name, leaf.key) for leaf in specs.leaves] == [
        ("a", "images_0"), ("b", "images_1"), ("c", "extra_mask"), ("d", "extra_deep_0"), ("e", "scale"),
    ]  # fmt: skip
    _, kwargs = specs.call_arguments({leaf.name: leaf.name for leaf in specs.leaves}, str)
    assert kwargs == {"scale": "e"}


def test_renaming_twice_still_knows_the_configured_name() -> None:
    specs = parse_inputs({"x": LEAF}).renamed(["a"]).renamed(["b"])
    assert (specs.leaves[0].name, specs.leaves[0].key) == ("b", "x")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["a"],
            (
                "PL-204: export.input_names: there are fewer input names than inputs; found 1 names, expected 2: x, y. "
                "Type 'export.input_names=[a,y]'"
            ),
        ),
        (
            ["a", "a"],
            (
                "PL-204: export.input_names: a name stands twice; found a. "
                "Give every input and parameter a name of its own"
            ),
        ),
    ],
)
def test_names_that_do_not_fit(names: list[str], sentence: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_inputs({"x": LEAF, "y": LEAF}).renamed(names)
    assert str(caught.value) == sentence


def test_axes_by_name_with_their_example_size() -> None:
    node = {
        "x": {
            "shape": [2, 3, 64],
            "dynamic": {2: {"name": "width", "min": 32, "multiple_of": 32}, 0: "batch"},
        },
        "y": {"shape": [2], "dynamic": {0: "batch"}},
    }
    assert parse_inputs(node).axes == {
        "batch": (Axis("batch"), 2),
        "width": (Axis("width", 32, None, 32), 64),
    }


def test_data_is_json_and_differs_with_everything_that_matters() -> None:
    variants: list[dict[str, Any]] = [
        {"x": LEAF},
        {"y": LEAF},
        {"x": {"shape": [1, 5]}},
        {"x": {**LEAF, "dtype": "float64"}},
        {"x": {**LEAF, "fill": {"constant": 1}}},
        {"x": {**LEAF, "fill": {"uniform": [0, 1]}}},
        {"x": {**LEAF, "dynamic": {0: "n"}}},
        {"x": {**LEAF, "dynamic": {0: {"name": "n", "max": 9}}}},
        {"x": {**LEAF, "pass": "keyword"}},
        {"x": [LEAF]},
        {"x": {"a": LEAF}},
    ]
    texts = [json.dumps(parse_inputs(node).data()) for node in variants]
    assert len(set(texts)) == len(variants)
    assert json.dumps(parse_inputs({"x": LEAF}).renamed(["z"]).data()) not in texts
