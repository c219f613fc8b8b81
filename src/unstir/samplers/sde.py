"""Solvers of the reverse-time SDE, which undoes the forward one, dx = f x dt + g dw, with fresh noise instead of the old."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.prediction import Prediction
from unstir.process import Process, broadcast
from unstir.samplers.ancestral import mean_toward
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


def reverse_drift(process: Process, prediction: Prediction, t: Tensor) -> Tensor:
    """What the reverse SDE does to x for every unit of time, its noise left out (time runs down: a step has dt < 0).

    Equation:
        dx = [f(t) x - g(t)² score] dt + g(t) dw
    Source:
        Song et al. 2021, eq. 6, https://arxiv.org/abs/2011.13456; Anderson 1982, https://doi.org/10.1016/0304-4149(82)90051-5
    """
    x = prediction.x_t
    f, g_squared = process.drift(t), process.diffusion_squared(t)
    return broadcast(f, x) * x - broadcast(g_squared, x) * prediction.score


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """The plainest solver of the reverse SDE: first order, one evaluation a step, for hundreds of steps.

    The step to the data is the belief about them: the SDE would leave the last level's noise. From alpha = 0, where f and g
    are infinite and x_t says nothing of x_0, x_s is drawn afresh around the belief.

    Equation:
        x_s = x_t + [f(t) x_t - g(t)² score] (s - t) + g(t) sqrt(t - s) z
    Source:
        Song et al. 2021, eq. 6 and section 4.1, https://arxiv.org/abs/2011.13456
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        process = denoiser.process
        prediction = denoiser(x_t, t, **cond)
        sigma_s = process.sigma(s)
        if sigma_s == 0:
            return prediction.x_0
        z = rng.normal_like(x_t)
        if process.alpha(t) == 0:
            return mean_toward(process, prediction, s, sigma_s) + broadcast(sigma_s, x_t) * z
        std = (process.diffusion_squared(t) * (t - s)).clamp(min=0).sqrt()
        return x_t + reverse_drift(process, prediction, t) * float(s - t) + broadcast(std, x_t) * z


@dataclass(frozen=True)
class ReverseDiffusion(Sampler):
    """The reverse SDE discretised as the forward one is: what one forward step s -> t adds is taken back at t.

    Needs no derivatives. For exploding noise (alpha = 1) its mean is DDPM's. The step to the data is the belief about them; the
    paper's, the formula without its noise, is the same up to (1 - a)², nothing on a chain of a thousand steps.

    Equation:
        x_s = (2 - a) x_t + std² score + std z,   where forward x_t = a x_s + std z:  a = alpha_t / alpha_s, std = transition_std(t, s)
    Source:
        Song et al. 2021, appendix E (eq. 46) and algorithms 2-3, lines 3-5, https://arxiv.org/abs/2011.13456
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        process = denoiser.process
        prediction = denoiser(x_t, t, **cond)
        if process.sigma(s) == 0:
            return prediction.x_0
        a, std = broadcast(process.alpha(t) / process.alpha(s), x_t), broadcast(process.transition_std(t, s), x_t)
        return (2 - a) * x_t + std.square() * prediction.score + std * rng.normal_like(x_t)
