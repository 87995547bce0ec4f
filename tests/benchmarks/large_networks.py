"""Networks of about 6 GB of float32 weights, built here and nowhere stored."""

import torch
from torch import nn

MLP_WIDTH, MLP_LAYERS = 8192, 23  # 23 * 8192**2 * 4 bytes = 6.2 GB
WIDTH, HEADS, BLOCKS = 4096, 32, 8  # 12 * 4096**2 * 4 bytes a block = 6.4 GB


#: torch draws a Linear's weights with a variance of 1/(3 width); ReLU needs 2/width, or the signal dies
#: on its way through the layers and parity proves nothing (He et al. 2015).
GAIN = 6**0.5


def deep_mlp() -> nn.Module:
    """Linear and ReLU, over and over; takes [batch, MLP_WIDTH]."""
    layers: list[nn.Module] = []
    for _ in range(MLP_LAYERS):
        layers += [nn.Linear(MLP_WIDTH, MLP_WIDTH), nn.ReLU()]
        with torch.no_grad():
            layers[-2].weight.mul_(GAIN)
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a LayerNorm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH)
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.before_perceptron = nn.LayerNorm(WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        heads = self.queries_keys_values(self.before_attention(x)).reshape(
            batch, tokens, 3, HEADS, WIDTH // HEADS
        )
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attention = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attended(attention.transpose(1, 2).reshape(batch, tokens, WIDTH))
        return x + self.perceptron(self.before_perceptron(x))


def transformer() -> nn.Module:
    """Takes [batch, tokens, WIDTH]."""
    return nn.Sequential(*(Block() for _ in range(BLOCKS)))
