"""`targets`: every target, what it is, what it takes, and whether its tools are installed.

Exit code 0: listed; a target whose file is damaged has a row that says so. 2: a bad call.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.arguments import parser, print_json
from pipeline.errors import EXIT_MADE, Refused


def main(argv: Sequence[str]) -> int:
    """List the targets."""
    arguments = parser("targets", "List the targets, what they take, and whether their tools are installed.")
    arguments.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="your own folder with target/NAME.yaml"
    )
    given = arguments.parse_args(list(argv))
    folders = [] if given.config_dir is None else [given.config_dir]
    for folder in folders:
        if not folder.is_dir():
            raise Refused("PL-108", "the configuration folder is not there", where="--config-dir",
                          found=str(folder), expected="a folder with target/NAME.yaml",
                          next_step="Type --config-dir FOLDER")  # fmt: skip
    rows = [_row(name, folders) for name in _names(folders)]
    if given.json:
        print_json(rows)
        return EXIT_MADE
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        if row["broken"] is not None:
            print(f"{row['name']:<{width}}  broken: {row['broken']['code']}: {row['sentence']}")
            continue
        print(f"{row['name']:<{width}}  {row['title']}")
        facts = [
            f"opset {row['opset']}",
            f"{row['shapes']} shapes",
            "/".join(row["precisions"]),
            row["backend"]["state"],
        ]
        facts.append("verified" if row["verified"] else "not verified")
        print(f"{'':<{width}}  {', '.join(facts)}")
    return EXIT_MADE


def _names(folders: Sequence[Path]) -> list[str]:
    """Every target with a file, the pipeline's own and those in the user's folder."""
    from pipeline.config.folders import config_folders

    return [name for name in config_folders(folders).options("target") if name != "none"]


def _row(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    from pipeline.commands.precheck import target

    own = bool(folders) and (folders[0] / "target" / f"{name}.yaml").is_file()
    try:
        profile, _ = target(name, folders[0] if own else None, ())
    except Refused as refusal:
        return {"name": name, "broken": refusal.reason.to_json(), "sentence": refusal.reason.sentence()}
    return {
        "name": name,
        "broken": None,
        "title": profile.title,
        "extends": list(profile.extends),
        "opset": profile.opset_text,
        "ir_version": profile.ir_version,
        "shapes": profile.shapes,
        "precisions": list(profile.precisions),
        "tolerances": dict(profile.precisions),
        "operators": len(profile.operators),
        "backend": _backend(profile.backend),
        "verified": profile.verified,
        "citation": profile.citation,
        "remarks": list(profile.remarks),
    }


def _backend(name: str | None) -> dict[str, Any]:
    """Whether the backend's packages are there; they are not imported."""
    if name is None:
        return {"name": None, "installed": None, "state": "judged only"}
    from pipeline.targets.backends import backend_of, how_to_install

    try:
        backend = backend_of(name)
    except Refused as refusal:
        return {"name": name, "installed": False, "state": refusal.reason.message}
    missing = [package for package in backend.packages if _version(package) is None]
    return {
        "name": name,
        "installed": not missing,
        "packages": {package: _version(package) for package in backend.packages},
        "extra": backend.extra,
        "state": "installed" if not missing else f"not installed: {how_to_install(backend, missing)}",
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
