"""Profiles: what ships, what a user lays over it, and one sentence for everything that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx.defs
import pytest
import yaml

from pipeline.config.compose import compose
from pipeline.errors import Refused
from pipeline.graph.rewrites.names import LEGALISATION
from pipeline.locations import CONF_DIR
from pipeline.samples.spec import InputSpecs, parse_inputs
from pipeline.targets.backends import backend_names
from pipeline.targets.onnx_operators import onnx_attributes
from pipeline.targets.predicates import Predicate
from pipeline.targets.profile import Profile, load_profile
from pipeline.targets.profile_file import profile_names
from pipeline.targets.request_check import check_request

NAMES = profile_names()
CHOICES = sorted(path.stem for path in (CONF_DIR / "target").glob("*.yaml") if path.stem != "none")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(name: str, **given: Any) -> Refused:
    with pytest.raises(Refused) as error:
        load_profile(name, **given)
    assert "\n" not in error.value.reason.message
    assert error.value.reason.next_step
    return error.value


# -- what ships


def test_what_the_issue_names_is_there() -> None:
    kneron = {f"kneron_kl{chip}" for chip in (520, 530, 630, 720, 730)}
    named = {"onnxruntime", "openvino", "tvm", "ncnn", "mnn", "tensorrt", "horizon_x3", "horizon_x5",
             "horizon_rdk_ultra", "horizon_s100", "rknn", "rockchip_rknn2", "axera_ax650", "ti_tidl", "deepx"}  # fmt: skip
    assert named | kneron <= set(NAMES)
    assert named | kneron <= set(CHOICES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_profile(name: str) -> None:
    profile = load_profile(name)
    assert profile.title and profile.citation
    assert profile.places["accelerator"]
    assert len(profile.digest) == 64
    assert all(0 < tolerance < 0.1 for tolerance in profile.precisions.values())
    rules = {rule for rules in LEGALISATION.values() for rule in rules}
    assert set(profile.wants) <= rules
    assert profile.operators or name == "horizon_s100"
    for operator, rule in profile.operators.items():
        assert rule.operator == operator
        assert bool(rule.accelerator_limits) <= (rule.accelerator == "limited")
        assert bool(rule.cpu_limits) <= (rule.cpu == "limited")


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_leads_to_its_profile(name: str) -> None:
    target = compose([f"target={name}", "model=mynet"]).target
    assert target.name == name
    profile = load_profile(target.profile or target.name, target.limits)
    assert target.precision in profile.precisions
    low, high = profile.opset
    opset = target.preferred.opset
    assert opset is None or (low or 0) <= opset <= (high or 99)
    rules = {rule for rules in LEGALISATION.values() for rule in rules}
    assert set(target.rules) <= rules
    assert profile.backend is None or profile.backend in {*backend_names(), "rknn"}


def test_limits_of_the_restricted_vendors() -> None:
    for name in ("horizon_x3", "horizon_x5", "horizon_rdk_ultra"):
        profile = load_profile(name)
        assert (profile.opset, profile.ir_version, profile.batch, profile.input_rank) == ((10, 11), 7, 1, 4)
        assert (profile.max_outputs, profile.shapes, profile.unlisted) == (32, "static", "refused")
        assert [one.operator for one in profile.requires] == ["Conv"]
    s100 = load_profile("horizon_s100")
    assert (s100.opset, s100.ir_version, s100.operators, s100.unlisted) == ((10, 19), 9, {}, "unknown")
    assert load_profile("rknn").opset == (12, 19)
    assert load_profile("rknn").extends == ("rockchip_rknn2",)


def test_tolerances_are_the_measured_ones() -> None:
    for name in ("onnxruntime", "openvino", "tvm", "ncnn"):
        assert load_profile(name).precisions == {"float32": 1e-4, "float16": 5e-3}
    assert load_profile("mnn").precisions == {"float32": 1e-4, "float16": 5e-3}


def test_operator_names_are_those_of_onnx() -> None:
    of_onnx: dict[str, set[str]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            of_onnx.setdefault(schema.name, set()).update(schema.attributes)
    assert {name: set(attributes) for name, attributes in onnx_attributes().items()} == of_onnx


def test_a_profile_is_read_without_a_framework() -> None:
    code = (
        "import sys; from pipeline.targets.profile import load_profile; load_profile('horizon_x5');"
        "import pipeline.targets.request_check, pipeline.targets.precheck_stage;"
        "print([name for name in ('torch', 'onnx', 'numpy', 'onnxruntime') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# -- a user's own


MYCHIP = """
defaults: [horizon_x3, _self_]
name: mychip
limits:
  title: My own chip
  opset: {max: 10}
  operators:
    Conv: {accelerator_limits: [kernel_h in 1..3, kernel_w in 1..3]}
    Einsum: {cpu: full}
    Det: null
