"""Keys: what changes them, what does not, and what the cache gives then."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InternalError
from pipeline.run.cache import Cache
from pipeline.run.explain import _changes, _clause, explain
from pipeline.run.plan import Plan
from pipeline.run.runner import Outcome, execute
from pipeline.run.workspace import Shared
from pipeline.stage import ArtifactParts, Verdict, Workspace
from tests.run.conftest import Stated, Step, Text, make_plan


def plan(seeds: int = 3, kind: str = "noise", network: str = "net", ran: list[str] | None = None) -> Plan:
    """network, inputs -> reference and signature -> export -> prove, as in the real plan."""

    def inputs(workspace: Workspace) -> Verdict:
        workspace.put("example", "example")
        workspace.put("samples", [f"sample {index}" for index in range(seeds)])
        return Verdict(summary=f"{seeds} seeds")

    def reference(workspace: Workspace) -> Verdict:
        live, samples = workspace.get("network"), workspace.get("samples")
        workspace.put("reference", Text(f"{live} {kind} {samples}"))
        workspace.put("signature", Text(f"outputs of {live} on {workspace.get('example')}"))
        return Verdict()

    def export(workspace: Workspace) -> Text:
        return Text(f"graph of {workspace.get('network')} with {workspace.get('signature').text}")

    def contract(workspace: Workspace) -> Verdict:
        assert workspace.get("signature").text in workspace.get("graph").text
        return Verdict()

    def prove(workspace: Workspace) -> Text:
        return Text(f"{workspace.get('graph').text} is {workspace.get('reference').text}")

    count: list[str] = [] if ran is None else ran
    live = {"storable": False, "on_demand": True, "ran": count}
    steps = (
        Step("source", (), ("network",), lambda w: network, config={"name": network}, **live),
        Stated(
            "inputs", (), ("example", "samples"), inputs, config={"seed": 0, "seeds": seeds}, **live,
            artifacts={"example": ArtifactParts({"seed": 0})},
        ),
        Stated(
            "reference", ("network", "example", "samples"), ("reference", "signature"), reference,
            config={"kind": kind}, ran=count,
            artifacts={"signature": ArtifactParts(takes=("network", "example"))},
        ),
        Step("export", ("network", "example", "signature"), ("graph",), export, ran=count),
        Step("contract", ("graph", "signature"), (), contract, storable=False),
        Step("prove", ("graph", "samples", "reference"), ("report",), prove, config={"kind": kind}, ran=count),
    )  # fmt: skip
    made = make_plan(steps=steps)
    return replace(made, artifact_types=dict.fromkeys(("reference", "signature", "graph", "report"), Text))


class Bench:
    """Runs plans on one cache, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = Cache(folder / "cache")
        self.count = 0

    def run(self, shared: Shared | None = None, **request: Any) -> tuple[Outcome, list[str]]:
        """How it went, and which stages did their work."""
        ran: list[str] = []
        self.count += 1
        folder = self.folder / f"run{self.count}"
        folder.mkdir()
        made = plan(**request, ran=ran)
        outcome = execute(made, folder, cache=self.cache, emit=lambda event: None, shared=shared)
        assert outcome.failed is None
        return outcome, ran

    def report(self, **request: Any) -> str:
        """What the cache holds as the report of a request."""
        entry = self.cache.find(plan(**request).stage_keys["prove"].key)
        assert entry is not None
        value = self.cache.load(entry, "report", Text, self.folder / "scratch")
        assert isinstance(value, Text)
        return value.text


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def changed(before: Plan, after: Plan) -> set[str]:
    return {name for name, key in before.stage_keys.items() if after.stage_keys[name].key != key.key}


def test_what_shapes_no_artifact_that_a_stage_takes_leaves_its_key() -> None:
    assert changed(plan(), plan(seeds=5)) == {"inputs", "reference", "prove"}
    assert changed(plan(), plan(kind="none")) == {"reference", "prove"}
    assert changed(plan(), plan(network="other")) == {"source", "reference", "export", "contract", "prove"}


def test_only_the_named_artifacts_keep_their_digest() -> None:
    before, after = plan(), plan(seeds=5)
    names = ("network", "example", "samples", "reference", "signature", "graph", "report")
    assert [name for name in names if before.digest(name) != after.digest(name)] == [
        "samples", "reference", "report",
    ]  # fmt: skip
    assert len({before.digest(name) for name in names}) == len(names)


@pytest.mark.parametrize("request_", [{"seeds": 5}, {"kind": "fixed"}])
def test_only_what_depends_on_the_setting_runs_again(bench: Bench, request_: dict[str, Any]) -> None:
    bench.run()
    outcome, ran = bench.run(**request_)
    uses = {done.name: done.cache for done in outcome.stages if done.cache != "off"}
    assert uses == {"reference": "miss", "export": "hit", "prove": "miss"}
    assert "export" not in ran and {"reference", "prove"} <= set(ran)
    fresh = Bench(bench.folder / "fresh-cache-of-its-own")
    fresh.folder.mkdir()
    fresh.run(**request_)
    assert bench.report(**request_) == fresh.report(**request_)


