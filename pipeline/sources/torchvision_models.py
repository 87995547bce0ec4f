"""What torchvision's installed package offers, read off its source text. Does not import it.

`model.name=resnet81` is refused before torch is imported; torchvision itself registers its builders
with `@register_model()` when it is imported, which takes seconds.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

_REGISTERED: Final = re.compile(r'^@register_model\((?:name="([^"]+)")?\)', re.MULTILINE)
_DEFINED: Final = re.compile(r"^def (\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class WeightsFile:
    """One member of a weights enum: its canonical name and where the file comes from."""

    enum: str  #: "ResNet18_Weights"
    name: str  #: "IMAGENET1K_V1"; an alias such as DEFAULT is followed
    url: str


@dataclass(frozen=True)
class Builder:
    """A registered builder of torchvision.

    Attributes:
        name: what `model.name` says ("resnet18", "quantized_resnet18").
        function: its name in the file.
        file: the file that defines it.
        parameters: names of its parameters; a last one beginning with ** takes any.
    """

    name: str
    function: str
    file: Path

    def weights(self) -> Mapping[str, WeightsFile]:
        """Names that `model.weights` may have, DEFAULT included; empty when the text cannot say."""
        return _weights_of(self.file, self.function)


def package_folder() -> Path | None:
    """The installed torchvision, or None when there is none."""
    spec = PathFinder.find_spec("torchvision")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


@cache
def builders() -> Mapping[str, Builder]:
    """Every registered builder by name; empty when torchvision is not installed."""
    folder = package_folder()
    found: dict[str, Builder] = {}
    for file in sorted((folder / "models").rglob("*.py")) if folder else ():
        text = file.read_text(encoding="utf-8")
        for match in _REGISTERED.finditer(text):
            defined = _DEFINED.search(text, match.end())
            if defined is not None:
                name = match.group(1) or defined.group(1)
                found[name] = Builder(name, defined.group(1), file)
    return found


@cache
def code_digest() -> str:
    """sha256 of the package's model and operator sources.

    Compiled kernels are not in it; the package's version, which takes part in every key, is.
    """
    folder = package_folder()
    digest = hashlib.sha256()
    for part in ("models", "ops"):
        for file in sorted((folder / part).rglob("*.py")) if folder else ():
            content = file.read_bytes()
            digest.update(f"{part}/{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def _weights_of(file: Path, function: str) -> Mapping[str, WeightsFile]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    defined = next(
        (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function), None
    )
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if defined is None:
        return {}
    parameters = [*defined.args.args, *defined.args.kwonlyargs]
    annotation = next((one.annotation for one in parameters if one.arg == "weights"), None)
    names = {
        node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)
    } & classes.keys() if annotation is not None else set()  # fmt: skip
    found: dict[str, WeightsFile] = {}
    for name in sorted(names):
        found.update(_members(name, classes[name]))
    return found


def _members(enum: str, body: ast.ClassDef) -> Mapping[str, WeightsFile]:
    found: dict[str, WeightsFile] = {}
    for statement in body.body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        name, value = statement.targets[0].id, statement.value
        if isinstance(value, ast.Name) and value.id in found:
            found[name] = found[value.id]
        elif isinstance(value, ast.Call):
            url = next((one.value for one in value.keywords if one.arg == "url"), None)
            if isinstance(url, ast.Constant) and isinstance(url.value, str):
                found[name] = WeightsFile(enum, name, url.value)
    return found
