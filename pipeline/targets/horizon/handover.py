"""What a user takes into Horizon's container: the tool's YAML, calibration data, the commands in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import InternalError, Refused, StageFailed
from pipeline.samples.spec import InputSpecs
from pipeline.targets.calibration import FEWEST, MOST, Samples, find_samples, is_blank, read_sample
from pipeline.targets.config import TargetConfig
from pipeline.targets.horizon.boards import Board, board_of
from pipeline.targets.horizon.check import check
from pipeline.targets.horizon.options import (
    LARGEST_PIXEL,
    InputFacts,
    InputSettings,
    Settings,
    calibration_folder,
    not_normalised,
    settings,
)
from pipeline.targets.horizon.page import page
from pipeline.targets.horizon.schema import HB_MAPPER, group_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.stage import Workspace
    from pipeline.targets.judge import Judgement
    from pipeline.targets.profile import Profile

#: A placeholder says so where nobody can overlook it: in the file's name.
PLACEHOLDER: Final = "placeholder_"
FILES: Final = ("README.md", "hb_*.yaml")
#: `target.options.march` chooses among the marches of the board's tool.
MARCH: Final = "march"


def prepare(target: TargetConfig, profile: Profile, specs: InputSpecs, prefix: str) -> None:
    """Everything that can be refused before work: options, shapes, the folder of calibration data.

    Raises:
        Refused: PL-620, PL-621, PL-622.
    """
    made = _settings(target, profile, specs, prefix)
    if target.calibration.dir is not None:
        inputs = [one.calibrated for one in made.inputs]
        samples = find_samples(Path(target.calibration.dir).expanduser(), inputs)
        for one in inputs:  # what is wrong with the first is wrong with all more often than not
            read_sample(samples, one, 0)


def write(
    target: TargetConfig,
    profile: Profile,
    specs: InputSpecs,
    prefix: str,
    workspace: Workspace,
    judgement: Judgement,
) -> list[str]:
    """Write the files into `<target>/`; returns sentences that the user must read.

    Raises:
        Refused: PL-621, a file of the calibration data cannot be used.
        StageFailed: PL-623, external data.
    """
    made = _settings(target, profile, specs, prefix)
    if workspace.get("model").data_path is not None:
        raise StageFailed(
            "PL-623", f"{made.board.tool} is handed a single .onnx file", where="export.external_data",
            found="weights beside it", next_step="Type export.external_data=never",
        )  # fmt: skip
    warnings = not_normalised(made)
    if target.calibration.dir is None:
        about = _placeholders(target, made, workspace, warnings)
    else:
        about = _from_folder(target, made, workspace, warnings)
    name = f"{made.board.tool}.yaml"
    path = workspace.file(f"{target.name}/{name}", "target")
    path.write_text(_yaml(made, target.name), encoding="utf-8")
    _read_back(path, made)
    text = page(prefix, target.name, name, made, judgement, about)
    workspace.file(f"{target.name}/README.md", "target", same_every_time=False).write_text(
        text, encoding="utf-8"
    )
    return warnings


def _settings(target: TargetConfig, profile: Profile, specs: InputSpecs, prefix: str) -> Settings:
    board = board_of((profile.name, *profile.extends, target.name))
    if board is None:
        raise InternalError(f"profile {profile.name} is none of Horizon's")
    board = _with_march(board, profile, target)
    inputs = [InputFacts(leaf.name, leaf.dtype, leaf.shape) for leaf in specs.leaves]
    # A profile's options may speak to others too; the request's are all for the tool.
    of_profile = {key: value for key, value in profile.options.items() if group_of(board.tool, key)}
    options = {key: value for key, value in {**of_profile, **target.options}.items() if key != MARCH}
    return settings(board, inputs, options, prefix=prefix, placeholder=target.calibration.dir is None)


def _with_march(board: Board, profile: Profile, target: TargetConfig) -> Board:
    march = str(target.options.get(MARCH, profile.options.get(MARCH, board.march)))
    if march not in board.marches:
        raise Refused(
            "PL-622", f"{board.tool} has no march {march}", where="target.options.march", found=march,
            expected=", ".join(board.marches), next_step=f"Type target.options.march={board.march}",
        )  # fmt: skip
    return replace(board, march=march)


def _yaml(made: Settings, folder: str) -> str:
    import yaml

    head = (
        f"# {made.board.title}: {made.board.tool}, to be run in the folder {folder} of the run directory.\n"
        "# Every key is one of the tool's documented ones; README.md says what to type.\n"
    )
    body = yaml.safe_dump(_plain(made.tree), sort_keys=False, allow_unicode=True, width=10_000)
    return head + str(body)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _read_back(path: Path, made: Settings) -> None:
    import yaml

    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    if read != _plain(made.tree) or any(one.level == "error" for one in check(made.board.tool, read)):
        raise InternalError(f"{path.name} does not say what was meant")


# calibration data


def _placeholders(target: TargetConfig, made: Settings, workspace: Workspace, warnings: list[str]) -> str:
    """The run's own inputs, of the example sizes: enough to try the tools, useless for accuracy."""
    sets = [
        values
        for values in workspace.get("parity_inputs").values()
        if all(values[one.facts.name].shape == one.facts.shape for one in made.inputs)
    ]
    for one in made.inputs:
        for index, values in enumerate(sets):
            array = _as_calibration(values[one.facts.name], one)
            _save(target, made, one, index, array, workspace, placeholder=True)
    warnings.append(
        f"the calibration data is a placeholder: {len(sets)} random inputs of this run; type "
        "target.calibration.dir=FOLDER with about a hundred real samples before accuracy means anything"
    )
    return (
        f"**A placeholder**: the {len(sets)} inputs that this run was proved on, which are random numbers. They are "
        "enough to try the conversion; what comes out is not accurate. Run again with "
        "`target.calibration.dir=FOLDER` (images or .npy arrays, about a hundred from training or validation data; "
        "a folder an input where there are several)."
    )


