"""From `target.options` to the compiler's YAML: every key is one of the tool's documented ones.

An option of an input is one value for all of them, or a mapping of input name to value. `mean` and
`std` are the constants of training, on data in [0, 1]: the tool works on 0 to 255, so that
mean_value = 255 * mean and scale_value = 1 / (255 * std).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, cast

from pipeline.errors import Refused
from pipeline.targets.calibration import CalibratedInput, Colours, Layout, folder_name
from pipeline.targets.horizon.boards import Board
from pipeline.targets.horizon.check import CHANNELS, Problem, check
from pipeline.targets.horizon.schema import HB_COMPILE, HB_MAPPER, group_of, key_of

#: Options that are ours; every other one is a key of the tool.
OWN: Final = ("mean", "std")
#: Keys that follow from the run and cannot be given.
SET_BY_US: Final = ("onnx_model", "input_name", "input_shape", "cal_data_dir", "norm_type", "mean_value",
                    "scale_value", "std_value", "caffe_model", "prototxt")  # fmt: skip
#: Read into `InputSettings`, which gives them back.
_PER_INPUT: Final = ("input_type_train", "input_type_rt", "input_layout_train")
#: Where the YAML lies below the run directory, so that the model is one folder up.
MODEL: Final = "../model.onnx"
LARGEST_PIXEL: Final = 255.0


@dataclass(frozen=True)
class InputFacts:
    """An input of the finished file.

    Attributes:
        shape: example sizes; every size that the file leaves open stands there too.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class InputSettings:
    """How one input is handed to the tool.

    Attributes:
        mean, std: of training, on [0, 1]; None: the network takes its data as it is.
        cal_dtype: of the calibration files.
    """

    facts: InputFacts
    type_train: str
    type_rt: str
    layout: Layout
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    cal_dtype: str

    @property
    def calibrated(self) -> CalibratedInput:
        """What its samples must be."""
        colours = cast("Colours", self.type_train) if self.type_train in CHANNELS else None
        return CalibratedInput(self.facts.name, self.facts.shape, self.cal_dtype, colours, self.layout)


@dataclass(frozen=True)
class Settings:
    """The YAML's data and what it was made of."""

    board: Board
    tree: Mapping[str, Mapping[str, Any]]
    inputs: tuple[InputSettings, ...]


def check_options(board: Board, options: Mapping[str, Any]) -> None:
    """Refuse options that the tool does not have, before any work.

    Raises:
        Refused: PL-622.
    """
    for name in options:
        if name in OWN or (group_of(board.tool, name) and name not in SET_BY_US):
            continue
        groups = ("model_parameters", "input_parameters", "calibration_parameters", "compiler_parameters")
        known = [
            *OWN,
            *(name for group in groups for name in _keys(board.tool, group) if name not in SET_BY_US),
        ]
        close = get_close_matches(name, known, n=1)
        own = {"mean_value": "mean", "scale_value": "std", "std_value": "std"}.get(name)
        raise Refused(
            "PL-622",
            f"{name} follows from the run and cannot be given" if name in SET_BY_US else
            f"{board.tool} has no option {name}",
            where=f"target.options.{name}",
            expected=f"target.options.{own}, on data in [0, 1]" if own else None,
            next_step=f"Type target.options.{close[0]}={options[name]}" if close and name not in SET_BY_US else
            "Take the key away",
        )  # fmt: skip


def _keys(tool: str, group: str) -> list[str]:
    from pipeline.targets.horizon.schema import SCHEMAS

    return [key.name for key in SCHEMAS[tool][group]]


def settings(
    board: Board, inputs: Sequence[InputFacts], options: Mapping[str, Any], *, prefix: str, placeholder: bool
) -> Settings:
    """The configuration for the tool, held to its documented keys.

    Args:
        board: which.
        inputs: of the finished file, in order.
        options: `target.options`.
        prefix: of the names of the tool's products.
        placeholder: whether the calibration data is not the user's.

    Raises:
        Refused: PL-622, an option that does not fit, with the tool's own rule.
    """
    check_options(board, options)
    for name, value in options.items():
        _known_inputs(name, value, inputs, board.tool)
    each = tuple(_input(one, options, board.tool) for one in inputs)
    tree: dict[str, dict[str, Any]] = {
        "model_parameters": {
            "onnx_model": MODEL, "march": board.march, "output_model_file_prefix": prefix,
            "working_dir": "model_output",
        },
        "input_parameters": _input_keys(board, each, options),
        "calibration_parameters": {
            "calibration_type": "default" if board.tool == HB_MAPPER else "kl",
            "cal_data_dir": _joined([f"./{calibration_folder(one, placeholder)}" for one in each]),
        },
        "compiler_parameters": {
            "compile_mode": "latency", "optimize_level": "O3" if board.tool == HB_MAPPER else "O2",
        },
    }  # fmt: skip
    if board.tool == HB_MAPPER:
        tree["calibration_parameters"]["cal_data_type"] = _joined([one.cal_dtype for one in each])
    for name, value in options.items():
        group = group_of(board.tool, name)
        if name in OWN or group is None or group == "input_parameters" or name == "cal_data_type":
            continue
        tree.setdefault(group, {})[name] = value
    if tree["calibration_parameters"]["calibration_type"] in ("skip", "load"):
        for name in ("cal_data_dir", "cal_data_type"):
            tree["calibration_parameters"].pop(name, None)
    problems = [one for one in check(board.tool, tree) if one.level == "error"]
    if problems:
        raise _refused(board, problems[0], options)
    return Settings(board, tree, each)


