"""Colours for a grey picture: in the space of colours, one direction is known and two are wanted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unstir.editing.conditional import Method
from unstir.editing.drawing import Drawing
from unstir.editing.latent import held_to
from unstir.errors import UserError
from unstir.model import Model
from unstir.recipes import SamplingConfig
from unstir.samplers.replacement import Known

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601: what programs, and our own reader, mean by the grey of a colour. Score-SDE takes the mean, (1/3, 1/3, 1/3)."""


def same_grey(x_0: Tensor, weights: tuple[float, float, float] = LUMA) -> Known:
    """What is known of x_0 by its grey: one direction in the space of colours, and transparency where there is any.

    Noise of equal strength in every direction stays so in any orthonormal basis, so noised grey is grey with the same noise. Score-SDE
    writes the whole basis down, an orthogonal matrix whose first row is this direction; only that row matters.

    Equation:
        grey = w · x,   a = w / |w|,   project(x) = a (a · x),   complement(x) = x - a (a · x)
    Source:
        Song et al. 2021, appendix I.3 (colorization), https://arxiv.org/abs/2011.13456, with w = (1, 1, 1) / 3

    Args:
        x_0: (1, 3, H, W) or (1, 4, H, W), any picture of that grey.
        weights: of red, green and blue; they add up to 1.
    """
    a = torch.tensor(weights, dtype=torch.float64)
    a = a / a.norm()
    projection = torch.eye(x_0.shape[1], dtype=torch.float64)  # a fourth channel, transparency, is known as it is
    projection[:3, :3] = torch.outer(a, a)
    rest = (torch.eye(len(projection), dtype=torch.float64) - projection).to(x_0)
    projection = projection.to(x_0)
    return Known(x_0, lambda x: _mix(projection, x), lambda x: _mix(rest, x))


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """(C, C) times the channels of (B, C, H, W)."""
    return (matrix @ x.flatten(2)).reshape(x.shape)


def grey_of(x: Tensor, weights: tuple[float, float, float] = LUMA) -> Tensor:
    """(B, 3 or 4, H, W) -> (B, 1, H, W).

    Equation:
        grey = w · x,   w = (0.299, 0.587, 0.114)
    Source:
        ITU-R BT.601-7 2011, section 2.5.1 (luma)
    """
    w = torch.tensor(weights, dtype=x.dtype, device=x.device).reshape(1, 3, 1, 1)
    return (w * x[:, :3]).sum(1, keepdim=True)


def into_range(x: Tensor, grey: Tensor, low: float, high: float) -> Tensor:
    """Colours (B, 3 or 4, H, W) that lie outside the range are made paler until they fit; their grey (B, 1, H, W) stays.

    Cutting each channel off instead would change the grey.
    """
    chroma = x[:, :3] - grey
    room = torch.where(chroma > 0, high - grey, grey - low)
    most = (room / chroma.abs().clamp(min=1e-12)).amin(1, keepdim=True).clamp(0, 1)
    return torch.cat([grey + most * chroma, x[:, 3:]], 1)


def colorize(
    model: Model,
    grey: Tensor,
    *,
    n: int = 1,
    method: str | Method | None = None,
    settings: SamplingConfig | None = None,
    seed: int = 0,
    batch_size: int = 64,
    **cond: Any,
) -> Tensor:
    """Gives a grey picture colours. Its grey stays what it is; rounded to bytes, the grey of the result is right to one level.

    Args:
        model: of colour pictures, three channels or four with transparency.
        grey: (1, H, W) in [-1, 1], or (*shape), of which only the grey (and the transparency) is looked at.
        n, method, settings, seed, batch_size, cond: as for ``inpaint``; replacement, the default, is Score-SDE's way, and where every pixel's
            grey is known, there is little to harmonise. For a model in latents it is "gradient", through the decoder, and no other.

    Returns:
        (n, *shape) in model units.

    Raises:
        UserError: a model of other data than colour pictures, another size than theirs, an unknown method or condition.
    """
    spec = model.spec
    if spec.kind != "image" or spec.shape[0] not in (3, 4) or len({*zip(spec.offset, spec.scale)}) > 1:
        raise UserError("only a model of colour pictures (RGB or RGBA) can give colours")
    drawing = Drawing.of(model, settings, seed, cond)
    if grey.shape[-3:] == (1, *spec.shape[1:]):
        opaque = torch.ones_like(grey).expand(*[-1] * (grey.ndim - 3), spec.shape[0] - 3, -1, -1)
        grey = torch.cat([grey.expand(*[-1] * (grey.ndim - 3), 3, -1, -1), opaque], -3)
    x_0 = drawing.one(grey, "the grey picture")
    known = same_grey(x_0)
    x = held_to(drawing, known, method, n, batch_size)
    return into_range(x, grey_of(x_0).cpu(), *spec.bounds) if spec.bounds else x
