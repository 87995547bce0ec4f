"""Which layers of torchvision's detectors score and place boxes, and how far their outputs spread.

With untrained heads every class scores about 1/91: nothing passes the score threshold, or all of it
does, in an order that rounding decides. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch


@dataclass(frozen=True)
class HeadSpread:
    """What the outputs of a layer are brought to, channel by channel.

    Attributes:
        std: standard deviation over places.
        mean: of every channel; far below zero where each class has a sigmoid of its own.
        background: added to the background's channel, so that few places hold a box.
        favoured: added to the channel of the first class, so that places hold a box of it even where
            the scores hardly vary.
        classes: the background's channel comes again after so many; None: there is none.
    """

    std: float
    mean: float = 0.0
    background: float = 0.0
    favoured: float = 0.0
    classes: int | None = None


#: Scores are logits: this far apart, sigmoid and softmax decide clearly but do not saturate (at 3,
#: dozens of boxes score exactly 1.0, and rounding alone orders them).
_SCORES_STD: Final = 1.5
#: FastRCNN keeps scores above 0.05 of 90 classes at 150 places; SSD scores above 0.001 at 3234.
#: Measured over 8 seeds of weights and 5 inputs: 5 to 100 and 170 to 300 boxes.
_BACKGROUND: Final = 9.0
_FAVOURED: Final = 7.0
_SSD_BACKGROUND: Final = 16.0
_SSD_FAVOURED: Final = 10.0
#: RetinaNet and FCOS have a sigmoid for each class: few of them above the threshold.
_SIGMOID_MEAN: Final = -7.0
#: Offsets of boxes, in parts of an anchor's size: boxes move, but stay boxes.
_OFFSET: Final = 0.2
#: The same where offsets are divided by 10 (place) and 5 (size) first. At 1.5 sizes grew by exp(2.4), and
#: float32 errors of the corners to half a pixel.
_DIVIDED_OFFSET: Final = 0.5


def head_spreads(module: torch.nn.Module) -> dict[torch.nn.Module, HeadSpread]:
    """The scoring and placing layers of a detector of torchvision; empty for any other network."""
    if not type(module).__module__.startswith("torchvision.models.detection."):
        return {}
    return {layer: spread for inner in module.modules() for layer, spread in _spreads_of(inner)}


def _spreads_of(inner: Any) -> Iterator[tuple[torch.nn.Module, HeadSpread]]:
    match type(inner).__name__:
        case "RPNHead":
            yield inner.cls_logits, HeadSpread(_SCORES_STD)
            yield inner.bbox_pred, HeadSpread(_OFFSET)
        case "FastRCNNPredictor":
            classes = inner.cls_score.out_features
            yield inner.cls_score, HeadSpread(_SCORES_STD, 0.0, _BACKGROUND, _FAVOURED, classes)
            yield inner.bbox_pred, HeadSpread(_DIVIDED_OFFSET)
        case "SSDClassificationHead" | "SSDLiteClassificationHead":
            spread = HeadSpread(_SCORES_STD, 0.0, _SSD_BACKGROUND, _SSD_FAVOURED, inner.num_columns)
            for layer in _last_layers(inner):
                yield layer, spread
        case "SSDRegressionHead" | "SSDLiteRegressionHead":
            for layer in _last_layers(inner):
                yield layer, HeadSpread(_DIVIDED_OFFSET)
        case "RetinaNetClassificationHead" | "FCOSClassificationHead":
            yield inner.cls_logits, HeadSpread(_SCORES_STD, _SIGMOID_MEAN)
        case "RetinaNetRegressionHead":
            yield inner.bbox_reg, HeadSpread(_OFFSET)


def _last_layers(head: Any) -> Iterator[torch.nn.Module]:
    """The convolution that ends the block of each feature map."""
    for block in head.module_list:
        yield [layer for layer in block.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
