"""Compile, execute, compare and bundle, on stand-in backends that do well or badly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.errors import Refused, StageFailed
from pipeline.parity.signature import OutputSpec, Signature
from pipeline.targets.backends import check_request, interpreter, require_packages
from pipeline.targets.compare import TargetReport
from pipeline.targets.compiled import CompiledFiles, TargetOutputs
from pipeline.targets.config import TargetConfig
from pipeline.targets.stages import TargetRequest, target_stages
from tests.targets import stand_ins
from tests.targets.workspace import DictWorkspace, doubling


def request_of(backend: Any, **changes: Any) -> TargetRequest:
    request = TargetRequest(
        "board", backend, {"numpy": "1"}, "float32", dict(backend.option_names), 60.0, None, 1e-4, threads=1
    )
    return replace(request, **changes)


@pytest.fixture
def made(tmp_path: Path) -> tuple[DictWorkspace, Any]:
    return doubling(tmp_path)


class TestWhole:
    def test_everything_that_was_measured_is_in_the_record(self, made: tuple[DictWorkspace, Any]) -> None:
        workspace, specs = made
        verdicts = workspace.walk(*target_stages(request_of(stand_ins.Doubling()), specs, k=16.0))
        target: dict[str, Any] = {}
        for verdict in verdicts:
            target |= verdict.measured.get("target", {})
        json.dumps(target, allow_nan=False)
        assert target["compile_seconds"] >= 0 and target["run_seconds"] > 0
        assert set(target["latency"]) == {"median_ms", "p95_ms", "runs", "threads"}
        assert target["latency"]["runs"] == 50
        assert target["artifact_bytes"] == 15
        assert target["precision"] == {"asked": "float32", "found": "float32", "proof": "by hand"}
        assert target["isolation"]["network"] in ("namespace", "open")
        lines = target["parity"]
        assert [line["seed"] for line in lines] == ["seed0", "seed1", "sizes:batch=3"]
        assert all(line["error"] <= 1e-7 and line["tolerance"] == 1e-4 for line in lines)

    def test_the_bundle_holds_what_is_needed_and_its_program_was_run(
        self, made: tuple[DictWorkspace, Any]
    ) -> None:
        workspace, specs = made
        workspace.walk(*target_stages(request_of(stand_ins.Doubling()), specs, k=16.0))
        folder = workspace.folder / "board" / "bundle"
        assert sorted(path.name for path in folder.iterdir()) == [
            "README.md", "expected.npz", "inputs.npz", "model.json", "names.json", "run.py",
        ]  # fmt: skip
        assert json.loads((folder / "names.json").read_text()) == {"in": "blob0"}
        assert workspace.files["board/bundle/model.json"] == ("bundle", False)
        assert workspace.files["board/bundle/inputs.npz"] == ("bundle", True)
        assert any("out: error 0" in getattr(event, "text", "") for event in workspace.events)
        text = (folder / "run.py").read_text()
        assert "pipeline" not in text and "TOLERANCE = 0.0001" in text

    def test_a_bundle_whose_program_fails_is_no_bundle(self, made: tuple[DictWorkspace, Any]) -> None:
        workspace, specs = made
        stages = target_stages(request_of(BadProgram()), specs, k=16.0)
        workspace.walk(*stages[:3])
        with pytest.raises(StageFailed) as failed:
            workspace.walk(stages[3])
        assert failed.value.reason.code == "PL-650"
        assert "out: error" in str(failed.value.reason.found)

    def test_a_program_that_needs_the_pipeline_fails(self, made: tuple[DictWorkspace, Any]) -> None:
        workspace, specs = made
        stages = target_stages(request_of(NeedsPipeline()), specs, k=16.0)
        workspace.walk(*stages[:3])
        with pytest.raises(StageFailed) as failed:
            workspace.walk(stages[3])
        assert "import pipeline.errors / ModuleNotFoundError" in str(failed.value.reason.found)

    def test_another_precision_than_asked_fails(self, made: tuple[DictWorkspace, Any]) -> None:
        workspace, specs = made
        stages = target_stages(request_of(stand_ins.Imprecise()), specs, k=16.0)
        workspace.walk(stages[0])
        with pytest.raises(StageFailed) as failed:
            workspace.walk(stages[1])
        assert failed.value.reason.code == "PL-648"
        assert failed.value.reason.sentence() == (
            "target.precision: board does not run in the precision that was asked; found bfloat16 "
            "(a property of the tool), expected float32"
        )

    def test_outputs_that_say_nothing_of_the_input_are_vacuous(self, made: tuple[DictWorkspace, Any]) -> None:
        workspace, specs = made
        same = workspace.get("parity_inputs")["seed0"]
        everything = workspace.get("parity_inputs") | {"seed1": same}
        outputs = {label: {"out": values["in"] * 2} for label, values in everything.items()}
        workspace.values |= {
            "parity_inputs": everything,
            "reference": replace(workspace.get("reference"), outputs=outputs),
        }
        verdicts = workspace.walk(*target_stages(request_of(stand_ins.Doubling()), specs, k=16.0))
        assert [verdict.status for verdict in verdicts] == ["passed", "passed", "vacuous", "passed"]
        reason = verdicts[2].reason
        assert reason is not None
        assert (reason.code, reason.message) == ("PL-521", "output out is the same on every input")
        assert "parity.allow_vacuous=true" in str(reason.next_step)

    def test_what_hardly_depends_on_the_input_for_the_target_is_a_warning(
        self, made: tuple[DictWorkspace, Any]
    ) -> None:
        """The comparison of parity says something, that with a tolerance of a half does not."""
        workspace, specs = made
        verdicts = workspace.walk(
            *target_stages(request_of(stand_ins.Doubling(), tolerance=0.5), specs, k=16.0)
        )
        assert verdicts[2].status == "passed"
        said = [event.message for event in workspace.events if getattr(event, "level", "") == "warning"]
        assert [text for text in said if text.endswith("its comparison on board proves little")]

    def test_one_tolerance_in_the_record_the_program_and_the_page(
        self, made: tuple[DictWorkspace, Any]
    ) -> None:
        """A stated tolerance below the network's own rounding, and an element that is the worst of all."""
        workspace, specs = made
        reference = workspace.get("reference")
        (own,) = reference.exact["seed0"].values()
        noisy = own + 1e-6 * np.abs(own).max()
        workspace.values["reference"] = replace(reference, exact={"seed0": {"out": noisy}})
        request = request_of(stand_ins.Doubling(), options={"factor": 2.000002}, tolerance=1e-12)
        verdicts = workspace.walk(*target_stages(request, specs, k=16.0))
        target = verdicts[2].measured["target"]
        assert target["tolerance"] == pytest.approx(16e-6, rel=0.01)
        first = next(line for line in target["parity"] if line["seed"] == "seed0")
        assert first["tolerance"] == target["tolerance"]
        assert first["metric"] == "max |difference| / max |reference|"
        assert f"tolerance {target['tolerance']:.1e}" in verdicts[2].summary
        folder = workspace.folder / "board" / "bundle"
        assert f"TOLERANCE = {target['tolerance']!r}\n" in (folder / "run.py").read_text()
        assert f"up to {target['tolerance']:.3g} of a floating output" in (folder / "README.md").read_text()
        notes = [event.message for event in workspace.events if getattr(event, "level", "") == "info"]
        assert any("asks for more than the tolerance 1e-12 in float32: 1.6e-05 is taken" in x for x in notes)

    def test_wrong_numbers_fail_with_output_and_place(self, made: tuple[DictWorkspace, Any]) -> None:
        workspace, specs = made
        request = request_of(stand_ins.Doubling(), options={"factor": 2.001})
        with pytest.raises(StageFailed) as failed:
            workspace.walk(*target_stages(request, specs, k=16.0))
        reason = failed.value.reason
        assert reason.code == "PL-649"
        assert reason.message == "output out of board in float32 is not what the network computes"
        assert str(reason.where).startswith("out, inputs ")
        assert "an error of 0.0005 at element [" in str(reason.found)
        assert failed.value.measured["target"]["worst"]["error"] == pytest.approx(5e-4, rel=0.01)

    def test_a_file_that_takes_something_else_never_reaches_the_backend(
        self, made: tuple[DictWorkspace, Any]
    ) -> None:
        workspace, specs = made
        workspace.values["signature"] = Signature((OutputSpec("other", "float32", (2, 3)),))
        with pytest.raises(StageFailed) as failed:
            workspace.walk(target_stages(request_of(stand_ins.Aborting()), specs, k=16.0)[0])
        assert failed.value.reason.code == "PL-652"

    def test_what_an_earlier_try_left_is_not_found(self, made: tuple[DictWorkspace, Any]) -> None:
        workspace, specs = made
        stage = target_stages(request_of(stand_ins.Doubling()), specs, k=16.0)[0]
        workspace.walk(stage)
        with pytest.raises(StageFailed, match="missing or empty"):
            workspace.walk(target_stages(request_of(stand_ins.Boasting()), specs, k=16.0)[0])


