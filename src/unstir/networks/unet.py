"""The U-Net, for signals, pictures and volumes of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.config import NetworkConfig
from unstir.networks.layers import (
    Attention,
    Embedding,
    ResidualBlock,
    conv,
    crop,
    depth_to_space,
    pad_to_multiple,
    space_to_depth,
    zero,
)


@dataclass(frozen=True)
class UNetConfig(NetworkConfig):
    """A U-Net: residual blocks at falling resolutions, and back up with the finer levels' features beside."""

    channels: int = 64
    """Channels of the finest level."""
    multipliers: tuple[int, ...] = (1, 2)
    """Channels of each level, as multiples; each level halves the resolution."""
    blocks: int = 1
    """Residual blocks of a level on the way down; one more on the way up."""
    middle: int = 4
    """Residual blocks of the coarsest level."""
    attention: tuple[int, ...] = (1,)
    """Levels with self-attention; 0 is the finest."""
    head_channels: int = 64
    """Channels of an attention head."""
    patch: int = 2
    """The network works on patches of this side (1: on single pixels): four times cheaper for 2 than for 1."""
    norm: Literal["layer", "group"] = "layer"
    """Normalisation: over the channels of each position (faster on CPUs), or over groups of channels."""
    dropout: float = 0.0
    """Dropout in the residual blocks."""
    channels_last: bool = True
    """Keep channels innermost in memory (pictures and volumes): faster convolutions in bf16."""
    checkpoint_activations: bool = False
    """Compute the blocks' activations again in the backward pass instead of keeping them: less memory, a third slower."""

    def build(self, spec: DataSpec, out_channels: int, in_channels: int | None = None) -> nn.Module:
        if spec.rank == 0:
            raise UserError(f"a U-Net works on signals, pictures and volumes, not on {spec.kind}; use --network mlp")
        self.check_sizes()
        return self.in_memory_order(UNet(self, spec, in_channels or spec.shape[0], out_channels), spec)

    def check_sizes(self) -> None:
        """Refuses sizes of which no network can be made.

        Raises:
            UserError: with the field.
        """
        sizes = (*self.multipliers, self.channels, self.blocks, self.middle, self.head_channels, self.patch)
        if not self.multipliers or min(sizes) < 1:
            raise UserError(
                "network: multipliers, channels, blocks, middle, head_channels and patch must be at least 1"
            )
        if not set(self.attention) <= set(range(len(self.multipliers))):
            raise UserError(
                f"network.attention {self.attention} names levels that are not there: 0 to {len(self.multipliers) - 1}"
            )

    def in_memory_order(self, network: nn.Module, spec: DataSpec) -> nn.Module:
        """The network with its channels innermost in memory, where that is asked for and possible."""
        if self.channels_last and spec.rank > 1:
            network.to(memory_format=torch.channels_last if spec.rank == 2 else torch.channels_last_3d)  # type: ignore[call-overload]
        return network


class Stack(nn.Module):
    """Residual blocks at one resolution, with self-attention after the middle one if asked for."""

    def __init__(self, config: UNetConfig, rank: int, inputs: int, level: int, blocks: int) -> None:
        super().__init__()
        outputs, width = config.channels * config.multipliers[level], 4 * config.channels
        self.blocks = nn.ModuleList(
            ResidualBlock(rank, inputs if i == 0 else outputs, outputs, width, config.norm, config.dropout)
            for i in range(blocks)
        )
        self.attend_after = (blocks - 1) // 2 if level in config.attention else -1
        self.attention = Attention(rank, outputs, config.head_channels, config.norm) if self.attend_after >= 0 else None
        self.recompute = config.checkpoint_activations

    def _block(self, index: int, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.blocks[index](x, embedding)
        return self.attention(x) if self.attention is not None and index == self.attend_after else x

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for index in range(len(self.blocks)):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(self._block, index, x, embedding, use_reentrant=False)  # (B, outputs, ...)
            else:
                x = self._block(index, x, embedding)  # (B, outputs, ...)
        return x


class UNet(nn.Module):
    """The module of ``UNetConfig``.

    One skip connection a level, concatenated; a coarsest level with blocks of its own; the last layer starts at 0, so that the
    untrained network gives F = 0. Sizes that the levels do not divide are padded inside by repeating the edges.

    Source:
        Ronneberger, Fischer & Brox 2015, https://arxiv.org/abs/1505.04597; as a denoiser Ho et al. 2020, appendix B
    """

    def __init__(self, config: UNetConfig, spec: DataSpec, in_channels: int, out_channels: int) -> None:
        super().__init__()
        rank, patch = spec.rank, config.patch
        widths = [config.channels * m for m in config.multipliers]
        self.rank, self.patch = rank, patch
        self.multiple = patch * 2 ** (len(widths) - 1)
        self.embedding = Embedding(spec.conditions, 4 * config.channels)
        self.stem = conv(rank, in_channels * patch**rank, widths[0])
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level in range(len(widths) - 1):
            self.down.append(Stack(config, rank, widths[level], level, config.blocks))
            self.shrink.append(conv(rank, widths[level], widths[level + 1], stride=2))
            self.grow.append(conv(rank, widths[level + 1], widths[level]))
            self.up.append(Stack(config, rank, 2 * widths[level], level, config.blocks + 1))
        self.middle = Stack(config, rank, widths[-1], len(widths) - 1, config.middle)
        self.head = zero(conv(rank, widths[0], out_channels * patch**rank))
        self.channels_last = config.channels_last and rank > 1

    def forward(self, x: Tensor, c_noise: Tensor, /, **cond: Tensor) -> Tensor:
        embedding = self.embedding(c_noise, cond)  # (B, 4 channels)
        grid = x.shape[2:]
        h = space_to_depth(pad_to_multiple(x, self.multiple), self.patch)  # (B, C patch^rank, ...)
        if self.channels_last:
            h = h.contiguous(memory_format=torch.channels_last if self.rank == 2 else torch.channels_last_3d)
        h = self.stem(h)  # (B, widths[0], ...)
        skips = []
        for down, shrink in zip(self.down, self.shrink, strict=True):
            h = down(h, embedding)  # (B, widths[level], ...)
            skips.append(h)
            h = shrink(h)  # (B, widths[level + 1], .../2)
        h = self.middle(h, embedding)  # (B, widths[-1], ...)
        for up, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            h = grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))  # (B, widths[level], ...)
            h = up(torch.cat([h, skips.pop()], 1), embedding)  # (B, widths[level], ...)
        F_ = depth_to_space(self.head(F.silu(h)), self.patch)  # (B, out_channels, ...)
        return crop(F_, grid)  # (B, out_channels, *grid)
