"""Solvers of the probability-flow ODE, in the form that needs no derivatives and holds at both ends of every process:

    dx = x_0 dalpha + eps dsigma

(x_0 and eps being the beliefs at (x, t)). It is Song et al. 2021, eq. 13, with alpha and sigma themselves as the variables of
integration: Euler's rule is then DDIM under every process, and under EDM's and rectified flow's it is what their papers write.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.prediction import Prediction
from unstir.process import Process, broadcast
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


def along(process: Process, prediction: Prediction, t: Tensor, s: Tensor) -> Tensor:
    """The change of x from t to s if the belief stayed as it is: x_0 (alpha_s - alpha_t) + eps (sigma_s - sigma_t).

    Equation:
        dx = x_0 dalpha + eps dsigma
    Source:
        Song et al. 2021, eq. 13, https://arxiv.org/abs/2011.13456; Karras et al. 2022, eq. 4, https://arxiv.org/abs/2206.00364
    """
    x = prediction.x_t
    d_alpha = broadcast(process.alpha(s) - process.alpha(t), x)
    d_sigma = broadcast(process.sigma(s) - process.sigma(t), x)
    return d_alpha * prediction.x_0 + d_sigma * prediction.eps


@dataclass(frozen=True)
class Churn:
    """EDM's stochastic detour: a little fresh noise up to t_hat > t before each step down. Noise levels are sigma / alpha.

    t_hat never passes t_max, where networks are not trained; the paper's does in its first step if S_tmax >= sigma_max.

    Equation:
        sigma_hat = (1 + gamma) sigma,   x_hat = x + sqrt(sigma_hat² - sigma²) S_noise z,   gamma = min(S_churn / N, sqrt(2) - 1)
    Source:
        Karras, Aittala, Aila & Laine 2022, algorithm 2, lines 4-6, https://arxiv.org/abs/2206.00364
    """

    churn: float = 0.0
    """S_churn / N: added noise per step as a fraction of the noise level (EDM's S_churn divided by the number of steps)."""
    churn_from: float = 0.0
    """S_tmin: lowest noise level at which noise is added."""
    churn_to: float = math.inf
    """S_tmax: highest noise level at which noise is added."""
    churn_noise: float = 1.0
    """S_noise: standard deviation of the added noise."""

    def stir(self, process: Process, x_t: Tensor, t: Tensor, rng: SampleNoise) -> tuple[Tensor, Tensor]:
        """(x_t, t) -> (x_hat, t_hat)."""
        ratio = process.sigma(t) / process.alpha(t)
        gamma = min(self.churn, math.sqrt(2) - 1)
        if gamma == 0 or not self.churn_from <= ratio <= self.churn_to or ratio.isinf():
            return x_t, t
        t_hat = process.t_at_noise_ratio(ratio * (1 + gamma)).clamp(min=t)
        scale = broadcast(process.alpha(t_hat) / process.alpha(t), x_t)
        std = broadcast(process.transition_std(t_hat, t), x_t)
        return scale * x_t + self.churn_noise * std * rng.normal_like(x_t), t_hat


@dataclass(frozen=True)
class Euler(Churn, Sampler):
    """First order, one evaluation a step. Without churn it is DDIM.

    Equation:
        x_s = x_t + x_0 (alpha_s - alpha_t) + eps (sigma_s - sigma_t)
    Source:
        Karras, Aittala, Aila & Laine 2022, algorithms 1-2, lines 4-5, https://arxiv.org/abs/2206.00364
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        x_hat, t_hat = self.stir(denoiser.process, x_t, t, rng)
        return x_hat + along(denoiser.process, denoiser(x_hat, t_hat, **cond), t_hat, s)


@dataclass(frozen=True)
class Heun(Churn, Sampler):
    """Second order, two evaluations a step (one in the step to the data): EDM's sampler.

    Equation:
        x_s = x_t + (along(t) + along(s)) / 2,   the mean of Euler's increments with the beliefs at both ends of the step
    Source:
        Karras, Aittala, Aila & Laine 2022, algorithms 1 and 2, https://arxiv.org/abs/2206.00364
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        process = denoiser.process
        x_hat, t_hat = self.stir(process, x_t, t, rng)
        here = along(process, denoiser(x_hat, t_hat, **cond), t_hat, s)
        if process.sigma(s) == 0:
            return x_hat + here
        there = along(process, denoiser(x_hat + here, s, **cond), t_hat, s)
        return x_hat + (here + there) / 2
