"""The streamed file: the bytes that protobuf would write, and where they lie."""

from __future__ import annotations

import errno
import gc
import hashlib
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import pytest

from pipeline.errors import InternalError, StageFailed
from pipeline.graph import assemble as module
from pipeline.graph.assemble import PAGE, PROTOBUF_LIMIT, assemble, tensor_order
from pipeline.graph.bare import PIECE_BYTES, BareModel, HeldTensor
from pipeline.graph.dtypes import ELEMENT_TYPES
from pipeline.graph.finish import finish
from tests.graph.graphs import Fixed, bare, held, perceptron, random


def whole(model: BareModel, **options: Any) -> onnx.ModelProto:
    """What the file should be, built by protobuf alone."""
    proto = finish(model, metadata=options.get("metadata", {}), ir_version=options.get("ir_version"))
    order = tensor_order(proto.graph, model.held)
    del proto.graph.initializer[:]
    for item in order:
        if isinstance(item, str):
            tensor = model.held[item]
            proto.graph.initializer.add(
                name=item, data_type=tensor.dtype, dims=tensor.shape, raw_data=bytes(tensor.data())
            )
        else:
            proto.graph.initializer.append(item)
    return proto


def many_kinds() -> BareModel:
    """Held tensors of several types, an inner graph that uses one, an initializer inside."""
    return bare(
        """
        net (float[2,32] x, bool flag, float[32,600] w, float16[700] h, float[1,600] b, float[0,600] empty)
            => (float[2,600] y, float16[700] z)
        <float[1] small = {2.5}, string[2] words = {"a", "b"}>
        {
            y = If(flag) <
                then_branch = yes () => (float[2,600] t) { m = MatMul(x, w) t = Add(m, b) },
                else_branch = no () => (float[2,600] e) { n = MatMul(x, w) e = Mul(n, small) }
            >
            z = Neg(h)
        }
        """,
        {
            "w": random(32, 600),
            "h": random(700, dtype="float16"),
            "b": random(1, 600),
            "empty": np.zeros((0, 600), np.float32),
        },
    )


MODELS = {"perceptron": perceptron, "many kinds": many_kinds}


