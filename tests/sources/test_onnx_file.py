"""A ready .onnx as source: what is read of it, what is refused, and what the run says."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from pipeline.config.request import Config
from pipeline.errors import Refused, StageFailed
from pipeline.exporters.config import ExportConfig
from pipeline.samples.spec import parse_inputs
from pipeline.sources.config import ModelConfig
from pipeline.sources.onnx_file import specs_of_file, with_file_settings
from pipeline.sources.onnx_graph import open_file, refused
from pipeline.sources.onnx_reader import read_facts
from tests.end_to_end.conftest import CommandLine, command  # noqa: F401 - a fixture
from tests.sources import onnx_files

#: A fuzzed file is judged within this, whatever it promises: 0.2 s is usual on two busy cores.
LONGEST_S = 20.0
#: ... and in this much memory, onnx and onnxruntime themselves included.
MOST_MEMORY = 3 << 30


def _config(path: Path, *, export: ExportConfig | None = None, **model: Any) -> Config:
    return Config(
        model=ModelConfig(source="onnx_file", path=str(path), **model), export=export or ExportConfig()
    )


def _opened(path: Path, **model: Any) -> Any:
    config = with_file_settings(_config(path, **model))
    specs = specs_of_file(parse_inputs(config.model.inputs), read_facts(path))
    return open_file(path, specs)


def test_the_file_fills_the_configuration(tmp_path: Path) -> None:
    config = with_file_settings(_config(onnx_files.saved(tmp_path, onnx_files.convolution())))
    assert config.export.opset == 17
    assert config.model.outputs == ("y",)
    assert config.model.inputs == {
        "x": {"shape": [1, 3, 8, 8], "dtype": "float32", "fill": "normal",
              "dynamic": {0: {"name": "batch", "min": 1, "multiple_of": 1}}},
    }  # fmt: skip


def test_other_sources_stay_as_they_are() -> None:
    config = Config(model=ModelConfig(name="resnet18"))
    assert with_file_settings(config) is config


def test_what_is_given_is_laid_over_what_the_file_says(tmp_path: Path) -> None:
    path = onnx_files.saved(tmp_path, onnx_files.convolution())
    given = {"x": {"shape": [2, 3, 8, 8], "fill": {"uniform": [0, 1]}, "dynamic": {}}}
    found = with_file_settings(_config(path, inputs=given)).model.inputs["x"]
    assert found == {"shape": [2, 3, 8, 8], "dtype": "float32", "fill": {"uniform": [0, 1]}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"y": {"shape": [1]}}, "no input y"),
        ({"x": {"shape": [1, 4, 8, 8]}}, "[batch, 3, 8, 8]"),
        ({"x": {"shape": [1, 3, 8]}}, "[batch, 3, 8, 8]"),
        ({"x": {"dtype": "float16"}}, "float32"),
        ({"x": {"dynamic": {1: "channels"}}}, "fixed in the file"),
        ({"x": {"size": 3}}, "no key size"),
        ({"x": 3}, "described by a mapping"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    path = onnx_files.saved(tmp_path, onnx_files.convolution())
    with pytest.raises(Refused) as error:
        with_file_settings(_config(path, inputs=given))
    assert said in error.value.reason.sentence()


def test_an_open_size_has_to_be_given_and_the_sentence_can_be_typed(tmp_path: Path) -> None:
    model = onnx_files.convolution()
    for index, name in ((2, "height"), (3, "?")):
        model.graph.input[0].type.tensor_type.shape.dim[index].dim_param = name
    path = onnx_files.saved(tmp_path, model)
    with pytest.raises(Refused) as error:
        with_file_settings(_config(path))
    assert error.value.reason.code == "PL-243"
    assert "'model.inputs={x: {shape: [1,3,224,224]}}'" in error.value.reason.sentence()
    found = with_file_settings(_config(path, inputs={"x": {"shape": [1, 3, 224, 224]}})).model.inputs["x"]
    assert found["dynamic"] == {
        0: {"name": "batch", "min": 1, "multiple_of": 1},
        2: {"name": "height", "min": 224, "multiple_of": 32},
        3: {"name": "x_dim_3", "min": 224, "multiple_of": 32},
    }


def test_names_that_cannot_be_typed_get_others_and_the_graph_keeps_its_own(tmp_path: Path) -> None:
    model = onnx_files.linear()
    model.graph.input[0].name = model.graph.node[0].input[0] = "0"
    path = onnx_files.saved(tmp_path, model)
    assert list(with_file_settings(_config(path)).model.inputs) == ["_0"]
    assert _opened(path).inputs == ("0",)
    assert _opened(path, inputs={"0": {"fill": {"uniform": [0, 1]}}}).inputs == ("0",)


@pytest.mark.parametrize(
    "export",
    [
        ExportConfig(exporter="dynamo"), ExportConfig(input_names=("a",)),
        ExportConfig(training="train"), ExportConfig(export_params=False),
        ExportConfig(keep_initializers_as_inputs=True), ExportConfig(custom_opsets={"own": 1}),
    ],
    ids=lambda export: next(name for name in vars(export) if vars(export)[name] != vars(ExportConfig())[name]),
)  # fmt: skip
def test_keys_of_an_export_are_refused(tmp_path: Path, export: ExportConfig) -> None:
    path = onnx_files.saved(tmp_path, onnx_files.convolution())
    with pytest.raises(Refused) as error:
        with_file_settings(_config(path, export=export))
    name = next(name for name in vars(export) if vars(export)[name] != vars(ExportConfig())[name])
    assert error.value.reason.where == f"export.{name}"
    assert "Type export." in str(error.value.reason.next_step)


def test_strings_and_sequences_are_refused(tmp_path: Path) -> None:
    model = onnx_files.linear()
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    with pytest.raises(Refused, match=r"PL-243.*string"):
        with_file_settings(_config(onnx_files.saved(tmp_path, model)))
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
    with pytest.raises(Refused, match=r"PL-243.*sequence"):
        with_file_settings(_config(onnx_files.saved(tmp_path, model, "sequence.onnx")))


def test_initializers_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = onnx_files.linear()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    path = onnx_files.saved(tmp_path, model)
    assert [value.name for value in read_facts(path).inputs] == ["x"]
    bare = _opened(path)
    assert (bare.inputs, list(bare.held), bare.shown_parameters) == (("x",), ["w"], ())


def test_weights_stay_where_they_lie(tmp_path: Path) -> None:
    path = onnx_files.with_external_data(tmp_path)
    bare = _opened(path)
    data = np.frombuffer(memoryview(bare.held["w"].data()).cast("B"), np.float32)
    expected = onnx.numpy_helper.to_array(onnx_files.linear().graph.initializer[0])
    assert bare.held["w"].origin == "w"
    assert np.array_equal(data.reshape(64, 64), expected)
    assert read_facts(path).data_files == ("weights/data.bin",)


def test_modules_in_the_metadata_of_nodes_are_kept(tmp_path: Path) -> None:
    model = onnx_files.linear()
    model.ir_version = 10
    model.graph.node[0].name, model.graph.node[1].name = "a", "b"
    model.graph.node[0].metadata_props.add(key="module", value="layers.0")
    model.graph.node[1].metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value="['', 'layers', 'layers.1', 'add']"
    )
    bare = _opened(onnx_files.saved(tmp_path, model))
    assert {name: bare.scopes.get(name) for name in ("a", "b")} == {"a": "layers.0", "b": "layers.1"}


@pytest.mark.parametrize("name", onnx_files.BAD)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    make, code, said = onnx_files.BAD[name]
    folder = tmp_path / "model"
    folder.mkdir()
    path = make(folder)
    started = time.process_time()
    with pytest.raises(Refused) as error:
        _opened(path)
    assert time.process_time() - started < LONGEST_S
    sentence = error.value.reason.sentence()
    assert error.value.reason.code == code
    assert said in sentence
    assert "\n" not in sentence


def test_a_good_file_with_a_function_is_not_taken_for_a_bomb(tmp_path: Path) -> None:
    facts = read_facts(onnx_files.with_function(tmp_path))
    assert facts.nodes == 3  # the call and what it calls
    assert _opened(facts.path).outputs == ("y",)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(Refused, match="PL-240"):
            with_file_settings(_config(path))


# fuzzing: in a child with bounded memory, so that a crash or a bomb in native code is seen as what it is

_FUZZ = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
from pathlib import Path
from pipeline.config.request import Config
from pipeline.errors import PipelineError
from pipeline.parity.onnxruntime_session import FileSession
from pipeline.samples.spec import parse_inputs
from pipeline.sources.config import ModelConfig
from pipeline.sources.onnx_file import specs_of_file, with_file_settings
from pipeline.sources.onnx_graph import open_file, refused
from pipeline.sources.onnx_reader import read_facts
from tests.sources.onnx_files import mutations

folder = Path(sys.argv[1])
for index, data in enumerate(mutations({count}, {seed})):
    path = folder / f"{{index}}.onnx"
    path.write_bytes(data)
    print("start", index, flush=True)
    started = time.process_time()
    try:
        config = with_file_settings(Config(model=ModelConfig(source="onnx_file", path=str(path))))
        specs = specs_of_file(parse_inputs(config.model.inputs), read_facts(path))
        open_file(path, specs)
        with FileSession(path):
            said = "good"
    except PipelineError as error:
        said = error.reason.code + " " + error.reason.sentence()
    path.unlink()
    print("said", index, round(time.process_time() - started, 3), repr(said), flush=True)
"""


