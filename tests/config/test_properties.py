"""Any command line ends in a plan or in one sentence that names the key: never in a traceback, never in a hang."""

from __future__ import annotations

import difflib
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from pipeline.config import schema
from pipeline.config.arguments import parse_arguments
from pipeline.config.compose import compose_points
from pipeline.errors import PipelineError, Refused
from pipeline.plan import build_plan, run_options

#: A command line that takes longer than this hangs, seconds.
LONGEST_S = 20.0

NET = "from torch import nn\n\ndef build(width=4):\n    return nn.Linear(8, width)\n"
MODELS = (
    ("model=mynet",), ("model=mynet_multi_input",), ("model=resnet18",), ("model=vit_b_16",), ("model=raft_small",),
    ("model=torchvision", "model.name=vgg16"), ("model=torchvision", "model.name=regnet_y_400mf"),
    ("model=factory", "model.factory=net.py:build", "model.inputs={x: {shape: [2,8], dynamic: {0: batch}}}"),
    ("experiment=alexnet_classic",),
)  # fmt: skip
#: Key to values that are all right with every model; targets refuse some of them.
RIGHT = {
    "export.opset": ("null", "9", "11", "13", "17", "18", "20"), "export.exporter": ("auto",),
    "export.external_data": ("auto", "always", "never"), "export.do_constant_folding": ("true", "false"),
    "export.keep_initializers_as_inputs": ("true", "false"), "export.verbose": ("true", "false"),
    "simplify": ("onnxsim", "none"), "check": ("full", "none"), "parity": ("noise", "fixed", "none"),
    "parity.seeds": ("1", "3", "7"), "parity.k": ("8", "16.5"), "parity.rtol": ("1e-3", "0"),
    "parity.allow_vacuous": ("true", "false"), "surgery": ("none",),
    "target": ("none", "onnxruntime", "openvino", "ti_tidl", "horizon_x3", "kneron_kl720"),
    "cache.mode": ("none", "read", "write", "readwrite"), "cache.size": ("20GB", "1MiB", "0"), "seed": ("0", "7"),
    "device": ("cpu",), "out": ("elsewhere", "'a b'"), "force": ("true", "false"), "wait_s": ("0", "1.5"),
    "timeout_s": ("null", "60"), "memory_limit": ("null", "8GB"), "sweep": ("null", "mine"),
    "debug": ("true", "false"), "private_apis": ("true", "false"), "model.init": ("live", "plain"),
}  # fmt: skip
ODD = (
    "", "null", "~", "-1", "0", "1e400", "nan", ".inf", "99999999999999999999", "[]", "{}", "[1,[2,[3]]]", "{a: 1}",
    "{a: {b: [x, null]}}", "[a,a]", "[' ']", "''", "'\\''", "${seed}", "${nothing}", "${oc.env:NOT_THERE}", "${a",
    "a=b", "[", "}", "é", "'\\u0000'", "../x", "/nowhere/x.py:build", "x.py:", ":build", "a:b:c", "TRUE", "yes",
    "12:30", "0x10", "1_000", "???", "model", "choice(1,2)", "range(0,3)", "interval(0,1)", "1,2", "*", "glob(*)",
    "sort(3,1)", "int(3.5)", "tag(a, b)", "a" * 3000,
)  # fmt: skip


@st.composite
def right(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from(sorted(RIGHT)))
    return f"{key}={draw(st.sampled_from(RIGHT[key]))}"


@st.composite
def wrong(draw: st.DrawFn) -> str:
    """A key or a value that may be anything."""
    keys = sorted({*schema.all_keys(), *schema.sections(), *schema.GROUPS})
    key = draw(st.sampled_from(keys))
    way = draw(st.integers(0, 5))
    if way == 0:  # misspelt
        place = draw(st.integers(0, len(key) - 1))
        key = key[:place] + draw(st.sampled_from(["", "x", key[place] * 2, ".", "/", "@"])) + key[place + 1 :]
    elif way == 1:
        key = f"{key}.{draw(st.sampled_from(['x', '0', 'input1.shape', 'input1.dtype', 'a.b.c']))}"
    sign = draw(st.sampled_from(["", "", "", "+", "++", "~"]))
    value = draw(
        st.one_of(st.sampled_from(ODD), st.text(max_size=12), st.integers().map(str), st.floats().map(str))
    )
    value = value.replace("\0", "").replace("\ud800", "")
    if sign == "~" and draw(st.booleans()):
        return f"~{key}"
    return f"{sign}{key}={value}"


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    words = [*draw(st.sampled_from(MODELS))]
    some = draw(st.lists(right(), max_size=5, unique_by=lambda text: text.partition("=")[0]))
    words += some
    if draw(st.integers(0, 9)) < 3:
        words += draw(st.lists(wrong(), min_size=1, max_size=2))
    if draw(st.integers(0, 9)) == 0:
        del words[draw(st.integers(0, len(words) - 1))]
    if draw(st.integers(0, 9)) == 0:
        words.insert(0, "-m")
    return draw(st.permutations(words)) if draw(st.booleans()) else words


def outcome_of(words: list[str]) -> tuple[str, str | None]:
    """How a command line ends: "plan", or a code with its sentence."""
    try:
        points = compose_points(parse_arguments(words)).points
    except PipelineError as refusal:
        return refusal.reason.code, refusal.reason.sentence()
    ends: list[tuple[str, str | None]] = []
    for point in points[:3]:
        try:
            if point.config is None:
                assert point.refusal is not None
                raise point.refusal
            plan = build_plan(point.config, point.overrides)
            run_options(point.config)
            assert plan.stage_keys and len(plan.keys["result"]) == 64
            ends.append(("plan", None))
        except Refused as refusal:
            ends.append((refusal.reason.code, refusal.reason.sentence()))
    return ends[0]


def names_its_key(words: list[str], sentence: str) -> bool:
    """Whether the sentence says something of what was typed: a key, or the flag or text that is no key."""
    said = re.findall(r"[\w.@/~+-]+", sentence)
    for word in words:
        key = re.split(r"[=\[]", word.lstrip("+~"))[0]
        names = [key, *key.split(".")]
        if word in sentence or any(name in said for name in names if name):
            return True
        if key and any(key in each or each.startswith(f"{key}.") for each in said if len(each) > 2):
            return True
        if key[:20] and key[:20] in sentence:
            return True
        if difflib.get_close_matches(key, said, 1, 0.8):
            return True
    return "model=" in sentence or "model." in sentence


@pytest.mark.parametrize(
    "count", [60, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
def test_every_command_line_ends_in_a_plan_or_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    ends: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    longest = [0.0]

    @seed(20)
    @settings(
        max_examples=4 * count, deadline=None, database=None, derandomize=False, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(command_lines())
    def one(words: list[str]) -> None:
        if len(seen) == count or tuple(words) in seen:  # hypothesis draws many twice
            return
        seen.add(tuple(words))
        begun = time.perf_counter()
        code, sentence = outcome_of(words)
        longest[0] = max(longest[0], time.perf_counter() - begun)
        ends[code] += 1
        if sentence is not None:
            assert "\n" not in sentence.rstrip() and len(sentence) < 8000, (words, sentence)
            assert names_its_key(words, sentence), (words, sentence)

    one()
    total = sum(ends.values())
    print(f"\n{total} different command lines, longest {longest[0]:.1f} s: {dict(ends)}")
    assert total == count
    assert ends["plan"] >= 0.3 * total
    assert longest[0] < LONGEST_S
    assert {path.name for path in tmp_path.iterdir()} <= {"net.py", "user-cache"}, "nothing was made"
