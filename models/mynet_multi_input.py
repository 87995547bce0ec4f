"""A small classifier of two inputs: a 3x28x28 and a 1x28x28 image, ten classes."""

import torch
from torch import nn


def _branch(channels: int, features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, features, kernel_size=3, stride=2, padding=1),
        nn.BatchNorm2d(features),
        nn.ReLU(),
    )


class MyNetMultiInput(nn.Module):
    """One convolution for each input, concatenated over channels, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.x_branch = _branch(3, 32)
        self.y_branch = _branch(1, 16)
        self.classifier = nn.Linear(48 * 14 * 14, 10)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Scores, float32[N, 10], of x, float32[N, 3, 28, 28], and y, float32[N, 1, 28, 28]."""
        features = torch.cat([self.x_branch(x), self.y_branch(y)], dim=1)
        return self.classifier(torch.flatten(features, 1))


def build() -> MyNetMultiInput:
    """The network with torch's own random weights."""
    return MyNetMultiInput()