@dataclass(frozen=True)
class BadProgram(stand_ins.Doubling):
    def program(self, job: Any, compiled: Any) -> str:
        return super().program(job, compiled).replace('inputs["in"] *', '1 + inputs["in"] *')


@dataclass(frozen=True)
class NeedsPipeline(stand_ins.Doubling):
    def program(self, job: Any, compiled: Any) -> str:
        return "import pipeline.errors\n" + super().program(job, compiled)


class TestArtifacts:
    def test_compiled_files_survive_their_folder_and_the_cache(
        self, made: tuple[DictWorkspace, Any], tmp_path: Path
    ) -> None:
        workspace, specs = made
        workspace.walk(target_stages(request_of(stand_ins.Doubling()), specs, k=16.0)[0])
        compiled: CompiledFiles = workspace.get("compiled")
        shutil.rmtree(workspace.scratch)
        (tmp_path / "entry").mkdir()
        compiled.store(tmp_path / "entry")
        again = CompiledFiles.load(tmp_path / "entry")
        assert again.compiled == compiled.compiled
        assert (again.inputs, again.outputs) == (compiled.inputs, compiled.outputs)
        assert again.inputs[0].shape == ("batch", 3)
        assert (again.inputs[0].smallest, again.inputs[0].largest) == ((1, 3), (8, 3))
        assert bytes(again.data["model.json"]) == b'{"factor": 2.0}'

    def test_outputs_and_report_come_back_as_they_were(self, tmp_path: Path) -> None:
        arrays = {"seed0": {"a/b.1": np.arange(3), "c": np.ones((2, 2), np.float16)}}
        TargetOutputs(arrays, "float16", "there").store(tmp_path)
        again = TargetOutputs.load(tmp_path)
        assert (again.precision, again.proof) == ("float16", "there")
        assert list(again.outputs["seed0"]) == ["a/b.1", "c"]
        np.testing.assert_array_equal(again.outputs["seed0"]["a/b.1"], arrays["seed0"]["a/b.1"])
        assert again.outputs["seed0"]["c"].dtype == np.float16
        report = TargetReport(({"seed": "seed0", "output": "c", "tolerance": 1.0, "metric": "x"},), 1e-3)
        report.store(tmp_path)
        assert TargetReport.load(tmp_path) == report


