"""Which network the configuration means, and everything that can be refused about it. No torch.

What only torch can see (a factory that gives no Module, weights that do not fit) is refused by
`pipeline.sources.load`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.config.canonical import file_sha256, names_file
from pipeline.config.code import parse_callable, user_code_digest
from pipeline.config.schema import near
from pipeline.errors import Refused
from pipeline.sources import torchvision_models
from pipeline.sources.callables import refuse_undefined
from pipeline.sources.config import ModelConfig
from pipeline.sources.onnx_file import facts_of, file_digests, file_label
from pipeline.sources.weights_file import WeightsFile, inspect_weights

#: Near names that a refusal shows, at most.
_NEAR: Final = 3
#: What a label keeps of a name; it becomes part of a folder's name.
_NOT_IN_LABEL: Final = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class SourceIdentity:
    """What a network is, without having it.

    Attributes:
        label: what the run directory is called after.
        source: "torchvision", "factory" or "onnx_file".
        code: sha256 of the code that builds it (and prepares it), or of the .onnx file.
        weights: sha256 of its weights file, of where torchvision fetches it, or of the .onnx file's
            external data; None when they are not loaded.
        packages: distributions that take part in building it.
        files: the user's files that take part.
    """

    label: str
    source: str
    code: str
    weights: str | None = None
    packages: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def identify(config: ModelConfig, *, seed: int) -> SourceIdentity:
    """Which network `config` means.

    Args:
        config: the section `model`.
        seed: of the random weights; torch takes 64 bits.

    Raises:
        Refused: keys that contradict each other, an unknown name or weights, a file or callable
            that is not there or cannot be used.
    """
    if not -(2**63) <= seed < 2**64:
        raise Refused(
            "PL-220", "the seed is out of range", where="seed", found=str(seed), expected="0 to 2**64 - 1"
        )
    if config.source == "torchvision":
        found = _torchvision(config)
    elif config.source == "factory":
        found = _factory(config)
    else:
        found = _onnx_file(config)
    return _with_prepare(config, found)


def _onnx_file(config: ModelConfig) -> SourceIdentity:
    facts = facts_of(config)
    code, weights = file_digests(facts)
    files = (facts.path, *(facts.path.parent / name for name in facts.data_files))
    return SourceIdentity(file_label(config), "onnx_file", code, weights, ("onnx", "onnxruntime"), files)


def _torchvision(config: ModelConfig) -> SourceIdentity:
    _refuse_others(config, "torchvision", ("factory", "path"))
    builder = find_builder(config)
    weights, packages = None, ["torch", "torchvision"]
    if config.weights is not None:
        if names_file(config.weights):
            weights, more = _weights_file(config)
            packages += more
        else:
            chosen = find_weights(builder, config.weights)
            weights = hashlib.sha256(f"{chosen.enum}.{chosen.name} {chosen.url}".encode()).hexdigest()
    return SourceIdentity(
        builder.name, "torchvision", torchvision_models.code_digest(), weights, tuple(sorted(packages))
    )


def find_builder(config: ModelConfig) -> torchvision_models.Builder:
    """The builder that `model.name` means.

    Raises:
        Refused: none is named, or torchvision has no such.
    """
    known = torchvision_models.builders()
    if not known:
        raise Refused(
            "PL-221", "torchvision is not installed", where="model.source",
            next_step="Type pip install torchvision, or model=factory model.factory=path/to/net.py:build",
        )  # fmt: skip
    if config.name is None:
        raise Refused(
            "PL-220", "model=torchvision needs the network's name", where="model.name",
            next_step="Type model.name=resnet18, or any other of torchvision's names",
        )  # fmt: skip
    builder = known.get(config.name) or known.get(config.name.lower().replace("-", "_"))
    if builder is None:
        close = near(config.name.lower(), known, _NEAR)
        raise Refused(
            "PL-221", f"torchvision has no model {config.name}", where="model.name",
            next_step=f"Did you mean {_one_of(close)}? Type model.name={close[0]}" if close else
            'Type python -c "import torchvision; print(torchvision.models.list_models())" to see their names',
        )  # fmt: skip
    return builder


def find_weights(builder: torchvision_models.Builder, name: str) -> torchvision_models.WeightsFile:
    """The enum member that `model.weights` means.

    Args:
        builder: of the model.
        name: DEFAULT, IMAGENET1K_V1, or with the enum's name before it.

    Raises:
        Refused: there is no such.
    """
    offered = builder.weights()
    enum, _, member = name.rpartition(".")
    chosen = offered.get(member)
    if chosen is not None and (not enum or enum == chosen.enum):
        return chosen
    close = near(member.upper(), offered, _NEAR)
    step = f"Type model.weights={close[0] if close else next(iter(offered), 'null')}"
    raise Refused(
        "PL-222", f"torchvision has no weights {name} for {builder.name}", where="model.weights",
        expected=", ".join(sorted(offered)) or "null: it offers none",
        next_step=f"{step}, or a path to a file" if offered else f"{step} for random weights",
    )  # fmt: skip


def _factory(config: ModelConfig) -> SourceIdentity:
    _refuse_others(config, "factory", ("path",))
    if config.factory is None:
        raise Refused(
            "PL-220", "model=factory needs a callable", where="model.factory",
            next_step="Type model.factory=path/to/net.py:build or model.factory=my_pkg.net:build",
        )  # fmt: skip
    spec = parse_callable(config.factory, "model.factory")
    code = user_code_digest(config.factory, "model.factory")
    refuse_undefined(spec, "model.factory")
    weights, packages = None, ["torch", *code.packages]
    if config.weights is not None:
        if not names_file(config.weights):
            raise Refused(
                "PL-222", "names of weights belong to torchvision's models; a factory takes a file",
                where="model.weights", found=config.weights, next_step="Type model.weights=path/to/weights.pth",
            )  # fmt: skip
        weights, more = _weights_file(config)
        packages += more
    label = _NOT_IN_LABEL.sub("-", config.name or spec.name.rpartition(".")[2]).strip("-.") or "model"
    return SourceIdentity(label, "factory", code.sha256, weights, tuple(sorted(set(packages))), code.files)


def _with_prepare(config: ModelConfig, found: SourceIdentity) -> SourceIdentity:
    if config.prepare is None:
        return found
    spec = parse_callable(config.prepare, "model.prepare")
    code = user_code_digest(config.prepare, "model.prepare")
    refuse_undefined(spec, "model.prepare")
    return SourceIdentity(
        found.label,
        found.source,
        hashlib.sha256(f"{found.code} prepared by {code.sha256}".encode()).hexdigest(),
        found.weights,
        tuple(sorted({*found.packages, *code.packages})),
        tuple(sorted({*found.files, *code.files})),
    )


def _weights_file(config: ModelConfig) -> tuple[str, list[str]]:
    """The file's sha256, and the distributions that read it."""
    assert config.weights is not None
    path = Path(config.weights).expanduser()
    found: WeightsFile = inspect_weights(path, trust_pickle=config.trust_pickle)
    return file_sha256(path), ["safetensors"] if found.kind == "safetensors" else []


def _refuse_others(config: ModelConfig, source: str, names: tuple[str, ...]) -> None:
    for name in names:
        value: Any = getattr(config, name)
        if value is not None:
            wanted = {"factory": "model=factory", "path": "a file as model.weights"}[name]
            raise Refused(
                "PL-220", f"model.{name} does not go with source {source}", where=f"model.{name}",
                found=str(value), next_step=f"Take model.{name} away, or use {wanted}",
            )  # fmt: skip


def _one_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
