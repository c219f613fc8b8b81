"""The parts that networks are made of, for grids of one, two or three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def conv(rank: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    """A convolution that keeps the size (or divides it by the stride)."""
    return CONV[rank](inputs, outputs, kernel, stride, padding=kernel // 2)


def zero(module: M) -> M:
    """Starts a layer at 0, so that the block it ends adds nothing yet."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Sinusoid(nn.Module):
    """Sines and cosines of the noise level at geometrically spaced frequencies.

    Equation:
        (cos(w_i c), sin(w_i c)),   w_i = 1000 · 10000^(-i / (width/2))
    Source:
        Vaswani et al. 2017, section 3.5, https://arxiv.org/abs/1706.03762; Ho et al. 2020, appendix B (c = t / 1000)
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        i = torch.arange(width // 2, dtype=torch.float32)
        self.register_buffer("frequencies", 1000.0 * (-math.log(10000.0) * i / (width // 2)).exp(), persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies.to(c_noise.dtype)  # (B, width/2)
        return torch.cat([angles.cos(), angles.sin()], 1)  # (B, width)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each position: in channels-last memory a view away from a plain LayerNorm, and fast there."""

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.movedim(1, -1), (self.channels,), self.weight, self.bias)  # (B, ..., C)
        return y.movedim(-1, 1)  # (B, C, ...)


def group_norm(channels: int, affine: bool = True) -> nn.Module:
    """GroupNorm with 32 groups, or fewer where that leaves under 4 channels each (Wu & He 2018, https://arxiv.org/abs/1803.08494)."""
    groups = max(g for g in range(1, 33) if channels % g == 0 and (channels // g >= 4 or g == 1))
    return nn.GroupNorm(groups, channels, affine=affine)


NORMS = {"group": group_norm, "layer": ChannelNorm}


class ResidualBlock(nn.Module):
    """Norm, SiLU, conv; norm scaled and shifted by the embedding, SiLU, dropout, conv that starts at 0; plus the input.

    Equation:
        y = skip(x) + conv(silu((1 + scale) norm(conv(silu(norm(x)))) + shift)),   (scale, shift) = linear(embedding)
    Source:
        Dhariwal & Nichol 2021, section 3.1 (adaptive group normalisation), https://arxiv.org/abs/2105.05233
    """

    def __init__(self, rank: int, inputs: int, outputs: int, width: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.norm_1 = NORMS[norm](inputs)
        self.conv_1 = conv(rank, inputs, outputs)
        self.modulation = zero(nn.Linear(width, 2 * outputs))
        self.norm_2 = NORMS[norm](outputs, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero(conv(rank, outputs, outputs))
        self.skip = conv(rank, inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.rank = rank

    def inner_weights(self) -> list[Tensor]:
        """The matrices that an optimiser for hidden layers may step."""
        return [self.conv_1.get_parameter("weight"), self.conv_2.get_parameter("weight")]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x)))  # (B, outputs, ...)
        scale, shift = (
            self.modulation(embedding).reshape(len(x), -1, *[1] * self.rank).chunk(2, 1)
        )  # (B, outputs, 1...)
        h = F.silu(self.norm_2(h) * (1 + scale) + shift)  # (B, outputs, ...)
        result: Tensor = self.skip(x) + self.conv_2(self.dropout(h))  # (B, outputs, ...)
        return result


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of every position to every other, q (B, heads, N, d), k and v (B, heads, S, d).

    Equation:
        softmax(q k^T / sqrt(d)) v
    Source:
        Vaswani et al. 2017, eq. 1, https://arxiv.org/abs/1706.03762

    Args:
        mask: (B, S) bool: which positions may be attended to, at least one for each sample; by default all.
    """
    allowed = None if mask is None else mask[:, None, None]  # (B, 1, 1, S)
    if (
        q.device.type == "cpu" and q.requires_grad
    ):  # the fused kernel's backward pass is slower than this on CPUs in bf16
        scores = q @ k.mT * q.shape[-1] ** -0.5  # (B, heads, N, S)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)  # (B, heads, N, S)
        written_out: Tensor = scores.softmax(-1) @ v
        return written_out
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def heads_of(channels: int, head_channels: int) -> int:
    """How many heads of at least so many channels there are room for; they must divide the channels."""
    most = max(channels // head_channels, 1)
    return next(heads for heads in range(most, 0, -1) if channels % heads == 0)


class Attention(nn.Module):
    """Self-attention over all positions of the grid, plus the input.

    Source:
        Ho et al. 2020, appendix B, https://arxiv.org/abs/2006.11239; several heads: Dhariwal & Nichol 2021, section 3
    """

    def __init__(self, rank: int, channels: int, head_channels: int, norm: str) -> None:
        super().__init__()
        self.heads = heads_of(channels, head_channels)
        self.norm = NORMS[norm](channels)
        self.qkv = conv(rank, channels, 3 * channels, 1)
        self.out = zero(conv(rank, channels, channels, 1))

    def inner_weights(self) -> list[Tensor]:
        """The matrices that an optimiser for hidden layers may step."""
        return [self.qkv.get_parameter("weight"), self.out.get_parameter("weight")]

    def forward(self, x: Tensor) -> Tensor:
        B, C, *grid = x.shape
        qkv = self.qkv(self.norm(x)).flatten(2).mT  # (B, N, 3C)
        q, k, v = qkv.reshape(B, -1, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)  # (B, heads, N, d) each
        h = attend(q, k, v).transpose(1, 2).flatten(2)  # (B, N, C)
        result: Tensor = x + self.out(h.mT.reshape(B, C, *grid))  # (B, C, ...)
        return result


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """(B, C, n_1 f, n_2 f, ...) -> (B, C f^rank, n_1, n_2, ...): every patch becomes channels. The inverse of depth_to_space.

    Source:
        Shi et al. 2016, eq. 4 (the inverse), https://arxiv.org/abs/1609.05158
    """
    if factor == 1:
        return x
    B, C, *grid = x.shape
    rank = len(grid)
    x = x.reshape(B, C, *[n for size in grid for n in (size // factor, factor)])  # (B, C, n_1, f, n_2, f, ...)
    order = [0, 1, *range(3, 3 + 2 * rank, 2), *range(2, 2 + 2 * rank, 2)]
    return x.permute(order).reshape(B, C * factor**rank, *[size // factor for size in grid])


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """(B, C f^rank, n_1, n_2, ...) -> (B, C, n_1 f, n_2 f, ...): the inverse of space_to_depth.

    Source:
        Shi et al. 2016, eq. 4 (periodic shuffling), https://arxiv.org/abs/1609.05158
    """
    if factor == 1:
        return x
    B, _, *grid = x.shape
    rank = len(grid)
    x = x.reshape(B, -1, *[factor] * rank, *grid)  # (B, C, f, f, ..., n_1, n_2, ...)
    order = [0, 1, *[axis for i in range(rank) for axis in (2 + rank + i, 2 + i)]]
    return x.permute(order).reshape(B, -1, *[size * factor for size in grid])


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeats the edges until every size of the grid is a multiple; more at the end where it is odd. Undone by ``crop``."""
    missing = [-size % multiple for size in x.shape[2:]]
    if not any(missing):
        return x
    pads = [n for m in reversed(missing) for n in (m // 2, m - m // 2)]  # F.pad counts from the last axis
    return F.pad(x, pads, mode="replicate")


def crop(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Cuts the middle of that size out of the grid: the inverse of ``pad_to_multiple``."""
    for axis, size in enumerate(grid, start=2):
        x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x