def _fuzz(folder: Path, count: int, seed: int) -> Counter[str]:
    script = _FUZZ.format(memory=MOST_MEMORY, count=count, seed=seed)
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=900, check=False
    )
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines() if line.startswith("said ")]
    assert done.returncode == 0, (done.returncode, done.stdout[-300:], done.stderr[-2000:])
    assert len(lines) == count
    for _, index, seconds, said in lines:
        assert float(seconds) < LONGEST_S, (index, seconds)
        assert said.count("\\n") == 0, (index, said)
        assert len(said) < 900, (index, said)
    return Counter(said[1:7] for *_, said in lines)


def test_some_fuzzed_files(tmp_path: Path) -> None:
    found = _fuzz(tmp_path, 60, seed=1)
    assert set(found) <= {"good'", "PL-240", "PL-241", "PL-242", "PL-243", "PL-200", "PL-201", "PL-202", "PL-203",
                          "PL-206", "PL-510", "PL-204"}  # fmt: skip
    assert found["PL-241"] > 10


@pytest.mark.slow
def test_five_hundred_fuzzed_files(tmp_path: Path) -> None:
    found = _fuzz(tmp_path, 500, seed=0)
    assert found["PL-241"] > 100
    assert found["good'"] > 10  # turned bits in weights and doc strings harm nobody


