"""Edits with a model that draws pictures of a CLIP's vectors (unCLIP): variations, and a change of what is said of a picture.

A picture is two things to such a model: its vector z_i, which says what is seen, and the noise x_T that the sampler turns into this very picture
of it. Either can be kept while the other is changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unstir.clip import Clip
from unstir.conditioning.derived.image_embedding import NAME, ByClip
from unstir.drawn import computing
from unstir.editing.drawing import Drawing, editing_settings
from unstir.editing.interpolate import decode, invert, invertible_settings, slerp
from unstir.errors import UserError
from unstir.model import Model
from unstir.recipes import SamplingConfig
from unstir.samplers import DDIM
from unstir.sampling import sample


def clip_of(model: Model) -> Clip:
    """The CLIP whose vectors a model draws pictures of.

    Raises:
        UserError: it draws none of such vectors, or the CLIP is gone.
    """
    derived = computing(model)
    if not isinstance(derived, ByClip):
        raise UserError(
            "this model does not draw pictures of a CLIP's vectors; train one that does: unstir train unclip"
        )
    return derived.clip


def embedding(model: Model, x_0: Tensor) -> Tensor:
    """(B, *shape) samples in model units -> their unit vectors z_i (B, width).

    Raises:
        UserError: as ``clip_of``.
    """
    return clip_of(model).embedding(x_0)


def text_diff(z_i: Tensor, z_t: Tensor, z_t0: Tensor, theta: Tensor) -> Tensor:
    """Vectors on the arc from that of a picture to the direction in which one caption differs from another.

    Equation:
        z_theta = slerp(z_i, z_d, theta),   z_d = norm(z_t - z_t0)
    Source:
        Ramesh, Dhariwal, Nichol, Chu & Chen 2022, section 3.3, https://arxiv.org/abs/2204.06125

    Args:
        z_i, z_t, z_t0: (width,) unit vectors of the picture, of the caption that is wanted, and of the one that fits the picture.
        theta: (n,) shares of the way, 0 to 1; the paper's are at most between 0.25 and 0.5.

    Returns:
        (n, width) unit vectors.

    Raises:
        UserError: two captions with one vector.
    """
    if bool((z_t - z_t0).norm() < 1e-6):
        raise UserError("the two captions mean the same to the CLIP, so there is no direction from one to the other")
    return slerp(z_i, F.normalize(z_t - z_t0, dim=0), theta)


def variations(
    model: Model,
    x_0: Tensor,
    *,
    n: int = 8,
    keep: float = 0.0,
    settings: SamplingConfig | None = None,
    seed: int = 0,
    batch_size: int = 64,
    **cond: Any,
) -> Tensor:
    """Samples that show what a given one shows, as the CLIP sees it: drawn of its vector.

    With ``keep`` they also start from the very noise that leads to the given sample, and DDIM's fresh noise does the rest: the less of it, the nearer
    they stay, in what the vector does not say as well. 1 gives the sample itself, up to the error of the way to its noise and back.

    Equation:
        x ~ decoder(x_T, z_i = CLIP(x_0)) by DDIM with eta = 1 - keep,   x_T the DDIM inversion of x_0 given z_i;   keep = 0: x_T ~ N(0, I)
    Source:
        Ramesh et al. 2022, sections 3 and 3.1, https://arxiv.org/abs/2204.06125

    Args:
        model: trained with image embeddings (unstir train unclip).
        x_0: (*shape) in model units.
        keep: 0 to 1; more than 0 samples by DDIM.
        n, settings, seed, batch_size, cond: as for ``inpaint``; by default with ``keep`` 50 steps without guidance.

    Returns:
        (n, *shape) in model units.

    Raises:
        UserError: a share outside [0, 1], another shape than the model's data, a model without image embeddings.
    """
    if not 0 <= keep <= 1:
        raise UserError(f"--keep must lie between 0 and 1, not {keep:g}")
    settings = settings or variation_settings(model.recipe.sampling, keep)
    given = {NAME: embedding(model, Drawing.of(model, settings, seed, {}).one(x_0)), **cond}
    x_T: Tensor | None = None
    if keep:
        settings = replace(settings, sampler=DDIM(eta=1 - keep))
        x_T = invert(model, x_0.reshape(1, *model.spec.shape), settings=replace(settings, sampler=DDIM()), **given)
    drawing, pieces = Drawing.of(model, settings, seed, given), []
    times = drawing.times()
    for rng, conditions in drawing.batches(n, batch_size):
        fresh = drawing.process.prior_sample(drawing.normal(rng), times[0])
        x = fresh if x_T is None else x_T.expand_as(fresh)
        pieces.append(model.decode(sample(drawing.denoiser(), settings.sampler, times, x, rng, conditions)).cpu())
    return torch.cat(pieces)


def variation_settings(recommended: SamplingConfig, keep: float) -> SamplingConfig:
    """How variations are drawn where nothing else is said: as the recipe recommends; where the noise is kept, in enough steps to find it."""
    return invertible_settings(recommended) if keep else editing_settings(recommended)


def restyle(
    model: Model,
    x_0: Tensor,
    to: str,
    before: str = "",
    *,
    strength: float = 0.4,
    n: int = 1,
    settings: SamplingConfig | None = None,
    **cond: Any,
) -> Tensor:
    """A sample changed in the direction in which one caption differs from another, and otherwise kept: its vector is turned that way, and its
    noise stays.

    Args:
        model: trained with image embeddings (unstir train unclip).
        x_0: (*shape) in model units.
        to: caption of what is wanted.
        before: caption of what the sample is; by default the nearest of the captions that the CLIP knows (``named``).
        strength: share of the way, theta; 0 gives the sample back, up to the error of the way to its noise and back.
        n: 1, or as many steps of the way from 0 to ``strength``.
        settings, cond: as for ``interpolate``.

    Returns:
        (n, *shape) in model units.

    Raises:
        UserError: a strength outside [0, 1], an empty caption, another shape than the model's data.
    """
    if not 0 <= strength <= 1:
        raise UserError(f"the strength must lie between 0 and 1, not {strength:g}")
    if not to.strip():
        raise UserError('what should it become? say it with --to-text "..."')
    settings = settings or invertible_settings(model.recipe.sampling)
    x_0 = Drawing.of(model, settings, 0, {}).one(x_0)
    z_i = embedding(model, x_0)
    before = before.strip() or named(model, x_0)
    z_t, z_t0 = clip_of(model).understood([to, before])
    theta = (
        torch.linspace(0, strength, n, dtype=torch.float64) if n > 1 else torch.tensor([strength], dtype=torch.float64)
    )
    try:
        z = text_diff(z_i[0], z_t, z_t0, theta) if strength else z_i.expand(n, -1)
    except UserError as error:  # which captions they are: one of them may not have been given
        raise UserError(f'{error} ("{before}", "{to}")') from None
    x_T = invert(model, x_0, settings=settings, **{NAME: z_i, **cond})
    return decode(model, x_T.expand(n, *x_T.shape[1:]), settings=settings, **{NAME: z, **cond}).cpu()


def named(model: Model, x_0: Tensor) -> str:
    """Of the captions of its data that the CLIP's description keeps the one that is nearest to a sample (1, *shape).

    Raises:
        UserError: it keeps none.
    """
    clip = clip_of(model)
    captions = [caption for caption in clip.caption.names if caption.strip()]
    if not captions:
        raise UserError('say what the picture shows now: --from-text "..."')
    return captions[int((clip.understood(captions) @ embedding(model, x_0)[0]).argmax())]