class TestRequest:
    @dataclass(frozen=True)
    class Absent(stand_ins.Doubling):
        name: ClassVar[str] = "absent"
        packages: ClassVar[tuple[str, ...]] = ("numpy", "no-such-distribution")
        extra: ClassVar[str] = "absent"

    def test_a_missing_package_is_one_sentence_with_the_extra(self) -> None:
        with pytest.raises(Refused) as refused:
            require_packages(self.Absent())
        assert refused.value.reason.sentence() == (
            "target=absent: the target absent needs the package no-such-distribution, which is not "
            "installed, expected numpy, no-such-distribution. "
            "Type pip install 'onnx-export-pipeline[absent]'"
        )

    def test_another_interpreter_is_asked_for_its_packages(self, tmp_path: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
        python = str(tmp_path / "v" / "bin" / "python")
        with pytest.raises(Refused) as refused:
            require_packages(stand_ins.Doubling(), python)
        assert refused.value.reason.code == "PL-641"
        assert refused.value.reason.next_step == f"Type {python} -m pip install numpy"
        with pytest.raises(Refused) as refused:
            require_packages(stand_ins.Doubling(), str(tmp_path / "nothing"))
        assert refused.value.reason.code == "PL-651"

    def test_an_interpreter_may_be_named_in_three_ways(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Relative to where we are: the child process is somewhere else."""
        (tmp_path / "bin").mkdir()
        link = tmp_path / "bin" / "other-python"
        link.symlink_to(sys.executable)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        assert interpreter("bin/other-python") == str(link)
        assert interpreter("other-python") == str(link)
        assert interpreter(None) == sys.executable

    def test_what_the_backend_does_not_take_is_refused(self) -> None:
        backend = stand_ins.Doubling()
        with pytest.raises(Refused, match=r"does not run in float16.*expected float32"):
            check_request(backend, "float16", {})
        with pytest.raises(Refused, match=r"no option facto.*Type target.options.factor=3"):
            check_request(backend, "float32", {"facto": 3})
        with pytest.raises(Refused, match=r"of another type.*Type target.options.factor=2.0"):
            check_request(backend, "float32", {"factor": "much"})
        assert check_request(backend, "float32", {"factor": 3}) == {"factor": 3}

    def test_keys_hold_what_shapes_the_files(self, made: tuple[DictWorkspace, Any]) -> None:
        _, specs = made
        base = request_of(stand_ins.Doubling())

        def parts(request: TargetRequest) -> list[Any]:
            return [stage.key_parts() for stage in target_stages(request, specs, k=16.0)]

        same = parts(replace(base, timeout_s=1.0, threads=7))
        assert same == parts(base)
        assert parts(replace(base, options={"factor": 3.0}))[0] != parts(base)[0]
        assert parts(replace(base, precision="float16"))[0] != parts(base)[0]
        looser = parts(replace(base, tolerance=1.0))
        assert looser[:2] == parts(base)[:2] and looser[2] != parts(base)[2]
        other = request_of(stand_ins.Grumbling())
        assert parts(other)[0].extra["backend"] == parts(base)[0].extra["backend"]  # one module

    def test_the_default_target_is_there_without_an_extra(self) -> None:
        request = TargetRequest.of(TargetConfig(name="onnxruntime"), tolerances={"float32": 2e-4})
        assert request.tolerance == 2e-4
        assert set(request.versions) == {"onnxruntime"}

    def test_stages_import_without_numpy_and_onnx(self) -> None:
        code = (
            "import sys, pipeline.targets.stages, pipeline.targets.backends as b;"
            "[b.backend_of(n) for n in ('onnxruntime', 'openvino')];"
            "print([m for m in ('numpy', 'onnx', 'torch', 'onnxruntime', 'openvino') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


def test_a_dynamic_axis_states_its_bounds(tmp_path: Path) -> None:
    from pipeline.samples.spec import parse_inputs
    from pipeline.targets.interface import input_specs

    specs = parse_inputs({
        "x": {"shape": [2, 96], "dynamic": {1: {"name": "width", "min": 33, "max": 640, "multiple_of": 32}}},
        "y": {"shape": [2, 96], "dynamic": {0: "batch"}},
    })  # fmt: skip
    samples: Mapping[str, Any] = {"x": np.zeros((2, 96)), "y": np.zeros((2, 96))}
    x, y = input_specs(specs, samples)
    assert (x.shape, x.smallest, x.largest, x.example) == ((2, "width"), (2, 64), (2, 640), (2, 96))
    assert (y.smallest, y.largest) == ((1, 96), ())
