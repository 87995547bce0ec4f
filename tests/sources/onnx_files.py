"""Ready .onnx files for tests: good ones, and bad ones called after what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as helper
import onnx.numpy_helper as numpy_helper
import onnx.parser

CONVOLUTION = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 3, 8, 8] x) => (float[batch, 4] y) {
  c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w, b)
  n = BatchNormalization(c, scale, shift, mean, variance)
  r = Relu(n)
  p = GlobalAveragePool(r)
  y = Flatten(p)
}
"""


def convolution() -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, pooling: 1x3x8x8 with a dynamic batch, weights random."""
    model = onnx.parser.parse_model(CONVOLUTION)
    draw = np.random.default_rng(0)
    arrays = {
        "w": draw.standard_normal((4, 3, 3, 3)), "b": draw.standard_normal(4), "scale": draw.uniform(1, 2, 4),
        "shift": draw.standard_normal(4), "mean": draw.standard_normal(4), "variance": draw.uniform(1, 2, 4),
    }  # fmt: skip
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    return model


def linear(size: int = 64) -> onnx.ModelProto:
    """y = x W + b, with a weight of `size` squared that is large enough to be held aside."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\n'
        f"g (float[1, {size}] x) => (float[1, {size}] y) {{ m = MatMul(x, w)\n y = Add(m, b) }}"
    )
    draw = np.random.default_rng(1)
    weight = draw.standard_normal((size, size)).astype(np.float32) / np.float32(size**0.5)
    bias = draw.standard_normal(size).astype(np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")])
    return model


def with_external_data(folder: Path, *, location: str = "weights/data.bin") -> Path:
    """`linear` with its weight in a file of a folder below."""
    model = linear()
    for tensor in model.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, location)
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.external_data_helper.write_external_data_tensors(model, str(folder))
    path = folder / "external.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def saved(folder: Path, model: onnx.ModelProto, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


# bad ones


def _tensor_that_promises_terabytes(folder: Path) -> Path:
    model = linear()
    model.graph.initializer[0].dims[0] = 1 << 40
    return saved(folder, model)


def _typed_tensor_that_promises_terabytes(folder: Path) -> Path:
    model = linear()
    tensor = model.graph.initializer[1]
    tensor.CopyFrom(helper.make_tensor("b", onnx.TensorProto.FLOAT, [2], [1.0, 2.0]))
    tensor.dims[0] = 1 << 40
    return saved(folder, model)


def _constant_that_promises_terabytes(folder: Path) -> Path:
    model = linear()
    tensor = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [1.0])
    tensor.dims[0] = 1 << 40
    model.graph.node.add(op_type="Constant", output=["k"]).attribute.append(
        helper.make_attribute("value", tensor)
    )
    return saved(folder, model)


def _fill_of_terabytes(folder: Path) -> Path:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\ng (float[1] x) => (float[1] y) <int64[2] s = {1048576, 1048576}>'
        "{ f = ConstantOfShape(s)\n m = ReduceMax<keepdims = 0>(f)\n y = Add(x, m) }"
    )
    return saved(folder, model)


def _graphs_in_graphs(folder: Path) -> Path:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [],
                              [helper.make_tensor_value_info("y", 1, [1])])  # fmt: skip
    for depth in range(32):
        inner = helper.make_node("If", ["c"], [f"o{depth}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([inner], "g", [], [helper.make_tensor_value_info(f"o{depth}", 1, [1])])
        if depth > 12:  # both branches double the file; one is enough to go on
            del graph.node[0].attribute[1]
    graph.input.append(helper.make_tensor_value_info("x", 1, [1]))
    return saved(folder, helper.make_model(graph))


def _function(name: str, *called: str) -> onnx.FunctionProto:
    nodes, value = [], "a"
    for index, operator in enumerate(called):
        domain = "" if operator == "Relu" else "own"
        nodes.append(helper.make_node(operator, [value], [f"v{index}"], domain=domain))
        value = f"v{index}"
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], [value], nodes, imports)


def _calls(functions: list[onnx.FunctionProto], last: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(last, ["x"], ["y"], domain="own")], "g",
        [helper.make_tensor_value_info("x", 1, [1, 4])], [helper.make_tensor_value_info("y", 1, [1, 4])],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, functions=functions, opset_imports=imports, ir_version=8)


def with_function(folder: Path) -> Path:
    """A good file: one function that is called."""
    return saved(folder, _calls([_function("f", "Relu", "Relu")], "f"), "function.onnx")


def _functions_that_multiply(folder: Path) -> Path:
    functions = [_function("f0", *["Relu"] * 10)]
    functions += [_function(f"f{index}", *[f"f{index - 1}"] * 10) for index in range(1, 9)]
    return saved(folder, _calls(functions, "f8"))


