"""References that a wrong file would match as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.parity.config import ParityConfig
from pipeline.parity.reference import Reference
from pipeline.parity.vacuous import find_vacuous, judge_vacuous

LIVE = np.random.default_rng(0).standard_normal((3, 1, 50)).astype(np.float32)


def found(*arrays: Any, config: ParityConfig | None = None, noise: float = 1e-7) -> list[str]:
    outputs = {f"seed{i}": {"y": np.asarray(array)} for i, array in enumerate(arrays)}
    first = np.asarray(arrays[0])
    exact = {"seed0": {"y": first * (1 + noise)}} if first.dtype.kind == "f" else {}
    return [one.kind for one in find_vacuous(Reference(outputs, exact), config or ParityConfig())]


def test_a_live_output() -> None:
    assert found(*LIVE) == []


def test_small_is_not_vacuous() -> None:
    """mobilenet_v2 with plain random weights: 1e-9 in size, but another value for every input."""
    assert found(*LIVE * np.float32(1e-9)) == []
    assert found(*LIVE * np.float32(1e-9), config=ParityConfig(kind="fixed")) == ["insensitive"]


@pytest.mark.parametrize(("spread", "kinds"), [(1e-3, []), (1e-5, ["insensitive"]), (1e-11, ["constant"])])
def test_a_bias_that_hides_the_input(spread: float, kinds: list[str]) -> None:
    assert found(*(LIVE * spread + LIVE[0]).astype(np.float32)) == kinds


def test_zero_constant_empty() -> None:
    zero, one = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    assert found(zero, zero) == ["zero"]
    assert found(one, one) == ["constant"]
    assert found(zero[:0], zero[:0]) == ["empty"]
    assert found(np.ones(2, int), np.ones(2, int)) == ["constant"]
    assert found(np.ones(2, int), np.zeros(2, int)) == []
    assert found(zero[:0], one) == []


def test_noise_as_large_as_a_fault() -> None:
    assert found(*LIVE, noise=0.05) == ["drowned"]


def test_one_set_of_inputs_says_nothing_of_dependence() -> None:
    assert found(LIVE[0]) == []
    assert found(LIVE[0] * 0) == ["zero"]


class TestTheWhole:
    def judge(self, **outputs: Any) -> str | None:
        runs = {f"seed{i}": {n: np.asarray(a[i], np.float32) for n, a in outputs.items()} for i in (0, 1)}
        reason = judge_vacuous(find_vacuous(Reference(runs), ParityConfig()), list(outputs))
        return reason.message if reason else None

    def test_a_constant_beside_a_live_output_is_no_failure(self) -> None:
        assert self.judge(live=LIVE, anchors=[[1, 2], [1, 2]]) is None

    def test_constants_alone_are(self) -> None:
        message = self.judge(one=[[1, 2], [1, 2]], two=[[3], [3]])
        assert message == "output one is the same on every input (and 1 more outputs)"

    def test_a_dead_head_beside_a_live_one_is(self) -> None:
        assert self.judge(live=LIVE, dead=np.zeros((2, 4))) == "output dead is zero on every input"

    def test_the_reason_holds_no_figure(self) -> None:
        """It stands in the manifest."""
        message = self.judge(flat=LIVE[:2] * 1e-6 + 1)
        assert message is not None
        assert not any(character.isdigit() for character in message)
