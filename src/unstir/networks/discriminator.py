"""What an autoencoder learns to deceive: a small network that says of each patch whether it is from the data."""

from __future__ import annotations

from torch import Tensor, nn

from unstir.networks.layers import CONV, conv, group_norm, pad_to_multiple


class PatchDiscriminator(nn.Module):
    """Strided convolutions, each twice as wide and half as fine as the one before; a number for each patch, high where it looks real.

    Normalised over groups of channels and not over the batch as in the papers, so that each sample is judged on its own, in however many
    pieces the batch comes.

    Source:
        Isola et al. 2017, section 3.2.2, https://arxiv.org/abs/1611.07004; for autoencoders Esser, Rombach & Ommer 2021, section 3.1, https://arxiv.org/abs/2012.09841

    Args:
        rank: grid dimensions. channels: of the data.
        width: channels of the first layer. layers: how often the grid is halved.
    """

    def __init__(self, rank: int, channels: int, width: int, layers: int) -> None:
        super().__init__()
        self.multiple = 2**layers
        parts: list[nn.Module] = []
        for layer in range(layers):
            inputs, outputs = width * 2 ** (layer - 1) if layer else channels, width * 2**layer
            parts += [CONV[rank](inputs, outputs, 4, stride=2, padding=1)]
            parts += [group_norm(outputs)] if layer else []
            parts += [nn.LeakyReLU(0.2)]
        widest = width * 2 ** (layers - 1)
        parts += [conv(rank, widest, widest), group_norm(widest), nn.LeakyReLU(0.2), conv(rank, widest, 1)]
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        verdict: Tensor = self.layers(pad_to_multiple(x, self.multiple))  # (B, 1, .../2^layers)
        return verdict.flatten(1)  # (B, patches)
