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


def shift_by_variance(process: Process, prediction: Prediction, t: Tensor, s: Tensor, std: Tensor) -> Tensor:
    """What turns the posterior mean of a belief that was guided by a gradient g into the mean of the belief without, plus std² g.

    Guidance through the belief (eps - sigma g, x_0 + sigma² / alpha g) moved the posterior's mean by alpha_s / alpha_t times the
    variance of the forward step; for DDPM's chain that is beta_t / sqrt(1 - beta_t) g, nearly the beta_t g of a step of
    large variance. This takes it back, and moves by the variance of the step itself.

    Equation:
        mean + std² g,   g = scale · d log p(y | x_t) / dx_t
    Source:
        Dhariwal & Nichol 2021, algorithm 1, https://arxiv.org/abs/2105.05233; Sohl-Dickstein et al. 2015, section 2.5, https://arxiv.org/abs/1503.03585
    """
    assert prediction.score_shift is not None
    alpha_t = process.alpha(t)
    # At pure noise (alpha = 0) x_0 was not moved.
    ratio = torch.where(alpha_t == 0, torch.zeros_like(alpha_t), process.alpha(s) / alpha_t)
    moved = ratio * process.transition_std(t, s).square()
    return (std.square() - broadcast(moved, prediction.x_t)) * prediction.score_shift


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
    mean_shift: bool = False
    """Let guidance by a gradient (a classifier) move the mean by the step's own variance times the gradient, as in guided diffusion's
    algorithm 1, instead of through the belief."""

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        process = denoiser.process
        prediction = denoiser(x_t, t, **cond)
        small, large = process.posterior_std(t, s), process.transition_std(t, s)
        mean = mean_toward(process, prediction, s, small)
        last = bool(process.sigma(s) == 0)
        std = broadcast(small, x_t) if last else self._std(prediction, small, large)
        if self.mean_shift and prediction.score_shift is not None:
            mean = mean + shift_by_variance(process, prediction, t, s, std)
        return mean if last else mean + std * rng.normal_like(x_t)

    def _std(self, prediction: Prediction, small: Tensor, large: Tensor) -> Tensor:
        if self.noise != "learned":
            return broadcast({"posterior": small, "large": large}[self.noise], prediction.x_t)
        if prediction.variance_fraction is None:
            raise ValueError('ddpm noise "learned" needs a model trained with a learned variance (learn_variance)')
        return learned_std(small, large, prediction.variance_fraction)


@dataclass(frozen=True)
class DDIM(Sampler):
    """Deterministic for eta = 0, and then walks up as well (encoding); DDPM for eta = 1. Takes any sub-sequence of the steps.

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
        if self.eta and s > t:
            raise ValueError("ddim walks up from data to noise only with eta = 0")
        prediction = denoiser(x_t, t, **cond)
        std = self.eta * denoiser.process.posterior_std(t, s) if self.eta else torch.zeros_like(t)
        x_s = mean_toward(denoiser.process, prediction, s, std)
        return x_s + broadcast(std, x_t) * rng.normal_like(x_t) if std > 0 else x_s


@dataclass(frozen=True)
class EulerAncestral(DDIM):
    """k-diffusion's Euler ancestral: Euler's step down to a lower noise level, and fresh noise. It is DDIM's equation with eta = 1, DDPM.

    Equation:
        x_s = x_t + (sigma_down - sigma_t) eps + sigma_up z,   sigma_up = eta sqrt(sigma_s² (sigma_t² - sigma_s²) / sigma_t²),   sigma_down² = sigma_s² - sigma_up²   (alpha = 1)
    Source:
        Crowson 2022, k-diffusion (sample_euler_ancestral), https://github.com/crowsonkb/k-diffusion
    """

    eta: float = 1.0
    """How much of DDPM's noise: 0 none (euler, ddim), 1 all (ddpm)."""
