"""Inputs for a network of torchvision when the configuration gives none. No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pipeline.sources.config import ModelConfig
from pipeline.sources.identity import find_builder

#: Image sizes of networks that do not take 224 or were made for another one.
_SIZES: Final = {"inception_v3": 299, "quantized_inception_v3": 299}
#: Frames and image size of networks that watch videos, by the file that defines them.
_VIDEOS: Final = {"resnet": (8, 112), "s3d": (16, 224), "mvit": (16, 224), "swin_transformer": (16, 224)}


def with_default_inputs(model: ModelConfig) -> ModelConfig:
    """`model`, with inputs that fit its kind of network where it has none.

    Args:
        model: the section `model`; sources other than torchvision come back as they are.

    Raises:
        Refused: torchvision has no such model.
    """
    if model.source != "torchvision" or model.inputs:
        return model
    builder = find_builder(model)
    folder = builder.file.parent.name
    if folder == "detection":
        inputs: dict[str, Any] = {"images": [_image([3, 320, 320], {"uniform": [0, 1]})]}
    elif folder == "optical_flow":
        inputs = {name: _image([1, 3, 128, 128], {"uniform": [-1, 1]}) for name in ("image1", "image2")}
    elif folder == "video":
        frames, size = _VIDEOS.get(builder.file.stem, (16, 224))
        inputs = {"input1": _image([1, 3, frames, size, size])}
    else:
        size = _SIZES.get(builder.name, 224)
        inputs = {"input1": _image([1, 3, size, size])}
    return replace(model, inputs=inputs)


def _image(shape: list[int], fill: Any = "normal") -> dict[str, Any]:
    return {"shape": shape, "dtype": "float32", "fill": fill}
