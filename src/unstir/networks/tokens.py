"""Sequences of tokens, and the parts of networks that work on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.networks.layers import attend, zero


class Tokens(NamedTuple):
    """A sequence for each sample. The mask says which tokens are there: the others only fill up to the longest sample.

    Every sample has at least one, so that there is always something to attend to.
    """

    states: Tensor
    """(B, S, width)."""
    mask: Tensor
    """(B, S) bool."""

    def mean(self) -> Tensor:
        """(B, width): the mean over the tokens that are there."""
        there = self.mask.unsqueeze(2).to(self.states.dtype)  # (B, S, 1)
        return (self.states * there).sum(1) / there.sum(1)  # (B, width)


def token(vector: Tensor) -> Tokens:
    """(B, width) -> a sequence of one token."""
    return Tokens(vector.unsqueeze(1), torch.ones(len(vector), 1, dtype=torch.bool, device=vector.device))


def joined(sequences: Sequence[Tokens]) -> Tokens:
    """Sequences of one width, end to end."""
    return Tokens(torch.cat([s.states for s in sequences], 1), torch.cat([s.mask for s in sequences], 1))


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts as transformers' do: weights after Glorot & Bengio 2010, no bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def sincos(count: int, width: int, device: torch.device | None = None) -> Tensor:
    """(count, width) float32: the places 0, 1, ..., count - 1 as sines and cosines.

    Equation:
        (sin(w_i p), cos(w_i p)),   w_i = 10000^(-i / (width/2))
    Source:
        Vaswani et al. 2017, section 3.5, https://arxiv.org/abs/1706.03762
    """
    half = width // 2
    i = torch.arange(half, dtype=torch.float32, device=device)
    frequencies = (-math.log(10000.0) * i / max(half, 1)).exp()  # (half,)
    angles = torch.arange(count, dtype=torch.float32, device=device).unsqueeze(1) * frequencies  # (count, half)
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width - 2 * half))  # (count, width)


def grid_sincos(grid: Sequence[int], width: int, device: torch.device | None = None) -> Tensor:
    """(N, width) float32: the places of a grid of any rank, the last axis counting fastest; each axis has its share of the
    width, the last axis the first one.

    Source:
        Peebles & Xie 2023, section 3.2 ("frequency-based positional embeddings, the sine-cosine version"), https://arxiv.org/abs/2212.09748
    """
    share = width // (2 * len(grid)) * 2  # an even number: sines and cosines
    parts = []
    for axis in reversed(range(len(grid))):
        shape = [1] * len(grid)
        shape[axis] = grid[axis]
        parts.append(sincos(grid[axis], share, device).reshape(*shape, share).expand(*grid, share))  # (*grid, share)
    places = torch.cat(parts, -1).flatten(0, -2)  # (N, rank share)
    return F.pad(places, (0, width - places.shape[1]))  # (N, width)


class SelfAttention(nn.Module):
    """Attention of every token to all that are there.

    Source:
        Vaswani et al. 2017, section 3.2, https://arxiv.org/abs/1706.03762
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, d) each
        h: Tensor = self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))  # (B, N, width)
        return h


class CrossAttention(nn.Module):
    """Attention of every token to those of another sequence, plus the input; the last layer starts at 0.

    Equation:
        x + W_o softmax(q k^T / sqrt(d)) v,   q = W_q norm(x),   k = W_k y,   v = W_v y
    Source:
        Rombach et al. 2022, section 3.3, https://arxiv.org/abs/2112.10752

    Args:
        width: of the tokens. other: of the other sequence's.
    """

    def __init__(self, width: int, other: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q = linear(width, width)
        self.kv = linear(other, 2 * width)
        self.out = zero(nn.Linear(width, width))

    def inner_weights(self) -> list[Tensor]:
        """The matrices that an optimiser for hidden layers may step."""
        return [self.q.weight, self.kv.weight, self.out.weight]

    def forward(self, x: Tensor, other: Tokens) -> Tensor:
        q = self.q(self.norm(x)).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, d)
        k, v = self.kv(other.states).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, S, d) each
        result: Tensor = x + self.out(attend(q, k, v, other.mask).transpose(1, 2).flatten(2))  # (B, N, width)
        return result


