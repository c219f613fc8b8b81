"""The U-Net, for signals, pictures and volumes of any size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unstir.conditioning.embed import GridChannels
from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.config import NetworkConfig
from unstir.networks.embedding import Embedded, Embedding
from unstir.networks.layers import (
    Attention,
    ResidualBlock,
    conv,
    crop,
    depth_to_space,
    heads_of,
    pad_to_multiple,
    space_to_depth,
    zero,
)
from unstir.networks.tokens import CrossAttention


@dataclass(frozen=True)
class UNetConfig(NetworkConfig):
    """A U-Net: residual blocks at falling resolutions, and back up with the finer levels' features beside."""

    channels: int = 64
    """Channels of the finest level."""
    multipliers: tuple[int, ...] = (1, 2)
    """Channels of each level, as multiples; each level halves the resolution."""
    blocks: tuple[int, ...] = (1,)
    """Residual blocks of a level on the way down; one more on the way up. One number for all levels, or one for each but the
    coarsest."""
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
    efficient: bool = False
    """Imagen's order: a level's blocks work after it was made coarser on the way down, and before it is made finer on the way up, so
    that none works on the finest grid."""
    text_width: int = 128
    """Channels of a caption's tokens, where the data have captions and data.text says who reads them."""
    text_depth: int = 2
    """Layers of the transformer that learns to read captions given as bytes."""

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
        sizes = (self.channels, *self.blocks, self.middle, self.head_channels, self.patch, self.text_width)
        if not self.multipliers or not self.blocks or min(*sizes, *self.multipliers) < 1:
            raise UserError(
                "network: multipliers, channels, blocks, middle, head_channels, patch and text_width must be at least 1"
            )
        if len(self.blocks) not in (1, len(self.multipliers) - 1):
            raise UserError(
                f"network.blocks {self.blocks} should be one number, or one for each of {len(self.multipliers) - 1} levels: the "
                "coarsest has network.middle"
            )
        if not set(self.attention) <= set(range(len(self.multipliers))):
            raise UserError(
                f"network.attention {self.attention} names levels that are not there: 0 to {len(self.multipliers) - 1}"
            )

    def blocks_of(self, level: int) -> int:
        """Residual blocks of a level on the way down, 0 the finest."""
        return self.blocks[level] if len(self.blocks) > 1 else self.blocks[0]

    def in_memory_order(self, network: nn.Module, spec: DataSpec) -> nn.Module:
        """The network with its channels innermost in memory, where that is asked for and possible."""
        if self.channels_last and spec.rank > 1:
            network.to(memory_format=torch.channels_last if spec.rank == 2 else torch.channels_last_3d)  # type: ignore[call-overload]
        return network


