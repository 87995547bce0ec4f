"""What comes out, and which sizes vary with what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.parity.signature import SeenRun, Signature, derive_signature


def run(shape: tuple[int, ...], **axes: int) -> SeenRun:
    return SeenRun(axes, {"y": np.zeros(shape, np.float32)})


def dimensions(*runs: SeenRun, positions: dict[str, int] | None = None) -> tuple[int | str, ...]:
    found = derive_signature(runs, positions or {"batch": 0, "height": 2}, value_dependent=False)
    return found.outputs[0].dimensions()


def test_a_size_that_is_an_axis() -> None:
    assert dimensions(run((2, 5), batch=2, height=8), run((3, 5), batch=3, height=8)) == ("batch", 5)


def test_a_size_that_grows_with_an_axis() -> None:
    runs = run((2, 4), batch=2, height=8), run((3, 5), batch=3, height=10)
    assert dimensions(*runs) == ("batch", "y_dim_1")
    found = derive_signature(runs, {"batch": 0, "height": 2}, value_dependent=False).outputs[0]
    assert found.varies == {0: ("batch",), 1: ("batch",)} or found.varies[1] == ("height",)


def test_a_size_that_depends_on_values() -> None:
    found = derive_signature([run((4,)), run((7,))], {}, value_dependent=True)
    assert found.outputs[0].varies == {0: ()}
    assert found.outputs[0].dimensions() == ("y_dim_0",)


def test_two_axes_of_one_size_go_by_their_place() -> None:
    runs = run((2, 1, 2), batch=2, height=2), run((3, 1, 3), batch=3, height=3)
    assert dimensions(*runs) == ("batch", 1, "height")


def test_other_outputs_are_an_error() -> None:
    with pytest.raises(ValueError, match="differ in name or rank"):
        derive_signature([run((2,)), run((2, 2))], {}, value_dependent=False)


def test_it_can_lie_in_the_cache(tmp_path: Path) -> None:
    runs = run((2, 4), batch=2, height=8), run((3, 5), batch=3, height=10)
    signature = derive_signature(runs, {"batch": 0, "height": 2}, value_dependent=True)
    signature.store(tmp_path)
    assert Signature.load(tmp_path) == signature