def _refused(board: Board, problem: Problem, options: Mapping[str, Any]) -> Refused:
    name = problem.where.rpartition(".")[2]
    where = f"target.options.{name}" if name in options else f"{board.tool}: {problem.where}"
    return Refused(
        "PL-622", f"{board.tool} does not take it: {problem.message}", where=where,
        found=str(options[name]) if name in options else None,
        next_step=_allowed(board, name, options[name]) if name in options else
        "Change target.options or model.inputs",
    )  # fmt: skip


def _allowed(board: Board, name: str, value: Any) -> str:
    """What to type instead of a word that a key does not take."""
    key = key_of(board.tool, group_of(board.tool, name) or "", name)
    if key is None or not isinstance(value, str) or not key.values or value in key.values:
        return f"Change target.options.{name}"
    near = get_close_matches(value, key.values, n=1)
    return f"Type target.options.{name}={(near or key.values)[0]}"


def calibration_folder(one: InputSettings, placeholder: bool) -> str:
    """Where the samples of an input lie; hb_mapper takes _f32 for float32."""
    ending = "_f32" if one.cal_dtype == "float32" else ""
    return f"calibration/{'placeholder_' if placeholder else ''}{folder_name(one.facts.name)}{ending}"


def _input(one: InputFacts, options: Mapping[str, Any], tool: str) -> InputSettings:
    mean, std = (_channels(one, name, _of(options, name, one.name)) for name in OWN)
    if mean and not std:
        std = (1.0,)  # what is taken off the mean of data in [0, 1] was scaled to it
    layout = _of(options, "input_layout_train", one.name) or _layout(one.shape)
    train, rt = (_of(options, f"input_type_{when}", one.name) for when in ("train", "rt"))
    if train is None:
        image = mean or std or (rt is not None and rt != "featuremap")
        train = _image_type(one, layout) if image else "featuremap"
    if train == "featuremap" and (mean or std):
        raise Refused(
            "PL-622", f"input {one.name} is a featuremap, which {tool} does not normalise",
            where="target.options.mean" if mean else "target.options.std",
            next_step="Type target.options.input_type_train=rgb (or bgr, gray), or take mean and std away",
        )  # fmt: skip
    dtype = _of(options, "cal_data_type", one.name) or "float32"
    if train == "featuremap" and dtype != "float32":
        raise Refused(
            "PL-622", f"input {one.name} is a featuremap, whose calibration data is float32",
            where="target.options.cal_data_type", found=str(dtype),
            next_step="Take target.options.cal_data_type away",
        )  # fmt: skip
    return InputSettings(one, str(train), str(rt or train), cast("Layout", layout), mean, std, str(dtype))


def not_normalised(made: Settings) -> list[str]:
    """Sentences on images for which no constants of training are given: the tool then normalises nothing."""
    how = " (norm_type no_preprocess)" if made.board.tool == HB_MAPPER else ""
    return [
        f"input {one.facts.name} is {one.type_train} without mean and std{how}: the network gets pixels from 0 to "
        f"{LARGEST_PIXEL:g} as they are; if training normalised them type target.options.mean and target.options.std, "
        "on data in [0, 1]"
        for one in made.inputs if one.type_train in CHANNELS and not (one.mean or one.std)
    ]  # fmt: skip


def _image_type(one: InputFacts, layout: str) -> str:
    channels = one.shape[1 if layout == "NCHW" else -1] if len(one.shape) == 4 else 3
    return "gray" if channels == 1 else "rgb"


def _layout(shape: tuple[int, ...]) -> str:
    """NHWC only where the last size alone looks like channels: everything that torch exports is NCHW."""
    channels = (1, 3, 4)
    return "NHWC" if len(shape) == 4 and shape[1] not in channels and shape[3] in channels else "NCHW"


def _of(options: Mapping[str, Any], name: str, input_name: str) -> Any:
    value = options.get(name)
    return value.get(input_name) if isinstance(value, Mapping) else value


