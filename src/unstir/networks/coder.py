"""What an ``Autoencoder`` is made of: a network with two halves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Passed(NamedTuple):
    """What training is told of a batch that went through an autoencoder.

    Args:
        x: (B, C, ...) the reconstruction, on the grid that was padded to a multiple of the factor.
        features: (B, width, ...) what the last convolution made it from.
        penalty: (B,) of the bottleneck: a divergence, a distance to the codebook.
        perplexity: () how many codes the batch used, as if evenly; 0 where there is no codebook.
    """

    x: Tensor
    features: Tensor
    penalty: Tensor
    perplexity: Tensor


class Coder(nn.Module, ABC):
    """A network that an ``Autoencoder`` is made of, on grids that its factor divides; a new one (another layout, another library's
    weights) implements ``encode`` and ``decode``.

    Attributes:
        factor: how many entries of the data's grid one of the latents' stands for, along each axis.
        latent_channels: of the latents.
        channels: of the data.
        rank: grid dimensions of the data: 1 signals, 2 pictures.
    """

    factor: int
    latent_channels: int
    channels: int
    rank: int

    def fit(self, x_0: Tensor) -> None:
        """Takes from samples (N, C, *grid) what needs no training, before it begins; here nothing."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """(B, C, *grid) -> (B, c, *grid / factor): the latents' mean, or the nearest codes."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """(B, c, *small grid) -> (B, C, *small grid · factor)."""


def small_grid(grid: Sequence[int], factor: int) -> tuple[int, ...]:
    """The latents' grid for data on such a grid: as many as cover it."""
    return tuple(-(-size // factor) for size in grid)
