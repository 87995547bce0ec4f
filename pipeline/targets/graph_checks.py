"""What a profile asks of the whole graph: opset, IR version, inputs, outputs, ranks, what must be there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.targets.placement import Placement
from pipeline.targets.profile import Profile, Requirement

if TYPE_CHECKING:
    from pipeline.targets.graph_facts import GraphFacts
    from pipeline.targets.judge import Finding, Verdict


def graph_findings(profile: Profile, facts: GraphFacts, placements: Sequence[Placement]) -> Iterator[Finding]:
    """What the graph as a whole breaks."""
    standard = any("::" not in one.operator for one in placements)
    yield from _versions(profile, facts, standard)
    yield from _interface(profile, facts)
    if profile.max_rank is not None:
        yield from _ranks(profile.max_rank, facts)
    for requirement in profile.requires:
        yield from _required(profile, requirement, placements)


def _whole(limit: str, found: str, mend: str | None, verdict: Verdict = "refused") -> Finding:
    from pipeline.targets.judge import Finding

    return Finding(None, None, limit, found, verdict, mend)


def _versions(profile: Profile, facts: GraphFacts, standard: bool) -> Iterator[Finding]:
    low, high = profile.opset
    opset = facts.opsets.get("")
    if opset is None and not standard:
        pass  # no operator of ONNX's own, so no version of them
    elif opset is None:
        yield _whole(f"opset {profile.opset_text}", "no opset of ai.onnx in the file", "export it again")
    elif (low is not None and opset < low) or (high is not None and opset > high):
        nearest = low if low is not None and opset < low else high
        yield _whole(f"opset {profile.opset_text}", f"opset {opset}", f"export.opset={nearest}")
    version = facts.model.ir_version
    if profile.ir_version is not None and version > profile.ir_version:
        yield _whole(
            f"IR version up to {profile.ir_version}", f"IR version {version}",
            f"export.ir_version={profile.ir_version}",
        )  # fmt: skip


def _interface(profile: Profile, facts: GraphFacts) -> Iterator[Finding]:
    main = facts.scopes[0]
    if profile.max_inputs is not None and len(facts.real_inputs) > profile.max_inputs:
        yield _whole(f"at most {profile.max_inputs} inputs", f"{len(facts.real_inputs)} inputs",
                     "join inputs, or split the model")  # fmt: skip
    outputs = facts.model.graph.output
    if profile.max_outputs is not None and len(outputs) > profile.max_outputs:
        yield _whole(f"at most {profile.max_outputs} outputs", f"{len(outputs)} outputs",
                     "give fewer outputs (model.outputs)")  # fmt: skip
    for value in facts.real_inputs:
        shape = main.shapes.get(value.name)
        if shape is None:
            yield _whole(
                "inputs of known rank", f"{value.name} has no shape", "state the input's shape", "unknown"
            )
            continue
        shown = f"{value.name} {[size if size is not None else '?' for size in shape]}".replace("'", "")
        if profile.shapes == "static" and None in shape:
            yield _whole("fixed shapes only", shown, f"model.inputs.{value.name}.dynamic={{}}")
        if profile.input_rank is not None and len(shape) != profile.input_rank:
            yield _whole(f"inputs of rank {profile.input_rank}", shown,
                         f"give {value.name} {profile.input_rank} axes")  # fmt: skip
        if profile.batch is not None and shape and shape[0] not in (None, profile.batch):
            yield _whole(
                f"batch {profile.batch}", shown, f"give {value.name} a first axis of {profile.batch}"
            )
    named = [value.name for value in (*facts.real_inputs, *outputs)]
    for name in named if profile.dtypes else ():
        dtype = main.dtypes.get(name)
        if dtype is not None and dtype not in profile.dtypes:
            yield _whole(f"inputs and outputs of {', '.join(profile.dtypes)}", f"{name} is {dtype}",
                         "cast it in the network, or outside the model")  # fmt: skip


def _ranks(limit: int, facts: GraphFacts) -> Iterator[Finding]:
    """The highest rank that is too high, and how many tensors have one."""
    high = [
        (name, len(shape))
        for scope in facts.scopes
        for name, shape in scope.shapes.items()
        if shape is not None and len(shape) > limit and name not in scope.constants
    ]
    if high:
        name, rank = max(high, key=lambda pair: pair[1])
        yield _whole(f"tensors of at most rank {limit}", f"{name} has rank {rank} ({len(high)} in all)",
                     "reshape so that ranks stay lower")  # fmt: skip


def _required(profile: Profile, wanted: Requirement, placements: Iterable[Placement]) -> Iterator[Finding]:
    alive = [one for one in placements if one.operator == wanted.operator and one.place != "folded"]
    sure = sum(wanted.place in ("any", one.place) for one in alive)
    if sure >= wanted.at_least:
        return
    maybe = sum(one.place == "unknown" for one in alive)
    where = "" if wanted.place == "any" else f" on {profile.place(wanted.place)}"
    verdict: Verdict = "unknown" if sure + maybe >= wanted.at_least else "refused"
    yield _whole(
        f"at least {wanted.at_least} {wanted.operator}{where}", f"{sure} of {len(alive)}",
        f"keep a {wanted.operator} within the limits", verdict,
    )  # fmt: skip
