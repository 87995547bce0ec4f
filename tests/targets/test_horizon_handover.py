"""What a user takes into Horizon's container: configuration, calibration data, commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.errors import Refused, StageFailed
from pipeline.targets.config import CalibrationConfig, TargetConfig
from pipeline.targets.handover_stage import HandoverStage, handover_stages
from pipeline.targets.horizon.boards import BOARDS
from pipeline.targets.horizon.check import check
from pipeline.targets.horizon.options import InputFacts, settings
from tests.targets.handing_over import Folder, profile, specs, workspace

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
IMAGE = InputFacts("image", "float32", (1, 3, 224, 224))


def _tree(board: str = "horizon_x3", *, inputs: Any = (IMAGE,), **options: Any) -> dict[str, Any]:
    made = settings(BOARDS[board], inputs, options, prefix="net", placeholder=False)
    assert check(made.board.tool, made.tree) == []
    return {name: value for group in made.tree.values() for name, value in group.items()}


def _stage(target: TargetConfig, name: str = "horizon_x3", given: Any = None) -> HandoverStage:
    (stage,) = handover_stages(target, profile(name), given or specs())
    assert isinstance(stage, HandoverStage)
    return stage


def _run(root: Path, name: str = "horizon_x3", *, folder: Path | None = None, **options: Any) -> Folder:
    target = TargetConfig(
        name=name, options=options, calibration=CalibrationConfig(str(folder) if folder else None)
    )
    stage, space = _stage(target, name), workspace(root)
    stage.requires(space)
    stage.run(space)
    stage.ensures(space)
    return space


def test_constants_of_training_become_those_of_the_tool() -> None:
    tree = _tree(**IMAGENET)
    assert tree["norm_type"] == "data_mean_and_scale"
    assert tree["mean_value"] == "123.675 116.28 103.53"
    scales = [float(word) for word in tree["scale_value"].split()]
    assert scales == pytest.approx([1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)], rel=1e-8)
    pixels = np.array([0.0, 128.0, 255.0])
    wanted = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    means = [float(word) for word in tree["mean_value"].split()]
    assert (pixels - means) * scales == pytest.approx(wanted, rel=1e-6)


def test_a_mean_alone_is_taken_off_data_in_0_to_1() -> None:
    tree = _tree(mean=0.5)
    assert (tree["norm_type"], tree["mean_value"]) == ("data_mean_and_scale", "127.5")
    assert float(tree["scale_value"]) == pytest.approx(1 / 255)
    assert _tree(std=0.5)["norm_type"] == "data_scale"


def test_without_constants_the_network_gets_its_data_as_it_is() -> None:
    tree = _tree()
    assert (tree["input_type_train"], tree["input_type_rt"], tree["norm_type"]) == (
        "featuremap", "featuremap", "no_preprocess",
    )  # fmt: skip
    assert tree["input_layout_rt"] == "NCHW"


def test_types_and_layouts() -> None:
    assert _tree(input_type_rt="nv12")["input_type_train"] == "rgb"
    assert "input_layout_rt" not in _tree(input_type_rt="nv12")
    assert _tree(input_type_train="bgr")["input_layout_rt"] == "NHWC"
    assert _tree(inputs=[InputFacts("x", "float32", (1, 1, 8, 8))], std=1)["input_type_train"] == "gray"
    last = InputFacts("x", "float32", (1, 8, 8, 3))
    assert _tree(inputs=[last], std=1)["input_layout_train"] == "NHWC"


def test_several_inputs_each_with_its_own() -> None:
    inputs = [IMAGE, InputFacts("state", "float32", (1, 8, 1, 1))]
    tree = _tree(inputs=inputs, mean={"image": 0.5}, std={"image": 0.25}, input_type_rt={"image": "bgr"})
    assert tree["input_name"] == "image;state"
    assert tree["input_shape"] == "1x3x224x224;1x8x1x1"
    assert tree["input_type_train"] == "rgb;featuremap"
    assert tree["input_type_rt"] == "bgr;featuremap"
    assert tree["norm_type"] == "data_mean_and_scale;no_preprocess"
    assert tree["mean_value"] == "127.5;None"
    assert tree["cal_data_dir"] == "./calibration/image_f32;./calibration/state_f32"


def test_every_board_has_its_march_and_tool() -> None:
    assert {name: (board.march, board.tool) for name, board in BOARDS.items()} == {
        "horizon_x3": ("bernoulli2", "hb_mapper"),
        "horizon_rdk_ultra": ("bayes", "hb_mapper"),
        "horizon_x5": ("bayes-e", "hb_mapper"),
        "horizon_s100": ("nash-e", "hb_compile"),
    }


def test_hb_compile_has_other_keys() -> None:
    tree = _tree("horizon_s100", **IMAGENET, input_type_rt="nv12")
    assert tree["march"] == "nash-e"
    assert tree["optimize_level"] == "O2"
    assert tree["mean_value"] == "123.675, 116.28, 103.53"
    assert not {"norm_type", "cal_data_type", "input_layout_rt"} & set(tree)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimise_level": "O2"}, "Type target.options.optimize_level=O2"),
        ({"optimize_level": "O9"}, "none of O0, O1, O2, O3"),
        ({"mean_value": "1 2 3"}, "target.options.mean"),
        ({"cal_data_dir": "x"}, "follows from the run"),
        ({"core_num": 3}, "3 is not 1 to 2"),
        ({"node_info": {"a": {"ON": "CPU"}}}, "only bayes, bayes-e take it"),
        ({"mean": [123.675, 116.28, 103.53]}, "[0.485,0.456,0.406]"),
        ({"mean": [0.1, 0.2]}, "one a channel"),
        ({"mean": "half"}, "a number"),
        ({"std": 0}, "more than 0"),
        ({"std": 0.5, "input_type_train": "featuremap"}, "does not normalise"),
        ({"input_type_train": "rgb", "input_type_rt": "gray"}, "rgb cannot become gray"),
        ({"mean": {"picture": 0.5}}, "no input picture"),
        ({"cal_data_type": "uint8"}, "featuremap, whose calibration data is float32"),
    ],
)
def test_options_that_the_tool_does_not_take(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as error:
        _tree(**options)
    assert error.value.reason.code == "PL-622"
    assert said in error.value.reason.sentence()


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"mean": [1, 2]}, "Type 'target.options.mean=[0.5,0.5,0.5]'"),  # and not two numbers, refused next
        ({"mean": 127.5}, "Divide by 255: type target.options.mean=0.5"),
        ({"std": [0, 1, 1]}, "Type 'target.options.std=[0.5,0.5,0.5]'"),
        ({"input_type_train": "rgbb"}, "Type target.options.input_type_train=rgb"),
        ({"optimize_level": "O9"}, "Type target.options.optimize_level=O0"),
    ],
)
def test_what_is_to_be_typed_for_an_option_is_taken(options: dict[str, Any], step: str) -> None:
    with pytest.raises(Refused) as error:
        _tree(**options)
    assert error.value.reason.next_step == step


def test_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="PL-622"):
        _stage(TargetConfig(name="horizon_x3", options={"nonsense": 1}))
    with pytest.raises(Refused, match="PL-620"):
        _stage(TargetConfig(name="horizon_x3", calibration=CalibrationConfig(str(tmp_path / "nowhere"))))
    with pytest.raises(Refused, match=r"PL-622.*nash-q"):
        _stage(TargetConfig(name="horizon_s100", options={"march": "nash-q"}), "horizon_s100")
    five = specs({"x": {"shape": [1, 3, 4, 4, 4]}})
    with pytest.raises(Refused, match="5 dimensions, four are taken"):
        _stage(TargetConfig(name="horizon_x3"), given=five)


def test_placeholders_say_so_everywhere(tmp_path: Path) -> None:
    space = _run(tmp_path / "run")
    files = sorted((space.root / "horizon_x3" / "calibration").rglob("*.*"))
    assert [file.name for file in files] == [f"placeholder_{index:05d}.bin" for index in range(3)]
    assert files[0].parent.name == "placeholder_image_f32"
    array = np.fromfile(files[1], np.float32).reshape(1, 3, 8, 6)
    assert np.array_equal(array, space.values["parity_inputs"]["seed1"]["image"])
    assert any("placeholder" in sentence for sentence in space.warnings)
    assert "A placeholder" in (space.root / "horizon_x3" / "README.md").read_text()
    tree = yaml.safe_load((space.root / "horizon_x3" / "hb_mapper.yaml").read_text())
    assert tree["calibration_parameters"]["cal_data_dir"] == "./calibration/placeholder_image_f32"


def test_placeholders_are_what_the_tool_normalises(tmp_path: Path) -> None:
    """hb_mapper applies mean and scale by itself: what is fed is the pixels, not the network's input."""
    space = _run(tmp_path / "run", **IMAGENET)
    (first, *_) = sorted((space.root / "horizon_x3" / "calibration").rglob("*.bin"))
    pixels = np.fromfile(first, np.float32).reshape(1, 3, 8, 6)
    assert pixels.min() >= 0
    assert pixels.max() <= 255
    mean, std = (np.reshape(IMAGENET[name], (1, 3, 1, 1)) for name in ("mean", "std"))
    inside = (pixels > 0) & (pixels < 255)
    given = space.values["parity_inputs"]["seed0"]["image"]
    assert inside.mean() > 0.5
    assert np.allclose(((pixels / 255 - mean) / std)[inside], given[inside], atol=1e-5)


