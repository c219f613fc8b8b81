"""Haar's wavelets as an autoencoder that needs no training and loses nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.networks.coder import Coder
from unstir.networks.layers import depth_to_space, space_to_depth


def haar_basis(size: int) -> Tensor:
    """(size, size) float64: Haar's orthonormal basis of so many numbers, a power of two; the first row is their mean, up to its scale.

    Equation:
        H_1 = (1),   H_2n = [H_n ⊗ (1, 1); I_n ⊗ (1, -1)] / sqrt(2)
    Source:
        Haar 1910, "Zur Theorie der orthogonalen Funktionensysteme", https://doi.org/10.1007/BF01456326
    """
    basis = torch.ones(1, 1, dtype=torch.float64)
    while len(basis) < size:
        n = len(basis)
        coarse = torch.kron(basis, torch.tensor([[1.0, 1.0]], dtype=torch.float64))
        fine = torch.kron(torch.eye(n, dtype=torch.float64), torch.tensor([[1.0, -1.0]], dtype=torch.float64))
        basis = torch.cat([coarse, fine]) / 2**0.5
    return basis


class Haar(Coder):
    """Blocks of the data in Haar's basis along every axis: the first latent channel of each of the data's is the blocks' means (times the root
    of their size), the others are details, which are small in most data.

    White noise stays white, so with one scale for all channels diffusion in this space is the data's own. With one scale for each it is
    another: details are whitened, which the data's own space would drown first.

    Source:
        Guth, Coste, De Bortoli & Mallat 2022 (wavelet score-based generative modeling), https://arxiv.org/abs/2208.05003

    Args:
        channels: of the data.
        rank: grid dimensions.
        factor: side of a block, a power of two.
    """

    basis: Tensor

    def __init__(self, channels: int, rank: int, factor: int) -> None:
        super().__init__()
        if factor < 2 or factor & (factor - 1):
            raise UserError(f"Haar's blocks have a side of 2, 4, 8, ..., not {factor}")
        self.channels, self.rank, self.factor = channels, rank, factor
        self.latent_channels = channels * factor**rank
        basis = one = haar_basis(factor)
        for _ in range(rank - 1):
            basis = torch.kron(basis, one)
        self.register_buffer("basis", basis.to(torch.float32))  # (factor^rank, factor^rank)

    def _mixed(self, blocks: Tensor, basis: Tensor) -> Tensor:
        inner = blocks.reshape(len(blocks), self.channels, len(basis), -1)  # (B, C, factor^rank, places)
        return (basis.to(blocks.dtype) @ inner).reshape(blocks.shape)  # (B, C factor^rank, *small grid)

    def encode(self, x: Tensor) -> Tensor:
        return self._mixed(space_to_depth(x, self.factor), self.basis)  # (B, C factor^rank, *small grid)

    def decode(self, z: Tensor) -> Tensor:
        return depth_to_space(self._mixed(z, self.basis.mT), self.factor)  # (B, C, *grid)
