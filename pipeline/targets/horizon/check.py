"""A YAML of hb_mapper or hb_compile, ours or the user's own, against the documented keys and their rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.targets.horizon.schema import (
    COMPILE_MARCHES,
    HB_COMPILE,
    HB_MAPPER,
    INPUT_SOURCES,
    LEGAL_TYPES,
    NASH_FOUR_CORES,
    REQUIRED_GROUPS,
    SCHEMAS,
    Key,
    group_of,
    key_of,
    parts,
)

#: Types of an input that is an image, with the number of channels that the tools expect.
CHANNELS: Final[Mapping[str, int]] = {"rgb": 3, "bgr": 3, "yuv444": 3, "nv12": 3, "gray": 1}
#: Types that subsample or are cut into even rows: height and width must be even.
EVEN: Final = ("nv12", "yuv444")
#: Largest height times width that the resizer of the board feeds (X3, Ultra, X5).
RESIZER_PIXELS: Final = 18432
_SIZES: Final = re.compile(r"\d+(x\d+)*")


@dataclass(frozen=True)
class Problem:
    """One thing that the tool would refuse, or warn about.

    Attributes:
        where: "input_parameters.norm_type".
        level: error, or warning (deprecated keys).
    """

    where: str
    message: str
    level: Literal["error", "warning"] = "error"

    def sentence(self) -> str:
        return f"{self.where}: {self.message}"


def check_file(path: Path, tool: str | None = None) -> list[Problem]:
    """Everything that is wrong with a user's own YAML.

    Args:
        path: the file.
        tool: hb_mapper or hb_compile; None: what its march belongs to.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return [Problem(path.name, f"it cannot be read as YAML: {' '.join(str(error).split())[:200]}")]
    if tool is None:
        model = tree.get("model_parameters") if isinstance(tree, Mapping) else None
        march = model.get("march") if isinstance(model, Mapping) else None
        tool = HB_COMPILE if march in COMPILE_MARCHES else HB_MAPPER
    return check(tool, tree)


def check(tool: str, tree: Any) -> list[Problem]:
    """Everything that is wrong with the configuration `tree` of `tool`; empty: the tool's documents take it."""
    if not isinstance(tree, Mapping):
        return [Problem("the file", "it holds no mapping of groups")]
    found = [Problem(group, "the group is missing") for group in REQUIRED_GROUPS[tool] if group not in tree]
    for group, keys in tree.items():
        if group not in SCHEMAS[tool]:
            found.append(Problem(str(group), f"there is no such group{_near(str(group), SCHEMAS[tool])}"))
        elif not isinstance(keys, Mapping):
            found.append(Problem(str(group), "the group holds no keys"))
        else:
            found += _group(tool, group, keys, _march(tree))
    if any(problem.level == "error" for problem in found):
        return found
    return [*found, *_across(tool, tree)]


def _march(tree: Mapping[str, Any]) -> str:
    model = tree.get("model_parameters")
    return str(model.get("march", "")) if isinstance(model, Mapping) else ""


def _group(tool: str, group: str, keys: Mapping[Any, Any], march: str) -> Iterator[Problem]:
    for key in SCHEMAS[tool][group]:
        if key.required and keys.get(key.name) is None and not _instead(group, key.name, keys):
            yield Problem(f"{group}.{key.name}", "the key is missing")
    for name, value in keys.items():
        where = f"{group}.{name}"
        known = key_of(tool, group, str(name))
        if known is None and name in ("caffe_model", "prototxt") and group == "model_parameters":
            continue  # documented, for models of another kind
        if known is None:
            other = group_of(tool, str(name))
            hint = f": it belongs to {other}" if other else _near(str(name), _names(tool, group))
            yield Problem(where, f"there is no such key{hint}")
            continue
        if known.marches and march not in known.marches:
            yield Problem(
                where, f"only {', '.join(known.marches)} take it, the march is {march or 'not given'}"
            )
        if known.deprecated:
            yield Problem(where, f"the tool has dropped it; use {known.deprecated}", "warning")
        if value is not None and (said := _value(known, value)):
            yield Problem(where, said)


def _names(tool: str, group: str) -> list[str]:
    return [key.name for key in SCHEMAS[tool][group]]


def _instead(group: str, name: str, keys: Mapping[Any, Any]) -> bool:
    return (group, name) == ("model_parameters", "onnx_model") and keys.get("caffe_model") is not None


