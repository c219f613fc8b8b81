"""Classifier-free guidance, as a Denoiser around a Denoiser."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE
from unstir.conditioning.null import null_like
from unstir.denoiser import Denoiser
from unstir.guidance.interval import EVERYWHERE, Interval, scale_within
from unstir.guidance.rescale import restore_std
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
    cheaper and, at high noise, better. Whoever asks may name a scale for each sample, ``guidance_scale`` (B,), in place of the one for all.

    Equation:
        uncond + scale (cond - uncond)
    Source:
        Ho & Salimans 2022, eq. 6 (with w = scale - 1), https://arxiv.org/abs/2207.12598; interval: Kynkäänniemi et al. 2024, section 3, https://arxiv.org/abs/2404.07724

    Args:
        denoiser: trained with its conditions dropped out some of the time.
        scale: guidance scale.
        interval: (lowest, highest) noise level sigma / alpha at which to guide.
        rescale: how much of the contrast that guidance adds is taken back, 0 to 1 (``restore_std``; the paper: 0.7).
        always: conditions that the unconditional belief is told as well: the smaller picture that a stage of a cascade enlarges.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float,
        interval: Interval = EVERYWHERE,
        *,
        rescale: float = 0.0,
        always: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.scale = scale
        self.interval = interval
        self.rescale = rescale
        self.always = always

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        wanted = cond.pop(GUIDANCE_SCALE, self.scale)
        asked = cond.keys() - self.always
        scale = scale_within(self.process, t, wanted, self.interval, x_t, outside=1.0) if asked else None
        if scale is None:
            return self.denoiser(x_t, t, **cond)
        both = {name: torch.cat([null_like(value) if name in asked else value, value]) for name, value in cond.items()}
        t_both = t if t.ndim == 0 else torch.cat([t, t])
        uncond, conditional = batched(self.denoiser(torch.cat([x_t, x_t]), t_both, **both), 2)
        return restore_std(uncond.extrapolate(conditional, scale), conditional, self.rescale)
