"""Pictures as networks want them: three channels, and another size without aliasing or new rounding.

How pictures are resized changes a Fréchet distance, at times by more than two models differ (Parmar, Zhang & Zhu 2022, "On aliased resizing
and surprising subtleties in GAN evaluation", https://arxiv.org/abs/2104.11222), so every space states which of these it uses.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unstir.data.contents import Array
from unstir.errors import UserError

WHITE = 255.0
CHANNELS = (1, 2, 3, 4)
"""Of pictures that can be shown in colour: grey, grey with transparency, RGB, RGBA."""


def as_rgb(x: Array) -> Tensor:
    """(B, H, W[, C]) uint8 -> (B, 3, H, W) float32 from 0 to 255.

    Grey is repeated, transparency laid over white. The latter is not rounded to bytes again.

    Raises:
        UserError: no bytes, or more channels than colours and transparency have.
    """
    if x.dtype != np.uint8:
        raise UserError(f"networks for pictures take bytes (uint8), and these pictures are {x.dtype}")
    pictures = torch.from_numpy(np.array(x)).to(torch.float32)  # (B, H, W[, C])
    pictures = pictures.unsqueeze(1) if pictures.ndim == 3 else pictures.movedim(-1, 1)  # (B, C, H, W)
    check_channels(pictures.shape[1])
    if pictures.shape[1] in (2, 4):
        colour, opacity = pictures[:, :-1], pictures[:, -1:] / WHITE
        pictures = colour * opacity + WHITE * (1 - opacity)  # (B, C - 1, H, W)
    return pictures.expand(-1, 3, -1, -1).contiguous()  # (B, 3, H, W)


def check_channels(channels: int) -> None:
    """Refuses pictures that have no colours.

    Raises:
        UserError: with the space that takes them.
    """
    if channels not in CHANNELS:
        raise UserError(
            f"pictures of {channels} channels are no colours that a network for photographs knows; use --features own or pixels"
        )


def antialiased(x: Tensor, size: tuple[int, int], kernel: Literal["bilinear", "bicubic"] = "bicubic") -> Tensor:
    """(B, C, H, W) -> (B, C, *size), by the filter that Pillow uses, in floating point: a kernel that is widened by the factor of
    reduction, so that nothing aliases; enlarging, plain interpolation. Bicubic overshoots a little; nothing is rounded or clipped.

    Equation:
        k(x) = (a+2)|x|³ - (a+3)|x|² + 1 for |x| <= 1,  a|x|³ - 5a|x|² + 8a|x| - 4a for 1 < |x| < 2,  a = -1/2
    Source:
        Keys 1981, "Cubic convolution interpolation for digital image processing", eq. 15, https://doi.org/10.1109/TASSP.1981.1163711
    """
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode=kernel, align_corners=False, antialias=True)


def tensorflow_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size) as TensorFlow 1 does: pixel i of the result lies at i · (old size / new size), half a pixel off, and
    nothing prevents aliasing. The literature's FIDs are made with it; there is no other reason to use it."""
    rows, down = _between(x.shape[-2], size[0], x)
    columns, right = _between(x.shape[-1], size[1], x)
    x = torch.lerp(x[..., columns[0]], x[..., columns[1]], right)  # (B, C, H, size[1])
    return torch.lerp(x[..., rows[0], :], x[..., rows[1], :], down[:, None])  # (B, C, *size)


def _between(old: int, new: int, like: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """For each of ``new`` places the two pixels among ``old`` that it lies between, and how far it is from the first."""
    place = torch.arange(new, dtype=torch.float32, device=like.device) * (old / new)
    first = place.long().clamp(max=old - 1)
    return (first, (first + 1).clamp(max=old - 1)), place - first