def test_each_setting_gets_back_its_own_results(bench: Bench) -> None:
    requests = [{"seeds": seeds, "kind": kind} for seeds in (1, 3) for kind in ("noise", "fixed")]
    for request_ in requests:
        bench.run(**request_)
    for request_ in requests:
        outcome, ran = bench.run(**request_)
        assert ran == []
        assert {done.cache for done in outcome.stages} == {"hit", "off"}
        assert (
            f"{request_['kind']} {[f'sample {index}' for index in range(request_['seeds'])]}"
            in bench.report(**request_)
        )


def test_points_of_a_sweep_share_the_example_and_not_the_samples(bench: Bench) -> None:
    bench.cache = Cache(bench.folder, "none")
    points = [{"seeds": 3}, {"seeds": 5}, {"seeds": 3, "kind": "fixed"}]
    shared = Shared()
    seen = []
    for index, point in enumerate(points):
        shared.wanted = {digest for later in points[index + 1 :] for digest in plan(**later).taken()}
        outcome, ran = bench.run(shared, **point)
        seen.append((next(done for done in outcome.stages if done.name == "inputs").verdict.summary, ran))
    assert seen == [
        ("3 seeds", ["source", "inputs", "reference", "export", "prove"]),
        ("5 seeds", ["inputs", "reference", "prove"]),
        ("3 seeds", ["reference", "prove"]),
    ]


def test_a_miss_is_explained_by_the_setting_that_changed(bench: Bench) -> None:
    bench.run()
    rows = {row["stage"]: row for row in explain(plan(seeds=5), bench.cache)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "reference": "miss", "export": "hit", "prove": "miss",
    }  # fmt: skip
    assert rows["export"]["why"] == "it is in the cache"
    assert rows["reference"]["differs"] == ["takes.samples.config.seeds was 3, is 5"]
    assert rows["reference"]["why"] == "samples: seeds was 3, is 5"
    assert "takes.samples.config.seeds was 3, is 5" in rows["prove"]["differs"]
    rows = {row["stage"]: row for row in explain(plan(kind="none"), bench.cache)}
    assert rows["reference"]["why"] == "kind was noise, is none"
    rows = {row["stage"]: row for row in explain(plan(network="other"), bench.cache)}
    assert "takes.network.config.name was net, is other" in rows["export"]["differs"]


@pytest.mark.parametrize(
    ("old", "new", "clause"),
    [
        ({"code": "a" * 64}, {"code": "b" * 64}, "the pipeline's own code for it has changed"),
        ({"takes": {"signature": "a" * 64}}, {"takes": {"signature": "b" * 64}},
         "it takes another signature"),
        ({"takes": {"model": {"takes": {"finished": "a" * 64}}}}, {"takes": {"model": {"takes": {}}}},
         "model takes another finished"),
        ({"packages": {"torch": "2.1"}}, {"packages": {"torch": "2.2"}}, "package torch was 2.1, is 2.2"),
        ({"config": {"inputs": [["x", {"shape": [1, 3]}]]}}, {"config": {"inputs": [["x", {"shape": [2, 3]}]]}},
         "inputs[0][1].shape[0] was 1, is 2"),
        ({"extra": {"code": "a" * 64}}, {"extra": {"code": "b" * 64}},
         "code was aaaaaaaaaaaa..., is bbbbbbbbbbbb..."),
    ],
)  # fmt: skip
def test_every_differing_part_is_a_clause_of_its_own(
    old: dict[str, Any], new: dict[str, Any], clause: str
) -> None:
    """It was "takes.signature was 7821c0798721..., is dda48dd54025...", and lists were cut before they differed."""
    assert [_clause(change) for change in _changes(old, new)] == [clause]


def test_of_equally_near_entries_the_one_used_last_is_named(bench: Bench) -> None:
    for seeds, age in ((7, 20), (3, 10), (5, 30)):
        bench.run(seeds=seeds)
        key = plan(seeds=seeds).stage_keys["reference"].key
        record = next(bench.cache.root.rglob(f"{key}/entry.json"))
        os.utime(record, (record.stat().st_mtime - age,) * 2)
    rows = {row["stage"]: row for row in explain(plan(seeds=9), bench.cache)}
    assert rows["reference"]["why"] == "samples: seeds was 3, is 9"


@pytest.mark.parametrize(
    "artifacts", [{"other": ArtifactParts()}, {"graph": ArtifactParts(takes=("samples",))}]
)
def test_names_that_are_not_the_stage_s_own_are_our_mistake(artifacts: dict[str, ArtifactParts]) -> None:
    steps = (
        Step("source", (), ("network",), lambda w: "net"),
        Stated("export", ("network",), ("graph",), lambda w: "graph", artifacts=artifacts),
    )
    with pytest.raises(InternalError, match="export"):
        _ = make_plan(steps=steps).stage_keys
