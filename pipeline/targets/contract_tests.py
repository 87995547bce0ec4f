"""What every backend must do, as tests: ours pass them, and a third party's proves itself with them.

    # tests/test_my_backend.py
    from pipeline.targets.contract_tests import BackendContract
    from my_package.backend import BACKEND

    class TestMyBackend(BackendContract):
        backend = BACKEND

The class attributes say what the backend cannot do; a test of what it cannot do then asks for a
clear refusal instead. Needs pytest.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import pytest

from pipeline.errors import Refused, StageFailed
from pipeline.graph.dtypes import element_type
from pipeline.targets.backend import TensorSpec, serves
from pipeline.targets.backends import check_request, require_packages
from pipeline.targets.compiled import CompiledFiles, TargetOutputs
from pipeline.targets.jobs import compile_model, run_compiled
from pipeline.targets.messages import Timing
from pipeline.targets.stages import TOLERANCES, TargetRequest

if TYPE_CHECKING:
    import onnx

Arrays = Mapping[str, Any]

#: Latency is not what these tests are about.
QUICK: Final = Timing(runs=2, seconds=1.0, warm_up_runs=0, warm_up_seconds=0.0)

TWO: Final = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[1,3,8,8] image, float[1,4,8,8] mask) => (float[1,4,8,8] mixed, float[1,4] pooled)
{
    features = Conv <pads = [1, 1, 1, 1]> (image, weight)
    active = Relu (features)
    mixed = Add (active, mask)
    mean = GlobalAveragePool (mixed)
    pooled = Flatten (mean)
}
"""
DYNAMIC: Final = """
<ir_version: 8, opset_import: ["" : 17]>
dynamic (float[batch,3,8,8] image) => (float[batch,5] logits)
{
    features = Conv <pads = [1, 1, 1, 1]> (image, weight)
    active = Relu (features)
    mean = GlobalAveragePool (active)
    flat = Flatten (mean)
    logits = Gemm <transB = 1> (flat, head)
}
"""
NAMED: Final = """
<ir_version: 8, opset_import: ["" : 17]>
named (float[1,3,8,8] image, float[1,4,8,8] mask) => (float[1,4,8,8] mixed, float[1,4] pooled)
{
    features = Conv <pads = [1, 1, 1, 1]> (image, weight)
    mixed = Add (features, mask)
    mean = GlobalAveragePool (mixed)
    pooled = Flatten (mean)
}
"""
#: What the values of `NAMED` are called instead: ONNX allows every text.
NAMES: Final = {"image": "x.1/in", "mask": "x.2:0", "mixed": "/out.y/1", "pooled": "out.y/2"}
INTEGERS: Final = """
<ir_version: 8, opset_import: ["" : 17]>
integers (float[1,3,8,8] image) => (int64[1,8,8] classes, float[1,4,8,8] scores)
{
    features = Conv <pads = [1, 1, 1, 1]> (image, weight)
    scores = Relu (features)
    classes = ArgMax <axis = 1, keepdims = 0> (features)
}
"""
UNSUPPORTED: Final = """
<ir_version: 8, opset_import: ["" : 17, "example.unknown" : 1]>
unsupported (float[1,3,8,8] image) => (float[1,3,8,8] changed)
{
    active = Relu (image)
    changed = example.unknown.NobodyKnowsThis (active)
}
"""


