"""What the reference stage says of the signature's key holds: no parity setting changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.parity.config import ParityConfig
from pipeline.parity.reference import make_reference
from pipeline.parity.signature import Signature
from pipeline.parity.stages import ReferenceStage
from pipeline.samples.spec import parse_inputs
from pipeline.samples.stages import InputsStage
from pipeline.sources.network import Network
from tests.parity.conftest import DictWorkspace

DYNAMIC = {"x": {"shape": [2, 8], "dynamic": {0: "batch"}}}
FIXED = {"x": {"shape": [2, 8]}}


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x)


class Positive(Linear):
    """As many numbers as are positive."""

    def forward(self, x: torch.Tensor) -> Any:
        y = super().forward(x)
        return {"scores": y, "found": y[y > 0]}


class PythonSize(Linear):
    """The size depends on values and no operator shows it."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x)[:, : 1 + sum(x[0].tolist()[0:4][i] > 0 for i in range(3))]


class NoFloat64(Linear):
    """Float64 is declined."""

    def forward(self, x: torch.Tensor) -> Any:
        if x.dtype == torch.float64:
            raise RuntimeError("float32 only")
        return super().forward(x)


def signature(
    module: torch.nn.Module, inputs: Any, seeds: int, config: ParityConfig, folder: Path
) -> Signature:
    specs = parse_inputs(inputs)
    workspace = DictWorkspace(folder, network=Network(module.eval(), specs))
    InputsStage(specs, 0, seeds).run(workspace)
    return make_reference(
        workspace.get("network"), workspace.get("export_inputs"), workspace.get("parity_inputs"), config,
        lambda event: None,
    )[1]  # fmt: skip


@pytest.mark.parametrize("inputs", [FIXED, DYNAMIC], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("kind", [Linear, Positive, PythonSize, NoFloat64])
def test_no_parity_setting_changes_the_signature(
    kind: type[torch.nn.Module], inputs: Any, tmp_path: Path
) -> None:
    found = {
        (parity, seeds): signature(
            kind(), inputs, seeds, ParityConfig(kind=parity, seeds=seeds), tmp_path
        ).to_json()
        for parity in ("noise", "fixed", "none")
        for seeds in (1, 2, 3, 5)
    }
    assert len({str(one) for one in found.values()}) == 1, found


def test_the_number_of_seeds_changes_no_set_of_inputs(tmp_path: Path) -> None:
    seen: dict[str, bytes] = {}
    for seeds in (1, 3, 5):
        workspace = DictWorkspace(tmp_path)
        InputsStage(parse_inputs(DYNAMIC), 0, seeds).run(workspace)
        sets = {"export": workspace.get("export_inputs"), **workspace.get("parity_inputs")}
        for label, samples in sets.items():
            assert seen.setdefault(label, samples["x"].tobytes()) == samples["x"].tobytes()
    assert len(seen) == 1 + 5 + 2


def test_the_signature_s_key_knows_no_parity_setting() -> None:
    parts = [
        ReferenceStage(ParityConfig(kind=kind, seeds=seeds)).key_parts()  # type: ignore[arg-type]
        for kind in ("noise", "fixed", "none")
        for seeds in (1, 3)
    ]
    assert all(one.artifacts == parts[0].artifacts for one in parts)
    assert "parity_inputs" not in parts[0].artifacts["signature"].takes
