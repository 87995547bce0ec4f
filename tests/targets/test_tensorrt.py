"""TensorRT without TensorRT: the files that a run hands over, held to the documented interface by stand-ins.

`fakes/` has a tensorrt package (10.x and 11.x), a trtexec and a CUDA runtime that know the documented
calls and flags and nothing else, and compute with ONNX Runtime. A real engine was never built here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from pipeline.errors import Refused, StageFailed
from pipeline.parity.onnxruntime_session import run_onnxruntime
from pipeline.parity.reference import Reference
from pipeline.samples.spec import InputSpecs
from pipeline.targets.config import TargetConfig
from pipeline.targets.handover_stage import HandoverStage, handover_stages
from pipeline.targets.tensorrt import found as finding
from pipeline.targets.tensorrt.backend import BACKEND
from pipeline.targets.tensorrt.found import find_tensorrt
from pipeline.targets.tensorrt.settings import profiles_of, settings, shell_script, trtexec_words
from tests.targets.handing_over import Folder, profile, specs, workspace

FAKES = Path(__file__).parent / "fakes"
VERSIONS = ("10.15.1.29", "11.4.0.106")
DYNAMIC = {"x:0": {"shape": [2, 3, 8, 8], "dynamic": {0: {"name": "batch", "min": 1, "max": 4}}}}
STATIC = {"x:0": {"shape": [2, 3, 8, 8]}}

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the CUDA stand-in needs a C compiler")


def _model(batch: int | str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\ng (float[{batch}, 3, 8, 8] x) => (float[{batch}, 4] y) {{\n'
        "c = Conv<kernel_shape = [3, 3]>(x, w)\n r = Relu(c)\n p = GlobalAveragePool(r)\n y = Flatten(p) }"
    )
    model.graph.input[0].name = model.graph.node[0].input[0] = "x:0"
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def _space(root: Path, given: InputSpecs) -> Folder:
    """A run directory whose reference is what ONNX Runtime gives."""
    model = _model("batch" if given.axes else 2)
    space = workspace(root, model, given)
    outputs = run_onnxruntime(space.values["model"].path, space.values["parity_inputs"])
    space.values["reference"] = Reference(outputs)
    return space


def _handed_over(root: Path, inputs: dict[str, Any] = STATIC, **target: Any) -> Path:
    """The folder `tensorrt` of a run."""
    given = specs(inputs)
    stage = _stage(given, **target)
    space = _space(root, given)
    stage.requires(space)
    stage.run(space)
    stage.ensures(space)
    assert any("unverified on this machine" in sentence for sentence in space.warnings)
    return space.root / "tensorrt"


def _stage(given: InputSpecs, **target: Any) -> HandoverStage:
    (stage,) = handover_stages(TargetConfig(name="tensorrt", **target), profile("tensorrt"), given)
    assert isinstance(stage, HandoverStage)
    return stage


@pytest.fixture(scope="session")
def cudart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in of the CUDA runtime."""
    library = tmp_path_factory.mktemp("cudart") / "libcudart.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(FAKES / "cudart.c")], check=True)
    return library


