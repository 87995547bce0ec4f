"""The page of `--help`, read from the folders of configuration files without importing Hydra."""

from __future__ import annotations

import os
import platform
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from pipeline.config import schema
from pipeline.config.build import literal
from pipeline.config.folders import ConfigFolders, config_folders
from pipeline.version import __version__

#: The page is as wide as the terminal within these limits, columns.
NARROWEST: Final = 60
WIDEST: Final = 110

USAGE: Final = """\
usage: python -m pipeline [-m] [FLAGS] [GROUP=NAME] [KEY=VALUE] ...
       python -m pipeline COMMAND ..."""
WHAT: Final = """\
Turns a network into an ONNX file and proves that the file computes what the network computes. One
command line makes one run directory: the ONNX file, the evidence, and a manifest from which the same
bytes can be made again."""

#: What the help says of each group.
GROUPS: Final[dict[str, str]] = {
    "model": "the network, its weights and its inputs",
    "export": "how torch.onnx.export is called",
    "surgery": "edits of the graph",
    "simplify": "what simplifies the graph",
    "check": "what checks the file",
    "parity": "how the outputs are compared with the network's",
    "target": "where the file must run",
    "experiment": "a recipe that chooses and sets several of these",
}

#: The overrides that people type most.
COMMONEST: Final = (
    ("model=resnet18", "a network by the name of its file; see the groups below"),
    ("model=torchvision model.name=NAME", "any network of torchvision"),
    ("model=factory model.factory=net.py:build", "your own: a file or a module, and a callable in it"),
    ("model.weights=FILE", "a checkpoint (.pth, .safetensors) or a torchvision name such as DEFAULT"),
    ("'model.inputs={x: {shape: [1,3,8,8]}}'", "names, shapes and dtypes of the inputs"),
    ("export.opset=11", "the opset of the file (default 17)"),
    ("export.exporter=torchscript", "auto (default), torchscript or dynamo"),
    ("parity=fixed parity.rtol=1e-3", "fixed tolerances instead of the network's own float32 noise"),
    ("out=FOLDER", "where run directories are put (default outputs)"),
    ("dry_run=true", "print the plan and what is cached, make nothing"),
)

OWN_NETWORK: Final = """\
python -m pipeline model=factory model.factory=net.py:build \\
      'model.inputs={x: {shape: [1,3,8,8]}}'"""
EXAMPLES: Final = (
    ("python -m pipeline model=alexnet export.opset=11", "one run"),
    ("python -m pipeline -m model=resnet18,vgg11 export.opset=11,13,17", "a sweep: six runs and a table"),
    (
        OWN_NETWORK,
        "your own network",
    ),
)

FLAGS: Final = (
    ("-m, --multirun", "a sweep: every combination of the values given with commas"),
    ("--cfg job [-p PART] [--resolve]", "the composed request as YAML"),
    ("--info defaults-tree", "the files that it is composed of; also searchpath, plugins, config"),
    ("--config-dir FOLDER", "a folder of yours with model/NAME.yaml, experiment/NAME.yaml ..."),
    ("--version, -h, --help", "the version; this page"),
    ("-sc install=bash", 'tab completion: eval "$(python -m pipeline -sc install=bash)"; also zsh, fish'),
)

EXIT_CODES: Final = (
    ("0", "made and proved"),
    ("1", "a stage failed; the record is in OUT/failed"),
    ("2", "refused before work; nothing was made"),
    ("130, 143", "interrupted (Ctrl-C, SIGTERM)"),
)

#: Distributions whose version belongs to a report of a problem.
TOLD: Final = ("torch", "torchvision", "onnx", "onnxruntime", "onnxsim", "onnxscript")


def help_text(
    config_dirs: Sequence[Path] = (), commands: Mapping[str, str] | None = None, width: int | None = None
) -> str:
    """The help page.

    Args:
        config_dirs: folders of the user's whose files are listed too.
        commands: the words that may stand first, with a line each.
        width: columns; the terminal's, when not given.
    """
    columns = width or shutil.get_terminal_size((100, 24)).columns
    columns = max(NARROWEST, min(columns - 1, WIDEST))
    folders = config_folders(config_dirs)
    parts = [
        USAGE,
        _paragraph(WHAT, columns),
        _examples(),
        "The ten commonest overrides\n" + _rows(COMMONEST, columns),
        "Groups (GROUP=NAME; * is taken when none is named)\n" + _groups(folders, columns),
        "Keys (default; KEY=VALUE sets one, --cfg job shows them all)\n" + _keys(columns),
        "Flags\n" + _rows(FLAGS, columns),
        "Commands (COMMAND --help says more)\n" + _rows((commands or {}).items(), columns),
        "Exit codes\n" + _rows(EXIT_CODES, columns),
    ]
    return "\n\n".join(parts)


def version_text() -> str:
    """What `--version` prints: ours, and those that a report of a problem needs."""
    lines = [f"onnx-export-pipeline {__version__}"]
    told = [("python", platform.python_version()), *((name, _version(name)) for name in TOLD)]
    lines += [f"{name} {version}" for name, version in told if version]
    return "\n".join(lines)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _paragraph(text: str, columns: int) -> str:
    return textwrap.fill(" ".join(text.split()), columns)


def _examples() -> str:
    lines = ["Examples"]
    for line, what in EXAMPLES:
        lines += [f"  # {what}", f"  {line}"]
    return "\n".join(lines)


def _rows(rows: Iterable[tuple[str, str]], columns: int) -> str:
    """Two columns; what does not fit goes on below the second."""
    rows = list(rows)
    first = min(max((len(name) for name, _ in rows), default=0), columns // 2)
    lines = []
    for name, what in rows:
        wrapped = textwrap.wrap(what, columns - first - 4) or [""]
        if len(name) > first:
            lines += [f"  {name}", " " * (first + 4) + wrapped[0]]
        else:
            lines.append(f"  {name:<{first}}  {wrapped[0]}")
        lines += [" " * (first + 4) + rest for rest in wrapped[1:]]
    return "\n".join(lines)


def _groups(folders: ConfigFolders, columns: int) -> str:
    chosen = _defaults(folders)
    lines = []
    for group in (*GROUPS, *_own_groups(folders)):
        options = folders.options(group)
        if not options:
            continue
        names = [f"{name}*" if name == chosen.get(group) else name for name in options]
        said = f"{GROUPS[group]}: " if group in GROUPS else ""
        lines.append((group, said + ", ".join(names)))
    return _rows(lines, columns)


def _own_groups(folders: ConfigFolders) -> list[str]:
    """Groups that only the user's folders have."""
    found = set()
    for folder in folders.on_disk:
        with os.scandir(folder) as entries:
            found |= {
                entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "_"))
            }
    return sorted(name for name in found - set(GROUPS) - {"hydra"} if folders.options(name))


def _defaults(folders: ConfigFolders) -> dict[str, str]:
    """Group to the file that the primary config names; read line by line, YAML costs an import."""
    text = (folders.main / f"{folders.name}.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^\s*-\s+(\w+):\s*(\w+)", text, flags=re.MULTILINE))


def _keys(columns: int) -> str:
    sections: dict[str, list[str]] = {}
    for path, key in schema.all_keys().items():
        section, _, name = path.rpartition(".")
        sections.setdefault(section, []).append(f"{name}={_short(key.default)}")
    rows = [
        (f"{section}." if section else "at the top", " ".join(keys)) for section, keys in sections.items()
    ]
    return _rows(sorted(rows, key=lambda row: row[0] == "at the top"), columns)


def _short(value: Any) -> str:
    return literal(value) if not isinstance(value, Mapping) else "{}"
