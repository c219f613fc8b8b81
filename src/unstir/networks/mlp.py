"""A residual network for points and rows of tables."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.config import NetworkConfig
from unstir.networks.embedding import Embedding
from unstir.networks.layers import zero


@dataclass(frozen=True)
class MLPConfig(NetworkConfig):
    """A residual multilayer perceptron, scaled and shifted in every block by the noise level and the conditions."""

    width: int = 128
    """Units of a layer."""
    depth: int = 4
    """Residual blocks."""
    dropout: float = 0.0
    """Dropout in the residual blocks."""

    def build(self, spec: DataSpec, out_channels: int, in_channels: int | None = None) -> nn.Module:
        if spec.rank != 0:
            raise UserError(f"an MLP works on points, not on data of kind {spec.kind}; use --network unet")
        return MLP(self, spec, in_channels or spec.shape[0], out_channels)


class MLPBlock(nn.Module):
    """Norm scaled and shifted by the embedding, linear, SiLU, linear that starts at 0; plus the input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.first = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.second = zero(nn.Linear(2 * width, width))

    def inner_weights(self) -> list[Tensor]:
        """The matrices that an optimiser for hidden layers may step."""
        return [self.first.weight, self.second.weight]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, 1)  # (B, width) each
        h = F.silu(self.first(self.norm(x) * (1 + scale) + shift))  # (B, 2 width)
        result: Tensor = x + self.second(self.dropout(h))  # (B, width)
        return result


class MLP(nn.Module):
    """The module of ``MLPConfig``. The last layer starts at 0, so that the untrained network gives F = 0."""

    def __init__(self, config: MLPConfig, spec: DataSpec, inputs: int, outputs: int) -> None:
        super().__init__()
        self.embedding = Embedding(spec.conditions, config.width)
        self.stem = nn.Linear(inputs, config.width)
        self.blocks = nn.ModuleList(MLPBlock(config.width, config.dropout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.head = zero(nn.Linear(config.width, outputs))

    def forward(self, x: Tensor, c_noise: Tensor, /, **cond: Tensor) -> Tensor:
        embedding = self.embedding(c_noise, cond).vector  # (B, width)
        h = self.stem(x)  # (B, width)
        for block in self.blocks:
            h = block(h, embedding)  # (B, width)
        result: Tensor = self.head(self.norm(h))  # (B, outputs)
        return result