class FeedForward(nn.Module):
    """Linear, GELU, linear, for each token."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.first = linear(width, ratio * width)
        self.second = linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.second(F.gelu(self.first(x), approximate="tanh"))  # (B, N, width)
        return h


class TokenBlock(nn.Module):
    """A transformer's block: self-attention, attention to another sequence where there is one, and a feed-forward layer, each of
    the norm of what came before, and added to it. Each starts by adding 0.

    Source:
        Vaswani et al. 2017, section 3.1, https://arxiv.org/abs/1706.03762; the norm first: Radford et al. 2019 (GPT-2), section 2.3

    Args:
        ratio: of the feed-forward layer's inner width to the tokens'.
        other: width of another sequence to attend to (0: there is none).
    """

    affine = True  # whether the norms have a scale and shift of their own

    def __init__(self, width: int, heads: int, ratio: int = 4, other: int = 0) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=self.affine)
        self.attention = SelfAttention(width, heads)
        self.cross = CrossAttention(width, other, heads) if other else None
        self.norm_2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=self.affine)
        self.feed_forward = FeedForward(width, ratio)
        if self.affine:
            zero(self.attention.out)
            zero(self.feed_forward.second)

    def inner_weights(self) -> list[Tensor]:
        """The matrices that an optimiser for hidden layers may step."""
        attention, feed_forward = self.attention, self.feed_forward
        return [attention.qkv.weight, attention.out.weight, feed_forward.first.weight, feed_forward.second.weight]

    def forward(
        self, x: Tensor, mask: Tensor | None = None, other: Tokens | None = None, embedding: Tensor | None = None
    ) -> Tensor:
        """(B, N, width) -> the same.

        Args:
            mask: (B, N) bool: which tokens are there; by default all.
            other: the other sequence, of a block that attends to one.
            embedding: (B, width) noise level and conditions, of a block that they modulate. This one they do not.
        """
        x = x + self.attention(self.norm_1(x), mask)  # (B, N, width)
        if self.cross is not None:
            x = self.cross(x, other)  # (B, N, width)
        x = x + self.feed_forward(self.norm_2(x))  # (B, N, width)
        return x


class AdaLNZeroBlock(TokenBlock):
    """A transformer's block whose norms are scaled and shifted by the noise level and the conditions, and whose parts are let
    through by gates that they open: all closed at first, so that the block adds nothing.

    Equation:
        x <- x + g_1 attention((1 + s_1) norm(x) + b_1),   x <- x + g_2 mlp((1 + s_2) norm(x) + b_2),   (b_1, s_1, g_1, b_2, s_2, g_2) = linear(embedding)
    Source:
        Peebles & Xie 2023, section 3.2 and figure 3 (adaLN-Zero), https://arxiv.org/abs/2212.09748
    """

    affine = False

    def __init__(self, width: int, heads: int, ratio: int = 4, other: int = 0) -> None:
        super().__init__(width, heads, ratio, other)
        self.modulation = zero(nn.Linear(width, 6 * width))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, other: Tokens | None = None, embedding: Tensor | None = None
    ) -> Tensor:
        modulation = self.modulation(embedding).unsqueeze(1)  # (B, 1, 6 width)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation.chunk(6, 2)  # (B, 1, width) each
        x = x + gate_1 * self.attention(self.norm_1(x) * (1 + scale_1) + shift_1, mask)  # (B, N, width)
        if self.cross is not None:
            x = self.cross(x, other)  # (B, N, width)
        x = x + gate_2 * self.feed_forward(self.norm_2(x) * (1 + scale_2) + shift_2)  # (B, N, width)
        return x
