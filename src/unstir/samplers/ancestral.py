"""Samplers that draw from the reverse chain: DDPM's and DDIM's, which differ by how much fresh noise replaces the old."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.prediction import Prediction
from unstir.process import Process, broadcast
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


def mean_toward(process: Process, prediction: Prediction, s: Tensor, std: Tensor) -> Tensor:
    """The mean of x_s when ``std`` of its noise will be fresh and the rest is the noise believed to be in x_t.

    One line for three papers: std = 0 is DDIM, the posterior's is DDPM, sigma_s is multistep consistency sampling.

    Equation:
        x_s = alpha_s x_0 + sqrt(sigma_s² - std²) eps   [+ std z]
    Source:
        Song, Meng & Ermon 2021, eq. 12, https://arxiv.org/abs/2010.02502
    """
    x_t = prediction.x_t
    old = (process.sigma(s).square() - std.square()).clamp(min=0).sqrt()
    return broadcast(process.alpha(s), x_t) * prediction.x_0 + broadcast(old, x_t) * prediction.eps


def learned_std(small: Tensor, large: Tensor, fraction: Tensor) -> Tensor:
    """The reverse step's standard deviation where the network learns it, between the posterior's and the forward step's.

    Equation:
        std² = exp(v log large² + (1 - v) log small²)
    Source:
        Nichol & Dhariwal 2021, eq. 15, https://arxiv.org/abs/2102.09672
    """
    return torch.exp(fraction * broadcast(large.log(), fraction) + (1 - fraction) * broadcast(small.log(), fraction))


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling: the mean is the posterior's, the noise as ``noise`` says; none in the last step to the data.

    Equation:
        x_s = mu(x_t, x_0) + std z,   mu the mean of q(x_s | x_t, x_0)
    Source:
        Ho, Jain & Abbeel 2020, eqs. 6-7, 11 and algorithm 2, https://arxiv.org/abs/2006.11239
    """

    noise: Literal["posterior", "large", "learned"] = "posterior"
    """Standard deviation of the fresh noise: sqrt(beta_tilde) "posterior", sqrt(beta) "large", or between, "learned"."""

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        process = denoiser.process
        prediction = denoiser(x_t, t, **cond)
        small, large = process.posterior_std(t, s), process.transition_std(t, s)
        mean = mean_toward(process, prediction, s, small)
        if process.sigma(s) == 0:
            return mean
        return mean + self._std(prediction, small, large) * rng.normal_like(x_t)

    def _std(self, prediction: Prediction, small: Tensor, large: Tensor) -> Tensor:
        if self.noise != "learned":
            return broadcast({"posterior": small, "large": large}[self.noise], prediction.x_t)
        if prediction.variance_fraction is None:
            raise ValueError('ddpm noise "learned" needs a model trained with a learned variance (learn_variance)')
        return learned_std(small, large, prediction.variance_fraction)


@dataclass(frozen=True)
class DDIM(Sampler):
    """Deterministic for eta = 0, DDPM for eta = 1. Takes any sub-sequence of the steps.

    Equation:
        x_s = alpha_s x_0 + sqrt(sigma_s² - std²) eps + std z,   std = eta · posterior_std(t, s)
    Source:
        Song, Meng & Ermon 2021, eqs. 12 and 16, https://arxiv.org/abs/2010.02502
    """

    eta: float = 0.0
    """How much of DDPM's noise: 0 none, 1 all."""

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        prediction = denoiser(x_t, t, **cond)
        std = self.eta * denoiser.process.posterior_std(t, s)
        x_s = mean_toward(denoiser.process, prediction, s, std)
        return x_s + broadcast(std, x_t) * rng.normal_like(x_t) if std > 0 else x_s
