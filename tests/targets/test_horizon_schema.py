"""YAML files of hb_mapper and hb_compile, held to the vendor's documents."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.targets.horizon.check import check, check_file
from pipeline.targets.horizon.schema import HB_COMPILE, HB_MAPPER, LEGAL_TYPES, SCHEMAS

#: In the manner of the vendor's public model zoo.
MAPPER = """
model_parameters:
  onnx_model: mobilenetv2.onnx
  march: bayes-e
  output_model_file_prefix: mobilenetv2_224x224_nv12
  working_dir: out
  layer_out_dump: False
input_parameters:
  input_name: data
  input_type_rt: nv12
  input_type_train: bgr
  input_layout_train: NCHW
  norm_type: data_mean_and_scale
  mean_value: 103.94 116.78 123.68
  scale_value: 0.017
calibration_parameters:
  cal_data_dir: ./calibration_data_f32
  cal_data_type: float32
  calibration_type: default
compiler_parameters:
  compile_mode: latency
  debug: False
  optimize_level: O3
"""
COMPILE = """
model_parameters:
  onnx_model: resnet18.onnx
  march: nash-e
  output_model_file_prefix: resnet18
input_parameters:
  input_name: image;extra
  input_shape: 1x3x224x224;1x8
  input_type_rt: nv12;featuremap
  input_type_train: rgb;featuremap
  input_layout_train: NCHW;NCHW
  mean_value: 123.675, 116.28, 103.53;None
  scale_value: 0.0171, 0.0175, 0.0174;None
calibration_parameters:
  calibration_type: max
  max_percentile: 0.9999
  cal_data_dir: ./a;./b
compiler_parameters:
  compile_mode: balance
  balance_factor: 30
  optimize_level: O2
