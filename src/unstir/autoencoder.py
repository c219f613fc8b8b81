"""Autoencoders: data in, a small grid of latents out, and back; the space in which latent diffusion works."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.networks.coder import Coder, Passed, small_grid
from unstir.networks.layers import crop, pad_to_multiple
from unstir.trainable import Trainable

__all__ = ["Autoencoder", "Coder", "Passed", "small_grid"]


class Autoencoder(Trainable):
    """Data to latents and back, whatever network does it. Grids of any size: what the factor does not divide is padded by repeating its
    edges before encoding, and cropped after decoding.

    Equation:
        z = E(x),   x ≈ D(z)
    Source:
        Rombach et al. 2022, section 3.1, https://arxiv.org/abs/2112.10752

    Args:
        network: what encodes and decodes, in model units (pictures in [-1, 1]).
    """

    network: Coder

    def __init__(self, network: Coder) -> None:
        super().__init__()
        self.network = network
        self.autocast = None

    @property
    def factor(self) -> int:
        """How many entries of the data's grid one of the latents' stands for, along each axis."""
        return self.network.factor

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.network.latent_channels

    def small(self, grid: Sequence[int]) -> tuple[int, ...]:
        """The latents' grid for data on such a grid."""
        return small_grid(grid, self.factor)

    def fit(self, x_0: Tensor, **cond: Tensor) -> None:
        self.network.fit(x_0)

    def check(self, shape: Sequence[int], name: str) -> None:
        """Refuses data of another number of channels or axes.

        Args:
            shape: of one sample, (C, *grid).
            name: of the autoencoder, for the message.

        Raises:
            UserError: with both.
        """
        network = self.network
        if (network.rank, network.channels) != (len(shape) - 1, shape[0]):
            raise UserError(
                f"the autoencoder {name} takes {network.channels} channels on a grid of {network.rank} axes, and these data have "
                f"{shape[0]} on {len(shape) - 1} (pictures: --data.channels changes how they are read)"
            )

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, *grid) in model units -> (B, c, *small grid): the posterior's mean, or the nearest codes.

        In the weights' own precision, whatever training computed in: latents are made once and kept.
        """
        with torch.autocast(x.device.type, enabled=False):
            return self.network.encode(pad_to_multiple(x, self.factor)).to(x.dtype)  # (B, c, *small grid)

    def decode(self, z: Tensor, grid: Sequence[int] | None = None) -> Tensor:
        """(B, c, *small grid) -> (B, C, *grid) in model units.

        Args:
            grid: of the data that was encoded; by default the latents' times the factor.
        """
        with torch.autocast(z.device.type, enabled=False):
            x = self.network.decode(z).to(z.dtype)  # (B, C, *small grid · factor)
        return x if grid is None else crop(x, grid)  # (B, C, *grid)

    def forward(self, x: Tensor, noise: Tensor) -> Passed:
        """For training, by a network that can be trained: the batch through encoder, bottleneck and decoder.

        Args:
            x: (B, C, *grid).
            noise: (B, c, *small grid) standard normal, of which the bottleneck takes what it needs.
        """
        x = pad_to_multiple(x, self.factor)  # (B, C, *padded)
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            passed: Passed = self.network(x, noise)
        return Passed(*(part.to(x.dtype) for part in passed))
