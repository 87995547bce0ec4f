"""A ready .onnx as source: what the file says fills the configuration. No onnx, no numpy.

Inputs, outputs and the opset are the file's own, unless `export.opset` asks for another. A size that the file leaves open is 1 for the batch;
any other has to be given (`model.inputs`), because no size can be guessed that every network takes.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pipeline.config.build import literal
from pipeline.config.canonical import file_sha256
from pipeline.config.keys import digest
from pipeline.config.request import Config
from pipeline.config.schema import near
from pipeline.errors import Refused
from pipeline.exporters.config import ExportConfig
from pipeline.graph.dtypes import ELEMENT_TYPES
from pipeline.samples.spec import InputSpecs
from pipeline.sources.config import ModelConfig
from pipeline.sources.onnx_reader import FileFacts, FileValue, read_facts

#: What there are samples of (pipeline.samples.notation.ITEM_SIZES), and how they are filled unless told.
FILLS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("float32", "float16", "float64"), "normal"),
    **{f"{sign}int{bits}": {"integers": [0, 10]} for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "uint8": {"integers": [0, 256]},
    "bool": {"integers": [0, 2]},
}
#: Names by which files call the number of samples, in lower case.
BATCH_NAMES: Final = ("batch", "n", "batch_size", "bs", "b")
#: What the message offers for a size that has to be given: an image's height and width, or a length.
OFFERED_IMAGE: Final = 224
OFFERED_LENGTH: Final = 16
#: Networks that take images of any size mostly halve it up to five times.
IMAGE_STEP: Final = 32
#: Parts of `model` and `export` that speak of a network in a framework, or of an exporter.
_NOT_FOR_FILES: Final = ("factory", "weights", "args", "prepare")
_NOT_FOR_GRAPHS: Final = (
    "exporter", "input_names", "output_names", "keep_initializers_as_inputs", "export_params",
    "do_constant_folding", "training", "custom_opsets", "custom_symbolics",
)  # fmt: skip
_LEGAL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/\-]{0,199}")
_NOT_IN_LABEL: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_LEAF_KEYS: Final = ("shape", "dtype", "fill", "dynamic")


def with_file_settings(config: Config) -> Config:
    """`config` with inputs, outputs and opset of the file; other sources come back as they are.

    Raises:
        Refused: the file is missing, damaged or not safe, keys that do not go with it, inputs that do
            not fit it, or a size that has to be given.
    """
    if config.model.source != "onnx_file":
        return config
    facts = facts_of(config.model)
    _refuse_other_keys(config)
    outputs = tuple(value.name for value in facts.outputs)
    if config.model.outputs is not None and tuple(config.model.outputs) != outputs:
        raise Refused(
            "PL-220", "the outputs of a ready .onnx have their names", where="model.outputs",
            found=", ".join(config.model.outputs), expected=", ".join(outputs),
            next_step="Type model.outputs=null",
        )  # fmt: skip
    through = [name for name in outputs if name in {value.name for value in facts.inputs}]
    if through:
        raise Refused(
            "PL-243", f"output {through[0]} of the file is an input at the same time", where="model.path",
            found=facts.path.name, expected="outputs that a node makes",
            next_step="Put an Identity before the output, or take it out of the graph",
        )  # fmt: skip
    model = replace(config.model, inputs=file_inputs(facts, config.model.inputs), outputs=outputs)
    opset = facts.opset if config.export.opset is None else config.export.opset
    return replace(config, model=model, export=replace(config.export, opset=opset))


def facts_of(model: ModelConfig) -> FileFacts:
    """What the file of `model.path` says.

    Raises:
        Refused: no file is named, or it cannot be used; see `read_facts`.
    """
    if model.path is None:
        raise Refused(
            "PL-220", "model=onnx_file needs the file", where="model.path",
            next_step="Type model.path=path/to/model.onnx",
        )  # fmt: skip
    return read_facts(real_path(model.path))


def real_path(text: str) -> Path:
    """The file behind symbolic links: external data lies beside the real one."""
    return Path(text).expanduser().resolve()


def file_label(model: ModelConfig) -> str:
    """What the run directory is called after."""
    name = model.name or Path(model.path or "model").stem
    return _NOT_IN_LABEL.sub("-", name).strip("-.") or "model"


def file_digests(facts: FileFacts) -> tuple[str, str | None]:
    """sha256 of the file, and of its external data (None when there is none).

    Raises:
        Refused: the data cannot be read.
    """
    try:
        data = {name: file_sha256(facts.path.parent / name) for name in facts.data_files}
        return file_sha256(facts.path), digest("external data", data) if data else None
    except OSError as error:
        raise Refused(
            "PL-240", "external data of the .onnx file cannot be read", where="model.path",
            found=str(error.strerror or error),
        ) from error  # fmt: skip


def specs_of_file(specs: InputSpecs, facts: FileFacts) -> InputSpecs:
    """The inputs under the names of the file, which the configuration may have to spell otherwise."""
    names = [value.name for value in facts.inputs]
    return specs if [leaf.name for leaf in specs.leaves] == names else specs.renamed(names)


def configured_names(facts: FileFacts) -> dict[str, FileValue]:
    """Name in `model.inputs` to the file's input: "0" cannot be typed there and is "_0"."""
    found: dict[str, FileValue] = {}
    for value in facts.inputs:
        name = value.name
        if not _LEGAL.fullmatch(name):
            name = "_" + re.sub(r"[^A-Za-z0-9_.:/\-]", "_", name)[:190]
        while name in found:
            name += "_"
        found[name] = value
    return found