"""
GOOD = {HB_MAPPER: MAPPER, HB_COMPILE: COMPILE}


def _tree(tool: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(GOOD[tool])
    return tree


def _with(tool: str, **values: Any) -> dict[str, Any]:
    """A good file with keys (group__name) set; None takes one away."""
    tree = copy.deepcopy(_tree(tool))
    for path, value in values.items():
        group, name = path.split("__")
        if value is None:
            tree[f"{group}_parameters"].pop(name, None)
        else:
            tree[f"{group}_parameters"][name] = value
    return tree


def _sentences(tool: str, tree: Any) -> str:
    return "\n".join(problem.sentence() for problem in check(tool, tree))


@pytest.mark.parametrize("tool", [HB_MAPPER, HB_COMPILE])
def test_a_good_file_has_no_problem(tool: str) -> None:
    assert check(tool, _tree(tool)) == []


@pytest.mark.parametrize("tool", [HB_MAPPER, HB_COMPILE])
def test_every_required_key_is_missed(tool: str) -> None:
    count = 0
    for group, keys in SCHEMAS[tool].items():
        if group == "custom_op":
            continue
        for key in keys:
            if key.required:
                tree = _tree(tool)
                del tree[group][key.name]
                assert f"{group}.{key.name}: the key is missing" in _sentences(tool, tree)
                count += 1
    assert count == {HB_MAPPER: 10, HB_COMPILE: 4}[tool]


@pytest.mark.parametrize("tool", [HB_MAPPER, HB_COMPILE])
def test_every_choice_refuses_another_word(tool: str) -> None:
    for group, keys in SCHEMAS[tool].items():
        for key in keys:
            if key.values and group in _tree(tool):
                tree = _tree(tool)
                tree[group][key.name] = "nonsense"
                assert f"{group}.{key.name}: 'nonsense' is none of" in _sentences(tool, tree), key


@pytest.mark.parametrize("group", ["model_parameters", "calibration_parameters"])
def test_a_missing_group(group: str) -> None:
    tree = _tree(HB_MAPPER)
    del tree[group]
    assert f"{group}: the group is missing" in _sentences(HB_MAPPER, tree)


@pytest.mark.parametrize(
    ("tool", "values", "said"),
    [
        (HB_MAPPER, {"compiler__optimise_level": "O3"}, "no such key, did you mean optimize_level"),
        (HB_MAPPER, {"input__march": "bayes"}, "it belongs to model_parameters"),
        (HB_MAPPER, {"model__march": "nash-e"}, "none of bernoulli2, bayes, bayes-e"),
        (HB_MAPPER, {"compiler__optimize_level": "O4"}, "none of O0, O1, O2, O3"),
        (HB_MAPPER, {"compiler__core_num": 2}, "only bernoulli2 take it"),
        (HB_MAPPER, {"model__march": "bernoulli2", "model__node_info": {}}, "only bayes, bayes-e take it"),
        (HB_MAPPER, {"input__input_batch": 129}, "129 is not 1 to 128"),
        (HB_MAPPER, {"compiler__max_time_per_fc": 500}, "500 is not 1000 to 4294967295 or 0"),
        (HB_MAPPER, {"calibration__max_percentile": 0.99}, "only calibration_type max"),
        (HB_MAPPER, {"calibration__per_channel": True}, "calibration_type default does not take it"),
        (HB_MAPPER, {"calibration__cal_data_dir": None}, "calibration_type default needs it"),
        (HB_MAPPER, {"input__input_type_rt": "featuremap"}, "bgr cannot become featuremap"),
        (HB_MAPPER, {"input__input_layout_rt": "NHWC"}, "nv12 input has no layout of its own"),
        (HB_MAPPER, {"input__mean_value": None}, "norm_type data_mean_and_scale needs it"),
        (HB_MAPPER, {"input__norm_type": "data_mean"}, "norm_type data_mean does not take it"),
        (HB_MAPPER, {"input__mean_value": "a b c"}, "holds no numbers"),
        (HB_MAPPER, {"input__input_shape": "1x3x225x224"}, "even height and width"),
        (HB_MAPPER, {"input__input_shape": "1x4x224x224"}, "bgr has 3 channels"),
        (HB_MAPPER, {"input__input_shape": "3x224x224"}, "3 dimensions, four are taken"),
        (HB_MAPPER, {"input__input_shape": "1,3,224,224"}, "not written like 1x3x224x224"),
        (HB_MAPPER, {"input__input_shape": "2x3x224x224", "input__input_batch": 4}, "first size must be 1"),
        (HB_MAPPER, {"input__input_type_train": "rgb;rgb"}, "2 values for 1 inputs"),
        (HB_MAPPER, {"compiler__input_source": {"data": "ddr"}}, "comes from pyramid or resizer"),
        (HB_MAPPER, {"compiler__input_source": {"data": "resizer"}, "input__input_shape": "1x3x224x224"}, "18432"),
        (HB_MAPPER, {"model__march": "bernoulli2", "input__input_type_rt": "yuv444",
                     "input__input_layout_rt": "NCHW"}, "yuv444 as NHWC only"),
        (HB_COMPILE, {"compiler__optimize_level": "O3"}, "none of O0, O1, O2"),
        (HB_COMPILE, {"compiler__core_num": 2}, "nash-e has one core"),
        (HB_COMPILE, {"compiler__balance_factor": None}, "go together"),
        (HB_COMPILE, {"compiler__cache_mode": "enable"}, "needs it"),
        (HB_COMPILE, {"input__std_value": "1, 1, 1;None"}, "exclude each other"),
        (HB_COMPILE, {"calibration__cal_data_dir": "./a"}, "1 values for 2 inputs"),
        (HB_COMPILE, {"input__input_name": None}, "needs their names"),
        (HB_COMPILE, {"input__mean_value": "1;1"}, "featuremap is not normalised"),
    ],
)  # fmt: skip
def test_what_the_tools_refuse(tool: str, values: dict[str, Any], said: str) -> None:
    assert said in _sentences(tool, _with(tool, **values))


@pytest.mark.parametrize("tool", [HB_MAPPER, HB_COMPILE])
def test_only_the_legal_pairs_of_types_pass(tool: str) -> None:
    types = list(LEGAL_TYPES[tool])
    for train in types:
        for rt in [*types, "nv12"]:
            tree = _with(
                HB_MAPPER, input__input_type_train=train, input__input_type_rt=rt, input__norm_type="no_preprocess",
                input__mean_value=None, input__scale_value=None,
            )  # fmt: skip
            if tool == HB_COMPILE:
                tree["model_parameters"] = {"onnx_model": "m.onnx", "march": "nash-e"}
                tree["compiler_parameters"]["optimize_level"] = "O2"
                tree["calibration_parameters"]["calibration_type"] = "kl"
            legal = rt in LEGAL_TYPES[tool][train]
            assert ("cannot become" in _sentences(tool, tree)) != legal, (train, rt)


def test_dropped_keys_are_warnings() -> None:
    (problem,) = check(HB_COMPILE, _with(HB_COMPILE, input__norm_type="data_mean_and_scale;no_preprocess"))
    assert problem.level == "warning"


def test_a_file_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(COMPILE, encoding="utf-8")
    assert check_file(path) == []
    path.write_text(MAPPER.replace("bayes-e", "bayes-f"), encoding="utf-8")
    assert "bayes-f" in check_file(path)[0].sentence()
    path.write_text("a: [", encoding="utf-8")
    assert "cannot be read as YAML" in check_file(path)[0].sentence()
    path.write_text("just text", encoding="utf-8")
    assert "no mapping" in check_file(path)[0].sentence()
