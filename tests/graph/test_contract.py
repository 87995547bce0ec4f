"""The contract: every promise is broken once between writing and reading back, and caught."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from pipeline.errors import StageFailed
from pipeline.graph import contract
from pipeline.graph.assemble import ModelFile, PlacedTensor, assemble
from pipeline.graph.bare import BareModel
from pipeline.graph.contract import Contract, Promises, assert_contract, read_contract
from pipeline.graph.view import TensorPlace, read_layout
from pipeline.parity.signature import OutputSpec, Signature
from pipeline.samples.spec import Axis, TensorSpec
from tests.graph.graphs import bare, perceptron, random

SIGNATURE = Signature((OutputSpec("y", "float32", (2, 10), {0: ("batch",)}, {0: "batch"}),))
INPUTS = (TensorSpec("x", (2, 32), dynamic={0: Axis("batch")}),)
PROMISES = Promises(opset=17, inputs=INPUTS, metadata={"request": "abc"})


def network(**fields: Any) -> BareModel:
    """Two layers whose weights are held, a bias that is not, a dynamic batch."""
    return bare(
        """
        net (float[batch,32] x, float[32,64] "fc1.weight", float[64,10] "fc2.weight") => (float[batch,10] y)
        <float[10] "fc2.bias" = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}>
        {
            ["/fc1/MatMul"] a = MatMul(x, "fc1.weight")
            ["/act/Relu"] b = Relu(a)
            ["/fc2/MatMul"] c = MatMul(b, "fc2.weight")
            ["/fc2/Add"] y = Add(c, "fc2.bias")
        }
        """,
        {"fc1.weight": random(32, 64), "fc2.weight": random(64, 10)},
        **{"origins": {"fc2.bias": "fc2.bias"}, **fields},
    )


@dataclass
class Written:
    """A file as `assemble` left it, to be broken."""

    model: BareModel
    file: ModelFile
    promises: Promises
    outputs: Signature = SIGNATURE

    def change(self, edit: Callable[[onnx.ModelProto], None]) -> None:
        """Write the file anew with one thing changed; what is known of its layout follows."""
        proto = onnx.load(self.file.path, load_external_data=False)
        edit(proto)
        self.file.path.write_bytes(proto.SerializeToString(deterministic=True))
        self.believe()

    def believe(self) -> None:
        layout = read_layout(self.file.path)
        placed = tuple(PlacedTensor(t.name, t.offset, t.size, t.external) for t in layout.tensors)
        self.file = replace(self.file, size=layout.size, tensors=placed)

    def verify(self) -> Contract:
        return assert_contract(
            self.file.path, self.promises, model=self.model, file=self.file, outputs=self.outputs
        )

    def breach(self) -> Any:
        with pytest.raises(StageFailed) as caught:
            self.verify()
        return caught.value.reason


@pytest.fixture
def written(tmp_path: Path) -> Written:
    model = network()
    file = assemble(model, tmp_path / "model.onnx", metadata={"request": "abc"})
    return Written(model, file, PROMISES)


@pytest.fixture
def beside(tmp_path: Path) -> Written:
    model = network()
    file = assemble(model, tmp_path / "model.onnx", metadata={"request": "abc"}, external_data="always")
    return Written(model, file, PROMISES)


def test_a_file_that_keeps_its_promises(written: Written) -> None:
    assert written.verify().recorded() == {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 32]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 10]}],
        "opsets": {"": 17},
        "ir_version": 8,
    }


def test_external_data_keeps_them_too(beside: Written) -> None:
    assert beside.verify().opsets == {"": 17}


# versions


def test_another_opset(written: Written) -> None:
    written.change(lambda m: setattr(m.opset_import[0], "version", 16))
    reason = written.breach()
    assert (reason.code, reason.where) == ("PL-421", "export.opset")
    assert (reason.found, reason.expected) == ("ai.onnx 16", "ai.onnx 17")


def test_no_opset(written: Written) -> None:
    written.change(lambda m: m.ClearField("opset_import"))
    assert written.breach().code == "PL-421"


def test_an_opset_twice(written: Written) -> None:
    written.change(lambda m: m.opset_import.add(domain="ai.onnx", version=18))
    assert written.breach().found == "the operator set 'ai.onnx' is imported twice"


def test_a_custom_opset(written: Written) -> None:
    written.change(lambda m: m.opset_import.add(domain="mine", version=2))
    written.promises = replace(PROMISES, custom_opsets={"mine": 3, "unused": 1})
    reason = written.breach()
    assert (reason.where, reason.found) == ("export.custom_opsets.mine", "mine 2")
    written.promises = replace(PROMISES, custom_opsets={"mine": 2})
    written.verify()


@pytest.mark.parametrize("asked", [None, 8])
def test_another_ir_version(written: Written, asked: int | None) -> None:
    written.change(lambda m: setattr(m, "ir_version", 9))
    written.promises = replace(PROMISES, ir_version=asked)
    reason = written.breach()
    assert (reason.code, reason.where) == ("PL-421", "export.ir_version")
    assert (reason.found, reason.expected) == ("9", "8")


# inputs and outputs


def test_another_input_name(written: Written) -> None:
    def rename(m: onnx.ModelProto) -> None:
        m.graph.input[0].name = m.graph.node[0].input[0] = "image"

    written.change(rename)
    reason = written.breach()
    assert (reason.code, reason.found, reason.expected) == ("PL-422", "image", "x")


def test_an_input_that_vanished(written: Written) -> None:
    written.promises = replace(PROMISES, inputs=(*INPUTS, TensorSpec("mask", (2, 3))))
    reason = written.breach()
    assert (reason.where, reason.found, reason.expected) == ("model.inputs", "x", "x, mask")


def test_an_input_too_many(written: Written) -> None:
    written.change(lambda m: m.graph.input.add(name="mask").CopyFrom(_value("mask", m.graph.input[0])))
    assert written.breach().found == "x, mask"


def test_another_order_of_inputs(tmp_path: Path) -> None:
    model = bare("net (float[2] a, float[2] b) => (float[2] y) { y = Sub(a, b) }")
    outputs = Signature((OutputSpec("y", "float32", (2,)),))
    promises = Promises(opset=17, inputs=(TensorSpec("a", (2,)), TensorSpec("b", (2,))))
    written = Written(model, assemble(model, tmp_path / "m.onnx"), promises, outputs)
    written.verify()

    def swap(m: onnx.ModelProto) -> None:
        m.graph.input[0].name, m.graph.input[1].name = "b", "a"

    written.change(swap)
    reason = written.breach()
    assert (reason.code, reason.found, reason.expected) == ("PL-422", "b, a", "a, b")


def test_another_output_name(written: Written) -> None:
    written.outputs = Signature((replace(SIGNATURE.outputs[0], name="logits"),))
    reason = written.breach()
    assert (reason.code, reason.where, reason.found) == ("PL-422", "model.outputs", "y")


def test_an_output_that_is_missing(written: Written) -> None:
    written.outputs = Signature((*SIGNATURE.outputs, OutputSpec("aux", "float32", (2,))))
    assert written.breach().expected == "y, aux"


@pytest.mark.parametrize("what", ["input", "output"])
def test_another_dtype(written: Written, what: str) -> None:
    def widen(m: onnx.ModelProto) -> None:
        getattr(m.graph, what)[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    written.change(widen)
    reason = written.breach()
    assert "has another dtype" in reason.message
    assert (reason.found, reason.expected) == ("float64", "float32")


@pytest.mark.parametrize("what", ["input", "output"])
def test_another_size(written: Written, what: str) -> None:
    def shrink(m: onnx.ModelProto) -> None:
        getattr(m.graph, what)[0].type.tensor_type.shape.dim[1].dim_value = 7

    written.change(shrink)
    reason = written.breach()
    assert (reason.code, reason.found) == ("PL-422", "[batch, 7]")


@pytest.mark.parametrize("what", ["input", "output"])
def test_a_dynamic_axis_that_was_baked_in(written: Written, what: str) -> None:
    def bake(m: onnx.ModelProto) -> None:
        getattr(m.graph, what)[0].type.tensor_type.shape.dim[0].dim_value = 2

    written.change(bake)
    reason = written.breach()
    assert "has another shape" in reason.message
    assert reason.found.startswith("[2, ")
    assert reason.expected.startswith("[batch, ")


@pytest.mark.parametrize("what", ["input", "output"])
def test_a_dynamic_axis_with_another_name(written: Written, what: str) -> None:
    def rename(m: onnx.ModelProto) -> None:
        getattr(m.graph, what)[0].type.tensor_type.shape.dim[0].dim_param = "s77"

    written.change(rename)
    assert written.breach().found.startswith("[s77, ")


def test_a_fixed_axis_that_was_left_open(written: Written) -> None:
    def forget(m: onnx.ModelProto) -> None:
        m.graph.output[0].type.tensor_type.shape.dim[1].ClearField("dim_value")

    written.change(forget)
    assert written.breach().found == "[batch, ?]"
    # Where sizes depend on values, a size that was seen once may be left open.
    written.outputs = replace(SIGNATURE, value_dependent=True)
    written.verify()


def test_another_rank(written: Written) -> None:
    written.change(lambda m: m.graph.output[0].type.tensor_type.shape.dim.add(dim_value=1))
    assert written.breach().found == "[batch, 10, 1]"


# parameters and metadata


def test_parameters_that_are_shown_although_nobody_asked(written: Written) -> None:
    written.change(lambda m: m.graph.input.append(_like(m.graph.initializer[0])))
    reason = written.breach()
    assert (reason.code, reason.where) == ("PL-425", "export.keep_initializers_as_inputs")
    assert (reason.found, reason.expected) == ("fc1.weight", "none")


def test_shown_parameters_in_their_order(tmp_path: Path) -> None:
    model = network(shown_parameters=("fc2.weight", "fc1.weight"))
    promises = Promises(opset=17, inputs=INPUTS, shown_parameters=True)
    written = Written(model, assemble(model, tmp_path / "m.onnx"), promises)
    assert written.verify().parameters == ("fc2.weight", "fc1.weight")
    assert [row["name"] for row in written.verify().recorded()["inputs"]] == ["x"]

    def drop(m: onnx.ModelProto) -> None:
        del m.graph.input[1]

    written.change(drop)
    assert written.breach().found == "fc1.weight"


def test_a_parameter_without_the_name_that_was_asked(written: Written) -> None:
    written.promises = replace(PROMISES, parameter_names=("fc1.weight", "learned_0"))
    reason = written.breach()
    assert (reason.code, reason.where, reason.expected) == ("PL-425", "export.input_names", "learned_0")


def test_parameters_left_outside(tmp_path: Path) -> None:
    model = bare("net (float[2,32] x, float[32,4] w) => (float[2,4] y) { y = MatMul(x, w) }")
    outputs = Signature((OutputSpec("y", "float32", (2, 4)),))
    promises = Promises(opset=17, inputs=(TensorSpec("x", (2, 32)),), export_params=False)
    written = Written(model, assemble(model, tmp_path / "m.onnx"), promises, outputs)
    written.verify()
    written.promises = replace(promises, export_params=True)
    assert written.breach().found == "x, w"


@pytest.mark.parametrize("edit", ["value", "more", "none"])
def test_other_metadata(written: Written, edit: str) -> None:
    def change(m: onnx.ModelProto) -> None:
        if edit == "value":
            m.metadata_props[0].value = "xyz"
        elif edit == "more":
            m.metadata_props.add(key="onnxsim.version", value="1")
        else:
            del m.metadata_props[:]

    written.change(change)
    assert written.breach().message == "the finished file has other metadata than was asked"


# modes


def batch_norm(opset: int, attributes: str = "", outputs: str = "y") -> BareModel:
    return bare(
        f"""
        net (float[2,3,4] x) => (float[2,3,4] y)
        <float[3] s = {{1, 1, 1}}, float[3] b = {{0, 0, 0}}, float[3] m = {{0, 0, 0}}, float[3] v = {{1, 1, 1}}>
        {{ ["/bn/BatchNormalization"] {outputs} = BatchNormalization{attributes}(x, s, b, m, v) }}
        """,
        opset=opset,
    )


def dropout(opset: int, more: str = "", attributes: str = "") -> BareModel:
    return bare(
        f"""
        net (float[2,3,4] x) => (float[2,3,4] y)
        <float ratio = {{0.5}}, bool yes = {{1}}, bool no = {{0}}>
        {{ ["/drop/Dropout"] y = Dropout{attributes}(x{more}) }}
        """,
        opset=opset,
    )


TRAINING = {
    "batch norm 17": (17, batch_norm(17, "<training_mode=1>", "y, rm, rv")),
    "batch norm 13": (13, batch_norm(13, "", "y, a, b1, c, d")),
    "batch norm 6": (6, batch_norm(6)),
    "dropout 17": (17, dropout(17, ", ratio, yes")),
    "dropout 6": (6, dropout(6)),
}
INFERENCE = {
    "batch norm 17": (17, batch_norm(17)),
    "batch norm 13": (13, batch_norm(13)),
    "batch norm 6": (6, batch_norm(6, "<is_test=1>")),
    "dropout 17": (17, dropout(17, ", ratio, no")),
    "dropout 17 without a mode": (17, dropout(17, ", ratio")),
    "dropout 11": (11, dropout(11)),
    "dropout 6": (6, dropout(6, "", "<is_test=1>")),
}
MODE_OUTPUTS = Signature((OutputSpec("y", "float32", (2, 3, 4)),))


def mode(tmp_path: Path, opset: int, model: BareModel, training: Any) -> Written:
    promises = Promises(opset=opset, inputs=(TensorSpec("x", (2, 3, 4)),), training=training)
    return Written(model, assemble(model, tmp_path / "m.onnx"), promises, MODE_OUTPUTS)


@pytest.mark.parametrize("name", TRAINING)
def test_a_node_in_training_mode(tmp_path: Path, name: str) -> None:
    opset, model = TRAINING[name]
    written = mode(tmp_path, opset, model, "eval")
    reason = written.breach()
    assert (reason.code, reason.found) == ("PL-423", "1 of them")
    assert reason.where == f"node {model.parsed().graph.node[0].name}"
    for other in ("train", "preserve"):
        written.promises = replace(written.promises, training=other)
        written.verify()


@pytest.mark.parametrize("name", INFERENCE)
def test_a_node_in_inference_mode(tmp_path: Path, name: str) -> None:
    opset, model = INFERENCE[name]
    written = mode(tmp_path, opset, model, "eval")
    written.verify()
    written.promises = replace(written.promises, training="train")
    assert written.breach().message == (
        "the finished file holds no node in training mode although export.training=train"
    )


def test_a_dropout_whose_mode_comes_from_an_input_may_train(tmp_path: Path) -> None:
    model = bare(
        """
        net (float[2,3,4] x, bool mode) => (float[2,3,4] y)
        <float ratio = {0.5}>
        { y = Dropout(x, ratio, mode) }
        """
    )
    promises = Promises(opset=17, inputs=(TensorSpec("x", (2, 3, 4)), TensorSpec("mode", (), dtype="bool")))
    written = Written(model, assemble(model, tmp_path / "m.onnx"), promises, MODE_OUTPUTS)
    assert written.breach().code == "PL-423"


def test_training_mode_inside_a_branch(tmp_path: Path) -> None:
    model = bare(
        """
        net (float[2,3,4] x, bool flag) => (float[2,3,4] y)
        <float ratio = {0.5}, bool yes = {1}>
        {
            y = If(flag) <
                then_branch = t () => (float[2,3,4] a) { a = Dropout(x, ratio, yes) },
                else_branch = e () => (float[2,3,4] b) { b = Identity(x) }
            >
        }
        """
    )
    promises = Promises(opset=17, inputs=(TensorSpec("x", (2, 3, 4)), TensorSpec("flag", (), dtype="bool")))
    written = Written(model, assemble(model, tmp_path / "m.onnx"), promises, MODE_OUTPUTS)
    assert written.breach().code == "PL-423"


# weights


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["fc1.weight", "fc2.weight"])
@pytest.mark.parametrize("where", ["first", "last"])
def test_one_bit_of_a_weight(written: Written, name: str, where: str) -> None:
    place = next(place for place in written.file.tensors if place.name == name)
    _flip(written.file.path, place.offset + (0 if where == "first" else place.size - 1))
    reason = written.breach()
    assert (reason.code, reason.where) == ("PL-424", name)
    assert reason.expected == name


def test_one_bit_of_a_weight_beside_the_file(beside: Written) -> None:
    place = next(place for place in beside.file.tensors if place.name == "fc2.weight")
    assert beside.file.data_path is not None
    _flip(beside.file.data_path, place.offset + 5)
    assert beside.breach().where == "fc2.weight"


@pytest.mark.parametrize("read_bytes", [8, 24, 1000])
@pytest.mark.parametrize("size", [1025, 2400])
def test_a_weight_is_compared_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int, size: int
) -> None:
    """Every byte counts, whatever is read at a time and wherever the tensor ends."""
    monkeypatch.setattr(contract, "READ_BYTES", read_bytes)
    kept = np.arange(size).astype(np.uint8)
    path = tmp_path / "weights"
    path.write_bytes(b"abc" + kept.tobytes() + b"def")
    place = TensorPlace("w", 2, kept.shape, path, 3, size, external=True)

    def holds(wanted: bytes) -> bool:
        with path.open("rb", buffering=0) as stream:
            return contract._Reader(stream).holds(place, [memoryview(wanted)[:700], memoryview(wanted)[700:]])

    same = kept.tobytes()
    assert holds(same)
    assert not holds(same[:-1])
    assert not holds(same + b"d")
    for index in range(0, size, 7):
        assert not holds(same[:index] + bytes([same[index] ^ 1]) + same[index + 1 :])
    path.write_bytes(b"abc" + same[:-1])
    assert not holds(same)


def test_two_weights_swapped(tmp_path: Path) -> None:
    model = bare(
        "net (float[2,32] x, float[32,32] a, float[32,32] b) => (float[2,32] y) "
        "{ c = MatMul(x, a) y = MatMul(c, b) }",
        {"a": random(32, 32), "b": random(32, 32, seed=1)},
    )
    outputs = Signature((OutputSpec("y", "float32", (2, 32)),))
    promises = Promises(opset=17, inputs=(TensorSpec("x", (2, 32)),))
    written = Written(model, assemble(model, tmp_path / "m.onnx"), promises, outputs)
    written.verify()

    def swap(m: onnx.ModelProto) -> None:
        one, other = m.graph.initializer
        one.raw_data, other.raw_data = other.raw_data, one.raw_data

    written.change(swap)
    assert written.breach().code == "PL-424"


def test_a_small_constant_that_changed(written: Written) -> None:
    def change(m: onnx.ModelProto) -> None:
        bias = next(t for t in m.graph.initializer if t.name == "fc2.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, 0.25, np.float32), "fc2.bias"))

    written.change(change)
    reason = written.breach()
    assert (reason.code, reason.where) == ("PL-424", "fc2.bias")


def test_the_same_constant_in_another_field_is_the_same(written: Written) -> None:
    def change(m: onnx.ModelProto) -> None:
        bias = next(t for t in m.graph.initializer if t.name == "fc2.bias")
        bias.ClearField("float_data")
        bias.raw_data = np.arange(10, dtype=np.float32).tobytes()

    written.change(change)
    written.verify()


def test_a_weight_that_vanished(written: Written) -> None:
    def drop(m: onnx.ModelProto) -> None:
        del m.graph.initializer[0]

    written.change(drop)
    reason = written.breach()
    assert (reason.code, reason.found) == ("PL-424", "no such initializer")


def test_a_weight_of_somebody_else(written: Written) -> None:
    written.change(lambda m: m.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3), "ballast")))
    reason = written.breach()
    assert (reason.where, reason.found) == ("ballast", "a tensor that is none of the network's")


def test_a_weight_in_another_shape(written: Written) -> None:
    def reshape(m: onnx.ModelProto) -> None:
        weight = next(t for t in m.graph.initializer if t.name == "fc1.weight")
        del weight.dims[:]
        weight.dims.extend((64, 32))

    written.change(reshape)
    assert written.breach().where == "fc1.weight"


# the file as such


def test_a_file_of_another_size(written: Written) -> None:
    with written.file.path.open("ab") as stream:
        stream.write(b"\x00")
    reason = written.breach()
    assert reason.code == "PL-420"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_that_ends_early(written: Written, share: float) -> None:
    data = written.file.path.read_bytes()
    written.file.path.write_bytes(data[: int(share * len(data))])
    assert written.breach().code == "PL-420"


def test_no_file(written: Written) -> None:
    written.file.path.unlink()
    assert written.breach().code == "PL-420"


def test_a_file_that_is_no_model(written: Written) -> None:
    written.file.path.write_bytes(b"not a model at all" * 10)
    assert written.breach().code == "PL-420"


def test_a_graph_that_stands_twice(written: Written) -> None:
    data = written.file.path.read_bytes()
    written.file.path.write_bytes(data + onnx.ModelProto(graph=onnx.GraphProto(name="g")).SerializeToString())
    assert written.breach().found == "a model has exactly one graph"


def test_a_field_that_onnx_does_not_know(written: Written) -> None:
    data = written.file.path.read_bytes()
    written.file.path.write_bytes(data + b"\xfa\x3e\x02hi")  # field 1007
    assert written.breach().found == "the model has a field 1007 that ONNX does not know"


def test_a_weight_that_stands_twice(written: Written) -> None:
    written.change(lambda m: m.graph.initializer.append(m.graph.initializer[0]))
    assert written.breach().found == "an initializer stands in the file twice"


def test_a_tensor_that_does_not_lie_where_it_was_written(written: Written) -> None:
    first, *others = written.file.tensors
    written.file = replace(written.file, tensors=(replace(first, offset=first.offset + 4), *others))
    assert written.breach().found == "'fc1.weight' does not lie where it was written"


def external(tensor: onnx.TensorProto, **entries: str) -> None:
    for entry in tensor.external_data:
        if entry.key in entries:
            entry.value = entries[entry.key]


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ({"offset": "0", "length": "4"}, "has 4 bytes, its dtype and shape make 8192"),
        ({"offset": "999999"}, "which has"),
        ({"offset": "2048"}, "overlap"),
        ({"location": "other.data"}, "the file 'other.data' with external data is missing"),
        ({"location": "../m.data"}, "not beside the model"),
        ({"location": ""}, "not beside the model"),
        ({"offset": "-4"}, "negative"),
        ({"length": "many"}, "has no offset and length"),
    ],
)
def test_external_data_that_is_not_there(beside: Written, entries: dict[str, str], found: str) -> None:
    proto = onnx.load(beside.file.path, load_external_data=False)
    external(proto.graph.initializer[0], **entries)
    beside.file.path.write_bytes(proto.SerializeToString())
    reason = beside.breach()
    assert reason.code == "PL-420"
    assert found in reason.found


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_data_file_of_another_size(beside: Written, size: int) -> None:
    assert beside.file.data_path is not None
    data = beside.file.data_path.read_bytes()
    beside.file.data_path.write_bytes(data + b"\0" if size < 0 else data[:size])
    assert beside.breach().code == "PL-420"


def test_reading_takes_no_memory_for_the_weights(tmp_path: Path) -> None:
    import tracemalloc

    model = bare(
        "net (float[1,2048] x, float[2048,4096] w) => (float[1,4096] y) { y = MatMul(x, w) }",
        {"w": np.ones((2048, 4096), np.float32)},
    )
    assemble(model, tmp_path / "m.onnx")
    tracemalloc.start()
    contract = read_contract(tmp_path / "m.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert contract.layout.size > 2048 * 4096 * 4
    assert peak < 1024 * 1024


def test_random_damage_is_always_one_sentence(written: Written) -> None:
    """Bytes turned over anywhere but in the weights: read and found whole, or refused."""
    good = written.file.path.read_bytes()
    weights = {i for place in written.file.tensors for i in range(place.offset, place.offset + place.size)}
    others = [i for i in range(len(good)) if i not in weights]
    random_ = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        data = bytearray(good)
        for index in random_.choice(others, int(random_.integers(1, 4))):
            data[index] = int(random_.integers(0, 256))
        written.file.path.write_bytes(bytes(data))
        with contextlib.suppress(StageFailed):
            read_contract(written.file.path)
            continue
        refused += 1
    assert refused > 100


def _value(name: str, like: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    value = onnx.ValueInfoProto(name=name)
    value.type.CopyFrom(like.type)
    return value


def _like(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    value = onnx.ValueInfoProto(name=tensor.name)
    value.type.tensor_type.elem_type = tensor.data_type
    for size in tensor.dims:
        value.type.tensor_type.shape.dim.add(dim_value=size)
    return value


def test_every_promise_has_a_test_that_breaks_it() -> None:
    """A promise that is added has to be broken here too."""
    broken: Sequence[str] = (
        "opset", "inputs", "custom_opsets", "ir_version", "training", "shown_parameters",
        "parameter_names", "export_params", "metadata",
    )  # fmt: skip
    assert set(Promises.__dataclass_fields__) == set(broken)


def test_the_perceptron_of_the_other_tests_is_a_good_file(tmp_path: Path) -> None:
    model = perceptron()
    outputs = Signature((OutputSpec("y", "float32", (2, 10)),))
    promises = Promises(opset=17, inputs=(TensorSpec("x", (2, 32)),))
    Written(model, assemble(model, tmp_path / "m.onnx"), promises, outputs).verify()
