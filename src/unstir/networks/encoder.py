"""The way down of a U-Net, pooled to one vector: what classifies noisy data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.embedding import Embedding
from unstir.networks.layers import NORMS, attend, conv, pad_to_multiple, space_to_depth, zero
from unstir.networks.unet import Stack, UNetConfig


@dataclass(frozen=True)
class EncoderConfig(UNetConfig):
    """The encoder half of a U-Net, with attention pooling: a vector for each sample, not a picture."""

    channels: int = 32
    """Channels of the finest level."""
    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each level, as multiples; each level halves the resolution."""
    middle: int = 2
    """Residual blocks of the coarsest level."""
    attention: tuple[int, ...] = (2,)
    """Levels with self-attention; 0 is the finest."""
    head_channels: int = 32
    """Channels of an attention head."""
    dropout: float = 0.1
    """Dropout in the residual blocks."""

    def build(self, spec: DataSpec, out_channels: int, in_channels: int | None = None) -> nn.Module:
        if spec.rank == 0:
            raise UserError(f"an encoder works on signals, pictures and volumes, not on {spec.kind}; use --network mlp")
        self.check_sizes()
        return self.in_memory_order(Encoder(self, spec, in_channels or spec.shape[0], out_channels), spec)

    @property
    def pooled(self) -> bool:
        return True


class AttentionPool(nn.Module):
    """A vector for each sample: the mean over all positions asks, by attention, for what it needs of each of them.

    Equation:
        y = W_o softmax(q k^T / sqrt(d)) v,   z = (mean, x_1, ..., x_N) + position,   q = W_q z_0,   k = W_k z,   v = W_v z
    Source:
        Dhariwal & Nichol 2021, section 4 (attention pooling), https://arxiv.org/abs/2105.05233; Radford et al. 2021, section 2.4 (CLIP's), https://arxiv.org/abs/2103.00020

    Args:
        positions: N, of the grid that it sees.
    """

    def __init__(self, channels: int, head_channels: int, positions: int, outputs: int) -> None:
        super().__init__()
        most = max(channels // head_channels, 1)
        self.heads = next(heads for heads in range(most, 0, -1) if channels % heads == 0)
        self.position = nn.Parameter(torch.randn(positions + 1, channels) / math.sqrt(channels))
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.out = zero(nn.Linear(channels, outputs))

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(2).mT  # (B, N, C)
        z = torch.cat([z.mean(1, keepdim=True), z], 1) + self.position  # (B, 1 + N, C)
        q = self.q(z[:, :1]).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, 1, d)
        k, v = self.kv(z).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, 1 + N, d) each
        y: Tensor = self.out(attend(q, k, v).flatten(1))  # (B, outputs)
        return y


class Encoder(nn.Module):
    """The module of ``EncoderConfig``: x (B, C, ...), c_noise (B,) -> (B, out_channels). The last layer starts at 0.

    Source:
        Dhariwal & Nichol 2021, section 4 ("the down-sampling trunk of the UNet with an attention pool"), https://arxiv.org/abs/2105.05233
    """

    def __init__(self, config: EncoderConfig, spec: DataSpec, in_channels: int, out_channels: int) -> None:
        super().__init__()
        rank, patch = spec.rank, config.patch
        widths = [config.channels * m for m in config.multipliers]
        self.patch = patch
        self.multiple = patch * 2 ** (len(widths) - 1)
        self.embedding = Embedding(spec.conditions, 4 * config.channels, config.text_width, config.text_depth)
        text = self.embedding.text_width
        self.stem = conv(rank, in_channels * patch**rank, widths[0])
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level in range(len(widths) - 1):
            at = level + config.efficient  # where the blocks work: after down-sampling, or before
            self.down.append(Stack(config, rank, widths[at], at, config.blocks_of(level), text))
            self.shrink.append(conv(rank, widths[level], widths[level + 1], stride=2))
        self.middle = Stack(config, rank, widths[-1], len(widths) - 1, config.middle, text)
        self.norm = NORMS[config.norm](widths[-1])
        positions = math.prod(-(-size // self.multiple) for size in spec.shape[1:])
        self.pool = AttentionPool(widths[-1], config.head_channels, positions, out_channels)
        self.channels_last = config.channels_last and rank > 1
        self.efficient = config.efficient

    def forward(self, x: Tensor, c_noise: Tensor, /, **cond: Tensor) -> Tensor:
        embedding = self.embedding(c_noise, cond)  # (B, 4 channels), and captions
        h = space_to_depth(pad_to_multiple(x, self.multiple), self.patch)  # (B, C patch^rank, ...)
        if self.channels_last:
            h = h.contiguous(memory_format=torch.channels_last if h.ndim == 4 else torch.channels_last_3d)
        h = self.stem(h)  # (B, widths[0], ...)
        for down, shrink in zip(self.down, self.shrink, strict=True):
            h = (
                down(shrink(h), embedding) if self.efficient else shrink(down(h, embedding))
            )  # (B, widths[level + 1], .../2)
        h = self.middle(h, embedding)  # (B, widths[-1], ...)
        y: Tensor = self.pool(F.silu(self.norm(h)))  # (B, out_channels)
        return y