def test_images_of_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(20):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    Image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(folder / "00_blank.png")
    space = _run(tmp_path / "run", folder=folder, input_type_train="bgr", **IMAGENET)
    files = sorted((space.root / "horizon_x3" / "calibration" / "image_f32").iterdir())
    assert [file.name for file in files] == [f"{index:05d}.bin" for index in range(20)]
    first = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    expected = first[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    assert files[0].read_bytes() == expected.tobytes()
    assert space.warnings == ["1 samples of the calibration data are blank and were left out"]
    assert "placeholder" not in (space.root / "horizon_x3" / "README.md").read_text().lower()
    assert all(not space.files[path][1] for path in space.files if "calibration/" in path)


def test_few_samples_are_said_and_uint8_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    space = _run(tmp_path / "run", folder=folder, input_type_train="rgb", cal_data_type="uint8")
    assert space.warnings[1:] == ["1 samples are few to calibrate with: the vendor asks for about 100"]
    (file,) = (space.root / "horizon_x3" / "calibration" / "image").iterdir()
    assert file.read_bytes() == np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()
    tree = yaml.safe_load((space.root / "horizon_x3" / "hb_mapper.yaml").read_text())
    assert tree["calibration_parameters"]["cal_data_type"] == "uint8"


def test_only_blank_samples_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "a.npy", np.zeros((1, 3, 8, 6)))
    with pytest.raises(Refused, match="blank") as error:
        _run(tmp_path / "run", folder=folder)
    assert error.value.exit_code == 2
    assert str(folder) in error.value.reason.sentence()


