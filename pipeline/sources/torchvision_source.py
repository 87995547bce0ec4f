"""Networks of torchvision by their name. Imports torch and torchvision."""

from __future__ import annotations

import inspect
import urllib.error
from typing import Any

import torch

from pipeline.config.canonical import names_file
from pipeline.errors import Refused
from pipeline.sources.config import ModelConfig
from pipeline.sources.identity import find_builder, find_weights
from pipeline.sources.imports import import_torchvision


def build_torchvision(config: ModelConfig, *, private_apis: bool) -> torch.nn.Module:
    """The network, its weights as torch draws them or as torchvision fetches them.

    Raises:
        Refused: unknown name or weights, arguments that do not fit, weights that cannot be fetched.
    """
    builder = find_builder(config)
    models = import_torchvision(private_apis=private_apis)
    arguments: dict[str, Any] = dict(config.args)
    parameters = inspect.signature(models.get_model_builder(builder.name)).parameters
    if config.weights is not None and not names_file(config.weights):
        chosen = find_weights(builder, config.weights)
        arguments["weights"] = f"{chosen.enum}.{chosen.name}"
    elif "weights_backbone" in parameters:
        # Detection and segmentation builders fetch a trained backbone unless they are told not to.
        arguments.setdefault("weights_backbone", None)
    try:
        module: torch.nn.Module = models.get_model(builder.name, **_resolved(arguments, models))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise Refused(
            "PL-226", "the weights could not be fetched", where="model.weights",
            found=f"{type(error).__name__}: {error}",
            next_step=f"Type model.weights=path/to/{builder.name}.pth for a file that you have",
        ) from error  # fmt: skip
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        raise Refused(
            "PL-228", f"torchvision does not build {builder.name} with these arguments: {error}",
            where="model.args", found=", ".join(f"{name}={value!r}" for name, value in config.args.items()) or None,
            expected=", ".join(name for name in parameters if name not in ("weights", "progress")),
        ) from error  # fmt: skip
    except RuntimeError as error:
        if "invalid hash value" not in str(error):
            raise
        raise Refused(
            "PL-223", "the fetched weights are damaged", where="model.weights", found=str(error),
            next_step="Type the same again, or model.weights=path/to/weights.pth",
        ) from error  # fmt: skip
    return module


def _resolved(arguments: dict[str, Any], models: Any) -> dict[str, Any]:
    """Names of weights enums as their members: builders take those, get_model's names are short."""
    weights = arguments.get("weights")
    return {**arguments, "weights": models.get_weight(weights)} if weights is not None else arguments
