"""Simplify the bare graph with onnxsim, and prove that it still computes the same.

onnxsim's `ok` proves nothing by default, so both graphs are run here on the export inputs with
the network's weights. A result that differs, or that cannot be had or proved, is not used: the
graph stays as the exporter left it, and the attempt is recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from pipeline.errors import InternalError, Reason
from pipeline.graph.bare import BareModel, HeldTensor, stays_in_proto
from pipeline.graph.branches import with_open_branches
from pipeline.graph.duplicates import merge_equal_tensors, without_held
from pipeline.graph.equivalence import NotRunnableError, compare_graphs
from pipeline.graph.folding import DERIVED_BY, fold_held, unused_held
from pipeline.graph.linear import fuse_linear
from pipeline.graph.onnxsim_core import run_onnxsim
from pipeline.graph.split import hold_values, typed_input
from pipeline.graph.walk import graphs, nodes

if TYPE_CHECKING:
    import onnx

#: Who made a node that the exporter did not make.
MADE_BY: Final = "simplify"
#: onnxsim and our own folding take turns until nothing is folded any more, at most so often.
ROUNDS: Final = 3
#: Results up to this size are folded: a ConstantOfShape must not become megabytes of file. The
#: second is tried when the first makes the file grow too much.
LARGEST_FOLDED_BYTES: Final = (1024 * 1024, 16 * 1024)
#: A simplified file may be larger by this much, and by this share: folded results replace what
#: computed them (raft_small's grids: 0.4 MB of 4; swin_t's position tables: 0.8 of 115).
GROWTH_BYTES: Final = 1024 * 1024
GROWTH_SHARE: Final = 0.01

Outcome = Literal["simplified", "unchanged", "fell back"]


@dataclass(frozen=True)
class Simplification:
    """What became of the attempt.

    Attributes:
        outcome: fell back: the exported graph is used; `reason` says why.
        nodes_before, nodes_after: of the whole model, nodes inside of nodes included.
        error: largest difference over the largest magnitude that the comparison found; None when
            nothing had to be compared or nothing could be.
    """

    outcome: Outcome
    nodes_before: int
    nodes_after: int
    error: float | None = None
    reason: Reason | None = None


class _RefusedError(Exception):
    """A result that must not be used; the text says why."""


def simplify(
    model: BareModel,
    values: Mapping[str, Any],
    *,
    private_apis: bool = False,
    keep: Collection[str] = (),
) -> tuple[BareModel, Simplification]:
    """The simplified graph, or the exported one where that is not proved.

    Inputs, outputs and shown parameters stay as they are. Held tensors are never folded in
    silence: what is computed from them is listed as derived; those that nothing uses any more are
    gone from the table.

    Args:
        model: the exported graph.
        values: the export inputs, arrays by name.
        private_apis: see `onnxsim_core.run_onnxsim`.
        keep: held tensors that must stay under their own names.
    """
    before = count_nodes(model)
    model = with_open_branches(model)
    try:
        candidate = _small_enough(model, private_apis, keep)
        if _same_graph(model, candidate):
            return _as_exported(model, keep), Simplification("unchanged", before, before)
        equal = compare_graphs(model, candidate, values)
    except NotRunnableError as error:
        return model, _fell_back(before, _unproved(str(error)))
    except InternalError:
        raise
    # A simplifier is native code of somebody else's: whatever it raises, the exported graph is good.
    except Exception as error:  # noqa: BLE001
        return model, _fell_back(before, _refused(_sentence(error)))
    if equal.difference is not None:
        return model, _fell_back(before, _refused(equal.difference), error=equal.error)
    return candidate, Simplification("simplified", before, count_nodes(candidate), error=equal.error)


def count_nodes(model: BareModel) -> int:
    """Nodes of the graph and of the graphs inside it."""
    return sum(1 for _ in nodes(model.parsed().graph))


def operators(model: BareModel) -> dict[str, int]:
    """Operator to the number of its nodes, most frequent first."""
    counts = Counter(
        f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for node in nodes(model.parsed().graph)
    )
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _small_enough(model: BareModel, private_apis: bool, keep: Collection[str]) -> BareModel:
    """The simplified graph, with less folded where the file would grow too much."""
    before = model.held_bytes + _constants(model)
    after = 0
    for largest_folded in LARGEST_FOLDED_BYTES:
        candidate = _simplified(model, private_apis, keep, largest_folded)
        after = candidate.held_bytes + _constants(candidate)
        if after <= before + GROWTH_BYTES + GROWTH_SHARE * before:
            return candidate
    raise _RefusedError(f"the file would grow from {before} to {after} bytes")


def _simplified(
    model: BareModel, private_apis: bool, keep: Collection[str], largest_folded: int
) -> BareModel:
    current = merge_equal_tensors(model, keep)
    for _ in range(ROUNDS):
        proto = run_onnxsim(current.proto, private_apis=private_apis, largest_folded=largest_folded)
        current = _adopt(current, proto, keep)
        try:
            folded = fold_held(current, keep, largest_folded=largest_folded)
        # What cannot be computed here (an element type that ONNX Runtime lacks) stays in the graph.
        except Exception:  # noqa: BLE001
            break
        if folded is current:
            break
        current = folded
    return _traced(model, fuse_linear(current))


def _adopt(model: BareModel, simplified: bytes, keep: Collection[str]) -> BareModel:
    """What onnxsim gave, as a bare model with the interface of `model`."""
    import onnx

    original, proto = model.parsed(), onnx.ModelProto.FromString(simplified)
    _restore_interface(original, proto)
    small: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in original.graph.initializer}
    origins, derived = dict(model.origins), dict(model.derived)
    held: dict[str, HeldTensor] = dict(model.held)
    inside = []
    for tensor in proto.graph.initializer:
        twin = small.get(tensor.name)
        if twin is None or twin.SerializeToString() != tensor.SerializeToString():
            origins.pop(tensor.name, None)
            derived[tensor.name] = DERIVED_BY
        if stays_in_proto(tensor.data_type, tuple(tensor.dims)):
            inside.append(tensor)
        else:
            held[tensor.name] = hold_values(tensor, origin=None, derived_by=DERIVED_BY)
    for name in list(held):
        if name not in model.held:
            derived.pop(name, None)
            proto.graph.input.append(typed_input(held[name]))
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in inside]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    names = {tensor.name for tensor in kept}
    adopted = replace(
        model,
        held=held,
        origins={name: origin for name, origin in origins.items() if name in names},
        derived={name: step for name, step in derived.items() if name in names},
    )
    return without_held(adopted, proto, unused_held(adopted, proto.graph, keep))


def _restore_interface(original: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Inputs, outputs, versions and metadata are not onnxsim's to change.

    It calls symbolic sizes by names of its own in some graphs; the types that it inferred inside
    follow the names that the inputs had.
    """
    for what in ("input", "output"):
        before, after = getattr(original.graph, what), getattr(proto.graph, what)
        if [value.name for value in before] != [value.name for value in after]:
            raise _RefusedError(f"onnxsim changed the graph's {what}s")
    opsets = [
        sorted((entry.domain.replace("ai.onnx", ""), entry.version) for entry in m.opset_import)
        for m in (original, proto)
    ]
    if dict(opsets[0]).get("") != dict(opsets[1]).get(""):
        raise _RefusedError("onnxsim changed the operator set")
    renamed = _renamed_sizes(original.graph, proto.graph)
    for what in ("input", "output"):
        values = getattr(proto.graph, what)
        del values[:]
        values.extend(getattr(original.graph, what))
    for value in proto.graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in renamed:
                dim.dim_param = renamed[dim.dim_param]
    proto.ir_version = original.ir_version
    for name in ("opset_import", "metadata_props"):
        entries = getattr(proto, name)
        del entries[:]
        entries.extend(getattr(original, name))