class BackendContract:
    """Derive, set `backend`, and let pytest collect the class.

    Attributes:
        backend: an instance, as its entry point names it.
        dynamic_batch: False: a dynamic axis must be refused by compile or run, never computed wrongly.
        integer_outputs: False: int64 outputs must be refused.
        precision: what it is asked for where a test does not say; float32 where it knows that.
        tolerance: max |difference| / max |reference| in that precision.
        timeout_s: for each child process.
    """

    backend: ClassVar[Any] = None
    dynamic_batch: ClassVar[bool] = True
    integer_outputs: ClassVar[bool] = True
    precision: ClassVar[str] = "float32"
    tolerance: ClassVar[float] = TOLERANCES["float32"]
    timeout_s: ClassVar[float] = 300.0

    @pytest.fixture(autouse=True)
    def _needs_its_packages(self) -> None:
        _packages_or_skip(self)

    @pytest.fixture(scope="class")
    @classmethod
    def two(cls, tmp_path_factory: pytest.TempPathFactory) -> Trial:
        """`TWO`, compiled and run once for all tests of the class."""
        contract = cls()
        _packages_or_skip(contract)
        trial = Trial(contract, tmp_path_factory.mktemp("two"), TWO)
        trial.made = trial.compile()
        trial.found = trial.run(trial.made, trial.samples())
        return trial

    # -- what it must do --------------------------------------------------------------------------

    def test_two_inputs_two_outputs(self, two: Trial) -> None:
        two.expect_right(two.found)

    def test_dynamic_batch(self, tmp_path: Path) -> None:
        trial = Trial(self, tmp_path, DYNAMIC)
        if self.dynamic_batch:
            made = trial.compile()
            trial.expect_right(trial.run(made, trial.samples(batch=2) | trial.samples(batch=3)))
        else:
            with pytest.raises(StageFailed):
                trial.run(trial.compile(), trial.samples(batch=2) | trial.samples(batch=3))

    def test_names_with_slashes_dots_and_colons(self, tmp_path: Path) -> None:
        trial = Trial(self, tmp_path, NAMED, NAMES)
        trial.expect_right(trial.run(trial.compile(), trial.samples()))

    def test_int64_output(self, tmp_path: Path) -> None:
        trial = Trial(self, tmp_path, INTEGERS)
        if self.integer_outputs:
            trial.expect_right(trial.run(trial.compile(), trial.samples()))
        else:
            with pytest.raises(StageFailed):
                trial.run(trial.compile(), trial.samples())

    def test_weights_beside_the_file(self, tmp_path: Path) -> None:
        trial = Trial(self, tmp_path, TWO, external_data=True)
        trial.expect_right(trial.run(trial.compile(), trial.samples()))

    def test_precision_is_set_and_read_back(self, two: Trial) -> None:
        assert serves(self.precision, two.found.precision), two.found.precision
        assert two.found.proof

    def test_float16_is_another_computation(self, tmp_path: Path) -> None:
        """Where it is offered: within its own tolerance, read back, and not float32 under another name."""
        if "float16" not in self.backend.precisions:
            with pytest.raises(Refused):
                check_request(self.backend, "float16", {})
            return
        trial = Trial(self, tmp_path, TWO, precision="float16")
        found = trial.run(trial.compile(), trial.samples())
        assert serves("float16", found.precision), found.precision
        trial.expect_right(found, tolerance=TOLERANCES["float16"])
        errors = [trial.error(name, "seed0", array) for name, array in found.outputs["seed0"].items()]
        assert max(errors) > 2e-6, "float16 gives what float32 gives: it is not in force"

    def test_bundle_program_and_page(self, two: Trial, tmp_path: Path) -> None:
        """run.py reproduces the outputs without the pipeline, and fails on wrong ones."""
        folder = two.bundle(two.made)
        done = run_program(folder, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        expected = dict(np.load(folder / "expected.npz"))
        expected["pooled"] = expected["pooled"] * np.float32(1.1)
        np.savez(folder / "expected.npz", **expected)
        assert run_program(folder, tmp_path).returncode == 1
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert "run.py" in text
        assert "inputs.npz" in text

    # -- how it must fail -------------------------------------------------------------------------

    def test_unsupported_operator_is_named(self, tmp_path: Path) -> None:
        trial = Trial(self, tmp_path, UNSUPPORTED)
        with pytest.raises(StageFailed) as failed:
            trial.compile()
        assert failed.value.reason.code == "PL-643"
        assert "NobodyKnowsThis" in failed.value.reason.sentence()

    def test_file_that_is_no_model_is_refused(self, tmp_path: Path) -> None:
        trial = Trial(self, tmp_path, TWO)
        trial.model.write_bytes(b"\x08\x08no model at all")
        with pytest.raises(StageFailed):
            trial.compile()

    def test_corrupt_compiled_file_is_refused(self, two: Trial) -> None:
        """Each file cut in half: an error, or (a file that is not needed) the right outputs; never wrong ones."""
        trial, made = two, two.made
        refused = {}
        for name, data in made.data.items():
            cut = CompiledFiles(
                {**made.data, name: data[: len(data) // 2]}, made.compiled, made.inputs, made.outputs
            )
            try:
                found = trial.run(cut, trial.samples())
            except StageFailed as error:
                refused[name] = error.reason.code
            else:
                trial.expect_right(found)
        assert made.compiled.files[0] in refused
        assert set(refused.values()) <= {"PL-645", "PL-646"}

    def test_wrong_inputs_are_refused(self, two: Trial) -> None:
        """Before the runtime sees them: many run with missing or swapped inputs and give numbers."""
        good = two.samples()["seed0"]
        for bad in ({"image": good["image"]}, {"image": good["mask"], "mask": good["image"]}):
            with pytest.raises(StageFailed) as failed:
                two.run(two.made, {"seed0": bad})
            assert failed.value.reason.code == "PL-646"

    def test_unknown_option_is_refused(self) -> None:
        with pytest.raises(Refused):
            check_request(self.backend, self.precision, {"no_such_option": 1})

    # -- how it must be made ----------------------------------------------------------------------

    def test_its_module_imports_no_package_of_its_own(self) -> None:
        """The command line's process asks a backend for its name and options, and must stay light."""
        module = type(self.backend).__module__
        heavy = ["numpy", "onnx", "onnxruntime", "torch", "openvino", "tvm", "ncnn", "MNN", "tensorrt"]
        code = f"import sys, {module}; print([one for one in {heavy!r} if one in sys.modules])"
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == "[]"

    def test_it_is_made_without_arguments(self) -> None:
        """The child process makes its own."""
        assert type(self.backend)() == self.backend
        assert self.precision in self.backend.precisions
        assert self.backend.packages
        assert self.backend.name


def _packages_or_skip(contract: BackendContract) -> None:
    assert contract.backend is not None, "set `backend` in the class that derives from BackendContract"
    try:
        require_packages(contract.backend)
    except Refused as error:
        pytest.skip(error.reason.sentence())


class Trial:
    """One small model, its samples and what is right for them."""

    def __init__(
        self,
        contract: BackendContract,
        folder: Path,
        text: str,
        names: Mapping[str, str] | None = None,
        *,
        precision: str | None = None,
        external_data: bool = False,
    ) -> None:
        self.contract, self.folder, self.names = contract, folder, dict(names or {})
        self.model = folder / "model" / "model.onnx"
        self.model.parent.mkdir(parents=True)
        self.proto = _model(text, self.names)
        _save(self.proto, self.model, external_data=external_data)
        self.events: list[Any] = []
        self.count = 0
        self.ran: dict[str, Arrays] = {}
        self.made: CompiledFiles
        self.found: TargetOutputs
        asked = precision or contract.precision
        self.request = TargetRequest(
            target=contract.backend.name,
            backend=contract.backend,
            versions={},
            precision=asked,
            options=dict(contract.backend.option_names),
            timeout_s=contract.timeout_s,
            python=None,
            tolerance=contract.tolerance if asked == contract.precision else TOLERANCES[asked],
            threads=1,
        )

    def samples(self, batch: int | None = None) -> dict[str, dict[str, Any]]:
        """One labelled set of inputs."""
        random = np.random.default_rng(batch or 0)
        values = {}
        for spec in self._specs(self.proto.graph.input):
            shape = [size if isinstance(size, int) else (batch or 1) for size in spec.shape]
            values[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        return {f"batch{batch}" if batch else "seed0": values}

    def compile(self) -> CompiledFiles:
        """Compile it in a child process."""
        interface = (self._specs(self.proto.graph.input), self._specs(self.proto.graph.output))
        return compile_model(self.request, self.model, interface, self._fresh(), self.events.append)[0]

    def run(self, made: CompiledFiles, samples: Mapping[str, Arrays]) -> TargetOutputs:
        """Run it in another one; what went in is kept for `expected` when something came out."""
        found = run_compiled(
            self.request, made, samples, self._fresh(), self.events.append, timing=QUICK
        )[0]  # fmt: skip
        self.ran = dict(samples)
        return found

    def expected(self, label: str) -> dict[str, Any]:
        """What onnx's own evaluator gives, in float64 where it can."""
        from onnx.reference import ReferenceEvaluator

        names = [value.name for value in self.proto.graph.output]
        values = self.ran.get(label) or self.samples()[label]
        return dict(zip(names, ReferenceEvaluator(self.proto).run(None, dict(values)), strict=True))

    def error(self, name: str, label: str, array: Any) -> float:
        """The largest |difference| / max |reference|; of integers the share that differs."""
        wanted = self.expected(label)[name]
        assert array.dtype == wanted.dtype
        assert array.shape == wanted.shape
        if wanted.dtype.kind != "f":
            return float(np.mean(array != wanted))
        return float(np.abs(array - wanted).max() / np.abs(wanted).max())

    def expect_right(self, found: TargetOutputs, *, tolerance: float | None = None) -> None:
        """Every output on every set of inputs."""
        assert found.outputs
        limit = self.contract.tolerance if tolerance is None else tolerance
        for label, outputs in found.outputs.items():
            assert list(outputs) == [value.name for value in self.proto.graph.output]
            for name, array in outputs.items():
                assert self.error(name, label, array) <= limit, f"{name} on {label}"

    def bundle(self, made: CompiledFiles) -> Path:
        """The bundle's folder with everything that run.py reads."""
        from pipeline.targets.jobs import job_of

        folder = self.folder / "bundle"
        made.write_files(folder)
        self.ran = dict(self.samples())
        job = job_of(self.request, self.model, folder, self._fresh(), (made.inputs, made.outputs))
        (folder / "run.py").write_text(self.request.backend.program(job, made.compiled), encoding="utf-8")
        (folder / "README.md").write_text(self.request.backend.page(job, made.compiled), encoding="utf-8")
        np.savez(folder / "inputs.npz", **self.ran["seed0"])
        np.savez(folder / "expected.npz", **self.expected("seed0"))
        return folder

    def _specs(self, values: Any) -> tuple[TensorSpec, ...]:
        found = []
        for value in values:
            tensor = value.type.tensor_type
            dtype = element_type(tensor.elem_type).name
            shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
            example = tuple(size if isinstance(size, int) else 2 for size in shape)
            dynamic = any(isinstance(size, str) for size in shape)
            bounds = [tuple(size if isinstance(size, int) else end for size in shape) for end in (1, 4)]
            found.append(TensorSpec(value.name, dtype, shape, example, *(bounds if dynamic else ((), ()))))
        return tuple(found)

    def _fresh(self) -> Path:
        self.count += 1
        folder = self.folder / f"child{self.count}"
        folder.mkdir()
        return folder


def run_program(folder: Path, elsewhere: Path) -> subprocess.CompletedProcess[str]:
    """Run the bundle's program isolated, from another folder, with the pipeline kept out."""
    start = (
        "import runpy, sys; sys.modules['pipeline'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", start, str(folder / "run.py")],
        cwd=elsewhere, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def _model(text: str, names: Mapping[str, str]) -> onnx.ModelProto:
    """The model with fixed random weights; values renamed."""
    import onnx
    import onnx.numpy_helper
    import onnx.parser

    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(7)
    for name, shape in (("weight", (4, 3, 3, 3)), ("head", (5, 4))):
        if any(name in node.input for node in model.graph.node):
            array = random.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model


def _save(model: onnx.ModelProto, path: Path, *, external_data: bool) -> None:
    """Write it; saving with external data would take the weights out of `model` itself."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save(copy, path, save_as_external_data=external_data, size_threshold=0, location=f"{path.name}.data")