@pytest.mark.parametrize("name", MODELS)
def test_the_bytes_are_those_that_protobuf_writes(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    file = assemble(model, tmp_path / "m.onnx", metadata={"b": "2", "a": "1"})
    data = (tmp_path / "m.onnx").read_bytes()
    assert data == whole(model, metadata={"b": "2", "a": "1"}).SerializeToString(deterministic=True)
    assert file.size == len(data)
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert file.data_path is None
    onnx.checker.check_model(data, full_check=True)


def test_every_held_tensor_lies_where_it_is_said_to_lie(tmp_path: Path) -> None:
    model = many_kinds()
    file = assemble(model, tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    assert {place.name for place in file.tensors} == set(model.held)
    for place in file.tensors:
        assert data[place.offset : place.offset + place.size] == bytes(model.held[place.name].data())
        assert not place.external


def test_weights_beside_the_file(tmp_path: Path) -> None:
    model = many_kinds()
    file = assemble(model, tmp_path / "m.onnx", external_data="always")
    assert file.data_path == tmp_path / "m.onnx.data"
    data = file.data_path.read_bytes()
    assert (file.data_size, file.data_sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert file.sha256 == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    assert all(place.offset % PAGE == 0 and place.external for place in file.tensors)
    loaded = onnx.load(tmp_path / "m.onnx")
    expected = {tensor.name: tensor for tensor in whole(model).graph.initializer}
    assert [t.name for t in loaded.graph.initializer] == list(expected)
    for tensor in loaded.graph.initializer:
        if tensor.name in model.held:
            assert tensor.raw_data == expected[tensor.name].raw_data
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)


def test_auto_moves_weights_beside_the_file_only_above_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perceptron()
    inside = assemble(model, tmp_path / "a.onnx")
    monkeypatch.setattr(module, "AUTO_LIMIT", inside.size)
    assert assemble(model, tmp_path / "b.onnx").data_path is None
    monkeypatch.setattr(module, "AUTO_LIMIT", inside.size - 1)
    assert assemble(model, tmp_path / "c.onnx").data_path is not None
    assert assemble(model, tmp_path / "d.onnx", external_data="never").data_path is None


@dataclass(frozen=True)
class Unread:
    """Bytes that nobody may ask for."""

    def __call__(self) -> Any:
        raise AssertionError("the bytes were read before it was known whether they fit")


def huge(rows: int) -> BareModel:
    model = bare(f"net (float[1,{rows}] x, float[{rows},1024] w) => (float[1,1024] y) {{ y = MatMul(x, w) }}")
    tensor = HeldTensor("w", 1, (rows, 1024), Unread(), origin="w")
    return replace(model, held={"w": tensor}, inputs=("x",))


def test_a_file_above_two_gigabytes_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    rows = PROTOBUF_LIMIT // 4096 + 1
    with pytest.raises(StageFailed) as caught:
        assemble(huge(rows), tmp_path / "m.onnx", external_data="never")
    reason = caught.value.reason
    assert (reason.code, reason.where) == ("PL-401", "export.external_data")
    assert reason.next_step == "Type export.external_data=auto"
    assert not list(tmp_path.iterdir())


def test_offsets_and_lengths_hold_above_two_gigabytes(tmp_path: Path) -> None:
    """The arithmetic for 3 x 2.2 GB, without the bytes."""
    rows = 550_000
    text = f"""
        net (float[1,{rows}] x, float[{rows},1024] a, float[{rows},1024] b, float[{rows},1024] c)
            => (float[1,1024] y)
        {{ p = MatMul(x, a) q = MatMul(x, b) r = MatMul(x, c) s = Add(p, q) y = Add(r, s) }}
    """
    model = bare(text)
    tensors = {name: HeldTensor(name, 1, (rows, 1024), Unread(), origin=name) for name in "abc"}
    model = replace(model, held=tensors, inputs=("x",))
    proto = finish(model, metadata={}, ir_version=None)
    order = tensor_order(proto.graph, model.held)
    inside = module._Message(proto, order, model.held, data_name=None)
    assert inside.size > 3 * rows * 4096 > PROTOBUF_LIMIT
    outside = module._Message(proto, order, model.held, data_name="m.onnx.data")
    assert outside.size < 2000
    ends = 0
    for place in outside.placed:
        assert place.offset >= ends
        assert place.offset % PAGE == 0
        ends = place.offset + place.size
    assert outside.data_size == ends == 3 * rows * 4096


@pytest.mark.parametrize("size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_pieces_of_every_size(tmp_path: Path, size: int) -> None:
    array = np.arange(size, dtype=np.uint32).astype(np.uint8)
    model = bare(f"net (uint8[1] x, uint8[{size}] w) => (uint8[{size}] y) {{ y = Add(x, w) }}")
    model = replace(model, held={"w": held("w", array)}, inputs=("x",))
    file = assemble(model, tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    (place,) = file.tensors
    assert data[place.offset : place.offset + place.size] == array.tobytes()
    assert file.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("number", [n for n, kind in ELEMENT_TYPES.items() if kind.bits])
def test_every_element_type_can_be_written(tmp_path: Path, number: int) -> None:
    kind = ELEMENT_TYPES[number]
    size = (7 * kind.bits + 7) // 8
    data = np.arange(size, dtype=np.uint8)
    model = bare("net (float[1] x) => (float[1] y) { y = Relu(x) }")
    proto = model.parsed()
    proto.graph.input.add(name="w").type.tensor_type.elem_type = number
    proto.graph.input[1].type.tensor_type.shape.dim.add(dim_value=7)
    model = replace(
        model,
        proto=proto.SerializeToString(),
        held={"w": HeldTensor("w", number, (7,), Fixed(data), origin="w")},
    )
    model.check_invariant()
    assemble(model, tmp_path / "m.onnx")
    loaded = onnx.load(tmp_path / "m.onnx")
    (tensor,) = loaded.graph.initializer
    assert (tensor.data_type, tensor.raw_data) == (number, data.tobytes())
    assert loaded.ir_version >= kind.first_ir
    onnx.numpy_helper.to_array(tensor)


def test_non_contiguous_and_zero_dimensional_tensors(tmp_path: Path) -> None:
    wide = random(64, 32)
    model = bare(
        "net (float[1] x, float[32,64] t, float s) => (float[32,64] y) { a = Mul(x, t) y = Mul(a, s) }",
        {"t": wide.T, "s": np.array(3.0, np.float32)},
    )
    assemble(model, tmp_path / "m.onnx")
    loaded = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    np.testing.assert_array_equal(loaded["t"], wide.T)
    assert loaded["s"].shape == ()


def test_tensors_stand_in_the_order_in_which_they_are_used(tmp_path: Path) -> None:
    model = perceptron()
    backwards = replace(model, held=dict(reversed(model.held.items())))
    proto = backwards.parsed()
    inputs = [proto.graph.input[i] for i in (0, 2, 1)]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del proto.graph.input[:]
    proto.graph.input.extend(copies)
    backwards = replace(backwards, proto=proto.SerializeToString())
    backwards.check_invariant()
    one, other = assemble(model, tmp_path / "a.onnx"), assemble(backwards, tmp_path / "b.onnx")
    assert one.sha256 == other.sha256


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("somebody's")
    with pytest.raises(FileExistsError):
        assemble(perceptron(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "somebody's"


def test_a_tensor_with_fewer_bytes_than_it_says_is_our_own_fault(tmp_path: Path) -> None:
    model = perceptron()
    short = replace(model.held["fc1.weight"], data=Fixed(random(31, 64)))
    model = replace(model, held={**model.held, "fc1.weight": short})
    with pytest.raises(InternalError, match=r"fc1\.weight has 7936 bytes"):
        assemble(model, tmp_path / "m.onnx")


def test_a_disk_that_is_full_is_said_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, piece: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_all", full)
    with pytest.raises(OSError, match="No space left"):
        assemble(perceptron(), tmp_path / "m.onnx")


def test_a_short_write_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(stream: Any, piece: Iterable[int]) -> None:
        view = memoryview(piece)  # type: ignore[arg-type]
        stream.write(view[: len(view) // 2])

    monkeypatch.setattr(module, "write_all", half)
    with pytest.raises(InternalError, match="were computed"):
        assemble(perceptron(), tmp_path / "m.onnx")


def test_nothing_holds_the_weights_afterwards(tmp_path: Path) -> None:
    """Without waiting for a garbage collection, which the command line puts off: parity needs the room."""
    model = many_kinds()
    held_by = [weakref.ref(tensor) for tensor in model.held.values()]
    gc.disable()
    try:
        assemble(model, tmp_path / "m.onnx")
        assemble(model, tmp_path / "n.onnx", external_data="always")
        del model
        assert [tensor() for tensor in held_by] == [None] * len(held_by)
    finally:
        gc.enable()
