"""Predictor and corrector: any sampler's step to the next noise level, then Langevin steps that stay there and mend it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.prediction import Prediction
from unstir.process import Process, broadcast
from unstir.samplers.langevin import langevin_step
from unstir.samplers.sde import ReverseDiffusion
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


def _kept(process: Process, t: Tensor) -> Tensor:
    """alpha_i of algorithm 5: what a step of the chain keeps of the variance, 1 - beta_t. Continuous time has steps of no length."""
    if process.snap(torch.tensor(0.25)) != 0:  # not a process in whole steps
        return torch.ones_like(t)
    return (process.alpha(t) / process.alpha((t - 1).clamp(min=0))).square()


def snr_step_size(prediction: Prediction, snr: float) -> Tensor:
    """The Langevin step, in units of the noise, at which the score's pull is ``snr`` of the noise put in. (B, 1, ...)

    |z| counts as sqrt(D), as the paper recommends for small batches: the step must not depend on the noise it scales. |g| is
    each sample's own, so that a sample does not depend on its neighbours; the paper's code takes the batch's mean. At most 1,
    since a score that vanishes (a network that has learnt nothing) would ask for an infinite step.

    Equation:
        epsilon = 2 (r |z| / |g|)²,   e = epsilon / sigma² = 2 r² D / |eps|²   (g = score = -eps / sigma)
    Source:
        Song et al. 2021, algorithms 4 and 5, line 6, https://arxiv.org/abs/2011.13456
    """
    eps = prediction.eps.flatten(1)
    step = 2 * snr**2 / eps.square().mean(1)
    return step.clamp(max=1.0).reshape(-1, *[1] * (prediction.eps.ndim - 1))


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Score-SDE's PC sampler: a predictor's step t -> s, then Langevin steps at s.

    The corrector brings x nearer to the distribution at s, whatever the predictor did wrong; none follows the step to the data.

    Equation:
        x_s = predictor(x_t);   corrections times:  x_s <- x_s + epsilon g + sqrt(2 epsilon) z,   g = score(x_s, s), epsilon = 2 alpha_i (snr |z| / |g|)²
    Source:
        Song et al. 2021, algorithms 1-5, https://arxiv.org/abs/2011.13456
    """

    predictor: Sampler = field(default_factory=ReverseDiffusion)
    """Any sampler's step; the paper's are reverse_diffusion, ddpm (ancestral) and euler_maruyama."""
    corrections: int = 1
    """M: Langevin steps after each of the predictor's."""
    snr: float = 0.16
    """r: size of the score's pull over that of the noise, in a Langevin step."""
    adaptive: bool = True
    """Measure the score's size, sample by sample (the paper). Off: take what it is where noise prevails, sqrt(D) / sigma; for data of
    few dimensions, where one sample's score may happen to be small."""

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        x = self.predictor.step(denoiser, x_t, t, s, cond, memory, rng)
        if denoiser.process.sigma(s) == 0:
            return x
        kept = broadcast(_kept(denoiser.process, s), x)
        for _ in range(self.corrections):
            prediction = denoiser(x, s, **cond)
            step_size = snr_step_size(prediction, self.snr) if self.adaptive else 2 * self.snr**2
            x = langevin_step(prediction, kept * step_size, rng.normal_like(x))
        return x
