"""Inpainting: some pixels are known, the others are wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unstir.conditioning.derived import Hole
from unstir.editing.conditional import METHODS, ByBelief, Method, complete, method_of
from unstir.editing.drawing import Drawing
from unstir.errors import UserError
from unstir.model import Model
from unstir.recipes import Recipe, SamplingConfig
from unstir.samplers import Consistency
from unstir.samplers.replacement import Known

KNOWN = "known"
"""The condition of a model that was trained to fill holes: the sample around one, and NaN in it."""


def outside(fill: Tensor, x_0: Tensor) -> Known:
    """What is known of x_0 where not to fill: A picks pixels.

    Equation:
        project(x) = (1 - m) x,   complement(x) = m x,   m = 1 where to fill
    Source:
        Song et al. 2021, appendix I.2 (imputation), https://arxiv.org/abs/2011.13456

    Args:
        fill: bool, broadcastable to a sample (*shape).
        x_0: (1, *shape) or (B, *shape).
    """
    kept = ~fill
    zero = torch.zeros((), dtype=x_0.dtype, device=x_0.device)
    # Chosen, not multiplied: nothing that stands where to fill, not even NaN, gets through.
    return Known(x_0, lambda x: torch.where(kept, x, zero), lambda x: torch.where(fill, x, zero))


def latents_outside(model: Model, fill: Tensor, x_0: Tensor) -> Known:
    """The latents that are known around a hole: those of whose pixels none is in it.

    An encoder sees further than one latent's own pixels, so the hole is covered first, by the mean of what is known: what stood there has no
    part in the latents beside it.

    Args:
        fill: bool, broadcastable to a sample (*shape).
        x_0: (1, *shape).
    """
    if not model.codec.latent:
        return outside(fill, x_0)
    holed = x_0.masked_fill(fill, torch.nan)
    mean = holed.flatten(2).nanmean(2).nan_to_num(nan=0.0)  # (1, C)
    covered = torch.where(fill, mean.reshape(*mean.shape, *[1] * (x_0.ndim - 2)), x_0)  # (1, C, *grid)
    return outside(model.codec.cells(fill.broadcast_to(x_0.shape[1:])), model.encode(covered))


@dataclass(frozen=True)
class ByModel(ByBelief):
    """The model was trained to fill holes, and is told what is around this one: no repetitions, no gradients."""


INPAINTERS: dict[str, type[Method]] = {"model": ByModel, **METHODS}


def method_for(recipe: Recipe) -> str:
    """The name of the method for a run, where nobody chose one: it can do it itself, it is a consistency model, or RePaint."""
    if isinstance(recipe.derived, Hole):
        return "model"
    return "belief" if isinstance(recipe.sampling.sampler, Consistency) else "repaint"


def inpaint(
    model: Model,
    x_0: Tensor,
    fill: Tensor,
    *,
    n: int = 1,
    method: str | Method | None = None,
    settings: SamplingConfig | None = None,
    seed: int = 0,
    batch_size: int = 64,
    **cond: Any,
) -> Tensor:
    """Fills a part of a sample so that it fits the rest, which stays exactly as it is.

    A model in an autoencoder's latents is held to those of whose pixels all are known; its result is decoded, and the known pixels are put into
    it at the end, so that a fine seam may show where the autoencoder is coarse.

    Args:
        model: trained on data like it; any model will do. One that was trained to fill holes (``Hole``: recipe glide-inpaint) is told
            what is around this one.
        x_0: (*shape) in model units: pictures in [-1, 1].
        fill: true where to fill, broadcastable to (*shape), e.g. (1, H, W).
        n: how many fillings.
        method: "model" (of a model that was trained to: its default), "belief" (a consistency model's), "repaint" (any other's),
            "replacement" or "gradient", or a Method with settings of its own, ``ByResampling(20, jump=5)``.
        settings: of sampling; by default the recipe's, without labels.
        seed: filling i depends on (seed, i) alone.
        batch_size: how many at a time.
        cond: conditions as for ``Model.sample``.

    Returns:
        (n, *shape) in model units.

    Raises:
        UserError: a mask with nothing to fill, another shape than the model's data, an unknown method or condition, or method "model"
            where the model was not trained to fill holes.
    """
    chosen = method_of(method or method_for(model.recipe), INPAINTERS)
    drawing = Drawing.of(model, settings, seed, cond)
    x_0 = drawing.one(x_0)
    fill = fill.to(model.device, torch.bool)
    if fill.ndim > x_0.ndim - 1 or any(m not in (1, k) for m, k in zip(fill.shape[::-1], x_0.shape[::-1])):
        raise UserError(f"the mask has the shape {tuple(fill.shape)}, which does not fit data of {model.spec.shape}")
    if not bool(fill.any()):
        raise UserError("the mask marks nothing to fill (white in a picture, true in an array)")
    if isinstance(chosen, ByModel):
        drawing = _told(drawing, x_0.masked_fill(fill, float("nan")))
    within = latents_outside(model, fill, x_0)
    return complete(drawing, outside(fill, x_0), chosen, n, batch_size, within)


def _told(drawing: Drawing, around: Tensor) -> Drawing:
    """The same with a model that is told what is around the hole."""
    if KNOWN not in drawing.model.spec.conditions:
        raise UserError(
            "this model was not trained to fill holes: leave --method out, or train it to: unstir train glide-inpaint --base RUN"
        )
    return replace(drawing, cond={**drawing.cond, KNOWN: around})