def _known_inputs(name: str, value: Any, inputs: Sequence[InputFacts], tool: str) -> None:
    key = key_of(tool, group_of(tool, name) or "", name)
    if not isinstance(value, Mapping) or not (name in OWN or (key and key.each)):
        return
    known = [one.name for one in inputs]
    if unknown := [one for one in value if one not in known]:
        raise Refused(
            "PL-622",
            f"there is no input {unknown[0]}",
            where=f"target.options.{name}",
            expected=", ".join(known),
        )


def _channels(one: InputFacts, name: str, value: Any) -> tuple[float, ...] | None:
    """One number, or one a channel."""
    if value is None:
        return None
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    channels = one.shape[1 if _layout(one.shape) == "NCHW" else -1] if len(one.shape) == 4 else 1
    example = f"Type {_typed(name, [0.5] * channels)}"
    if not items or not all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items):
        raise Refused("PL-622", f"{name} is a number, or a list with one a channel", where=f"target.options.{name}",
                      found=str(value), next_step=example)  # fmt: skip
    if name == "std" and any(item <= 0 for item in items):
        raise Refused(
            "PL-622", "std is more than 0", where="target.options.std", found=str(value), next_step=example
        )
    if len(items) > 1 and len(items) not in (one.shape[1:2] + one.shape[-1:]):
        raise Refused(
            "PL-622", f"{name} has {len(items)} numbers", where=f"target.options.{name}", found=str(value),
            expected=f"one, or one a channel of {one.name} {list(one.shape)}", next_step=example,
        )  # fmt: skip
    if any(item > 1 for item in items):
        raise Refused(
            "PL-622", f"{name} is on data in [0, 1]", where=f"target.options.{name}", found=str(value),
            next_step=f"Divide by {LARGEST_PIXEL:g}: type "
            + _typed(name, [item / LARGEST_PIXEL for item in items]),
        )  # fmt: skip
    return tuple(float(item) for item in items)


def _typed(name: str, numbers: Sequence[float]) -> str:
    """An option as it is typed in a shell."""
    texts = [f"{number:.4g}" for number in numbers]
    return (
        f"target.options.{name}={texts[0]}"
        if len(texts) == 1
        else f"'target.options.{name}=[{','.join(texts)}]'"
    )


def _input_keys(board: Board, inputs: Sequence[InputSettings], options: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "input_name": _joined([one.facts.name for one in inputs]),
        "input_shape": _joined(["x".join(map(str, one.facts.shape)) for one in inputs]),
        "input_type_train": _joined([one.type_train for one in inputs]),
        "input_layout_train": _joined([one.layout for one in inputs]),
        "input_type_rt": _joined([one.type_rt for one in inputs]),
    }
    if board.tool == HB_MAPPER:
        if not any(one.type_rt == "nv12" for one in inputs):
            # Images come from cameras and decoders as NHWC, and the X3 computes so.
            found["input_layout_rt"] = _joined(
                [one.layout if one.type_rt == "featuremap" else "NHWC" for one in inputs]
            )
        found["norm_type"] = _joined([_norm(one) for one in inputs])
    separator = ", " if board.tool == HB_COMPILE else " "
    for name, values in (
        ("mean_value", [_mean(one) for one in inputs]), ("scale_value", [_scale(one) for one in inputs])
    ):  # fmt: skip
        if any(value is not None for value in values):
            found[name] = _joined([_numbers(value, separator) for value in values])
    for name, value in options.items():
        if group_of(board.tool, name) == "input_parameters" and name not in _PER_INPUT:
            found[name] = _given(board, name, value, inputs, str(found.get(name, "")))
    return found


def _given(board: Board, name: str, value: Any, inputs: Sequence[InputSettings], before: str) -> Any:
    """A value of the user's as the tool has it: one an input where the key has one an input."""
    if isinstance(value, Mapping):
        old = before.split(";") if before else [""] * len(inputs)
        return _joined([str(value.get(one.facts.name, now)) for one, now in zip(inputs, old, strict=True)])
    key = key_of(board.tool, "input_parameters", name)
    if key is not None and key.each and ";" not in str(value):
        return _joined([str(value)] * len(inputs))
    return value


def _norm(one: InputSettings) -> str:
    words = [word for word, value in (("mean", one.mean), ("scale", one.std)) if value]
    return "data_" + "_and_".join(words) if words else "no_preprocess"


def _mean(one: InputSettings) -> list[float] | None:
    return [LARGEST_PIXEL * value for value in one.mean] if one.mean else None


def _scale(one: InputSettings) -> list[float] | None:
    return [1 / (LARGEST_PIXEL * value) for value in one.std] if one.std else None


def _numbers(values: list[float] | None, separator: str) -> str:
    return separator.join(f"{value:.9g}" for value in values) if values else "None"


def _joined(values: Sequence[str]) -> str:
    return ";".join(values)