class Stack(nn.Module):
    """Residual blocks at one resolution, with self-attention after the middle one if asked for, and then attention to the captions
    where there are some.

    Args:
        text: width of the captions' tokens (0: there are none).
    """

    def __init__(self, config: UNetConfig, rank: int, inputs: int, level: int, blocks: int, text: int = 0) -> None:
        super().__init__()
        outputs, width = config.channels * config.multipliers[level], 4 * config.channels
        self.blocks = nn.ModuleList(
            ResidualBlock(rank, inputs if i == 0 else outputs, outputs, width, config.norm, config.dropout)
            for i in range(blocks)
        )
        self.attend_after = (blocks - 1) // 2 if level in config.attention else -1
        self.attention = Attention(rank, outputs, config.head_channels, config.norm) if self.attend_after >= 0 else None
        heads = heads_of(outputs, config.head_channels)
        self.cross = CrossAttention(outputs, text, heads) if self.attention is not None and text else None
        self.recompute = config.checkpoint_activations

    def _block(self, index: int, x: Tensor, embedding: Embedded) -> Tensor:
        x = self.blocks[index](x, embedding.vector)  # (B, outputs, ...)
        if self.attention is None or index != self.attend_after:
            return x
        x = self.attention(x)  # (B, outputs, ...)
        if self.cross is None:
            return x
        positions: Tensor = self.cross(x.flatten(2).mT, embedding.text)  # (B, N, outputs)
        return positions.mT.reshape(x.shape)  # (B, outputs, ...)

    def forward(self, x: Tensor, embedding: Embedded) -> Tensor:
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

    Captions are attended to after every self-attention, and their mean is part of the embedding; conditions on the data's grid go in
    beside the data. Both start at 0: a network with them says at first what the same weights say without.

    With ``efficient``, down-sampling comes before the blocks and up-sampling after them, and what goes across is scaled by
    1/sqrt(2); the paper also gives more ``blocks`` to coarser levels.

    Source:
        Ronneberger, Fischer & Brox 2015, https://arxiv.org/abs/1505.04597; as a denoiser Ho et al. 2020, appendix B; captions and ``efficient`` Saharia et al. 2022, section 2.5 and appendix B, https://arxiv.org/abs/2205.11487
    """

    def __init__(self, config: UNetConfig, spec: DataSpec, in_channels: int, out_channels: int) -> None:
        super().__init__()
        rank, patch = spec.rank, config.patch
        widths = [config.channels * m for m in config.multipliers]
        self.rank, self.patch = rank, patch
        self.multiple = patch * 2 ** (len(widths) - 1)
        self.embedding = Embedding(spec.conditions, 4 * config.channels, config.text_width, config.text_depth)
        text = self.embedding.text_width
        self.stem = conv(rank, in_channels * patch**rank, widths[0])
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level in range(len(widths) - 1):
            at, blocks = level + config.efficient, config.blocks_of(level)  # where the blocks work, and how many
            self.down.append(Stack(config, rank, widths[at], at, blocks, text))
            self.shrink.append(conv(rank, widths[level], widths[level + 1], stride=2))
            self.grow.append(conv(rank, widths[level + 1], widths[level]))
            self.up.append(Stack(config, rank, 2 * widths[at], at, blocks + 1, text))
        self.middle = Stack(config, rank, widths[-1], len(widths) - 1, config.middle, text)
        self.head = zero(conv(rank, widths[0], out_channels * patch**rank))
        self.channels_last = config.channels_last and rank > 1
        self.efficient = config.efficient
        self.grids = GridChannels(spec.conditions)
        # A layer of their own and not more channels of the stem: a trained stem fits as it is, and its sums stay the same to the bit.
        more = self.grids.channels * patch**rank
        self.grid_stem = zero(conv(rank, more, widths[0])) if more else None

    def without_way_up(self) -> UNet:
        """Only what ``embedding``, ``enter`` and ``encode`` need: the half of which a ControlNet is made."""
        del self.up, self.grow, self.head
        return self

    def patches(self, x: Tensor) -> Tensor:
        """(B, C, *grid) -> (B, C patch^rank, ...): as ``stem`` and ``grid_stem`` take it."""
        h = space_to_depth(pad_to_multiple(x, self.multiple), self.patch)  # (B, C patch^rank, ...)
        if self.channels_last:
            h = h.contiguous(memory_format=torch.channels_last if self.rank == 2 else torch.channels_last_3d)
        return h

    def enter(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """The first features of x (B, C, *grid), and of the conditions on its grid: patches as channels, and the stem."""
        h: Tensor = self.stem(self.patches(x))  # (B, widths[0], ...)
        if self.grid_stem is not None:
            h = h + self.grid_stem(self.patches(self.grids(x, cond)))  # (B, widths[0], ...)
        return h

    def encode(self, h: Tensor, embedding: Embedded) -> tuple[Tensor, list[Tensor]]:
        """The way down from the first features, and the middle; -> its features, and those that the way up is shown, finest first."""
        skips = []
        for down, shrink in zip(self.down, self.shrink, strict=True):
            if self.efficient:
                h = down(shrink(h), embedding)  # (B, widths[level + 1], .../2)
                skips.append(h)
            else:
                h = down(h, embedding)  # (B, widths[level], ...)
                skips.append(h)
                h = shrink(h)  # (B, widths[level + 1], .../2)
        return self.middle(h, embedding), skips  # (B, widths[-1], ...)

    def decode(self, h: Tensor, skips: list[Tensor], embedding: Embedded, grid: Sequence[int]) -> Tensor:
        """The way up from the middle's features, to F on the grid of x."""
        for up, grow, skip in zip(reversed(self.up), reversed(self.grow), reversed(skips), strict=True):
            if self.efficient:
                h = up(torch.cat([h, skip * math.sqrt(0.5)], 1), embedding)  # (B, widths[level + 1], .../2)
                h = grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))  # (B, widths[level], ...)
            else:
                h = grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))  # (B, widths[level], ...)
                h = up(torch.cat([h, skip], 1), embedding)  # (B, widths[level], ...)
        F_ = depth_to_space(self.head(F.silu(h)), self.patch)  # (B, out_channels, ...)
        return crop(F_, grid)  # (B, out_channels, *grid)

    def forward(self, x: Tensor, c_noise: Tensor, /, **cond: Tensor) -> Tensor:
        embedding = self.embedding(c_noise, cond)  # (B, 4 channels), and captions
        h, skips = self.encode(self.enter(x, cond), embedding)
        return self.decode(h, skips, embedding, x.shape[2:])
