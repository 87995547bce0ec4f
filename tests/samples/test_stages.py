"""The inputs stage: fresh sets, other variants, other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InternalError
from pipeline.samples.spec import Axis, parse_inputs
from pipeline.samples.stages import InputsStage, another_size, other_sizes


class Desk:
    """The least workspace."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        return self.values[name]

    def put(self, name: str, value: Any) -> None:
        self.values[name] = value


def made(node: dict[str, Any], seeds: int = 3) -> Desk:
    desk: Any = Desk()
    stage = InputsStage(parse_inputs(node), 0, seeds)
    stage.requires(desk)
    stage.run(desk)
    stage.ensures(desk)
    return desk


def test_labels_and_variants() -> None:
    parity = made({"x": {"shape": [500]}}, seeds=5).values["parity_inputs"]
    assert list(parity) == ["seed0", "seed1", "seed2", "seed3", "seed4"]
    spreads = [round(float(samples["x"].std())) for samples in parity.values()]
    assert spreads == [1, 1, 3, 1, 1]
    assert len({samples["x"].tobytes() for samples in parity.values()}) == 5


def test_parity_inputs_are_not_what_the_export_saw() -> None:
    desk = made({"x": {"shape": [50]}})
    exported = desk.values["export_inputs"]["x"]
    for samples in desk.values["parity_inputs"].values():
        assert not np.array_equal(np.abs(samples["x"]), np.abs(exported))


def test_other_sizes_are_further_sets() -> None:
    desk = made(
        {"x": {"shape": [2, 3, 64], "dynamic": {0: "batch", 2: {"name": "w", "min": 32, "multiple_of": 32}}}}
    )
    shapes = {label: samples["x"].shape for label, samples in desk.values["parity_inputs"].items()}
    assert shapes["sizes:batch=3,w=96"] == (3, 3, 96)
    assert shapes["sizes:batch=1,w=32"] == (1, 3, 32)
    assert len(shapes) == 5


@pytest.mark.parametrize(
    ("axis", "example", "other"),
    [
        (Axis("n"), 1, 2),
        (Axis("n"), 2, 3),
        (Axis("n", max=2), 2, 1),
        (Axis("n", 32, 640, 32), 64, 96),
        (Axis("n", 32, 64, 32), 64, 32),
        (Axis("n", 3, 4), 4, 3),
    ],
)
def test_another_size_is_allowed_and_another(axis: Axis, example: int, other: int) -> None:
    assert another_size(axis, example) == other


@pytest.mark.parametrize(
    ("dynamic", "shape", "labels"),
    [
        ({}, [2], []),
        ({0: "n"}, [1], ["sizes:n=2"]),
        ({0: "n"}, [2], ["sizes:n=3", "sizes:n=1"]),
        ({0: {"name": "n", "max": 2}}, [2], ["sizes:n=1"]),
        ({0: {"name": "n", "min": 2, "max": 3}}, [2], ["sizes:n=3"]),
    ],
)
def test_no_set_is_made_twice(dynamic: dict[int, Any], shape: list[int], labels: list[str]) -> None:
    assert list(other_sizes(parse_inputs({"x": {"shape": shape, "dynamic": dynamic}}))) == labels


def test_inputs_of_another_type_are_not_handed_over() -> None:
    desk: Any = made({"x": {"shape": [5]}})
    desk.values["parity_inputs"]["seed1"]._arrays["x"] = np.zeros(5, np.float64)
    with pytest.raises(InternalError, match=r"seed1"):
        InputsStage(parse_inputs({"x": {"shape": [5]}}), 0, 3).ensures(desk)


def test_the_key_holds_files_by_content(tmp_path: Path) -> None:
    parts = []
    for folder, value in (("one", 1.0), ("two", 1.0), ("three", 2.0)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", np.full(3, value, np.float32))
        specs = parse_inputs({"x": {"fill": {"file": f"{tmp_path}/{folder}/x.npy"}}})
        parts.append(InputsStage(specs, 0, 3, specs.files()).key_parts())
    assert parts[0] == parts[1]
    assert parts[0] != parts[2]
    assert len(parts[0].extra) == 1
