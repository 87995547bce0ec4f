"""Random small graphs through lowering: the same result within noise, or a refusal with a reason."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from pipeline.errors import PipelineError
from pipeline.graph.rewrites.families import rules_of
from pipeline.graph.rewrites.lower import LoweringFailed, lower
from pipeline.graph.rewrites.prove import prove
from tests.graph.rewrites.random_graphs import MAKERS, sample
from tests.graph.rewrites.random_oracle import against_reference

#: Operators of which most or all must be refused: no older opset has the like.
NOT_BEFORE = {"BitwiseAnd", "Det", "RoiAlign"}
QUICK, ALL = 300, 10_000
#: Rules that no graph here can need, each with why.
NEVER = {
    "batch_normalization": "onnx infers no types for BatchNormalization at inference with five outputs",
    "branch_sizes": "it is for an If whose branches give other sizes; here both are the same",
}
#: Shares of the graphs that must arrive, in all and of each operator.
REACHED, REACHED_OF_EACH = 0.8, 0.5
#: An operator that came up less often is not judged by its share.
JUDGED_FROM = 8


def outcome(seed: int, used: Counter[str]) -> tuple[str, str, str]:
    """Operator, what became of the graph, and why; the rules that were applied are counted in `used`."""
    made = sample(seed)
    operator = made.case.operator
    try:
        lowered, rewriting = lower(made.model, made.target)
    except LoweringFailed as failed:
        used.update(failed.rewriting.counts)
        said = bool(failed.blockers and failed.reason.next_step)
        return operator, "refused" if said else "refused without a reason", failed.blockers[0].reason
    except Exception as error:  # noqa: BLE001 - the count of these is the test
        return operator, "crashed", f"seed {seed}: {type(error).__name__}: {error}"
    used.update(rewriting.counts)
    try:
        error = prove(made.model, lowered, rewriting, made.values, key="export.rules")
        if error is None and (wrong := against_reference(made, lowered)) is not None:
            return operator, "wrong", f"seed {seed}: {wrong}"
    except PipelineError as failed:
        return operator, "wrong", f"seed {seed}: {failed.reason.sentence()}"
    return operator, "rewritten" if rewriting.applied else "valid as it is", ""


def check(seeds: range, *, every_rule: bool = False) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    used: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    bad = []
    for seed in seeds:
        operator, what, why = outcome(seed, used)
        counts[operator][what] += 1
        if what == "refused":
            reasons[f"{operator}: {why}"] += 1
        elif what in ("wrong", "crashed", "refused without a reason"):
            bad.append(f"{operator} {what}, {why}")
    total = sum(counts.values(), Counter())
    for operator, row in sorted(counts.items()):
        print(f"{operator:24} {dict(row)}")
    print(f"{'all':24} {dict(total)}")
    for reason, number in reasons.most_common():
        print(f"{number:6} {reason}")
    unused = {rule.name for rule in rules_of("lower")} - set(used)
    print(f"{len(used)} rules were applied, {sum(used.values())} times; not once: {sorted(unused)}")
    assert not bad, "\n".join(bad)
    assert not every_rule or unused <= set(NEVER), f"no graph needs {sorted(unused - set(NEVER))}"
    arrived = total["rewritten"] + total["valid as it is"]
    assert arrived >= REACHED * len(seeds)
    needed = total["rewritten"] + total["refused"]
    assert total["rewritten"] >= REACHED * needed
    for operator, row in counts.items():
        number = sum(row.values())
        if number >= JUDGED_FROM and operator not in NOT_BEFORE:
            assert row["refused"] <= (1 - REACHED_OF_EACH) * number, f"{operator}: {dict(row)}"


@pytest.mark.filterwarnings("ignore")
def test_a_few_hundred():
    check(range(QUICK))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand():
    check(range(100_000, 100_000 + ALL), every_rule=True)


def test_a_seed_gives_the_same_graph():
    for seed in range(0, 60, 7):
        one, other = sample(seed), sample(seed)
        assert (one.model.proto, one.target) == (other.model.proto, other.target)


@pytest.mark.parametrize("maker", dict.fromkeys(MAKERS), ids=lambda maker: maker.__name__)
def test_every_maker_makes_valid_graphs(maker):
    for seed in range(3):
        sample(seed, maker).model.check_invariant()
