"""DPM-Solver++: exact in the linear part of the probability-flow ODE, a polynomial in log-SNR for the belief about x_0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.process import broadcast
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


@dataclass(frozen=True)
class DPMpp2M(Sampler):
    """DPM-Solver++(2M): second order, one evaluation a step. The best first choice for 10 to 30 steps.

    First order in the first step, and in steps over an infinite stretch of log-SNR (to the data, or from alpha = 0).

    Equation:
        D = x_0(t) + h / (2 h_last) (x_0(t) - x_0(last)),   x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) D,   h = lambda_s - lambda_t, lambda = log(alpha / sigma)
    Source:
        Lu et al. 2022, algorithm 2, https://arxiv.org/abs/2211.01095
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        process = denoiser.process
        prediction = denoiser(x_t, t, **cond)
        h = (process.log_snr(s) - process.log_snr(t)) / 2
        D = prediction.x_0
        if memory and torch.isfinite(h) and torch.isfinite(memory["h"]):
            D = D + broadcast(h / (2 * memory["h"]), x_t) * (D - memory["x_0"])
        memory.update(h=h, x_0=prediction.x_0)
        # alpha_s (1 - exp(-h)), written so that it also holds where h is infinite.
        ratio = process.sigma(s) / process.sigma(t)
        return broadcast(ratio, x_t) * x_t + broadcast(process.alpha(s) - ratio * process.alpha(t), x_t) * D
