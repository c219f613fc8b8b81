"""Filters for grids of any rank and size, in tensors alone: they run where the data are, and gradients go through them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def along(x: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Correlates (B, C, *grid) with an odd kernel (K,) along one axis of the grid, 0 being the first; edges are repeated."""
    pad = len(kernel) // 2
    moved = x.movedim(2 + axis, -1)  # (B, C, ..., n)
    rows = moved.reshape(-1, 1, moved.shape[-1])  # (R, 1, n)
    rows = F.pad(rows, (pad, pad), mode="replicate")
    rows = F.conv1d(rows, kernel.to(x).reshape(1, 1, -1))
    return rows.reshape(moved.shape).movedim(-1, 2 + axis)


def gaussian(std: float) -> Tensor:
    """(K,) float64: a Gaussian of this standard deviation in pixels at whole pixels, to three deviations, of sum 1; (1,) for 0."""
    radius = math.ceil(3 * std)
    i = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = (-0.5 * (i / std).square()).exp() if std > 0 else torch.ones_like(i)
    return weights / weights.sum()


def blurred(x: Tensor, std: float) -> Tensor:
    """(B, C, *grid) smoothed by a Gaussian in every direction of the grid."""
    if std == 0:
        return x
    for axis in range(x.ndim - 2):
        x = along(x, gaussian(std), axis)
    return x


def grey(x: Tensor) -> Tensor:
    """The lightness (B, 1, *grid) of pictures (B, C, *grid) in [-1, 1]: luma of colours, on white where they are transparent
    (2 or 4 channels); the mean of channels that are no colours.

    Equation:
        0.299 R + 0.587 G + 0.114 B
    Source:
        ITU-R BT.601-7 2011, section 2.5.1 (luma)
    """
    channels = x.shape[1]
    if channels in (2, 4):
        opacity = (x[:, -1:] + 1) / 2
        x = opacity * x[:, :-1] + (1 - opacity)  # (B, 1 or 3, *grid)
    weights = LUMA if x.shape[1] == 3 else (1 / x.shape[1],) * x.shape[1]
    w = torch.tensor(weights, dtype=x.dtype, device=x.device).reshape(1, -1, *[1] * (x.ndim - 2))
    return (w * x).sum(1, keepdim=True)  # (B, 1, *grid)