def _as_calibration(array: NDArray[np.generic], one: InputSettings) -> NDArray[np.generic]:
    """What the tool takes where the network takes `array`: the tool normalises by itself."""
    import numpy as np

    found = array.astype(np.float64)
    channels = (1, -1, 1, 1) if one.layout == "NCHW" else (1, 1, 1, -1)
    if one.std:  # (pixel / 255 - mean) / std, or without the mean, the other way round
        found = found * np.reshape(one.std, channels) * LARGEST_PIXEL
    if one.mean:
        found = found + np.reshape(one.mean, channels) * LARGEST_PIXEL
    if one.mean or one.std:
        found = np.clip(found, 0, LARGEST_PIXEL)
    if one.cal_dtype == "uint8":
        found = np.clip(np.rint(found), 0, LARGEST_PIXEL)
    return np.ascontiguousarray(found.astype(one.cal_dtype))


def _from_folder(target: TargetConfig, made: Settings, workspace: Workspace, warnings: list[str]) -> str:
    assert target.calibration.dir is not None
    inputs = [one.calibrated for one in made.inputs]
    samples = find_samples(Path(target.calibration.dir).expanduser(), inputs)
    written = blank = 0
    for index in range(samples.count):
        arrays = [read_sample(samples, one, index) for one in inputs]
        if all(is_blank(array) for array in arrays):
            blank += 1
            continue
        for one, array in zip(made.inputs, arrays, strict=True):
            _save(target, made, one, written, array, workspace, placeholder=False)
        written += 1
    if not written:
        raise Refused(
            "PL-621", "every sample of the calibration data is blank",
            where=str(Path(target.calibration.dir).expanduser()),
            found=f"{blank} samples whose elements are all the same",
            next_step="Type target.calibration.dir=FOLDER with real samples, or null for placeholders",
        )  # fmt: skip
    _remark(samples, written, blank, warnings)
    images = [one for one in made.inputs if one.calibrated.colours]
    resized = (
        " Images were stretched to the input's size (bilinear); where training cropped them, give arrays instead."
        if images
        else ""
    )
    kinds = "; ".join(_kind(one) for one in made.inputs)
    return f"{written} samples from `{Path(target.calibration.dir).name}`: {kinds}.{resized}"


def _remark(samples: Samples, written: int, blank: int, warnings: list[str]) -> None:
    if blank:
        warnings.append(f"{blank} samples of the calibration data are blank and were left out")
    if samples.left_out:
        warnings.append(
            f"{samples.left_out} samples of the calibration data were left out: {MOST} are used at most"
        )
    if written < FEWEST:
        warnings.append(f"{written} samples are few to calibrate with: the vendor asks for about 100")


def _kind(one: InputSettings) -> str:
    normal = "" if one.type_train == "featuremap" else (
        ", not normalised: the tool does it" if one.mean or one.std else ", as the network takes them"
    )  # fmt: skip
    layout = "" if one.type_train == "featuremap" else f" {one.layout}"
    size = "x".join(map(str, one.facts.shape))
    return f"`{one.facts.name}` {one.cal_dtype} {size}, {one.type_train}{layout}{normal}"


def _save(
    target: TargetConfig, made: Settings, one: InputSettings, index: int, array: NDArray[np.generic],
    workspace: Workspace, *, placeholder: bool,
) -> None:  # fmt: skip
    """Raw numbers without a header for hb_mapper, .npy for hb_compile."""
    import numpy as np

    if array.shape != one.facts.shape or array.dtype.name != one.cal_dtype:
        raise InternalError(f"a sample of {one.facts.name} is {array.dtype.name} {array.shape}")
    ending = "bin" if made.board.tool == HB_MAPPER else "npy"
    name = f"{calibration_folder(one, placeholder)}/{PLACEHOLDER if placeholder else ''}{index:05d}.{ending}"
    # What is read from images may differ where another version of the decoder reads them.
    path = workspace.file(f"{target.name}/{name}", "calibration", same_every_time=placeholder)
    if ending == "bin":
        array.tofile(path)
    else:
        np.save(path, array, allow_pickle=False)