def test_a_first_sample_of_another_shape_is_refused_before_any_work(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 9, 9)))
    target = TargetConfig(name="horizon_x3", calibration=CalibrationConfig(str(tmp_path)))
    with pytest.raises(Refused, match=r"PL-621.*a\.npy"):
        _stage(target)


def test_one_sample_that_is_not_finite_is_refused_among_good_ones(tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name in "abc":
        np.save(folder / f"{name}.npy", np.random.default_rng(0).random((1, 3, 8, 6)))
    np.save(folder / "b.npy", np.full((1, 3, 8, 6), np.nan))
    with pytest.raises(Refused, match=r"PL-621.*b\.npy.*NaN in 144 of 144 elements"):
        _run(tmp_path / "run", folder=folder)


@pytest.mark.parametrize("name", ["horizon_x3", "horizon_s100"])
def test_images_without_constants_are_said_to_be_fed_as_they_are(tmp_path: Path, name: str) -> None:
    said = "input image is rgb without mean and std"
    space = _run(tmp_path / "run", name, input_type_train="rgb")
    assert [sentence for sentence in space.warnings if said in sentence and "from 0 to 255" in sentence]
    assert ("norm_type no_preprocess" in " ".join(space.warnings)) == (name == "horizon_x3")
    quiet = (_run(tmp_path / "normalised", name, **IMAGENET), _run(tmp_path / "plain", name))
    assert not [sentence for one in quiet for sentence in one.warnings if "without mean" in sentence]


def test_hb_compile_gets_npy(tmp_path: Path) -> None:
    space = _run(tmp_path / "run", "horizon_s100")
    folder = space.root / "horizon_s100"
    files = sorted((folder / "calibration").rglob("*.npy"))
    assert len(files) == 3
    assert np.load(files[0]).shape == (1, 3, 8, 6)
    text = (folder / "README.md").read_text()
    assert "hb_compile -m ../model.onnx --march nash-e -i image 1x3x8x6" in text
    assert "hb_compile -c hb_compile.yaml" in text
    assert check("hb_compile", yaml.safe_load((folder / "hb_compile.yaml").read_text())) == []


def test_commands_and_prediction_on_the_page(tmp_path: Path) -> None:
    space = _run(tmp_path / "run", output_model_file_prefix="mine")
    text = (space.root / "horizon_x3" / "README.md").read_text()
    checker = "hb_mapper checker --model-type onnx --march bernoulli2 --model ../model.onnx --input-shape image 1x3x8x6"
    assert checker in text
    assert text.index(checker) < text.index("hb_mapper makertbin --config hb_mapper.yaml --model-type onnx")
    assert "openexplorer/ai_toolchain_ubuntu_20_x3j5_gpu" in text
    assert "model_output/mine.bin" in text
    assert "| multiply-accumulates on the BPU | 100.0% |" in text
    assert "| passages between BPU and CPU | 1 |" in text


def test_weights_beside_the_file_cannot_be_handed_over(tmp_path: Path) -> None:
    from dataclasses import replace

    space = workspace(tmp_path / "run")
    space.values["model"] = replace(space.values["model"], data_path=Path("model.onnx.data"))
    with pytest.raises(StageFailed, match=r"PL-623.*export.external_data=never"):
        _stage(TargetConfig(name="horizon_x3")).run(space)