@pytest.fixture
def program(tmp_path: Path, cudart: Path) -> Any:
    """Run a script of a handed-over folder with the stand-ins; `api` False: trtexec alone."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    trtexec = binaries / "trtexec"
    trtexec.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKES / "trtexec"}" "$@"\n')
    trtexec.chmod(0o755)
    calls = tmp_path / "calls.jsonl"

    def run(script: Path, version: str = VERSIONS[0], *, api: bool = True, **more: str) -> Any:
        environment = {
            "PATH": f"{binaries}:{os.environ['PATH']}", "CUDART": str(cudart), "FAKE_TENSORRT_VERSION": version,
            "FAKE_TENSORRT_CALLS": str(calls), **({"PYTHONPATH": str(FAKES)} if api else {}), **more,
        }  # fmt: skip
        start = ["sh"] if script.suffix == ".sh" else [sys.executable]
        return subprocess.run(
            [*start, str(script)], env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    run.calls = calls  # type: ignore[attr-defined]
    return run


def _calls(run: Any) -> dict[str, Any]:
    return {line[0]: line[1] for line in map(json.loads, run.calls.read_text().splitlines())}


@pytest.mark.parametrize(
    ("version", "inputs"),
    [
        pytest.param(VERSIONS[0], STATIC, id="static-10"),
        pytest.param(VERSIONS[1], DYNAMIC, id="dynamic-11"),
        pytest.param(VERSIONS[0], DYNAMIC, id="dynamic-10", marks=pytest.mark.slow),
        pytest.param(VERSIONS[1], STATIC, id="static-11", marks=pytest.mark.slow),
    ],
)
def test_built_and_run_by_the_python_api(
    tmp_path: Path, program: Any, version: str, inputs: dict[str, Any]
) -> None:
    folder = _handed_over(tmp_path / "run", inputs)
    built = program(folder / "build.py", version)
    assert built.returncode == 0, built.stderr
    facts = json.loads(built.stdout)
    assert facts["version"] == version
    assert facts["tf32"] is False
    assert facts["types"] == {"x:0": "FLOAT", "y": "FLOAT"}
    assert set(facts["layer_types"]) == {"float32"}
    done = _calls(program)["build"]
    assert done["flags"] == []
    assert done["level"] == 3
    assert done["verbosity"] == "ProfilingVerbosity.DETAILED"
    wanted = {} if inputs is STATIC else {"x:0": [[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]]}
    assert done["profiles"] == wanted
    ran = program(folder / "run.py", version)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert ran.stdout.startswith("y: error ")
    assert ran.stdout.rstrip().endswith("passed")


@pytest.mark.slow
def test_timings_are_used_again_and_those_of_another_version_are_not(tmp_path: Path, program: Any) -> None:
    folder = _handed_over(tmp_path / "run")
    caches = []
    for version in (VERSIONS[0], VERSIONS[0], VERSIONS[1]):
        assert program(folder / "build.py", version).returncode == 0
        caches.append(_calls(program)["build"]["cache"])
    assert caches == ["", f"timings of {VERSIONS[0]}", ""]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "parse",
            "does not take the file at node /strange/Det (Det): Unsupported operator; Unsupported operator",
        ),
        ("build", "TensorRT built no engine"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_no_engine_is_a_failure_in_one_sentence(
    tmp_path: Path, program: Any, fault: str, said: str, version: str
) -> None:
    folder = _handed_over(tmp_path / "run")
    (folder / "model.plan").write_bytes(b"yesterday's engine")
    built = program(folder / "build.py", version, FAKE_TENSORRT_FAULT=fault)
    assert built.returncode == 1
    assert said in built.stderr
    assert "Traceback" not in built.stderr
    assert not (folder / "model.plan").exists()


@pytest.mark.slow
def test_old_versions_and_missing_packages(tmp_path: Path, program: Any) -> None:
    folder = _handed_over(tmp_path / "run")
    assert "8.6.1 is too old" in program(folder / "build.py", "8.6.1").stderr
    assert "cannot be imported" in program(folder / "build.py", api=False).stderr
    missing = program(folder / "run.py")
    assert (missing.returncode, "run build.py or build.sh first" in missing.stderr) == (1, True)


def test_an_engine_that_computes_something_else(tmp_path: Path, program: Any) -> None:
    folder = _handed_over(tmp_path / "run")
    assert program(folder / "build.py").returncode == 0
    ran = program(folder / "run.py", FAKE_TENSORRT_FAULT="wrong")
    assert ran.returncode == 1
    assert "y: error 1, tolerance 0.0001: FAILED" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "said"), [("run", "could not run"), ("context", "no execution context")])
def test_an_engine_that_does_not_run(tmp_path: Path, program: Any, fault: str, said: str) -> None:
    folder = _handed_over(tmp_path / "run")
    assert program(folder / "build.py").returncode == 0
    ran = program(folder / "run.py", FAKE_TENSORRT_FAULT=fault)
    assert ran.returncode == 1
    assert said in ran.stderr


@pytest.mark.slow
def test_an_engine_of_another_version(tmp_path: Path, program: Any) -> None:
    folder = _handed_over(tmp_path / "run")
    assert program(folder / "build.py", VERSIONS[0]).returncode == 0
    ran = program(folder / "run.py", VERSIONS[1])
    assert ran.returncode == 1
    assert "does not load model.plan" in ran.stderr


@pytest.mark.slow
def test_sizes_outside_the_profile_are_refused_by_run(tmp_path: Path, program: Any) -> None:
    folder = _handed_over(tmp_path / "run", DYNAMIC)
    assert program(folder / "build.py").returncode == 0
    np.savez(folder / "inputs.npz", **{"x:0": np.zeros((5, 3, 8, 8), np.float32)})
    ran = program(folder / "run.py")
    assert "does not take the size [5, 3, 8, 8]" in ran.stderr
    np.savez(folder / "inputs.npz", **{"x:0": np.zeros((2, 3, 8, 8), np.float64)})
    assert "is float64, the engine takes float32" in program(folder / "run.py").stderr


@pytest.mark.parametrize("inputs", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_built_and_run_by_trtexec(tmp_path: Path, program: Any, inputs: dict[str, Any]) -> None:
    folder = _handed_over(tmp_path / "run", inputs)
    built = program(folder / "build.sh", api=False)
    assert built.returncode == 0, built.stderr
    assert (folder / "model.plan").is_file()
    ran = program(folder / "run.py", api=False)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "passed" in ran.stdout


@pytest.mark.parametrize("fault", ["nothing", "error"])
def test_trtexec_is_not_trusted(tmp_path: Path, program: Any, fault: str) -> None:
    folder = _handed_over(tmp_path / "run")
    (folder / "model.plan").write_bytes(b"yesterday's engine")
    built = program(folder / "build.sh", api=False, FAKE_TRTEXEC_FAULT=fault)
    assert built.returncode != 0
    assert not (folder / "model.plan").exists()


def test_flags_of_trtexec() -> None:
    words = trtexec_words(settings("../model.onnx", profiles_of(specs(DYNAMIC)), {}, tolerance=1e-4))
    assert words == [
        "--onnx=../model.onnx", "--saveEngine=model.plan", "--stronglyTyped", "--noTF32",
        "--timingCacheFile=timing.cache", "--memPoolSize=workspace:1024", "--builderOptimizationLevel=3",
        "--profilingVerbosity=detailed", "--skipInference", "--minShapes='x:0':1x3x8x8",
        "--optShapes='x:0':2x3x8x8", "--maxShapes='x:0':4x3x8x8",
    ]  # fmt: skip
    for gone in ("--fp16", "--bf16", "--int8", "--best", "--fp8"):
        assert gone not in words
    script = shell_script(settings("it's.onnx", {}, {"version_compatible": True}, tolerance=1e-4))
    assert "--versionCompatible" in script
    assert "'--onnx=it'\"'\"'s.onnx'" in script


def test_float16_is_made_in_the_file_and_proved(tmp_path: Path, program: Any) -> None:
    folder = _handed_over(tmp_path / "run", precision="float16")
    model = onnx.load(folder / "model.float16.onnx")
    assert {tensor.data_type for tensor in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    found = json.loads((folder / "settings.json").read_text())
    assert (found["model"], found["tolerance"]) == ("model.float16.onnx", 5e-3)
    built = program(folder / "build.py", VERSIONS[1])
    assert built.returncode == 0, built.stderr
    assert set(json.loads(built.stdout)["layer_types"]) == {"float16"}
    assert program(folder / "run.py", VERSIONS[1]).returncode == 0
    assert "model.float16.onnx" in (folder / "README.md").read_text()


def test_float16_that_computes_something_else_is_a_failure(tmp_path: Path) -> None:
    given = specs(STATIC)
    space = _space(tmp_path / "run", given)
    model = onnx.load(space.values["model"].path)
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.float32(1e6)  # beyond its range
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    space.values["model"].path.write_bytes(model.SerializeToString())
    space.values["reference"] = Reference(
        run_onnxruntime(space.values["model"].path, space.values["parity_inputs"])
    )
    with pytest.raises(StageFailed, match=r"PL-649.*target.precision=float32"):
        _stage(given, precision="float16").run(space)


def test_refused_before_work() -> None:
    unbounded = specs({"x": {"shape": [2, 3, 8, 8], "dynamic": {0: "batch"}}})
    with pytest.raises(Refused) as error:
        _stage(unbounded)
    assert error.value.reason.code == "PL-624"
    assert "'model.inputs.x.dynamic={0: {name: batch, max: 8}}'" in str(error.value.reason.next_step)
    with pytest.raises(Refused, match="0 to 5"):
        _stage(specs(STATIC), options={"builder_optimization_level": 9})


def test_the_page_says_that_nothing_was_built(tmp_path: Path) -> None:
    text = (_handed_over(tmp_path / "run", DYNAMIC) / "README.md").read_text()
    assert "**The engine build is unverified on this machine: there is no NVIDIA GPU.**" in text
    assert "from [1, 3, 8, 8] to [4, 3, 8, 8], fastest at [2, 3, 8, 8]" in text


# the backend, which runs where the machine has what it takes


def test_what_a_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(finding, "GPU_DEVICES", (tmp_path / "nvidiactl",))
    assert find_tensorrt().missing == "there is no NVIDIA GPU"
    (tmp_path / "nvidiactl").touch()
    assert "not installed, and trtexec is not on the PATH" in str(find_tensorrt().missing)
    (tmp_path / "trtexec").write_text("#!/bin/sh\n")
    (tmp_path / "trtexec").chmod(0o755)
    assert find_tensorrt() == finding.Found(None, str(tmp_path / "trtexec"), None)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 11.4.0\n")
    python.chmod(0o755)
    assert find_tensorrt(str(python)).version == "11.4.0"
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'ImportError: libnvonnxparser.so.11' >&2\nexit 1\n")
    broken.chmod(0o755)
    (tmp_path / "trtexec").unlink()
    assert "libnvonnxparser.so.11" in str(find_tensorrt(str(broken)).missing)


_BACKEND = """
import json, sys
from pathlib import Path
import numpy as np
from pipeline.targets.backend import BackendError, Compiled, Job, TensorSpec
from pipeline.targets.tensorrt import BACKEND

