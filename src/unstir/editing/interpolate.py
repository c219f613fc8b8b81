"""Between two samples: through noise that both share (DDPM), or through the latents that the model gives them (DDIM), and with these through
the vectors that a CLIP does (unCLIP)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unstir.conditioning.derived.image_embedding import NAME
from unstir.editing.drawing import Drawing, editing_settings, last_steps
from unstir.errors import UserError, did_you_mean
from unstir.model import Model
from unstir.recipes import SamplingConfig
from unstir.samplers import Heun
from unstir.sampling import encode, sample

STEPS = 50
"""Steps of the way to the latents and back where nobody said how many; the round trip's error falls with them."""


def slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """From a to b on the arc, so that what lies between two vectors of noise is as long as they are.

    Equation:
        sin((1 - w) theta) / sin(theta) a + sin(w theta) / sin(theta) b,   cos(theta) = a · b / (|a| |b|)
    Source:
        Shoemake 1985, https://doi.org/10.1145/325334.325242; Song, Meng & Ermon 2021, section 5.3 and appendix D.5, https://arxiv.org/abs/2010.02502

    Args:
        a, b: (*shape).
        weights: (n,): 0 is a, 1 is b.

    Returns:
        (n, *shape).
    """
    one, two, w = (v.cpu().double() for v in (a.flatten(), b.flatten(), weights))  # Apple's GPUs have no float64
    theta = torch.acos((one @ two / (one.norm() * two.norm())).clamp(-1, 1))
    if theta.sin() < 1e-6:  # (anti)parallel: there is no one arc
        left, right = 1 - w, w
    else:
        left, right = ((1 - w) * theta).sin() / theta.sin(), (w * theta).sin() / theta.sin()
    return (left[:, None] * one + right[:, None] * two).reshape(-1, *a.shape).to(a.dtype).to(a.device)


def invertible_settings(recommended: SamplingConfig) -> SamplingConfig:
    """How to walk to the latents and back where nothing else is said: DDIM's ODE by Heun's rule in enough steps, unguided.

    For the same number of evaluations Heun's round trip loses far less than that of DDIM, which is Euler's rule.
    """
    return replace(editing_settings(recommended), sampler=Heun(), steps=STEPS, guidance_scale=1.0)


def invert(model: Model, x_0: Tensor, *, settings: SamplingConfig | None = None, **cond: Any) -> Tensor:
    """DDIM inversion: the latents (B, *shape) of samples (B, *shape) in model units. ``decode`` leads back.

    The noise that the samples would be drawn from; of a model in an autoencoder's latents it has their shape, (B, *latent_spec.shape).

    Equation:
        x_s = alpha_s x_0(x_t) + sigma_s eps(x_t),   s > t
    Source:
        Song, Meng & Ermon 2021, section 4.3, https://arxiv.org/abs/2010.02502

    Raises:
        UserError: a sampler that draws noise, or an unknown condition.
    """
    drawing = Drawing.of(model, settings or invertible_settings(model.recipe.sampling), 0, cond)
    rng, conditions = drawing.rows(range(len(x_0)))
    z_0 = model.encode(x_0)
    try:
        return encode(drawing.denoiser(), drawing.settings.sampler, drawing.times(), z_0, rng, conditions)
    except ValueError as error:  # which samplers walk up, the core knows
        raise UserError(f"{error}; use --sampler ddim (eta 0) or heun (without churn)") from None


def decode(model: Model, latents: Tensor, *, settings: SamplingConfig | None = None, **cond: Any) -> Tensor:
    """The samples (B, *shape) of latents (B, *shape); with the settings of ``invert`` its inverse, up to the steps' error."""
    drawing = Drawing.of(model, settings or invertible_settings(model.recipe.sampling), 0, cond)
    rng, conditions = drawing.rows(range(len(latents)))
    latents = latents.to(model.device)
    return model.decode(sample(drawing.denoiser(), drawing.settings.sampler, drawing.times(), latents, rng, conditions))


def _by_latents(drawing: Drawing, a: Tensor, b: Tensor, weights: Tensor, strength: float) -> Tensor:
    """DDIM's way; the strength has no part in it."""
    given: dict[str, Any] = {"settings": drawing.settings, **drawing.cond}
    latents = invert(drawing.model, torch.cat([a, b]), **given)
    return decode(drawing.model, slerp(latents[0], latents[1], weights), **given)


