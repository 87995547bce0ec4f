"""What a network keeps of a run besides its tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.sources.attributes import attributes_put_back, settle


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.seen: list[int] = [1]
        self.names = {"a"}
        self.table: dict[str, Any] = {"first": torch.zeros(1)}
        self.register_buffer("steps", torch.zeros(1))


@pytest.fixture
def kept() -> nn.Sequential:
    return nn.Sequential(Keeps(), nn.ReLU())


def change(module: Any) -> None:
    module.grid = torch.ones(2)
    module.layer = nn.Linear(3, 3)
    module.seen.append(2)
    module.names.clear()
    module.table["first"] = torch.ones(1)
    module.table["second"] = torch.ones(1)
    module.steps = torch.ones(1)
    del module._buffers["steps"]


def test_attributes_and_what_containers_in_them_hold(kept: Any) -> None:
    inner = kept[0]
    layer, first, steps, seen = inner.layer, inner.table["first"], inner.steps, inner.seen
    with attributes_put_back(kept):
        change(inner)
    assert not hasattr(inner, "grid")
    assert inner.layer is layer and inner.steps is steps
    assert inner.seen is seen and seen == [1]
    assert inner.names == {"a"}
    assert list(inner.table) == ["first"] and inner.table["first"] is first


def test_a_set_that_nobody_touches_keeps_its_order(kept: Any) -> None:
    """A copy of a set from which something was removed has another one."""
    inner = kept[0]
    inner.names = set(range(0, 800, 8))
    for number in range(0, 400, 8):
        inner.names.discard(number)
    order = list(inner.names)
    with attributes_put_back(kept):
        pass
    assert list(inner.names) == order


def test_what_is_made_once_stays_and_what_changes_in_every_run_does_not(kept: Any) -> None:
    inner = kept[0]
    given = inner.steps

    def run() -> None:
        with torch.no_grad():
            inner.steps.add_(1)  # a counter in a buffer
        if not hasattr(inner, "grid"):
            inner.grid, inner.size = torch.ones(2), 1234
            inner.layer = nn.Linear(3, 3)
            inner.seen.append(2)
            inner.table["once"] = torch.ones(1)
        inner.hidden = torch.randn(1)
        inner.table["every"] = torch.randn(1)
        inner.calls = getattr(inner, "calls", 0) + 1

    settle(kept, run)
    assert inner.grid.tolist() == [1, 1]
    assert inner.size == 1234
    assert inner.layer.in_features == 3
    assert inner.seen == [1, 2]
    assert list(inner.table) == ["first", "once"]
    assert not hasattr(inner, "hidden")
    assert not hasattr(inner, "calls")
    assert inner.steps is given
    assert given.item() == 0


def test_what_comes_back_to_what_it_was(kept: Any) -> None:
    """Hidden states, outputs that are collected, lists that grow."""
    inner = kept[0]
    inner.hidden = None

    def run() -> None:
        inner.hidden = torch.randn(1)
        inner.seen.append(len(inner.seen))
        inner.steps = inner.steps + 1  # another tensor under the same name

    before = inner.steps
    settle(kept, run)
    assert inner.hidden is None
    assert inner.seen == [1]
    assert inner.steps is before


def test_a_network_that_changes_nothing_runs_once(kept: Any) -> None:
    runs: list[int] = []
    settle(kept, lambda: runs.append(1))
    assert runs == [1]


def test_a_first_run_that_fails_leaves_all_as_it_was(kept: Any) -> None:
    def fails() -> None:
        change(kept[0])
        raise LookupError

    with pytest.raises(LookupError):
        settle(kept, fails)
    assert not hasattr(kept[0], "grid")
    assert kept[0].seen == [1]


def test_what_fails_is_put_back_too(kept: Any) -> None:
    def fails() -> None:
        with attributes_put_back(kept):
            change(kept[0])
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert not hasattr(kept[0], "grid")


def test_tensors_that_are_written_to_keep_their_new_values(kept: Any) -> None:
    """They are the business of whoever runs the network: calibration writes statistics on purpose."""
    with attributes_put_back(kept), torch.no_grad():
        kept[0].steps.fill_(3)
    assert kept[0].steps.item() == 3


def test_hooks_of_the_time_before_and_after_work(kept: Any) -> None:
    calls: list[str] = []
    hook = kept[0].register_forward_pre_hook(lambda module, args: calls.append("before"))
    with attributes_put_back(kept):
        hook.remove()
        kept[0].register_forward_pre_hook(lambda module, args: calls.append("inside"))
    assert len(kept[0]._forward_pre_hooks) == 1
    assert hook.id not in kept[0]._forward_pre_hooks