def _value(key: Key, value: Any) -> str | None:
    """What is wrong with one value."""
    if key.kind == "choice":
        return None if str(value) in key.values else f"{value!r} is none of {', '.join(key.values)}"
    if key.kind == "boolean":
        return (
            None
            if isinstance(value, bool) or str(value) in ("True", "False")
            else f"{value!r} is no True or False"
        )
    if key.kind in ("integer", "number"):
        return _number(key, value)
    if key.kind == "mapping":
        return None if isinstance(value, Mapping) else f"{value!r} is no mapping"
    if key.kind == "texts" and key.values:
        separator = ";" if key.each else ","
        wrong = [part for part in parts(value, separator) if part not in key.values]
        return f"{wrong[0]!r} is none of {', '.join(key.values)}" if wrong else None
    if key.kind == "numbers":
        wrong = [part for part in parts(value) if part != "None" and not numbers(part)]
        return f"{wrong[0]!r} holds no numbers" if wrong else None
    if key.kind == "text" and isinstance(value, (Mapping, list)):
        return "it is no text"
    return None


def _number(key: Key, value: Any) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and not (key.kind == "number" and isinstance(value, float)):
        return f"{value!r} is no {'whole number' if key.kind == 'integer' else 'number'}"
    outside = (key.least is not None and value < key.least) or (key.most is not None and value > key.most)
    if outside and value not in key.also:
        span = f"{key.least:g} or more" if key.most is None else f"{key.least:g} to {key.most:.10g}"
        return f"{value} is not {span}" + "".join(f" or {also:g}" for also in key.also)
    return None


def numbers(text: str) -> list[float]:
    """The numbers of "123.675 116.28 103.53" (hb_compile's documents separate them by commas)."""
    try:
        return [float(word) for word in re.split(r"[\s,]+", text.strip())]
    except ValueError:
        return []


# rules between keys


def _across(tool: str, tree: Mapping[str, Any]) -> Iterator[Problem]:
    march = _march(tree)
    model, given, calibration, compiler = (tree[group] for group in REQUIRED_GROUPS[tool])
    if "onnx_model" in model and "caffe_model" in model:
        yield Problem("model_parameters", "onnx_model and caffe_model exclude each other")
    if "caffe_model" in model and "prototxt" not in model:
        yield Problem("model_parameters.prototxt", "caffe_model needs it")
    names = parts(given["input_name"]) if given.get("input_name") else []
    count = len(names) or len(parts(given["input_type_train"]))
    if count > 1 and not names:
        yield Problem("input_parameters.input_name", "more than one input needs their names")
    for group in ("input_parameters", "calibration_parameters"):
        for key in SCHEMAS[tool][group]:
            value = tree[group].get(key.name)
            if key.each and value is not None and len(parts(value)) not in (count,):
                yield Problem(f"{group}.{key.name}", f"{len(parts(value))} values for {count} inputs")
                return
    yield from _inputs(tool, march, given, compiler, count)
    yield from _calibration(tool, calibration)
    if tool == HB_COMPILE:
        yield from _compile_only(march, model, given, compiler)


def _inputs(
    tool: str, march: str, given: Mapping[str, Any], compiler: Mapping[str, Any], count: int
) -> Iterator[Problem]:
    def each(name: str) -> list[str | None]:
        return list(parts(given[name])) if given.get(name) is not None else [None] * count

    trains, rts, layouts = each("input_type_train"), each("input_type_rt"), each("input_layout_rt")
    shapes, ranges = each("input_shape"), each("input_space_and_range")
    norms, means, scales = each("norm_type"), each("mean_value"), each("scale_value")
    trained = each("input_layout_train")
    for index in range(count):
        train, rt = str(trains[index]), str(rts[index])
        if rt not in LEGAL_TYPES[tool][train]:
            yield Problem("input_parameters.input_type_rt",
                          f"{train} cannot become {rt}, only {', '.join(LEGAL_TYPES[tool][train])}")  # fmt: skip
        if layouts[index] and rt == "nv12":
            yield Problem("input_parameters.input_layout_rt", "an nv12 input has no layout of its own")
        if march == "bernoulli2" and rt == "yuv444" and layouts[index] == "NCHW":
            yield Problem("input_parameters.input_layout_rt", "bernoulli2 takes yuv444 as NHWC only")
        if ranges[index] not in (None, "regular") and rt != "nv12":
            yield Problem(
                "input_parameters.input_space_and_range", "only nv12 has another range than regular"
            )
        if shapes[index]:
            yield from _shape(
                tool, str(shapes[index]), train, rt, str(trained[index] or "NCHW"), given, compiler
            )
        if tool == HB_MAPPER:
            yield from _norm(str(norms[index]), means[index], scales[index])
        if train == "featuremap" and any(
            value not in (None, "None") for value in (means[index], scales[index])
        ):
            yield Problem("input_parameters", "a featuremap is not normalised by the tool")
        if tool == HB_COMPILE and train != "featuremap" and trained[index] is None:
            yield Problem("input_parameters.input_layout_train", f"{train} needs it")
    if given.get("input_batch", 1) > 1 and count > 1:
        yield Problem("input_parameters.input_batch", "only a model with one input takes it")
    source = compiler.get("input_source")
    for name, kind in source.items() if isinstance(source, Mapping) else ():
        if name not in ("_default_value",) and kind not in ("ddr", "pyramid", "resizer"):
            yield Problem("compiler_parameters.input_source", f"{kind!r} is none of ddr, pyramid, resizer")
    if isinstance(source, Mapping) and given.get("input_name"):
        for name, kind in zip(parts(given["input_name"]), map(str, rts), strict=True):
            if source.get(name) and source[name] not in INPUT_SOURCES[kind]:
                came = " or ".join(INPUT_SOURCES[kind])
                yield Problem(
                    "compiler_parameters.input_source", f"{name} is {kind}, which comes from {came}"
                )


