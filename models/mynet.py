"""A small classifier of one input: 3x28x28 images, ten classes."""

import torch
from torch import nn


class MyNet(nn.Module):
    """Two convolutions with batch normalisation, one max-pooling, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, kernel_size=3, stride=1, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Linear(64 * 7 * 7, 10)

    def forward(self, input1: torch.Tensor) -> torch.Tensor:
        """Scores, float32[N, 10], of images, float32[N, 3, 28, 28]."""
        return self.classifier(torch.flatten(self.features(input1), 1))


def build() -> MyNet:
    """The network with torch's own random weights."""
    return MyNet()
