"""SDEdit: a sample is drowned in noise as far as it may change, and drawn out of it anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unstir.editing.drawing import Drawing, last_steps
from unstir.model import Model
from unstir.recipes import SamplingConfig
from unstir.sampling import sample


def image_to_image(
    model: Model,
    x_0: Tensor,
    strength: float = 0.5,
    *,
    n: int = 1,
    settings: SamplingConfig | None = None,
    seed: int = 0,
    batch_size: int = 64,
    **cond: Any,
) -> Tensor:
    """New samples that resemble a given one, the less the greater the strength.

    Equation:
        x_t = alpha_t x_0 + sigma_t eps   at the t where ``strength`` of the steps are left, then sampling from there
    Source:
        Meng et al. 2022, algorithm 1, https://arxiv.org/abs/2108.01073

    Args:
        model: trained on data like what is wanted.
        x_0: (*shape) in model units; it may be crude: strokes, a collage.
        strength: share of the grid's steps: 0 gives the sample back as it is, 1 a sample that has nothing to do with it, the very one
            that ``model.sample`` draws for this seed.
        n, settings, seed, batch_size, cond: as for ``inpaint``.

    Returns:
        (n, *shape) in model units.

    Raises:
        UserError: a strength outside [0, 1], another shape than the model's data, an unknown condition.
    """
    drawing = Drawing.of(model, settings, seed, cond)
    x_0 = drawing.one(x_0)
    times = last_steps(drawing.times(), strength)
    z_0, pieces = model.encode(x_0), []
    for rng, conditions in drawing.batches(n, batch_size):
        if strength == 0:
            pieces.append(x_0.expand(len(rng.indices), *x_0.shape[1:]).cpu())
            continue
        eps = drawing.normal(rng)
        start = drawing.process.add_noise(z_0, times[0], eps)
        x = drawing.process.prior_sample(eps, times[0]) if strength == 1 else start
        x = sample(drawing.denoiser(), drawing.settings.sampler, times, x, rng, conditions)
        pieces.append(model.decode(x).cpu())
    return torch.cat(pieces)