def file_inputs(facts: FileFacts, given: Mapping[str, Any]) -> dict[str, Any]:
    """`model.inputs` for the file: what was given laid over what the file says.

    Raises:
        Refused: see `with_file_settings`.
    """
    known = configured_names(facts)
    by_file_name = {value.name: name for name, value in known.items()}
    nodes: dict[str, Any] = {}
    for name, node in given.items():
        if by_file_name.get(name, name) not in known:
            close = near(str(name), known, 1) or list(known)[:1]
            raise Refused(
                "PL-230", f"the file has no input {name}", where=f"model.inputs.{name}",
                expected=", ".join(known) or "no input", next_step=f"Did you mean {close[0]}?" if close else None,
            )  # fmt: skip
        nodes[by_file_name.get(name, name)] = node
    names = _axis_names(known)
    return {name: _input(name, value, nodes.get(name), names, known) for name, value in known.items()}


def _input(
    name: str,
    value: FileValue,
    node: Any,
    names: Mapping[tuple[str, int], str],
    known: Mapping[str, FileValue],
) -> dict[str, Any]:
    here = f"model.inputs.{name}"
    if not isinstance(node, Mapping) and node is not None:
        raise Refused(
            "PL-200", "an input of a ready .onnx is described by a mapping", where=here, found=literal(node),
            next_step=f"Type '{here}={{shape: [1,3,224,224]}}'",
        )  # fmt: skip
    node = node or {}
    if extra := [word for word in node if word not in _LEAF_KEYS]:
        raise Refused(
            "PL-200", f"an input of a ready .onnx has no key {extra[0]}", where=here,
            expected=", ".join(_LEAF_KEYS),
        )  # fmt: skip
    kind = ELEMENT_TYPES.get(value.dtype)
    if value.kind != "tensor" or kind is None or kind.name not in FILLS:
        raise Refused(
            "PL-243", f"input {value.name} of the file is no tensor that samples can be made of", where=here,
            found=value.kind if value.kind != "tensor" else (kind.name if kind else f"type {value.dtype}"),
            expected=", ".join(FILLS),
        )  # fmt: skip
    if node.get("dtype") not in (None, kind.name):
        raise Refused(
            "PL-230", f"input {value.name} has another element type in the file", where=f"{here}.dtype",
            found=str(node["dtype"]), expected=kind.name, next_step=f"Take {here}.dtype away",
        )  # fmt: skip
    shape = _shape(value, node.get("shape"), here, known)
    dynamic = node.get("dynamic")
    if dynamic is None:
        dynamic = _dynamic(name, value, shape, names)
    return {
        "shape": shape, "dtype": kind.name, "fill": node.get("fill", FILLS[kind.name]),
        **({"dynamic": _only_open(value, dynamic, here)} if dynamic else {}),
    }  # fmt: skip


def _shape(value: FileValue, given: Any, here: str, known: Mapping[str, FileValue]) -> list[int]:
    if given is not None:
        sizes = value.shape
        if not _fits(sizes, given):
            raise Refused(
                "PL-230", f"input {value.name} has another shape in the file", where=f"{here}.shape",
                found=literal(given), expected=shown(value), next_step=f"Type '{here}.shape={_offer(value)}'",
            )  # fmt: skip
        return list(given)
    batches = _batch_names(known)
    sizes = value.shape
    open_sizes = sizes is None or any(
        not isinstance(size, int) and index and size not in batches for index, size in enumerate(sizes)
    )
    if sizes is None or open_sizes:
        raise Refused(
            "PL-243", f"the file leaves a size of input {value.name} open, and it has to be given", where=here,
            found=shown(value), next_step=f"Type 'model.inputs={{{_offers(known)}}}', with sizes that the network takes",
        )  # fmt: skip
    return [size if isinstance(size, int) else 1 for size in sizes]