# the command line


def test_a_run_from_a_file(command: CommandLine, tmp_path: Path) -> None:  # noqa: F811
    model = onnx_files.convolution()
    model.metadata_props.add(key="names", value="cat,dog")
    path = onnx_files.saved(tmp_path, model, "net.onnx")
    done = command("model=onnx_file", f"model.path={path}")
    assert done.code == 0, done.err
    manifest, record = done.manifest, done.record
    assert manifest["model"]["source"] == "onnx_file"
    assert manifest["opsets"] == {"ai.onnx": 17} or manifest["opsets"] == {"": 17}
    assert [stage["name"] for stage in manifest["stages"]][:4] == ["source", "inputs", "reference", "adopt"]
    assert manifest["verdicts"]["parity"]["status"] == "passed"
    assert "torch" not in record["builds"]
    assert "torch" not in manifest["versions"]
    written = onnx.load(done.run / "model.onnx")
    assert {entry.key for entry in written.metadata_props} == {"names", "pipeline.graph_key"}
    assert [node.op_type for node in written.graph.node] == ["Conv", "Relu", "GlobalAveragePool", "Flatten"]
    assert written.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    again = command("model=onnx_file", f"model.path={path}")
    assert again.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("opset", [11, 19])
def test_another_opset_is_converted_and_proved(command: CommandLine, tmp_path: Path, opset: int) -> None:  # noqa: F811
    path = onnx_files.saved(tmp_path, onnx_files.convolution(), "net.onnx")
    done = command("model=onnx_file", f"model.path={path}", f"export.opset={opset}")
    assert done.code == 0, done.err
    (attempt,) = done.manifest["attempts"]
    assert (attempt["exporter"], attempt["opset"], attempt["converted_from"]) == ("file", opset, 17)
    assert onnx.load(done.run / "model.onnx").opset_import[0].version == opset
    assert done.manifest["verdicts"]["parity"]["status"] == "passed"