"""


def test_a_users_vendor_lays_its_limits_over_one_of_ours(tmp_path: Path) -> None:
    write(tmp_path, "target/mychip.yaml", MYCHIP)
    target = compose(["target=mychip", "model=mynet"], config_dirs=[tmp_path]).target
    assert (target.name, target.profile, target.preferred.opset) == ("mychip", "horizon_x3", 11)
    base, mine = load_profile("horizon_x3"), load_profile(target.profile or "", target.limits)
    assert (mine.title, mine.opset) == ("My own chip", (10, 10))
    assert [limit.text for limit in mine.operators["Conv"].accelerator_limits] == [
        "kernel_h in 1..3",
        "kernel_w in 1..3",
    ]
    assert mine.operators["Conv"].cpu_limits == base.operators["Conv"].cpu_limits
    assert (mine.operators["Einsum"].cpu, base.operators["Einsum"].cpu) == ("full", "none")
    assert "Det" not in mine.operators
    assert mine.operators["Relu"] == base.operators["Relu"]
    assert mine.digest != base.digest


def test_extends_goes_over_several_files(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "extends: horizon_x5\ntitle: a\nopset: {max: 10}\n")
    path = write(tmp_path, "b.yaml", "extends: a.yaml\nbatch: 2\noperators: {Relu: {accelerator: none}}\n")
    profile = load_profile(str(path))
    assert profile.extends == ("a", "horizon_x5")
    assert (profile.name, profile.title, profile.opset, profile.batch) == ("b", "a", (10, 10), 2)
    assert profile.operators["Relu"].accelerator == "none"
    assert profile.operators["Conv"] == load_profile("horizon_x5").operators["Conv"]


def test_a_folder_of_profiles(tmp_path: Path) -> None:
    write(tmp_path, "target/profiles/mine.yaml", "extends: deepx\ntitle: mine\n")
    assert load_profile("mine", config_dirs=[tmp_path]).title == "mine"
    assert "mine" in profile_names([tmp_path])
    assert refusal("mine").reason.code == "PL-600"


def test_the_digest_is_that_of_the_resolved_data(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "extends: tvm\n")
    same = write(tmp_path, "b.yaml", "# another file\nextends: a.yaml\nshapes: dynamic\n")
    assert load_profile(str(path)).digest == load_profile(str(same)).digest == load_profile("tvm").digest
    assert load_profile("tvm", {"batch": 1}).digest != load_profile("tvm").digest


# -- what is wrong


def test_an_unknown_chip_gets_near_names() -> None:
    reason = refusal("horizon_x33").reason
    assert reason.code == "PL-600"
    assert "Did you mean horizon_x3" in (reason.next_step or "")
    assert "kneron_kl720" in (reason.expected or "")
    assert refusal("../none").reason.code == "PL-600"
    assert refusal("nowhere/mine.yaml").reason.code == "PL-600"


def test_extends_a_file_beside_it_by_name_or_one_of_ours_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "horizon_x3.yaml").write_text("extends: horizon_x3\ntitle: Mine\n")
    (tmp_path / "other.yaml").write_text("extends: horizon_x3\n")
    found = load_profile(str(tmp_path / "other.yaml"))
    assert (found.title, found.extends) == ("Mine", ("horizon_x3", "horizon_x3"))


def test_a_profile_that_extends_itself(tmp_path: Path) -> None:
    own = write(tmp_path, "own.yaml", "extends: own.yaml\n")
    reason = refusal(str(own)).reason
    assert (reason.code, reason.found) == ("PL-604", "own extends own")
    first = write(tmp_path, "first.yaml", "extends: second.yaml\n")
    write(tmp_path, "second.yaml", "extends: first.yaml\n")
    assert refusal(str(first)).reason.found == "first extends second extends first"


BASE = "title: t\ncitation: c\n"


@pytest.mark.parametrize(
    ("text", "code", "where", "words"),
    [
        (BASE + "operators: {Convv: {accelerator: full}}", "PL-602", "operators.Convv", "Did you mean Conv"),
        (BASE + "operators: {Conv: {accelerator_limits: ['kernel_q <= 3']}}", "PL-603",
         "operators.Conv.accelerator_limits[0]", "'kernel_q' at character 1"),
        (BASE + "operators: {Conv: {cpu_limits: ['rank == 4', 'C in 1..']}}", "PL-603",
         "operators.Conv.cpu_limits[1]", "the end at character 9"),
        (BASE + "general_limits: [{limit: 'rank ==', says: x}]", "PL-603", "general_limits[0]", "character 8"),
        (BASE + "operators: {Conv: {accelerator_limits: [4]}}", "PL-603", "accelerator_limits[0]", "4"),
        (BASE + "operators: {Conv: {accelerator: yes}}", "PL-601", "accelerator", "one of full, limited"),
        (BASE + "operators: {Conv: {acelerator: full}}", "PL-601", "operators.Conv", "Did you mean accelerator"),
        (BASE + "operators: {Conv: {accelerator: none, accelerator_limits: [C <= 3]}}", "PL-601",
         "operators.Conv", "accelerator: limited"),
        (BASE + "operators: [Conv]", "PL-601", "operators", "a mapping"),
        (BASE + "operators: {Conv: full}", "PL-601", "operators.Conv", "a mapping"),
        (BASE + "opsets: {min: 3}", "PL-601", "", "Did you mean opset"),
        (BASE + "opset: {min: eleven}", "PL-601", "opset: min", "a whole number"),
        (BASE + "opset: {min: -1}", "PL-601", "opset: min", "a whole number"),
        (BASE + "shapes: fixed", "PL-601", "shapes", "static, dynamic"),
        (BASE + "precisions: {int8: 0.1}", "PL-601", "precisions", "float32"),
        (BASE + "precisions: {float32: 1000}", "PL-601", "precisions.float32", "at most 0.1"),
        (BASE + "precisions: {float16: -1}", "PL-601", "precisions.float16", "above 0"),
        (BASE + "precisions: {float32: 0}", "PL-601", "precisions.float32", "above 0"),
        (BASE + "precisions: {float32: .nan}", "PL-601", "precisions.float32", "above 0"),
        (BASE + "precisions: {float32: .inf}", "PL-601", "precisions.float32", "at most 0.1"),
        (BASE + "opset: {min: 12, max: 11}", "PL-601", "opset", "min at most max"),
        (BASE + "wants: [no_rule]", "PL-601", "wants", "python -m pipeline rules"),
        (BASE + "general_limits: [1 / 0 == 1]", "PL-603", "general_limits[0]", "a number other than 0"),
        (BASE + "options: {depth: .nan}", "PL-601", "mine.yaml", "finite numbers"),
        (BASE + "options: {depth: 2026-01-01}", "PL-601", "mine.yaml", "finite numbers"),
        (BASE + "dtypes: [float]", "PL-601", "dtypes", "numpy"),
        (BASE + "requires: [{operator: Convv}]", "PL-601", "requires", "an operator of ONNX"),
        (BASE + "wants: rule", "PL-601", "wants", "a list of texts"),
        ("title: t\n", "PL-601", "citation", "nothing"),
        ("- a\n- b\n", "PL-601", "", "mapping"),
        ("title: [\n", "PL-601", ":2", "Mend"),
        (BASE + "extends: [a]", "PL-601", "extends", "a name"),
        (BASE + "extends: nosuch", "PL-600", "target", "nosuch"),
        (BASE + "operators_from: nosuch", "PL-601", "operators_from", "nosuch"),
        ("a: &a [x, x]\n" + "b: *missing\n", "PL-601", ":2", "Mend"),
    ],
)  # fmt: skip
def test_a_damaged_profile(tmp_path: Path, text: str, code: str, where: str, words: str) -> None:
    error = refusal(str(write(tmp_path, "mine.yaml", text)))
    assert error.reason.code == code
    assert where in (error.reason.where or "")
    assert words in error.reason.sentence()
    assert error.exit_code == 2


def test_bytes_that_are_no_text_and_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00garbage")
    assert refusal(str(path)).reason.code == "PL-601"
    path.write_bytes(b"#" * (5 * 1024 * 1024))
    assert "too large" in refusal(str(path)).reason.message
    for deep in (b"[" * 100_000, b"- " * 50_000, b"".join(b" " * depth + b"a:\n" for depth in range(900))):
        path.write_bytes(deep)
        assert "too deep" in refusal(str(path)).reason.message
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n}, ' * 9}]\n" for n in range(9))
    path.write_text(laughs)
    assert "aliases" in refusal(str(path)).reason.message


def test_limits_of_the_request_are_checked_too() -> None:
    reason = refusal("horizon_x3", limits={"operators": {"Conv": {"accelerator_limits": ["C =< 3"]}}}).reason
    assert (reason.code, reason.expected) == ("PL-603", "a name, a number or a sign")
    assert refusal("horizon_x3", limits={"opsett": {}}).reason.code == "PL-601"
    assert refusal("horizon_x3", limits={"opset": 3}).reason.code == "PL-601"


def test_a_mistake_is_said_of_where_it_was_made(tmp_path: Path) -> None:
    convv = {"operators": {"Convv": {"accelerator": "full"}}}
    reason = refusal("horizon_x3", limits=convv).reason
    assert reason.where == "target.limits.operators.Convv"
    assert "conf/" not in reason.sentence() and "Change it in target.limits" in reason.sentence()
    reason = refusal("horizon_x3", limits={"opset": {"max": 9}}).reason
    assert (reason.where, reason.next_step) == ("target.limits.opset", "Mend target.limits.opset")
    below = write(tmp_path, "below.yaml", "extends: horizon_x3\nopset: {max: eleven}\n")
    above = write(tmp_path, "above.yaml", "extends: below.yaml\nbatch: 2\n")
    for limits in ({}, {"batch": 3}):
        assert refusal(str(above), limits=limits).reason.where == f"{below}: opset: max"
    write(tmp_path, "above.yaml", "extends: horizon_x3\nshapes: fixed\n")
    assert refusal(str(above), limits={"batch": 3}).reason.where == f"{above}: shapes"
    assert refusal(str(above), limits={"shapes": "any"}).reason.where == "target.limits.shapes"


@pytest.mark.parametrize("key", ["extends", "operators_from"])
def test_what_only_a_file_follows_is_refused_in_limits(key: str) -> None:
    reason = refusal("horizon_x3", limits={key: "tvm"}).reason
    assert (reason.code, reason.where) == ("PL-601", f"target.limits.{key}")


# -- what the configuration alone decides


def inputs(**axes: Any) -> InputSpecs:
    return parse_inputs({"x": {"shape": [1, 3, 8, 8], **axes}})


def asked(profile: Profile | str, **given: Any) -> Refused | None:
    found = load_profile(profile) if isinstance(profile, str) else profile
    try:
        check_request(found, **{"opset": 11, "inputs": inputs(), **given})
    except Refused as refused:
        return refused
    return None


@pytest.mark.parametrize(
    ("profile", "given", "code", "where", "step"),
    [
        ("horizon_x3", {"opset": 17}, "PL-605", "export.opset", "export.opset=11"),
        ("horizon_x3", {"opset": 9}, "PL-605", "export.opset", "export.opset=10"),
        ("horizon_x3", {"ir_version": 8}, "PL-605", "export.ir_version", "export.ir_version=7"),
        ("horizon_x3", {"precision": "float16"}, "PL-607", "target.precision", "target.precision=float32"),
        ("horizon_x3", {"inputs": inputs(dynamic={0: "batch"})}, "PL-606", "model.inputs.x.dynamic", "dynamic={}"),
        ("horizon_x3", {"inputs": parse_inputs({"x": {"shape": [2, 3, 8, 8]}})}, "PL-605", "model.inputs.x.shape", "Change"),
        ("horizon_x3", {"inputs": parse_inputs({"x": {"shape": [1, 3, 8]}})}, "PL-605", "model.inputs.x.shape", "Change"),
        ("horizon_x3", {"inputs": parse_inputs({"x": {"shape": [1, 3, 8, 8], "dtype": "float64"}})}, "PL-605", "dtype", "Change"),
        ("horizon_x3", {"outputs": 33}, "PL-605", "model.outputs", "Change"),
        ("rknn", {"opset": 20, "precision": "float16"}, "PL-605", "export.opset", "export.opset=19"),
    ],
)  # fmt: skip
def test_what_the_configuration_alone_decides(
    profile: str, given: dict[str, Any], code: str, where: str, step: str
) -> None:
    refused = asked(profile, **given)
    assert refused is not None
    assert refused.reason.code == code
    assert where in (refused.reason.where or "")
    assert step in (refused.reason.next_step or "")
    assert profile in refused.reason.message


def test_the_target_is_called_by_its_own_name() -> None:
    refused = asked("horizon_x3", opset=17, target="mychip")
    assert refused is not None
    assert refused.reason.message == "mychip does not take opset 17"


def test_what_fits_is_taken() -> None:
    assert asked("horizon_x3", ir_version=7) is None
    assert asked("onnxruntime", opset=17, inputs=inputs(dynamic={0: "batch"}), precision="float16") is None


def test_every_limit_can_be_written_down_again() -> None:
    """What a profile holds is its text; nothing is lost on the way through YAML."""
    for name in NAMES:
        for rule in load_profile(name).operators.values():
            limit: Predicate
            for limit in (*rule.accelerator_limits, *rule.cpu_limits):
                assert yaml.safe_load(yaml.safe_dump(limit.text)) == limit.text
