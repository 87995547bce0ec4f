"""Where the files lie that ship with the pipeline: in a checkout and in an installed package.

`conf/` and `models/` stand at the top of the repository, for people. In the wheel they are inside
the package (`pipeline/conf`, `pipeline/models`), so that nothing of ours but `pipeline` lands in
site-packages. Everything else asks here and never looks for them itself.

A configuration names a file that ships with the pipeline by the prefix `pkg://`, and means the
same file in both layouts, from any working directory:

    model:
      source: factory
      factory: pkg://models/mynet.py:build

The text stands in the request as it is written, so the request's digest does not depend on where
the pipeline is installed. Whoever imports such a file must likewise give the module a name made
from this text or the file's content, never from the folder: names of modules go into the ONNX file.
"""

from pathlib import Path, PurePosixPath
from typing import Final

PREFIX: Final = "pkg://"

_PACKAGE: Final = Path(__file__).resolve().parent


def _shipped(folder: str) -> Path:
    """The folder inside the package if it is there (wheel), else at the top of the repository."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


CONF_DIR: Final = _shipped("conf")  #: Hydra's configuration: one folder a group
MODELS_DIR: Final = _shipped("models")  #: the small example networks

_ROOTS: Final = {"conf": CONF_DIR, "models": MODELS_DIR}


def is_packaged(path: str) -> bool:
    """Whether `path` names a file that ships with the pipeline (`pkg://...`)."""
    return path.startswith(PREFIX)


def resolve_packaged(path: str) -> Path:
    """The file that a path in a configuration means.

    >>> resolve_packaged("pkg://models/mynet.py") == MODELS_DIR / "mynet.py"
    True
    >>> resolve_packaged("my/net.py")
    PosixPath('my/net.py')

    Args:
        path: `pkg://models/...` or `pkg://conf/...`, or any other path, which is returned as it
            is. It has no `:callable` at its end: split that off first.

    Returns:
        The path; whether something is there is for the caller to see.

    Raises:
        ValueError: `pkg://` goes on with another folder, with nothing, or leads out of it.
    """
    if not is_packaged(path):
        return Path(path)
    folder, _, rest = path.removeprefix(PREFIX).partition("/")
    if folder not in _ROOTS:
        known = " or ".join(f"{PREFIX}{name}/" for name in _ROOTS)
        raise ValueError(f"{path!r} should begin with {known}")
    inside = PurePosixPath(rest)
    if not rest or inside.is_absolute() or ".." in inside.parts:
        raise ValueError(f"{path!r} should name a file inside {PREFIX}{folder}/")
    return _ROOTS[folder] / inside
