"""Weights from a file: all of them, or a refusal that names the keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import Refused
from pipeline.events import Event, Finding
from pipeline.sources.checkpoint import load_weights


def network() -> torch.nn.Sequential:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def loaded(path: Path, **options: Any) -> tuple[torch.nn.Sequential, list[str]]:
    module = network()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()
    findings: list[Event] = []
    load_weights(module, str(path), trust_pickle=options.get("trust_pickle", False), emit=findings.append)
    return module, [one.message for one in findings if isinstance(one, Finding)]


def same(module: torch.nn.Module) -> bool:
    wanted = network().state_dict()
    return all(torch.equal(tensor, wanted[name]) for name, tensor in module.state_dict().items())


def test_a_plain_state_dict(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w")
    module, findings = loaded(tmp_path / "w")
    assert same(module)
    assert findings == []


def test_the_old_format(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w", _use_new_zipfile_serialization=False)
    assert same(loaded(tmp_path / "w")[0])


def test_safetensors(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "w")
    assert same(loaded(tmp_path / "w")[0])


def test_a_wrapper_is_taken_off_and_said(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": network().state_dict(), "optimizer": {}}, tmp_path / "w")
    module, findings = loaded(tmp_path / "w")
    assert same(module)
    assert findings == ["w holds the weights under state_dict"]


def test_a_prefix_is_taken_off_and_said(tmp_path: Path) -> None:
    state = {f"module._orig_mod.{name}": tensor for name, tensor in network().state_dict().items()}
    torch.save({"model": state}, tmp_path / "w")
    module, findings = loaded(tmp_path / "w")
    assert same(module)
    assert findings == [
        "w holds the weights under model",
        "the keys in w begin with module._orig_mod., which was taken off",
    ]


def test_a_whole_module_when_it_is_trusted(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "w")
    module, findings = loaded(tmp_path / "w", trust_pickle=True)
    assert same(module)
    assert findings == ["w holds the weights under a whole Sequential"]


def test_counters_may_be_missing(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "w")
    assert same(loaded(tmp_path / "w")[0])


def test_keys_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    state = network().state_dict()
    state["head.weight"] = state.pop("0.weight")
    torch.save(state, tmp_path / "w")
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(Refused) as caught:
        load_weights(module, str(tmp_path / "w"), trust_pickle=False, emit=lambda event: None)
    assert str(caught.value) == (
        "PL-225: model.weights: the weights do not fit the network; found in w 1 keys of the network are not in it "
        "(0.weight) and 1 of its keys are not in the network (head.weight), expected the 7 keys of the network. "
        "Choose the network that they were trained for, or its model.args, or mend the keys of the file"
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_shapes_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    state = network().state_dict()
    state["0.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "w")
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(Refused, match=r"0\.bias is \[5\] in w and \[4\] in the network"):
        load_weights(module, str(tmp_path / "w"), trust_pickle=False, emit=lambda event: None)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)], {"a": 1, "b": torch.zeros(1)}])
def test_what_holds_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w")
    with pytest.raises(Refused, match=r"PL-223: model.weights: the weights file holds no state_dict"):
        loaded(tmp_path / "w")


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    torch.save({"0.weight": torch.ones(4, 3, 3, 3) * 0.123}, tmp_path / "w")
    data = bytearray((tmp_path / "w").read_bytes())
    place = data.find(torch.tensor([0.123]).numpy().tobytes() * 4)
    assert place > 0
    data[place + 9] ^= 1
    (tmp_path / "w").write_bytes(bytes(data))
    with pytest.raises(Refused, match=r"PL-223.*damaged"):
        loaded(tmp_path / "w")


def test_a_half_precision_checkpoint_fills_a_float32_network(tmp_path: Path) -> None:
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in network().state_dict().items()},
               tmp_path / "w")  # fmt: skip
    module, _ = loaded(tmp_path / "w")
    assert module[0].weight.dtype is torch.float32
    assert torch.allclose(module[0].weight, network()[0].weight, atol=1e-3)
