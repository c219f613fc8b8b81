"""A transformer for unCLIP's prior: the caption's tokens, what else is known and the noisy embedding, each a token of one sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.config import NetworkConfig
from unstir.networks.embedding import Embedding
from unstir.networks.layers import zero
from unstir.networks.text import readable, without_padding
from unstir.networks.tokens import TokenBlock, joined, linear, token


@dataclass(frozen=True)
class PriorNetworkConfig(NetworkConfig):
    """A transformer for points that are asked for by captions: each sample is one token, after those of its caption."""

    width: int = 128
    """Channels of a token."""
    depth: int = 4
    """Blocks."""
    heads: int = 4
    """Heads of the attention; they divide the width."""
    text_depth: int = 1
    """Layers of the transformer that learns to read captions given as bytes, before the blocks."""

    def build(self, spec: DataSpec, out_channels: int, in_channels: int | None = None) -> nn.Module:
        if spec.rank != 0:
            raise UserError(f"a prior's network works on points, not on data of kind {spec.kind}; use --network dit")
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            raise UserError(f"network.width {self.width} must be a multiple of network.heads {self.heads}")
        return PriorNetwork(self, spec, in_channels or spec.shape[0], out_channels)


class PriorNetwork(nn.Module):
    """The module of ``PriorNetworkConfig``: the sequence is the caption's tokens, one for the noise level and all other conditions, one for the
    noisy sample, and one that is asked for the answer. The last layer starts at 0, so that the untrained network gives F = 0.

    The paper's tokens see only those before them; here all see each other.

    Source:
        Ramesh, Dhariwal, Nichol, Chu & Chen 2022, section 2.2, https://arxiv.org/abs/2204.06125
    """

    def __init__(self, config: PriorNetworkConfig, spec: DataSpec, inputs: int, outputs: int) -> None:
        super().__init__()
        width = config.width
        self.texts = tuple(readable(spec.conditions))
        self.embedding = Embedding(spec.conditions, width, width, config.text_depth)
        self.stem = linear(inputs, width)
        self.answer = nn.Parameter(torch.randn(width))
        self.blocks = nn.ModuleList(TokenBlock(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = zero(nn.Linear(width, outputs))

    def forward(self, x: Tensor, c_noise: Tensor, /, **cond: Tensor) -> Tensor:
        short = {name: without_padding(value) if name in self.texts else value for name, value in cond.items()}
        embedding = self.embedding(c_noise, short)  # (B, width), and captions
        own = [token(embedding.vector), token(self.stem(x)), token(self.answer.expand(len(x), -1))]
        h, mask = joined(own if embedding.text is None else [embedding.text, *own])  # (B, S + 3, width)
        for block in self.blocks:
            h = block(h, mask)  # (B, S + 3, width)
        result: Tensor = self.head(self.norm(h[:, -1]))  # (B, outputs)
        return result
