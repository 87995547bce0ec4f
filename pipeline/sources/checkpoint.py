"""Loading weights from a file into a network. Imports torch."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from pipeline.errors import Refused
from pipeline.events import Emit, Finding
from pipeline.sources.weights_file import WeightsFile, inspect_weights

#: Keys under which training frameworks put the state_dict, in the order in which they are tried.
WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params",
                   "ema_state_dict", "model_ema", "params_ema")  # fmt: skip
#: Prefixes that wrappers of modules put before every key: DataParallel, torch.compile, Lightning.
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "net.", "network.")
#: How many keys a sentence names.
_NAMED: Final = 3
_STAGE: Final = "source"


def load_weights(module: torch.nn.Module, text: str, *, trust_pickle: bool, emit: Emit) -> None:
    """Load a state_dict file into `module`, all of it or nothing.

    Args:
        module: gets the values; its dtypes and devices stay.
        text: the path.
        trust_pickle: whether code in the file may run.
        emit: gets a finding for every wrapper that was taken off.

    Raises:
        Refused: the file cannot be used, or its keys or shapes do not fit.
    """
    path = Path(text).expanduser()
    state, unwrapped = _unwrap(
        read_tensors(inspect_weights(path, trust_pickle=trust_pickle), trust_pickle), path
    )
    if unwrapped:
        emit(Finding(_STAGE, "info", f"{path.name} holds the weights under {unwrapped}"))
    state, prefix = _without_prefix(state, set(module.state_dict()))
    if prefix:
        emit(Finding(_STAGE, "info", f"the keys in {path.name} begin with {prefix}, which was taken off"))
    apply_state(module, state, path.name)


def read_tensors(found: WeightsFile, trust_pickle: bool) -> Any:
    """What the file holds, on the CPU.

    Raises:
        Refused: it is damaged, or more than tensors.
    """
    try:
        if found.kind == "safetensors":
            from safetensors.torch import load_file

            return load_file(found.path)
        if found.kind == "zip":
            _refuse_damaged_member(found.path)
        if found.path.suffix == ".safetensors":
            # torch takes a file of that name for one; the content says otherwise.
            with found.path.open("rb") as stream:
                return torch.load(stream, map_location="cpu", weights_only=not trust_pickle)
        # mmap needs the zip format; the values are copied into the network one by one.
        return torch.load(
            found.path, map_location="cpu", weights_only=not trust_pickle, mmap=found.kind == "zip" or None
        )
    except pickle.UnpicklingError as error:
        first = _plain(str(error).strip().splitlines()[0])
        raise Refused(
            "PL-224", "the weights file holds more than tensors", where="model.weights",
            found=f"{found.path}: {first[:200]}",
            next_step="Save model.state_dict() alone, or type model.trust_pickle=true if you trust whoever made it",
        ) from error  # fmt: skip
    except Refused:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Refused(
            "PL-223", "the weights file cannot be used", where="model.weights",
            found=f"{found.path}: {type(error).__name__}: {lines[0][:200]}",
            next_step="Type model.weights=path/to/weights.pth",
        ) from error  # fmt: skip


def apply_state(module: torch.nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Copy every tensor, or nothing.

    Raises:
        Refused: keys are missing or left over, or shapes differ.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state and not _may_be_missing(key)]
    left_over = [key for key in state if key not in own]
    if missing or left_over:
        found = []
        if missing:
            found.append(f"{len(missing)} keys of the network are not in it ({_some(missing)})")
        if left_over:
            found.append(f"{len(left_over)} of its keys are not in the network ({_some(left_over)})")
        raise Refused(
            "PL-225", "the weights do not fit the network", where="model.weights",
            found=f"in {name} {' and '.join(found)}", expected=f"the {len(own)} keys of the network",
            next_step="Choose the network that they were trained for, or its model.args, or mend the keys of the file",
        )  # fmt: skip
    _refuse_kinds(own, state, name)
    differ = [key for key in own if key in state and own[key].shape != state[key].shape]
    if differ:
        shapes = ", ".join(
            f"{key} is {list(state[key].shape)} in {name} and {list(own[key].shape)} in the network"
            for key in differ[:_NAMED]
        )
        more = f" and {len(differ) - _NAMED} more" if len(differ) > _NAMED else ""
        raise Refused(
            "PL-225", "the weights do not fit the network", where="model.weights", found=shapes + more,
            next_step="Type +model.args.num_classes=N if only the last layer differs",
        )  # fmt: skip
    module.load_state_dict(dict(state), strict=not any(_may_be_missing(key) for key in own))


def _plain(text: str) -> str:
    """Without the colours that torch puts into its messages."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _refuse_kinds(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], name: str) -> None:
    """Values that would lose something, or that are not there."""
    for key, tensor in own.items():
        given = state.get(key)
        if given is None:
            continue
        found = None
        if given.is_meta:
            found = f"{key} has no values in {name} (a tensor on the meta device)"
        elif given.layout is not torch.strided:
            found = f"{key} is sparse in {name}"
        elif (
            given.is_floating_point() != tensor.is_floating_point()
            or given.is_complex() != tensor.is_complex()
        ):
            found = f"{key} is {_dtype(given)} in {name} and {_dtype(tensor)} in the network"
        if found is not None:
            raise Refused(
                "PL-225", "the weights do not fit the network", where="model.weights", found=found,
                next_step="Save the state_dict of the network itself, in its own element types",
            )  # fmt: skip


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _may_be_missing(key: str) -> bool:
    # A counter that no inference reads; torch before 0.4.1 did not save it.
    return key.endswith("num_batches_tracked")


def _unwrap(loaded: Any, path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The mapping of names to tensors, and the keys under which it stood."""
    way: list[str] = []
    while not _is_state(loaded):
        if isinstance(loaded, torch.nn.Module):
            way.append(f"a whole {type(loaded).__name__}")
            loaded = loaded.state_dict()
            continue
        key = next(
            (key for key in WRAPPERS if isinstance(loaded, Mapping) and _holds_more(loaded.get(key))), None
        )
        if key is None:
            found = f"keys {_some(loaded)}" if isinstance(loaded, Mapping) else type(loaded).__name__
            raise Refused(
                "PL-223", "the weights file holds no state_dict", where="model.weights",
                found=f"{path}: {found}", expected=f"names to tensors, alone or under {', '.join(WRAPPERS[:3])}",
                next_step="Save model.state_dict() with torch.save",
            )  # fmt: skip
        way.append(key)
        loaded = loaded[key]
    return dict(loaded), ".".join(way)


def _is_state(loaded: Any) -> bool:
    return (
        isinstance(loaded, Mapping)
        and bool(loaded)
        and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items())
    )


def _holds_more(value: Any) -> bool:
    return isinstance(value, (Mapping, torch.nn.Module))


def _without_prefix(state: dict[str, torch.Tensor], wanted: set[str]) -> tuple[dict[str, torch.Tensor], str]:
    """Take prefixes off when that makes more keys fit."""
    taken = ""
    while not wanted & set(state):
        prefix = next((one for one in PREFIXES if all(key.startswith(one) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        taken += prefix
    return (state, taken) if taken and wanted & set(state) else (
        {taken + key: value for key, value in state.items()}, ""
    )  # fmt: skip


def _refuse_damaged_member(path: Path) -> None:
    """A flipped bit would be another weight, and torch does not check the sums of a zip."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"its member {damaged} is damaged")


def _some(names: Iterable[Any]) -> str:
    listed = [str(name) for name in names]
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