def _by_embedding(drawing: Drawing, a: Tensor, b: Tensor, weights: Tensor, strength: float) -> Tensor:
    """unCLIP's way: both the vectors of the ends and the noise that leads to them are turned from one to the other."""
    from unstir.editing.embedding import embedding  # which inverts and decodes as this module does

    ends = torch.cat([a, b])
    z = embedding(drawing.model, ends)
    given: dict[str, Any] = {"settings": drawing.settings, **drawing.cond, NAME: z}
    x_T = invert(drawing.model, ends, **given)
    given[NAME] = slerp(z[0], z[1], weights)
    return decode(drawing.model, slerp(x_T[0], x_T[1], weights), **given)


def _by_noise(drawing: Drawing, a: Tensor, b: Tensor, weights: Tensor, strength: float) -> Tensor:
    """DDPM's way; every frame has the same noise, at the start and in every step, so that only the weight changes."""
    w = weights.to(a.device, a.dtype).reshape(-1, *[1] * (a.ndim - 1))
    times = last_steps(drawing.times(), strength)
    if len(times) == 1:
        return (1 - w) * a + w * b
    rng, conditions = drawing.rows([0] * len(weights))
    eps = drawing.normal(rng)
    a_t, b_t = (drawing.process.add_noise(drawing.model.encode(x), times[0], eps) for x in (a, b))
    x_t = (1 - w) * a_t + w * b_t
    return drawing.model.decode(sample(drawing.denoiser(), drawing.settings.sampler, times, x_t, rng, conditions))


INTERPOLATIONS: dict[str, Callable[[Drawing, Tensor, Tensor, Tensor, float], Tensor]] = {
    "ddim": _by_latents,
    "ddpm": _by_noise,
    "embedding": _by_embedding,
}
DEFAULTS: dict[str, Callable[[SamplingConfig], SamplingConfig]] = {
    "ddim": invertible_settings,
    "ddpm": editing_settings,
    "embedding": invertible_settings,
}
"""By method: what becomes of the recipe's settings where no others are given."""


def interpolate(
    model: Model,
    a: Tensor,
    b: Tensor,
    *,
    n: int = 9,
    method: str = "ddim",
    strength: float = 0.5,
    settings: SamplingConfig | None = None,
    seed: int = 0,
    **cond: Any,
) -> Tensor:
    """n samples from one to the other, both ends among them.

    "ddim" encodes both by the reversed probability flow and decodes what lies on the arc between their latents: the ends come back up to
    the error of the round trip. "ddpm" adds the same noise to both and samples from mixtures of the two: the more noise, the freer
    the middle, and the less the ends are the originals. "embedding", of a model trained with image embeddings, is ddim with the vectors that the
    CLIP gives both turned in the same way: what lies between shows something between.

    Equation:
        ddim: decode(slerp(encode(a), encode(b), w));   ddpm: x_t = (1 - w) (alpha_t a + sigma_t eps) + w (alpha_t b + sigma_t eps), then sampling from t;   embedding: decode(slerp(x_T(a), x_T(b), w), z_i = slerp(z_a, z_b, w))
    Source:
        Song, Meng & Ermon 2021, section 5.3, https://arxiv.org/abs/2010.02502; Ho, Jain & Abbeel 2020, section 4.4, https://arxiv.org/abs/2006.11239; Ramesh et al. 2022, section 3.2, https://arxiv.org/abs/2204.06125

    Args:
        model: trained on data like them.
        a, b: (*shape) in model units.
        n: how many, at least 2.
        method: "ddim", "ddpm" or "embedding".
        strength: of "ddpm": the share of the steps that is noised and sampled.
        settings: of sampling; by default for "ddim" and "embedding" 50 steps of Heun's rule, unguided (the paper's are ``DDIM()``); for "ddpm" the recipe's.
        seed: of the noise of "ddpm".
        cond: conditions as for ``Model.sample``.

    Returns:
        (n, *shape) in model units.

    Raises:
        UserError: fewer than two, an unknown method, a sampler that draws noise for "ddim", other shapes than the model's data.
    """
    if n < 2:
        raise UserError(f"an interpolation has two ends: ask for at least 2, not {n}")
    if method not in INTERPOLATIONS:
        raise UserError(f"unknown method '{method}'; {did_you_mean(method, INTERPOLATIONS)}")
    drawing = Drawing.of(model, settings or DEFAULTS[method](model.recipe.sampling), seed, cond)
    ends = drawing.one(a, "the first sample"), drawing.one(b, "the second sample")
    weights = torch.linspace(0, 1, n, dtype=torch.float64)
    return INTERPOLATIONS[method](drawing, *ends, weights, strength).cpu()
