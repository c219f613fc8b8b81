"""Classifier-free guidance, as a Denoiser around a Denoiser."""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from torch import Tensor

from unstir.conditioning.null import null_like
from unstir.denoiser import Denoiser
from unstir.prediction import Prediction


def batched(prediction: Prediction, parts: int) -> tuple[Prediction, ...]:
    """One prediction for ``parts`` batches laid end to end -> one for each."""

    def pieces(value: Tensor | None) -> tuple[Tensor | None, ...]:
        if value is None or value.ndim == 0:
            return (value,) * parts
        return value.chunk(parts)

    columns = {field.name: pieces(getattr(prediction, field.name)) for field in fields(prediction)}
    return tuple(Prediction(**{name: column[i] for name, column in columns.items()}) for i in range(parts))  # type: ignore[arg-type]


class ClassifierFreeGuidance(Denoiser):
    """Moves the conditional belief further away from the unconditional one. Both are asked in one call of twice the batch.

    Scale 1 is off, 0 is unconditional. Outside the interval of noise levels only the conditional belief is asked, which is
    cheaper and, at high noise, better.

    Equation:
        uncond + scale (cond - uncond)
    Source:
        Ho & Salimans 2022, eq. 6 (with w = scale - 1), https://arxiv.org/abs/2207.12598; interval: Kynkäänniemi et al. 2024, section 3, https://arxiv.org/abs/2404.07724

    Args:
        denoiser: trained with its conditions dropped out some of the time.
        scale: guidance scale.
        interval: (lowest, highest) noise level sigma / alpha at which to guide.
    """

    def __init__(self, denoiser: Denoiser, scale: float, interval: tuple[float, float] = (0.0, math.inf)) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.scale = scale
        self.interval = interval

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        ratio = self.process.sigma(t) / self.process.alpha(t)
        inside = (ratio >= self.interval[0]) & (ratio <= self.interval[1])
        if self.scale == 1 or not cond or not bool(inside.any()):
            return self.denoiser(x_t, t, **cond)
        both = {name: torch.cat([null_like(value), value]) for name, value in cond.items()}
        t_both = t if t.ndim == 0 else torch.cat([t, t])
        uncond, conditional = batched(self.denoiser(torch.cat([x_t, x_t]), t_both, **both), 2)
        scale = torch.where(inside, self.scale, torch.ones_like(ratio))  # with two numbers it would be float32
        scale = scale if scale.ndim == 0 else scale.to(x_t.dtype).to(x_t.device).reshape(-1, *[1] * (x_t.ndim - 1))
        return uncond.extrapolate(conditional, scale)