_ODD = """
<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
"""
ODD = {
    "an initializer that is an output": "g (float[1, 64] x) => (float[1, 64] y, float[64, 64] w) { y = MatMul(x, w) }",
    "an input that nobody uses": "g (float[1, 64] x, float[1, 3] z) => (float[1, 64] y) { y = MatMul(x, w) }",
    "a scalar": "g (float[1, 64] x, float s) => (float[1, 64] y) { m = MatMul(x, w)\n y = Mul(m, s) }",
    "an operator of a runtime": "g (float[1, 64] x) => (float[1, 64] y) { m = MatMul(x, w)\n y = com.microsoft.Gelu(m) }",
    "branches": """g (float[1, 64] x) => (float[1, 64] y) {
        s = ReduceSum<keepdims = 0>(x)
        z = Constant<value_float = 0.0>()
        c = Greater(s, z)
        y = If(c) <then_branch = t () => (float[1, 64] a) { a = MatMul(x, w) },
                   else_branch = e () => (float[1, 64] b) { b = Neg(x) }>
    }""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ODD, "no type of an output", "no shape of an output"])
def test_odd_files_that_runtimes_take(command: CommandLine, tmp_path: Path, name: str) -> None:  # noqa: F811
    model = onnx.parser.parse_model(
        _ODD + ODD.get(name, "g (float[1, 64] x) => (float[1, 64] y) { y = MatMul(x, w) }")
    )
    model.graph.initializer.append(onnx_files.linear().graph.initializer[0])
    if name == "no type of an output":
        model.graph.output[0].ClearField("type")
    if name == "no shape of an output":
        model.graph.output[0].type.tensor_type.ClearField("shape")
    done = command("model=onnx_file", f"model.path={onnx_files.saved(tmp_path, model)}")
    assert done.code == 0, done.err
    written = onnx.load(done.run / "model.onnx")
    assert [value.name for value in written.graph.output] == [value.name for value in model.graph.output]


def test_outputs_that_are_inputs_and_sparse_initializers(tmp_path: Path) -> None:
    model = onnx_files.linear()
    model.graph.output.append(model.graph.input[0])
    with pytest.raises(Refused, match=r"PL-243.*output x"):
        with_file_settings(_config(onnx_files.saved(tmp_path, model)))
    model = onnx_files.linear()
    model.graph.sparse_initializer.add().values.name = "s"
    with pytest.raises(Refused, match=r"PL-243.*sparse"):
        with_file_settings(_config(onnx_files.saved(tmp_path, model, "sparse.onnx")))


def test_the_command_line_does_without_torch(tmp_path: Path) -> None:
    """An import of torch would fail here: the worker is a fork of this process."""
    path = onnx_files.with_external_data(tmp_path)
    script = (
        "import sys\nsys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "from pipeline.__main__ import main\n"
        f"sys.exit(main(['model=onnx_file', 'model.path={path}', 'out={tmp_path}/out', 'cache.mode=none']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "out").glob("external-op17-*/manifest.json"))


def test_a_broken_file_is_exit_code_two_and_leaves_nothing(command: CommandLine, tmp_path: Path) -> None:  # noqa: F811
    done = command("model=onnx_file", f"model.path={onnx_files.BAD['unknown_operator'][0](tmp_path)}")
    assert done.code == 2, done.err
    assert "PL-241" in done.err
    assert not list(done.folder.glob("outputs/*"))


def test_a_size_that_the_file_only_pretends_to_take(command: CommandLine, tmp_path: Path) -> None:  # noqa: F811
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\ng (float[batch, 4] x) => (float[batch, 4] y) '
        "<int64[2] s = {1, 4}> { r = Reshape(x, s)\n y = Relu(r) }"
    )
    path = onnx_files.saved(tmp_path, model)
    done = command("model=onnx_file", f"model.path={path}")
    assert done.code == 1
    assert "PL-503" in done.err
    step = "model.inputs={x: {shape: [1,4], dynamic: {}}}"
    assert step in done.err
    assert command("model=onnx_file", f"model.path={path}", step).code == 0


def test_an_operator_of_somebody_elses_is_no_damage(tmp_path: Path) -> None:
    said = "Fatal error: acme:Frob(-1) is not a registered function/op"
    reason = refused(
        StageFailed("PL-510", "ONNX Runtime does not load the file", found=said), tmp_path / "a.onnx"
    ).reason
    assert reason.code == "PL-243"
    assert "no runtime here has the operator acme::Frob" in reason.message
    said = "Fatal error: :Frob(-1) is not a registered function/op"
    assert refused(StageFailed("PL-510", "no", found=said), tmp_path / "a.onnx").reason.code == "PL-241"


def test_a_custom_operator_in_a_run(tmp_path: Path, command: CommandLine) -> None:  # noqa: F811
    text = (
        '<ir_version: 8, opset_import: ["": 17, "acme": 1]> g (float[1,3] x) => (float[1,3] y) '
        "{ a = Relu(x) y = acme.Frob(a) }"
    )
    path = tmp_path / "custom.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    done = command("model=onnx_file", f"model.path={path}")
    assert done.code == 2
    assert "PL-243: custom.onnx: no runtime here has the operator acme::Frob" in done.err
