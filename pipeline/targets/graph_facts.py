"""What a finished graph says of itself without its weights: shapes, element types, constants, neighbours."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import Refused

if TYPE_CHECKING:
    import onnx

    from pipeline.targets.node_facts import NodeFacts

#: A shape as far as it is known: None for an axis without a size; None for the whole: not even the rank.
Shape = tuple[int | None, ...]
#: Operators whose result a static shape decides.
_OF_SHAPES: Final = ("Shape", "Size")
#: Operators that must not be computed once and for all.
_RANDOM: Final = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)


@dataclass
class Scope:
    """One graph: the main one, or a body inside a node; what it does not know it asks its outer one for.

    Attributes:
        graph: the proto, with inferred shapes.
        path: names of the nodes around it, outermost first.
        shapes, dtypes: by value.
        constants: values that are fixed; None where the data is not at hand.
        producers, consumers: by value: nodes of this scope (consumers: of inner ones too).
        outputs, inputs: of the whole model.
    """

    graph: onnx.GraphProto
    path: tuple[str, ...]
    shapes: MutableMapping[str, Shape | None]
    dtypes: MutableMapping[str, str]
    constants: MutableMapping[str, onnx.TensorProto | None]
    producers: MutableMapping[str, onnx.NodeProto]
    consumers: MutableMapping[str, list[onnx.NodeProto]]
    inputs: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()
    folded: set[int] = field(default_factory=set)  #: indices of nodes that are computed from constants


@dataclass(frozen=True)
class GraphFacts:
    """A model, ready to be judged.

    Attributes:
        model: the proto with inferred shapes, without large weights.
        opsets: domain ("" is ai.onnx) to version.
        scopes: the main graph first.
        real_inputs: graph inputs that are no initializers.
        problem: why shape inference gave up, if it did.
    """

    model: onnx.ModelProto
    opsets: Mapping[str, int]
    scopes: tuple[Scope, ...]
    real_inputs: tuple[onnx.ValueInfoProto, ...]
    problem: str | None = None

    def nodes(self) -> Iterator[tuple[str, NodeFacts, bool]]:
        """Every node: its name, its facts and whether it is folded away; names are unique."""
        from pipeline.targets.node_facts import NodeFacts

        seen: dict[str, int] = {}
        for scope in self.scopes:
            for index, node in enumerate(scope.graph.node):
                name = node.name or f"{node.op_type}({next(iter(node.output), '')})"
                name = "/".join((*scope.path, name)) if scope.path else name
                number = seen.get(name, 0)
                seen[name] = number + 1
                if number:
                    name = f"{name}#{number + 1}"
                yield name, NodeFacts(node, scope, self.opsets, name), index in scope.folded


def read_file(path: Path) -> onnx.ModelProto:
    """A model file without its large weights.

    Raises:
        Refused: it is no ONNX file, or cannot be read.
    """
    from pipeline.graph.view import read_layout
    from pipeline.graph.wire import MalformedError

    try:
        return read_layout(path).parsed()
    except OSError as error:
        raise Refused("PL-609", "the file cannot be read", where=str(path), found=error.strerror,
                      expected="an ONNX file", next_step="Give the path of one") from error  # fmt: skip
    except Exception as error:
        # protobuf's DecodeError has moved between modules from version to version.
        damage = isinstance(error, (MalformedError, ValueError, RecursionError))
        if not damage and type(error).__name__ != "DecodeError":
            raise
        raise Refused(
            "PL-609", "the file is no ONNX model, or damaged", where=str(path),
            found=(str(error).splitlines() or [type(error).__name__])[0], expected="an ONNX file",
            next_step="Export it again",
        ) from error  # fmt: skip


def graph_facts(model: onnx.ModelProto, *, held: frozenset[str] = frozenset()) -> GraphFacts:
    """Infer shapes and gather what limits ask for.

    Args:
        model: weights may be missing; it is not changed.
        held: graph inputs that stand for initializers (see `pipeline.graph.bare`).

    Raises:
        Refused: the model has no graph to look at.
    """
    inlined = _inlined(model)
    inferred, problem = _inferred(inlined)
    graph = inferred.graph
    if not graph.node:
        raise Refused("PL-609", "the file has no nodes", found="an empty graph", expected="a model",
                      next_step="Export it again")  # fmt: skip
    fixed = {tensor.name for tensor in graph.initializer} | {
        sparse.values.name for sparse in graph.sparse_initializer
    }
    inputs = tuple(value for value in graph.input if value.name not in fixed | held)
    main = Scope(graph, (), {}, {}, dict.fromkeys(held), {}, {}, frozenset(v.name for v in inputs),
                 frozenset(v.name for v in graph.output))  # fmt: skip
    scopes = [main]
    _gather(main, scopes)
    opsets = {("" if one.domain == "ai.onnx" else one.domain): one.version for one in inferred.opset_import}
    return GraphFacts(inferred, opsets, tuple(scopes), inputs, problem)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.functions:
        return model
    import onnx.inliner

    return onnx.inliner.inline_local_functions(model)


def _inferred(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str | None]:
    import onnx.shape_inference

    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True), None
    except Exception as error:  # noqa: BLE001 - the C++ part raises of many kinds; the shapes in the file are left
        return model, (str(error).splitlines() or [type(error).__name__])[0][:200]


def _gather(scope: Scope, scopes: list[Scope]) -> None:
    """Fill `scope`, and add a scope for every body inside its nodes."""
    graph = scope.graph
    _check_names(graph)
    for value in (*graph.input, *graph.value_info, *graph.output):
        _typed(scope, value)
    for tensor in graph.initializer:
        scope.constants[tensor.name] = tensor
        scope.shapes[tensor.name] = tuple(tensor.dims)
        scope.dtypes[tensor.name] = dtype_name(tensor.data_type)
    for sparse in graph.sparse_initializer:
        scope.constants[sparse.values.name] = None
        scope.shapes[sparse.values.name] = tuple(sparse.dims)
        scope.dtypes[sparse.values.name] = dtype_name(sparse.values.data_type)
    for node in graph.node:
        for name in node.output:
            if name:
                scope.producers[name] = node
        for name in node.input:
            scope.consumers.setdefault(name, []).append(node)
    for index, node in enumerate(graph.node):
        if _is_constant(node, scope):
            scope.folded.add(index)
            for name in node.output:
                scope.constants[name] = _constant_data(node)
    for index, node in enumerate(graph.node):
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for body in bodies:
                label = node.name or f"{node.op_type}({next(iter(node.output), index)})"
                inner = Scope(body, (*scope.path, f"{label}.{attribute.name}"), _inside(scope.shapes),
                              _inside(scope.dtypes), _inside(scope.constants), _inside(scope.producers),
                              scope.consumers)  # fmt: skip
                scopes.append(inner)
                _gather(inner, scopes)


def _check_names(graph: onnx.GraphProto) -> None:
    """Names of a damaged file may be no text: protobuf hands such out as bytes.

    Raises:
        Refused: there is one.
    """
    for node in graph.node:
        attributes = (one.name for one in node.attribute)
        for name in (node.op_type, node.domain, node.name, *node.input, *node.output, *attributes):
            if not isinstance(name, str):
                raise _damaged_name(name)
    for one in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if not isinstance(one.name, str):
            raise _damaged_name(one.name)


def _damaged_name(name: Any) -> Refused:
    return Refused("PL-609", "the file is damaged: a name in it is no text", found=repr(name)[:60],
                   expected="UTF-8", next_step="Export it again")  # fmt: skip


def _inside(outer: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return ChainMap({}, outer)


def _typed(scope: Scope, value: onnx.ValueInfoProto) -> None:
    if not value.type.HasField("tensor_type"):
        scope.shapes.setdefault(value.name, None)
        return
    tensor = value.type.tensor_type
    if tensor.elem_type:
        scope.dtypes[value.name] = dtype_name(tensor.elem_type)
    shape: Shape | None = None
    if tensor.HasField("shape"):
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    scope.shapes[value.name] = shape


def _is_constant(node: onnx.NodeProto, scope: Scope) -> bool:
    if node.op_type in _RANDOM or any(a.HasField("g") or a.graphs for a in node.attribute):
        return False
    if node.op_type in _OF_SHAPES and node.domain in ("", "ai.onnx"):
        shape = scope.shapes.get(node.input[0]) if node.input else None
        return shape is not None and None not in shape
    return all(name in scope.constants for name in node.input if name)


def _constant_data(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node; other results are not computed here."""
    if node.op_type != "Constant":
        return None
    import numpy as np
    from onnx import numpy_helper

    for attribute in node.attribute:
        if attribute.name == "value":
            tensor: onnx.TensorProto = attribute.t
            return tensor
        if attribute.name in ("value_int", "value_ints"):
            given: Any = attribute.i if attribute.name == "value_int" else list(attribute.ints)
            return numpy_helper.from_array(np.asarray(given, np.int64))
        if attribute.name in ("value_float", "value_floats"):
            given = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            return numpy_helper.from_array(np.asarray(given, np.float32))
    return None


_NAMES: Final = {"FLOAT": "float32", "DOUBLE": "float64"}


def dtype_name(code: int) -> str:
    """The name that numpy has for an ONNX element type."""
    import onnx

    try:
        name = str(onnx.TensorProto.DataType.Name(code))
    except ValueError:
        return f"type {code}"
    return _NAMES.get(name, name.lower())
