"""Guidance that a network has learned."""

from __future__ import annotations

import torch
from torch import Tensor

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE, as_told, scale_range
from unstir.data.spec import Condition
from unstir.denoiser import Denoiser
from unstir.errors import UserError
from unstir.prediction import Prediction


class ScaleInput(Denoiser):
    """Tells a network that was distilled from a guided one how much to guide: one evaluation does what guidance needs two for.

    As with ``ClassifierFreeGuidance``, whoever asks may name a scale for each sample, ``guidance_scale`` (B,), in place of the one for all.

    Equation:
        x_0(x_t, w) ~ uncond + w (cond - uncond)
    Source:
        Meng et al. 2023, section 3.1 (with w + 1 for our w), https://arxiv.org/abs/2210.03142

    Args:
        denoiser: whose network takes ``guidance_scale``.
        condition: as the data's description declares it.
        scale: guidance scale.

    Raises:
        UserError: a scale that the network was not trained with.
    """

    def __init__(self, denoiser: Denoiser, condition: Condition, scale: float) -> None:
        super().__init__(denoiser.process)
        low, high = scale_range(condition)
        if not low - 1e-9 <= scale <= high + 1e-9:
            raise UserError(f"this model has learned guidance scales from {low:g} to {high:g}, not {scale:g}")
        self.denoiser = denoiser
        self.condition = condition
        self.scale = scale

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        asked = cond.pop(GUIDANCE_SCALE, torch.full((len(x_t),), self.scale, dtype=torch.float64))
        told = as_told(self.condition, asked, x_t)
        return self.denoiser(x_t, t, **cond, **{GUIDANCE_SCALE: told})