def _renamed_sizes(before: onnx.GraphProto, after: onnx.GraphProto) -> dict[str, str]:
    """From the name that onnxsim gave a symbolic size to the one that it had."""
    renamed = {}
    for what in ("input", "output"):
        for old, new in zip(getattr(before, what), getattr(after, what), strict=True):
            sizes = zip(old.type.tensor_type.shape.dim, new.type.tensor_type.shape.dim, strict=False)
            for one, other in sizes:
                if one.dim_param and other.dim_param and one.dim_param != other.dim_param:
                    renamed[other.dim_param] = one.dim_param
    return renamed


def _traced(original: BareModel, candidate: BareModel) -> BareModel:
    """`candidate` with the scopes and lines of what is still there, and the makers of its nodes."""
    proto = candidate.parsed()
    exported = {(node.name, node.op_type) for node in nodes(original.parsed().graph)}
    names: set[str] = set()
    for graph in graphs(proto.graph):
        for node in graph.node:
            names.update((node.name, *node.output))
    return replace(
        candidate,
        scopes={name: scope for name, scope in original.scopes.items() if name in names},
        lines={name: line for name, line in original.lines.items() if name in names},
        made_by={
            node.name: original.made_by.get(node.name, MADE_BY)
            for node in nodes(proto.graph)
            if node.name and ((node.name, node.op_type) not in exported or node.name in original.made_by)
        },
    )


def _as_exported(model: BareModel, keep: Collection[str]) -> BareModel:
    """The exported graph without the held tensors that nothing uses."""
    proto = model.parsed()
    gone = unused_held(model, proto.graph, keep)
    return without_held(model, proto, gone) if gone else model


def _same_graph(one: BareModel, other: BareModel) -> bool:
    """Whether the nodes and constants are the same, whatever is said about them."""
    if not set(other.held) <= set(one.held):
        return False
    described = []
    for model in (one, other):
        graph = model.parsed().graph
        for inner in graphs(graph):
            del inner.value_info[:]
            inner.ClearField("doc_string")
            for node in inner.node:
                node.ClearField("doc_string")
                node.ClearField("name")
                del node.metadata_props[:]
        described.append(
            (
                [node.SerializeToString(deterministic=True) for node in graph.node],
                sorted(tensor.SerializeToString(deterministic=True) for tensor in graph.initializer),
            )
        )
    return described[0] == described[1]


def _constants(model: BareModel) -> int:
    return sum(len(tensor.raw_data) for tensor in model.parsed().graph.initializer)


def _fell_back(before: int, reason: Reason, error: float | None = None) -> Simplification:
    return Simplification("fell back", before, before, error=error, reason=reason)


def _refused(why: str) -> Reason:
    return Reason(
        "PL-410",
        "the simplified graph was not used, the file holds the exported one",
        where="simplify",
        found=why,
        next_step="Type simplify=none to leave the attempt out",
    )


def _unproved(why: str) -> Reason:
    return Reason(
        "PL-410",
        "the graph was not simplified, because ONNX Runtime does not run the exported one "
        "and nothing could be proved",
        where="simplify",
        found=why,
        next_step="Type simplify=none to leave the attempt out",
    )


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, _RefusedError) else f"{type(error).__name__}: {lines[0]}"
