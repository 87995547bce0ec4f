"""A declarative export pipeline: one config in, a verified ONNX artifact and its evidence out.

The Python face is two functions and what they return:

    from pipeline import export, verify

    result = export(["model=mynet", "export.opset=11"])
    result.model_path, result.verdicts["parity"], result.margin

Importing this package imports neither torch nor onnx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.version import __version__

if TYPE_CHECKING:
    from pipeline.library import ExportResult, VerifyResult, export, verify

__all__ = ["ExportResult", "VerifyResult", "__version__", "export", "verify"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pipeline import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