root, step, precision = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
largest = json.loads(sys.argv[4])
x = TensorSpec("x:0", "float32", ("batch", 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8), tuple(largest))
y = TensorSpec("y", "float32", ("batch", 4), (2, 4))
(root / "scratch").mkdir(exist_ok=True)
(root / "engine").mkdir(exist_ok=True)
job = Job(root / "model.onnx", root / "engine", root / "scratch", (x,), (y,), precision, {}, 1, 60.0, 5e-3)
try:
    if step == "compile":
        made = BACKEND.compile(job)
        (root / "compiled.json").write_text(json.dumps([made.files, made.precision, made.proof, made.facts]))
        (root / "engine" / "run.py").write_text(BACKEND.program(job, made))
        (root / "engine" / "README.md").write_text(BACKEND.page(job, made))
    else:
        files, found, proof, facts = json.loads((root / "compiled.json").read_text())
        runner = BACKEND.load(job, Compiled(tuple(files), {}, found, proof, facts))
        np.savez(root / "outputs.npz", **runner.run(dict(np.load(root / "inputs.npz"))))
        print(*runner.precision())
except BackendError as error:
    print("BackendError:", error.sentence, "|", error.node, "|", error.operator)
    sys.exit(3)
"""


def _backend(program: Any, root: Path, step: str, precision: str = "float32", **more: Any) -> Any:
    script = root / "backend.py"
    script.write_text(_BACKEND)
    largest = more.pop("largest", [4, 3, 8, 8])
    api = more.pop("api", True)
    wrapper = root / f"{step}.py"
    wrapper.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        f"sys.argv = ['', {str(root)!r}, {step!r}, {precision!r}, {json.dumps(largest)!r}]\n"
        f"exec(compile(open({str(script)!r}).read(), 'backend.py', 'exec'))\n"
    )
    return program(wrapper, VERSIONS[1], api=api, **more)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("api", [True, False], ids=["api", "trtexec"])
def test_the_backend_builds_loads_and_runs(tmp_path: Path, program: Any, precision: str, api: bool) -> None:
    space = _space(tmp_path / "run", specs(DYNAMIC))
    inputs = space.values["parity_inputs"]["seed0"]
    expected = space.values["reference"].outputs["seed0"]
    np.savez(space.root / "inputs.npz", **inputs)
    compiled = _backend(program, space.root, "compile", precision, api=api)
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
    files, found, proof, facts = json.loads((space.root / "compiled.json").read_text())
    assert files == ["model.plan", "settings.json", "timing.cache"]
    assert found == precision
    assert ("engine inspector" in proof) == api
    assert facts["how"].startswith("TensorRT 11" if api else "trtexec")
    ran = _backend(program, space.root, "run", precision, api=api)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with np.load(space.root / "outputs.npz") as outputs:
        assert np.abs(outputs["y"] - expected["y"]).max() / np.abs(expected["y"]).max() < 5e-3
    engine = space.root / "engine"
    shutil.copy(space.root / "inputs.npz", engine)
    np.savez(engine / "expected.npz", **expected)
    bundle = program(engine / "run.py", VERSIONS[1], api=api)
    assert bundle.returncode == 0, bundle.stdout + bundle.stderr
    assert "TF32 is off" in (engine / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"FAKE_TENSORRT_FAULT": "parse"}, "| /strange/Det | Det"),
        ({"FAKE_TENSORRT_FAULT": "build"}, "built no engine"),
        ({"FAKE_TENSORRT_FAULT": "tf32"}, "left TF32 on"),
        ({"largest": []}, "no largest size"),
        ({"api": False, "FAKE_TRTEXEC_FAULT": "error"}, "no implementation for node /strange/Det"),
        ({"api": False, "FAKE_TRTEXEC_FAULT": "nothing"}, "trtexec built no engine"),
    ],
)
def test_the_backend_says_what_went_wrong(tmp_path: Path, program: Any, more: Any, said: str) -> None:
    space = _space(tmp_path / "run", specs(DYNAMIC))
    done = _backend(program, space.root, "compile", **more)
    assert done.returncode == 3, done.stdout + done.stderr
    assert said in done.stdout


def test_a_damaged_engine_is_not_loaded(tmp_path: Path, program: Any) -> None:
    space = _space(tmp_path / "run", specs(DYNAMIC))
    np.savez(space.root / "inputs.npz", **space.values["parity_inputs"]["seed0"])
    assert _backend(program, space.root, "compile").returncode == 0
    engine = space.root / "engine" / "model.plan"
    engine.write_bytes(b'{"version": "1.0.0"}\n' + engine.read_bytes())
    done = _backend(program, space.root, "run")
    assert done.returncode == 3
    assert "does not load model.plan" in done.stdout


def test_the_backend_is_one() -> None:
    from pipeline.targets.backends import backend_of, check_request, require_packages

    assert backend_of("tensorrt") is BACKEND
    assert require_packages(BACKEND) == {}
    assert check_request(BACKEND, "float16", {})["workspace_mib"] == 1024
