"""The folders that configuration files come from, and what is in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import Refused
from pipeline.locations import CONF_DIR

PRIMARY: Final = "config"
FILE_SCHEME: Final = "file://"


@dataclass(frozen=True)
class ConfigFolders:
    """Where configuration is looked for, first to last; the first file of a name wins in Hydra.

    Attributes:
        main: the folder with the primary config.
        name: the primary config, without .yaml.
        added: further places as Hydra writes them (file:///folder, pkg://package).
    """

    main: Path = CONF_DIR
    name: str = PRIMARY
    added: tuple[str, ...] = ()

    @property
    def on_disk(self) -> tuple[Path, ...]:
        return (self.main, *(Path(place.removeprefix(FILE_SCHEME)) for place in self.added
                             if place.startswith(FILE_SCHEME)))  # fmt: skip

    @property
    def all_on_disk(self) -> bool:
        return all(place.startswith(FILE_SCHEME) for place in self.added)

    def is_group(self, name: str) -> bool:
        return any((folder / name).is_dir() for folder in self.on_disk)

    def options(self, group: str) -> tuple[str, ...]:
        """Names of the group's files on disk, without .yaml, sorted."""
        found: set[str] = set()
        for folder in self.on_disk:
            try:
                with os.scandir(folder / group) as entries:
                    found.update(
                        entry.name[: -len(".yaml")]
                        for entry in entries
                        if entry.name.endswith(".yaml") and not entry.name.startswith("_")
                    )
            except (FileNotFoundError, NotADirectoryError):
                continue
        return tuple(sorted(found))

    def files(self, group: str, option: str) -> tuple[Path, ...]:
        """Every file that the choice could mean; more than one is ambiguous."""
        paths = (folder / group / f"{option}.yaml" for folder in self.on_disk)
        return tuple(path for path in paths if path.is_file())


def config_folders(
    config_dirs: Sequence[Path] = (), name: str | None = None, searchpath: Sequence[str] = ()
) -> ConfigFolders:
    """The folders of a command line: the pipeline's own, `--config-dir`, `hydra.searchpath`.

    Args:
        config_dirs: folders of the user's.
        name: `--config-name`; looked for in the pipeline's own folder, then in the user's.
        searchpath: entries of `hydra.searchpath`.

    Raises:
        Refused: a folder or the primary config is not there.
    """
    places = [FILE_SCHEME + str(folder.absolute()) for folder in config_dirs]
    places += [_place(entry) for entry in searchpath]
    places = [place for place in dict.fromkeys(places) if not _is_ours(place)]
    if name is None:
        return ConfigFolders(added=tuple(places))
    name = name.removesuffix(".yaml")
    homes = [CONF_DIR, *(Path(place.removeprefix(FILE_SCHEME)) for place in places
                         if place.startswith(FILE_SCHEME))]  # fmt: skip
    for home in homes:
        if (home / f"{name}.yaml").is_file():
            own = FILE_SCHEME + str(home)
            rest = [FILE_SCHEME + str(CONF_DIR), *places] if home != CONF_DIR else places
            return ConfigFolders(home, name, tuple(place for place in rest if place != own))
    raise Refused(
        "PL-108", "the primary config is not there", where="--config-name", found=f"'{name}'",
        expected=f"{name}.yaml in {' or '.join(map(str, homes))}",
        next_step="Leave --config-name out for the pipeline's own, or add its folder with --config-dir FOLDER",
    )  # fmt: skip


def _is_ours(place: str) -> bool:
    folder = Path(place.removeprefix(FILE_SCHEME))
    return place.startswith(FILE_SCHEME) and folder.is_dir() and folder.samefile(CONF_DIR)


def _place(entry: str) -> str:
    scheme, found, rest = entry.partition("://")
    if not found:
        scheme, rest = "file", entry
    if scheme != "file":
        return entry
    folder = Path(rest).absolute()
    if not folder.is_dir():
        raise Refused(
            "PL-108", "the configuration folder is not there", where="hydra.searchpath",
            found=rest, expected="a folder with model/, experiment/ ... inside",
            next_step="Type 'hydra.searchpath=[file://FOLDER]'",
        )  # fmt: skip
    return FILE_SCHEME + str(folder)