def _shape(
    tool: str,
    text: str,
    train: str,
    rt: str,
    layout: str,
    given: Mapping[str, Any],
    compiler: Mapping[str, Any],
) -> Iterator[Problem]:
    where = "input_parameters.input_shape"
    if not _SIZES.fullmatch(text):
        yield Problem(where, f"{text!r} is not written like 1x3x224x224")
        return
    sizes = [int(size) for size in text.split("x")]
    if len(sizes) != 4:
        if tool == HB_MAPPER or train != "featuremap":
            yield Problem(where, f"{text} has {len(sizes)} dimensions, four are taken")
        return
    channels = sizes[1] if layout == "NCHW" else sizes[3]
    height, width = sizes[2:] if layout == "NCHW" else sizes[1:3]
    if train in CHANNELS and channels != CHANNELS[train]:
        yield Problem(where, f"{train} has {CHANNELS[train]} channels, {text} in {layout} has {channels}")
    if rt in EVEN and (height % 2 or width % 2):
        yield Problem(where, f"{rt} needs an even height and width, {text} has {height} and {width}")
    if given.get("input_batch", 1) > 1 and sizes[0] != 1:
        yield Problem("input_parameters.input_batch", f"the first size must be 1, it is {sizes[0]}")
    source = compiler.get("input_source")
    if isinstance(source, Mapping) and "resizer" in source.values() and height * width >= RESIZER_PIXELS:
        yield Problem("compiler_parameters.input_source",
                      f"the resizer feeds less than {RESIZER_PIXELS} pixels, {text} has {height * width}")  # fmt: skip


def _norm(norm: str, mean: str | None, scale: str | None) -> Iterator[Problem]:
    for word, value, key in (("mean", mean, "mean_value"), ("scale", scale, "scale_value")):
        wants, has = word in norm, value not in (None, "None")
        if wants and not has:
            yield Problem(f"input_parameters.{key}", f"norm_type {norm} needs it")
        if has and not wants:
            yield Problem(f"input_parameters.{key}", f"norm_type {norm} does not take it")


def _calibration(tool: str, calibration: Mapping[str, Any]) -> Iterator[Problem]:
    kind = calibration.get("calibration_type", "skip" if tool == HB_COMPILE else None)
    folder = "calibration_parameters.cal_data_dir"
    if kind in ("default", "mix", "kl", "max") and not calibration.get("cal_data_dir"):
        yield Problem(folder, f"calibration_type {kind} needs it")
    if calibration.get("max_percentile") is not None and kind != "max":
        yield Problem("calibration_parameters.max_percentile", "only calibration_type max takes it")
    if str(calibration.get("per_channel")) == "True" and kind == "default":
        yield Problem("calibration_parameters.per_channel", "calibration_type default does not take it")


def _compile_only(
    march: str, model: Mapping[str, Any], given: Mapping[str, Any], compiler: Mapping[str, Any]
) -> Iterator[Problem]:
    if given.get("scale_value") is not None and given.get("std_value") is not None:
        yield Problem("input_parameters.std_value", "scale_value and std_value exclude each other")
    if given.get("separate_batch") and given.get("separate_name"):
        yield Problem("input_parameters.separate_name", "separate_batch and separate_name exclude each other")
    if compiler.get("core_num", 1) > 1 and march not in NASH_FOUR_CORES:
        yield Problem("compiler_parameters.core_num", f"{march} has one core for a model")
    if (compiler.get("compile_mode") == "balance") != (compiler.get("balance_factor") is not None):
        yield Problem(
            "compiler_parameters.balance_factor", "compile_mode balance and balance_factor go together"
        )
    if compiler.get("cache_mode", "disable") != "disable" and not compiler.get("cache_path"):
        yield Problem("compiler_parameters.cache_path", f"cache_mode {compiler['cache_mode']} needs it")


def _near(name: str, known: Any) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}" if close else ""
