"""The documented keys of the two compilers' YAML files, as data, and the check of a file against them.

Sources: D-Robotics/rdk_x_doc, docs/07_Advanced_development/04_toolchain_development/intermediate/
ptq_process.md (hb_mapper makertbin; commit 543d6077 of a public fork), and "hb_compile, Model Quantized
Compilation" of S100 OpenExplorer 3.5.0 with HorizonRobotics/OE-Skills, horizon-tc-ui (commit 0c35b732).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["text", "choice", "integer", "number", "boolean", "mapping", "texts", "numbers", "any"]

HB_MAPPER: Final = "hb_mapper"
HB_COMPILE: Final = "hb_compile"
BERNOULLI2: Final = ("bernoulli2",)
BAYES: Final = ("bayes", "bayes-e")
MAPPER_MARCHES: Final = (*BERNOULLI2, *BAYES)
#: Marches whose convolution engine has one core for a model.
NASH_ONE_CORE: Final = ("nash-e", "nash-m", "nash-b", "nash-b-lite", "nash-b-plus")
NASH_FOUR_CORES: Final = ("nash-p", "nash-h", "nash-starry-p")
COMPILE_MARCHES: Final = (*NASH_ONE_CORE, *NASH_FOUR_CORES)


@dataclass(frozen=True)
class Key:
    """One key of a group.

    Attributes:
        required: yes, no, or in words when.
        values: of a choice; every part of a text of several values, or every word of `texts`.
        each: several values are separated by ";", in the order of input_name.
        least, most: of an integer or number; every other value that is taken stands in `also`.
        marches: only these take the key; empty: all.
        deprecated: the tool warns about it, and what takes its place.
    """

    name: str
    kind: Kind
    required: bool = False
    values: tuple[str, ...] = ()
    each: bool = False
    least: float | None = None
    most: float | None = None
    also: tuple[float, ...] = ()
    marches: tuple[str, ...] = ()
    deprecated: str | None = None


Schema = Mapping[str, tuple[Key, ...]]

_LAYOUTS: Final = ("NCHW", "NHWC")
_TRAIN: Final = ("rgb", "bgr", "yuv444", "gray", "featuremap")
_RT: Final = (*_TRAIN, "nv12")
_NORMS: Final = ("no_preprocess", "data_mean", "data_scale", "data_mean_and_scale")
_REMOVED: Final = ("Quantize", "Transpose", "Dequantize", "Cast", "Reshape")
_OPTIMIZATIONS: Final = (
    "set_model_output_int8", "set_model_output_int16", "set_Softmax_input_int8", "set_Softmax_output_int8",
)  # fmt: skip

MAPPER_SCHEMA: Final[Schema] = {
    "model_parameters": (
        Key("onnx_model", "text", required=True),
        Key("march", "choice", required=True, values=MAPPER_MARCHES),
        Key("output_model_file_prefix", "text", required=True),
        Key("working_dir", "text"),
        Key("layer_out_dump", "boolean"),
        Key("output_nodes", "text"),
        Key("remove_node_type", "texts", values=_REMOVED, each=True),
        Key("remove_node_name", "text"),
        Key("set_node_data_type", "text", marches=BAYES, deprecated="node_info"),
        Key("node_info", "mapping", marches=BAYES),
        Key("debug_mode", "choice", values=("dump_calibration_data",)),
    ),
    "input_parameters": (
        Key("input_name", "texts", each=True),
        Key("input_type_train", "texts", required=True, values=_TRAIN, each=True),
        Key("input_layout_train", "texts", required=True, values=_LAYOUTS, each=True),
        Key("input_type_rt", "texts", required=True, values=_RT, each=True),
        Key("input_layout_rt", "texts", values=_LAYOUTS, each=True),
        Key("input_space_and_range", "texts", values=("regular", "bt601_video"), each=True),
        Key("input_shape", "texts", each=True),
        Key("input_batch", "integer", least=1, most=128),
        Key("norm_type", "texts", required=True, values=_NORMS, each=True),
        Key("mean_value", "numbers", each=True),
        Key("scale_value", "numbers", each=True),
    ),
    "calibration_parameters": (
        Key("calibration_type", "choice", required=True,
            values=("default", "mix", "kl", "max", "load", "skip")),
        Key("cal_data_dir", "texts", each=True),
        Key("cal_data_type", "texts", values=("float32", "uint8"), each=True),
        Key("preprocess_on", "boolean"),
        Key("max_percentile", "number", least=0.0, most=1.0),
        Key("per_channel", "boolean"),
        Key("run_on_cpu", "text"),
        Key("run_on_bpu", "text"),
        Key("optimization", "texts", values=_OPTIMIZATIONS),
    ),
    "compiler_parameters": (
        Key("compile_mode", "choice", required=True, values=("latency", "bandwidth")),
        Key("optimize_level", "choice", required=True, values=("O0", "O1", "O2", "O3")),
        Key("debug", "boolean"),
        Key("core_num", "integer", least=1, most=2, marches=BERNOULLI2),
        Key("input_source", "mapping"),
        Key("max_time_per_fc", "integer", least=1000, most=4294967295, also=(0,)),
        Key("jobs", "integer", least=1),
    ),
    "custom_op": (
        Key("custom_op_method", "choice", required=True, values=("register",)),
        Key("op_register_files", "text", required=True),
        Key("custom_op_dir", "text"),
    ),
}  # fmt: skip

COMPILE_SCHEMA: Final[Schema] = {
    "model_parameters": (
        Key("onnx_model", "text", required=True),
        Key("march", "choice", required=True, values=COMPILE_MARCHES),
        Key("output_model_file_prefix", "text"),
        Key("working_dir", "text"),
        Key("output_nodes", "text"),
        Key("remove_node_type", "texts", values=(*_REMOVED, "Softmax"), each=True),
        Key("remove_node_name", "text"),
        Key("node_info", "any"),
        Key("enable_vpu", "boolean"),
        Key("enable_spu", "boolean"),
        Key("debug_mode", "text"),
        Key("log_level", "text", deprecated="nothing"),
        Key("set_node_data_type", "text", deprecated="node_info"),
    ),
    "input_parameters": (
        Key("input_name", "texts", each=True),
        Key("input_type_rt", "texts", required=True, values=_RT, each=True),
        Key("input_type_train", "texts", required=True, values=_TRAIN, each=True),
        Key("input_layout_train", "texts", values=_LAYOUTS, each=True),
        Key("input_layout_rt", "texts", values=_LAYOUTS, each=True, deprecated="the layout of the model"),
        Key("input_space_and_range", "texts", values=("regular", "bt601_video"), each=True),
        Key("input_shape", "texts", each=True),
        Key("input_batch", "integer", least=1),
        Key("separate_batch", "boolean"),
        Key("separate_name", "text"),
        Key("norm_type", "texts", values=_NORMS, each=True, deprecated="mean_value and scale_value"),
        Key("mean_value", "numbers", each=True),
        Key("scale_value", "numbers", each=True),
        Key("std_value", "numbers", each=True),
    ),
    "calibration_parameters": (
        Key("calibration_type", "choice", values=("kl", "max", "skip")),
        Key("cal_data_dir", "texts", each=True),
        Key("cal_data_type", "texts", values=("float32", "uint8"), each=True, deprecated="the type of the .npy files"),
        Key("preprocess_on", "boolean", deprecated="data that is ready"),
        Key("quant_config", "any"),
        Key("max_percentile", "number", least=0.0, most=1.0),
        Key("per_channel", "boolean"),
    ),
    "compiler_parameters": (
        Key("compile_mode", "choice", values=("latency", "bandwidth", "balance")),
        Key("balance_factor", "integer", least=0, most=100),
        Key("optimize_level", "choice", values=("O0", "O1", "O2")),
        Key("core_num", "integer", least=1, most=4),
        Key("max_time_per_fc", "integer", least=1000, most=10_000_000, also=(0,)),
        Key("jobs", "integer", least=1),
        Key("cache_mode", "choice", values=("disable", "enable", "force_overwrite")),
        Key("cache_path", "text"),
        Key("max_l2m_size", "integer", least=0, most=25_165_824, marches=NASH_FOUR_CORES),
        Key("input_source", "mapping"),
        Key("debug", "boolean"),
    ),
}  # fmt: skip

SCHEMAS: Final[Mapping[str, Schema]] = {HB_MAPPER: MAPPER_SCHEMA, HB_COMPILE: COMPILE_SCHEMA}
#: Groups that must all be there (hb_mapper says so; hb_compile's template has them too).
REQUIRED_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    HB_MAPPER: ("model_parameters", "input_parameters", "calibration_parameters", "compiler_parameters"),
    HB_COMPILE: ("model_parameters", "input_parameters", "calibration_parameters", "compiler_parameters"),
}
#: input_type_train to the input_type_rt that it may go with.
LEGAL_TYPES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    HB_MAPPER: {
        "yuv444": ("nv12", "yuv444"),
        "rgb": ("nv12", "yuv444", "rgb", "bgr"),
        "bgr": ("nv12", "yuv444", "rgb", "bgr"),
        "gray": ("gray",),
        "featuremap": ("featuremap",),
    },
    HB_COMPILE: {
        "yuv444": ("yuv444", "nv12"),
        "rgb": ("rgb", "bgr", "nv12", "yuv444"),
        "bgr": ("bgr", "rgb", "nv12", "yuv444"),
        "gray": ("gray",),
        "featuremap": ("featuremap",),
    },
}
#: Where an input may come from at run time, by its type (hb_compile; hb_mapper lists the same sources).
INPUT_SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "nv12": ("pyramid", "resizer"), "gray": ("pyramid", "resizer"),
    "rgb": ("ddr",), "bgr": ("ddr",), "yuv444": ("ddr",), "featuremap": ("ddr",),
}  # fmt: skip


def key_of(tool: str, group: str, name: str) -> Key | None:
    """The documented key, or None."""
    return next((key for key in SCHEMAS[tool].get(group, ()) if key.name == name), None)


def group_of(tool: str, name: str) -> str | None:
    """The group that a key belongs to."""
    return next(
        (group for group, keys in SCHEMAS[tool].items() if any(key.name == name for key in keys)), None
    )


def parts(value: Any, separator: str = ";") -> list[str]:
    """The values of one key, which stand in one text ("a;b")."""
    if isinstance(value, (list, tuple)):
        return [str(part) for part in value]
    return [part.strip() for part in str(value).rstrip(separator + " ").split(separator)]