def _fits(sizes: tuple[Any, ...] | None, given: Any) -> bool:
    """Whether a shape that was given agrees with every size that the file fixes."""
    if not isinstance(given, (list, tuple)) or (sizes is not None and len(sizes) != len(given)):
        return False
    return sizes is None or all(
        not isinstance(size, int) or size == asked for size, asked in zip(sizes, given, strict=True)
    )


def _offers(known: Mapping[str, FileValue]) -> str:
    """The text for `model.inputs` with a size for everything that is open."""
    batches = _batch_names(known)
    return ", ".join(
        f"{name}: {{shape: {_offer(value)}}}"
        for name, value in known.items()
        if value.shape is None
        or any(
            not isinstance(size, int) and index and size not in batches
            for index, size in enumerate(value.shape)
        )
    )


def _offer(value: FileValue) -> str:
    sizes = value.shape if value.shape is not None else (None, None)
    length = OFFERED_IMAGE if len(sizes) == 4 else OFFERED_LENGTH
    batch = {size for size in sizes if isinstance(size, str) and size.lower() in BATCH_NAMES}
    known = [size if isinstance(size, int) else 1 if not index or size in batch else length
             for index, size in enumerate(sizes)]  # fmt: skip
    return literal(known)


def _batch_names(known: Mapping[str, FileValue]) -> set[str]:
    """Names of sizes that stand for the batch somewhere: the first size of an input, or called so."""
    first = {value.shape[0] for value in known.values() if value.shape}
    named = {size for value in known.values() for size in value.shape or () if isinstance(size, str)}
    return {size for size in first if isinstance(size, str) and size != "?"} | {
        size for size in named if size.lower() in BATCH_NAMES
    }


def _axis_names(known: Mapping[str, FileValue]) -> dict[tuple[str, int], str]:
    """(input, dimension) to the name of its dynamic axis: an identifier, the same where the file's is."""
    spelt: dict[str, str] = {}
    found: dict[tuple[str, int], str] = {}
    for name, value in known.items():
        for index, size in enumerate(value.shape or ()):
            if isinstance(size, int):
                continue
            if size is None or not re.search(r"[A-Za-z]", size):
                found[name, index] = _free(f"{name}_dim_{index}", set(found.values()))
            else:
                spelt.setdefault(size, _free(size, set(found.values()) | set(spelt.values())))
                found[name, index] = spelt[size]
    return found


def _free(text: str, taken: set[str]) -> str:
    name = re.sub(r"\W", "_", text, flags=re.ASCII)[:60]
    if name[:1].isdigit() or keyword.iskeyword(name):
        name = f"_{name}"
    while name in taken:
        name += "_"
    return name


def _dynamic(
    name: str, value: FileValue, shape: list[int], names: Mapping[tuple[str, int], str]
) -> dict[int, Any]:
    """The open sizes. Nobody says which other sizes a network takes: other than the batch, larger ones."""
    found: dict[int, Any] = {}
    for index, size in enumerate(shape):
        if value.shape is None or isinstance(value.shape[index], int):
            continue
        step = IMAGE_STEP if size % IMAGE_STEP == 0 else 1
        axis = {"name": names[name, index], "min": 1 if size == 1 else size, "multiple_of": step}
        found[index] = axis
    return found


def _only_open(value: FileValue, dynamic: Any, here: str) -> Any:
    if isinstance(dynamic, Mapping) and value.shape is not None:
        for written in dynamic:
            index = int(written) if str(written).isdecimal() else -1
            if 0 <= index < len(value.shape) and isinstance(value.shape[index], int):
                raise Refused(
                    "PL-230", f"dimension {index} of input {value.name} is fixed in the file",
                    where=f"{here}.dynamic", found=shown(value), next_step=f"Take {index} out of {here}.dynamic",
                )  # fmt: skip
    return dynamic


def shown(value: FileValue) -> str:
    """A shape as the file has it: [1, 3, height, ?]."""
    if value.shape is None:
        return "no shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in value.shape) + "]"


def _refuse_other_keys(config: Config) -> None:
    for name in _NOT_FOR_FILES:
        value = getattr(config.model, name)
        if value:
            raise Refused(
                "PL-220", f"model.{name} does not go with a ready .onnx", where=f"model.{name}",
                found=str(value), next_step=f"Take model.{name} away",
            )  # fmt: skip
    defaults = ExportConfig()
    for name in _NOT_FOR_GRAPHS:
        value = getattr(config.export, name)
        if value != getattr(defaults, name):
            raise Refused(
                "PL-220", f"export.{name} does not go with a ready .onnx: nothing is exported",
                where=f"export.{name}", found=literal(value),
                next_step=f"Type export.{name}={literal(getattr(defaults, name))}",
            )  # fmt: skip