def _function_that_calls_itself(folder: Path) -> Path:
    return saved(folder, _calls([_function("f", "g"), _function("g", "f")], "f"))


def _external_data_elsewhere(folder: Path) -> Path:
    path = with_external_data(folder)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = "../../etc/passwd" if entry.key == "location" else entry.value
    return saved(folder, model)


def _external_data_by_a_link(folder: Path) -> Path:
    path = with_external_data(folder)
    data = folder / "weights" / "data.bin"
    outside = folder.parent / "outside.bin"
    data.rename(outside)
    data.symlink_to(outside)
    return path


def _external_data_beyond_its_end(folder: Path) -> Path:
    path = with_external_data(folder)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[1].external_data:
        entry.value = str(1 << 50) if entry.key == "offset" else entry.value
    return saved(folder, model)


def _external_data_over_and_over(folder: Path) -> Path:
    path = with_external_data(folder)
    model = onnx.load(path, load_external_data=False)
    for index in range(100):
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"w{index}"
    return saved(folder, model)


def _external_data_missing(folder: Path) -> Path:
    path = with_external_data(folder)
    (folder / "weights" / "data.bin").unlink()
    return path


def _cut_off(folder: Path) -> Path:
    path = saved(folder, linear())
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _bytes(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(content)
        return path

    return make


def _unknown_operator(folder: Path) -> Path:
    model = linear()
    model.graph.node[0].op_type = "MatMull"
    return saved(folder, model)


def _used_before_it_is_made(folder: Path) -> Path:
    model = linear()
    model.graph.node[0].input[0] = "nowhere"
    return saved(folder, model)


#: What is wrong -> how it is made, the code of the refusal, and a word of its sentence.
BAD: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "empty": (_bytes(b""), "PL-241", "no bytes"),
    "text": (_bytes(b"this is no model at all, but a text"), "PL-241", "damaged"),
    "zip": (_bytes(b"PK\x03\x04" + bytes(60)), "PL-241", "damaged"),
    "cut_off": (_cut_off, "PL-241", "past its message"),
    "tensor_that_promises_terabytes": (_tensor_that_promises_terabytes, "PL-242", "larger than its data"),
    "typed_tensor_that_promises_terabytes": (_typed_tensor_that_promises_terabytes, "PL-242", "larger than"),
    "constant_that_promises_terabytes": (_constant_that_promises_terabytes, "PL-242", "larger than its data"),
    "fill_of_terabytes": (_fill_of_terabytes, "PL-242", "would not fit into memory"),
    "graphs_in_graphs": (_graphs_in_graphs, "PL-242", "too deep"),
    "functions_that_multiply": (_functions_that_multiply, "PL-242", "too many nodes"),
    "function_that_calls_itself": (_function_that_calls_itself, "PL-242", "calls itself"),
    "external_data_elsewhere": (_external_data_elsewhere, "PL-242", "outside the model's folder"),
    "external_data_by_a_link": (_external_data_by_a_link, "PL-242", "outside the model's folder"),
    "external_data_beyond_its_end": (_external_data_beyond_its_end, "PL-242", "not there as it should be"),
    "external_data_over_and_over": (_external_data_over_and_over, "PL-242", "over and over"),
    "external_data_missing": (_external_data_missing, "PL-240", "is missing"),
    "unknown_operator": (_unknown_operator, "PL-241", "MatMull"),
    "used_before_it_is_made": (_used_before_it_is_made, "PL-241", "nowhere"),
}


def mutations(count: int, seed: int = 0) -> Iterator[bytes]:
    """Files that were good once: bits turned, cut, doubled, blanked, lengths inflated, pieces swapped."""
    draw = np.random.default_rng(seed)
    good = [convolution().SerializeToString(), linear(16).SerializeToString(),
            _calls([_function("f", "Relu", "g"), _function("g", "Relu")], "f").SerializeToString()]  # fmt: skip
    for index in range(count):
        data = bytearray(good[index % len(good)])
        for _ in range(int(draw.integers(1, 4))):
            at = int(draw.integers(0, len(data)))
            size = int(draw.integers(1, 40))
            kind = int(draw.integers(0, 7))
            if kind == 0:
                data[at] ^= 1 << int(draw.integers(0, 8))
            elif kind == 1:
                data[at] = int(draw.integers(0, 256))
            elif kind == 2:
                del data[at:]
            elif kind == 3:
                data[at : at + size] = bytes(size)
            elif kind == 4:
                data[at:at] = data[at : at + size]
            elif kind == 5:
                data[at : at + 1] = b"\xff\xff\xff\xff\x7f"
            else:
                other = int(draw.integers(0, len(data)))
                data[at : at + size] = data[other : other + size]
            if not data:
                break
        yield bytes(data)
