"""Sampling with a consistency model, whose belief about x_0 is a sample and not a mean."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.process import broadcast
from unstir.samplers.ancestral import mean_toward
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


@dataclass(frozen=True)
class Consistency(Sampler):
    """From noise to a sample in one step; in each further one the sample is noised anew, to a lower level, and drawn out of the noise again.

    Only for models that were trained for it (``ConsistencyObjective``): a diffusion model's belief at high noise is the mean of
    all data that there may be behind it. It is the line of DDIM and DDPM with all of the noise fresh, std = sigma_s.

    Equation:
        x_s = alpha_s f(x_t, t) + sigma_s z
    Source:
        Song, Dhariwal, Chen & Sutskever 2023, algorithm 1, https://arxiv.org/abs/2303.01469 (with the boundary at 0 instead of at epsilon)
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        if s > t:
            raise ValueError("consistency draws noise anew in every step: it does not walk up from data to noise")
        std = denoiser.process.sigma(s)
        x_s = mean_toward(denoiser.process, denoiser(x_t, t, **cond), s, std)
        return x_s + broadcast(std, x_t) * rng.normal_like(x_t) if std > 0 else x_s
