"""`verify --deep`: run the file again on the saved inputs and compare with the saved outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from pipeline.config.build import typed
from pipeline.parity.config import ParityConfig
from pipeline.run.records import MANIFEST, RECORD, load

#: The label under which the saved samples are compared.
SAVED: Final = "saved"
#: Kinds of numpy's dtypes: bytes, text, dates, durations.
NO_NUMBERS: Final = "SUMm"


def compare_again(folder: Path) -> list[str]:
    """A sentence for each output that no longer matches; needs ONNX Runtime, no torch.

    The tolerance is the widest one that the run recorded for any output: the network's own noise is
    not measured again.

    Raises:
        StageFailed: the file does not load, does not run, or takes other inputs.
        Refused: the manifest's `parity` holds a value of a wrong type.
    """
    from pipeline.parity.compare import compare
    from pipeline.parity.onnxruntime_session import run_onnxruntime
    from pipeline.parity.reference import Reference

    try:
        inputs, expected, parameters = (
            saved_arrays(folder, name) for name in ("inputs.npz", "expected.npz", "parameters.npz")
        )
    except ValueError as error:
        return [f"cannot be run again: its saved samples cannot be read ({error})"]
    if inputs is None or expected is None:
        return ["cannot be run again: there are no saved inputs and outputs"]
    outputs = run_onnxruntime(folder / "model.onnx", {SAVED: inputs}, extra=parameters)
    config = _config(load(folder / MANIFEST), load(folder / RECORD))
    compared = compare(Reference({SAVED: expected}), outputs, config)
    return [
        f"output {item.output} is {item.problem or f'off by {item.error:.1e}, tolerance {item.tolerance:.1e}'}"
        for item in compared
        if not item.passed
    ]


def saved_arrays(folder: Path, name: str) -> dict[str, Any] | None:
    """The arrays of a file under samples/, by name; None where there is no such file.

    Raises:
        ValueError: it cannot be read, or holds something else than numbers.
    """
    from pipeline.samples.npz import read_npz

    path = folder / "samples" / name
    if not path.is_file():
        return None
    try:
        arrays = read_npz(path)
        # What is no .npy comes back as bytes.
        odd = [
            key
            for key, array in arrays.items()
            if getattr(array, "dtype", None) is None or array.dtype.kind in NO_NUMBERS
        ]
    except Exception as error:  # zipfile and numpy have an exception of its own for every sort of damage
        raise ValueError(f"{name}: {error or type(error).__name__}") from error
    if odd:
        raise ValueError(f"{name}: {odd[0]} holds no numbers")
    return arrays


def _config(manifest: dict[str, Any], record: dict[str, Any]) -> ParityConfig:
    asked = manifest["request"].get("parity")
    if isinstance(asked, Mapping):
        known = {field.name for field in fields(ParityConfig)}
        asked = {name: value for name, value in asked.items() if name in known}
    config = typed({"parity": asked}).parity
    widest = max((line["tolerance"] for line in record["parity"] if line["tolerance"]), default=None)
    return config if widest is None or config.kind == "fixed" else replace(config, kind="noise", floor=widest)
