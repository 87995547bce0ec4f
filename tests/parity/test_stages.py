"""The stages on real files: what must fail parity, and what must pass it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from pipeline.errors import InternalError, StageFailed
from pipeline.exporters.attempts import Attempt, Attempts, FrozenPlace
from pipeline.graph.bare import HeldTensor
from pipeline.parity.config import ParityConfig
from pipeline.parity.reference import Reference
from pipeline.parity.signature import Signature
from pipeline.parity.stages import EvidenceStage, ParityReport, ParityStage, ReferenceStage
from pipeline.stage import Stage, Storable
from tests.parity.conftest import DictWorkspace, Exported, model_file, small_network

BRANCH = FrozenPlace("net.py:12", "a Python boolean")
SIZE = FrozenPlace("net.py:30", "a Python integer")


class TestHonestFiles:
    def test_a_correct_file_passes_with_room(self, small: Exported) -> None:
        verdict = small.prove()
        assert verdict.status == "passed"
        lines = verdict.measured["parity"]
        assert [line["seed"] for line in lines] == ["seed0", "seed1", "seed2"]
        assert min(line["margin"] for line in lines) > 2
        json.dumps(lines, allow_nan=False)
        worst = min(lines, key=lambda line: line["margin"])
        # The words of the closing block.
        assert verdict.summary == (
            f"output1, error {worst['error']:.1e}, tolerance {worst['tolerance']:.1e}, 3 comparisons"
        )

    def test_the_manifest_gets_the_rule_and_no_figure_of_this_run(self, small: Exported) -> None:
        tolerances = small.prove().recorded["tolerances"]
        assert tolerances["k"] == 16
        assert tolerances["floor"] == {"float32": 64 * 2.0**-23}
        assert small.prove().recorded == {"tolerances": tolerances}

    def test_other_sizes_of_a_dynamic_axis_are_compared(self, tmp_path: Path) -> None:
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        inputs = {"x": {"shape": [2, 3, 8, 8], "dynamic": {0: "batch"}}}
        exported = Exported(network, inputs, tmp_path)
        labels = {line["seed"] for line in exported.prove().measured["parity"]}
        assert labels == {"seed0", "seed1", "seed2", "sizes:batch=3", "sizes:batch=1"}

    def test_fixed_tolerances(self, tmp_path: Path) -> None:
        config = ParityConfig(kind="fixed")
        exported = Exported(small_network(), {"x": {"shape": [1, 3, 16, 16]}}, tmp_path, config=config)
        verdict = exported.prove()
        assert verdict.status == "passed"
        assert {line["tolerance"] for line in verdict.measured["parity"]} == {1.0}
        assert verdict.recorded["tolerances"]["rtol"] == 1e-3
        with exported.weight(2) as weight:
            weight *= 1.1
        with pytest.raises(StageFailed, match="PL-520"):
            exported.prove()

    def test_parameters_that_are_inputs_of_the_file_are_fed(self, small: Exported) -> None:
        with small.changed() as model:
            tensor = next(one for one in model.graph.initializer if len(one.dims) == 2)
            array = onnx.numpy_helper.to_array(tensor).copy()
            value = model.graph.input.add(name=tensor.name)
            value.type.tensor_type.elem_type = tensor.data_type
            for size in tensor.dims:
                value.type.tensor_type.shape.dim.add(dim_value=size)
            model.graph.initializer.remove(tensor)
        held = HeldTensor(tensor.name, 1, array.shape, lambda: array.view(np.uint8).reshape(-1))
        small.workspace.values |= {
            "reference": small.reference,
            "signature": small.signature,
            "model": model_file(small.path),
            "attempts": Attempts((Attempt("torchscript", 17, "passed"),), (), {tensor.name: held}),
        }
        assert ParityStage(ParityConfig()).run(small.workspace).status == "passed"
        assert not small.workspace.findings

    def test_a_large_file_is_not_run_a_second_time(
        self, small: Exported, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("the second run")

        monkeypatch.setattr("pipeline.parity.onnxruntime_session.run_onnxruntime", refuse)
        with pytest.raises(AssertionError, match="the second run"):
            small.prove()
        monkeypatch.setattr("pipeline.parity.onnxruntime_session.OPTIMISED_RUN_BYTES", 100)
        assert small.prove().status == "passed"


class TestFaults:
    @pytest.mark.parametrize("factor", [1.1, 1.01, 1.001])
    @pytest.mark.parametrize("index", [0, 1, 2])
    def test_scaled_weights(self, small: Exported, index: int, factor: float) -> None:
        with small.weight(index) as weight:
            weight *= factor
        with pytest.raises(StageFailed) as caught:
            small.prove()
        assert caught.value.reason.code == "PL-520"
        lines = caught.value.measured["parity"]  # type: ignore[attr-defined]
        assert len(lines) == 3
        assert max(line["margin"] for line in lines) < 0.2

    @pytest.mark.parametrize("fault", ["zeroed", "swapped"])
    @pytest.mark.parametrize("index", [0, 1, 2])
    def test_one_wrong_channel(self, small: Exported, index: int, fault: str) -> None:
        with small.weight(index) as weight:
            weight[0] = weight[1] if fault == "swapped" else 0
        with pytest.raises(StageFailed, match="output output1 is not what the network computes"):
            small.prove()

    def test_one_wrong_channel_among_others_a_thousand_times_larger(self, tmp_path: Path) -> None:
        class Detector(torch.nn.Module):
            """Pixels beside probabilities in one tensor."""

            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Conv2d(3, 6, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = self.layer(x)
                return torch.cat([y[:, :4] * 1e5, y[:, 4:].sigmoid() * 1e-2], 1)

        torch.manual_seed(0)
        exported = Exported(Detector(), {"x": {"shape": [1, 3, 16, 16]}}, tmp_path)
        assert exported.prove().status == "passed"
        with exported.weight(0) as weight:
            weight[5] *= 1.01
        with pytest.raises(StageFailed, match="channel 5 of axis 1"):
            exported.prove()

    def test_a_frozen_branch_shows_with_negated_inputs(self, tmp_path: Path) -> None:
        class Branch(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(8, 8)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if x.sum() > -2:
                    return self.layer(x)
                return -self.layer(x)

        torch.manual_seed(0)
        inputs = {"x": {"shape": [1, 8], "fill": {"uniform": [-1, 3]}}}
        with pytest.warns(torch.jit.TracerWarning):
            exported = Exported(Branch(), inputs, tmp_path)
        sides = {label: bool(values["x"].sum() > -2) for label, values in exported.parity_inputs.items()}
        assert sides == {"seed0": True, "seed1": True, "seed2": False}
        with pytest.raises(StageFailed) as caught:
            exported.prove((SIZE, BRANCH))
        reason = caught.value.reason
        assert reason.message == (
            "output output1 is not what the network computes, only with scaled inputs: a branch was frozen; "
            "tracing kept one side of a branch at net.py:12; tracing made constants of values at net.py:30"
        )
        assert reason.next_step is not None
        assert "torch.where" in reason.next_step

    def test_a_near_miss_on_other_inputs_is_not_called_a_branch(self, small: Exported) -> None:
        with small.weight(2) as weight:
            weight *= 1 + 3e-5
        outputs = {label: dict(values) for label, values in small.reference.outputs.items()}
        outputs["seed0"] = {"output1": outputs["seed0"]["output1"] * np.float32(1 + 3e-5)}
        exact = {"seed0": {"output1": outputs["seed0"]["output1"].astype(np.float64)}}
        with pytest.raises(StageFailed) as caught:
            small.prove((BRANCH,), Reference(outputs, exact))
        assert "a branch was frozen" not in str(caught.value)

    def test_a_baked_size(self, tmp_path: Path) -> None:
        class Baked(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + torch.arange(int(x.shape[0]) * 4, dtype=torch.float32).reshape(-1, 4)[:2].sum()

        inputs = {"x": {"shape": [1, 4], "dynamic": {0: "batch"}}}
        with pytest.warns(torch.jit.TracerWarning):
            exported = Exported(Baked(), inputs, tmp_path)
        with pytest.raises(StageFailed) as caught:
            exported.prove((BRANCH, SIZE))
        assert "only with other sizes: a size that depends on batch was baked in" in str(caught.value)
        assert "values at net.py:30; tracing kept one side of a branch at net.py:12" in str(caught.value)

    def test_a_size_that_stops_the_file(self, tmp_path: Path) -> None:
        class Baked(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.reshape(int(x.shape[0]), 4, 2).sum(2)

        inputs = {"x": {"shape": [2, 8], "dynamic": {0: "batch"}}}
        with pytest.warns(torch.jit.TracerWarning):
            exported = Exported(Baked(), inputs, tmp_path)
        with pytest.raises(StageFailed) as caught:
            exported.prove()
        assert caught.value.reason.code == "PL-520"
        assert "the size depends on batch and was baked in" in str(caught.value)

    def test_outputs_of_equal_shape_that_changed_places(self, tmp_path: Path) -> None:
        class Two(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"low": x.sin(), "high": x.cos()}

        exported = Exported(Two(), {"x": {"shape": [2, 4]}}, tmp_path)
        assert exported.prove().status == "passed"
        with exported.changed() as model:
            # Another order alone is the contract's matter: outputs go by their names.
            first = model.graph.output[0]
            model.graph.output.append(first)
            del model.graph.output[0]
        assert exported.prove().status == "passed"
        with exported.changed() as model:
            for node in model.graph.node:
                node.op_type = {"Sin": "Cos", "Cos": "Sin"}[node.op_type]
        with pytest.raises(
            StageFailed, match="output low is not what the network computes, but what it gives as high"
        ):
            exported.prove()

    def test_nan_at_another_place(self, small: Exported) -> None:
        with small.weight(2) as weight:
            weight[3] = np.nan
        with pytest.raises(StageFailed) as caught:
            small.prove()
        assert "NaN stands elsewhere: 1 in the file, 0 in the network, first at [0, 3]" in str(caught.value)
        json.dumps(caught.value.measured, allow_nan=False)  # type: ignore[attr-defined]

    def test_optimisation_that_changes_the_result_is_a_warning(
        self, small: Exported, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pipeline.parity import onnxruntime_session

        real = onnxruntime_session.run_onnxruntime

        def wrong(*args: Any, **kwargs: Any) -> Any:
            return {
                label: {name: array * 2 for name, array in outputs.items()}
                for label, outputs in real(*args, **kwargs).items()
            }

        monkeypatch.setattr(onnxruntime_session, "run_onnxruntime", wrong)
        assert small.prove().status == "passed"
        assert small.workspace.findings[0].startswith(
            "ONNX Runtime's own optimisation, which runs after loading"
        )


class TestVacuous:
    def test_a_dead_network(self, tmp_path: Path) -> None:
        network = small_network()
        with torch.no_grad():
            network[5].weight.zero_()  # type: ignore[operator, union-attr]
        verdict = Exported(network, {"x": {"shape": [1, 3, 16, 16]}}, tmp_path).prove()
        assert verdict.status == "vacuous"
        assert verdict.reason is not None
        assert verdict.reason.code == "PL-521"
        assert verdict.reason.message == "output output1 is the same on every input"
        assert "parity.allow_vacuous=true" in str(verdict.reason.next_step)

    def test_a_constant_output_beside_a_live_one_is_a_warning(self, tmp_path: Path) -> None:
        class Anchors(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"live": x.sin(), "anchors": x * 0 + 5}

        exported = Exported(Anchors(), {"x": {"shape": [2, 4]}}, tmp_path)
        verdict = exported.prove()
        assert verdict.status == "passed"
        assert exported.workspace.findings == [
            "output anchors is the same on every input: its comparison proves little"
        ]
        assert {line["output"]: line.get("vacuous") for line in verdict.measured["parity"]} == {
            "live": None, "anchors": "constant",
        }  # fmt: skip

    def test_a_wrong_file_fails_before_it_is_called_vacuous(self, tmp_path: Path) -> None:
        network = small_network()
        with torch.no_grad():
            network[5].weight.zero_()  # type: ignore[operator, union-attr]
        exported = Exported(network, {"x": {"shape": [1, 3, 16, 16]}}, tmp_path)
        with exported.changed() as model:
            model.graph.node[-1].op_type = "Gemm"
            bias = next(t for t in model.graph.initializer if t.name == model.graph.node[-1].input[2])
            bias.CopyFrom(onnx.numpy_helper.from_array(np.ones(10, np.float32), bias.name))
        with pytest.raises(StageFailed, match="PL-520"):
            exported.prove()


class TestContract:
    def test_stages_keep_the_contract(self) -> None:
        for stage in (ReferenceStage(ParityConfig()), ParityStage(ParityConfig()), EvidenceStage()):
            assert isinstance(stage.name, str)
            checked: Stage = stage
            assert checked.key_parts().code
        assert issubclass(Reference, Storable)
        assert issubclass(Signature, Storable)
        assert issubclass(ParityReport, Storable)

    def test_importing_the_stages_needs_no_framework(self) -> None:
        program = (
            "import sys, pipeline.parity.stages as s; from pipeline.parity.config import ParityConfig;"
            "[x.key_parts() for x in (s.ReferenceStage(ParityConfig()), s.ParityStage(ParityConfig()))];"
            "print(sorted({'torch', 'numpy', 'onnx', 'onnxruntime'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_tolerances_do_not_change_the_key_of_the_reference(self) -> None:
        one, other = ReferenceStage(ParityConfig()), ReferenceStage(ParityConfig(k=4, allow_vacuous=True))
        assert one.key_parts() == other.key_parts()
        assert ParityStage(one.config).key_parts() != ParityStage(other.config).key_parts()

    def test_the_reference_stage(self, small: Exported) -> None:
        stage = ReferenceStage(ParityConfig())
        stage.requires(small.workspace)
        assert stage.run(small.workspace).summary == "3 inputs, 1 of them in float64 too"
        stage.ensures(small.workspace)
        reference = small.workspace.get("reference")
        small.workspace.put("reference", replace(reference, outputs={**reference.outputs, "seed2": {}}))
        with pytest.raises(InternalError, match="lacks outputs for seed2"):
            stage.ensures(small.workspace)

    def test_an_output_that_was_left_out_is_our_fault(self, small: Exported) -> None:
        small.prove()
        report = small.workspace.get("parity_report")
        small.workspace.put("parity_report", ParityReport(report.lines[1:]))
        with pytest.raises(InternalError, match="parity left out"):
            ParityStage(ParityConfig()).ensures(small.workspace)

    def test_the_report_can_lie_in_the_cache(self, small: Exported, tmp_path: Path) -> None:
        small.prove()
        report = small.workspace.get("parity_report")
        folder = tmp_path / "stored"
        folder.mkdir()
        report.store(folder)
        assert ParityReport.load(folder) == report


class TestEvidence:
    def test_files_repeat_what_the_network_gave(self, small: Exported, tmp_path: Path) -> None:
        workspace = DictWorkspace(tmp_path, parity_inputs=small.parity_inputs, reference=small.reference,
                                  attempts=Attempts(()))  # fmt: skip
        EvidenceStage().run(workspace)
        EvidenceStage().ensures(workspace)
        assert workspace.files == {
            "samples/inputs.npz": ("samples", True), "samples/expected.npz": ("samples", False),
        }  # fmt: skip
        with (
            np.load(tmp_path / "samples/inputs.npz") as inputs,
            np.load(tmp_path / "samples/expected.npz") as read,
        ):
            assert np.array_equal(small.network.run(inputs)["output1"], read["output1"])

    def test_without_a_comparison_only_inputs_are_written(self, small: Exported, tmp_path: Path) -> None:
        workspace = DictWorkspace(tmp_path, parity_inputs=small.parity_inputs, reference=Reference({}),
                                  attempts=Attempts(()))  # fmt: skip
        EvidenceStage().run(workspace)
        EvidenceStage().ensures(workspace)
        assert list(workspace.files) == ["samples/inputs.npz"]

    def test_a_damaged_file_is_noticed(self, small: Exported, tmp_path: Path) -> None:
        workspace = DictWorkspace(tmp_path, parity_inputs=small.parity_inputs, reference=small.reference,
                                  attempts=Attempts(()))  # fmt: skip
        EvidenceStage().run(workspace)
        other = {"x": small.parity_inputs["seed1"]["x"]}
        np.savez(tmp_path / "samples/inputs.npz", **other)
        with pytest.raises(InternalError, match=r"inputs\.npz does not hold what was written"):
            EvidenceStage().ensures(workspace)


class TestReferenceBeside:
    @pytest.fixture
    def three_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        yield
        torch.set_num_threads(before)

    @pytest.mark.usefixtures("three_threads")
    def test_its_copy_leaves_a_processor_to_the_others(self, tmp_path: Path, small: Exported) -> None:
        workspace = DictWorkspace(tmp_path, network=small.network)
        prepare = ReferenceStage(ParityConfig()).beside(workspace)
        assert prepare is not None
        assert torch.get_num_threads() == 3  # only in the copy
        prepare()
        assert torch.get_num_threads() == 2

    @pytest.mark.parametrize("over", [0, 1])
    def test_a_large_network_has_none(
        self, tmp_path: Path, small: Exported, monkeypatch: pytest.MonkeyPatch, over: int
    ) -> None:
        """The copy would hold on to weights that the worker lets go of."""
        size = sum(tensor.nbytes for tensor in small.network.tensors().values())
        monkeypatch.setattr("pipeline.parity.stages.COPIED_BYTES", size - over)
        workspace = DictWorkspace(tmp_path, network=small.network)
        assert (ReferenceStage(ParityConfig()).beside(workspace) is None) == bool(over)
