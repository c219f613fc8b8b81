"""DPM-Solver and DPM-Solver++: exact in the linear part of the probability-flow ODE, a polynomial in log-SNR for the belief.

DPM-Solver expands eps, DPM-Solver++ expands x_0, which stays bounded and so bears guidance and few steps. "S" takes its other beliefs
from inside the step (two or three evaluations), "M" from the steps before (one). DPM-Solver-1 is DDIM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.process import broadcast
from unstir.samplers.exponential import EpsInLogSNR, Expansion, Node, X0Ancestral, X0InLogSNR, advance, node
from unstir.samplers.multistep import Multistep
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


def singlestep(
    expansion: Expansion,
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor,
    s: Tensor,
    cond: Cond,
    fractions: Sequence[float],
    std: Tensor | None = None,
) -> Tensor:
    """The mean of x_s by a method of Runge and Kutta's kind: each belief inside the step leads to the next, the last one to x_s.

    A step over an infinite stretch of log-SNR has no inside: it is DDIM's.

    Equation:
        x_i = x_{s_i} from B_t and B_{i-1},   lambda_{s_i} = lambda_t + r_i h,   x_s from B_t and the last B_i
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022, algorithms 1 and 2, https://arxiv.org/abs/2206.00927

    Args:
        expansion: in log-SNR.
        fractions: r_1 .. of the step, at which to ask the denoiser.
        std: of the noise that the caller will add.
    """
    process = denoiser.process
    here = denoiser(x_t, t, **cond)
    nodes: list[Node] = []
    if (span := expansion.span(process, t, s)).isfinite():
        inside = expansion.position(process, t) + span * torch.tensor(fractions, dtype=torch.float64)
        for s_i in process.t_at_log_snr(2 * inside):
            x_i = advance(expansion, process, here, t, s_i, nodes)
            nodes = [node(expansion, process, denoiser(x_i, s_i, **cond), s_i)]
    return advance(expansion, process, here, t, s, nodes, std)


# ---- several evaluations a step ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DPMSolver2(Sampler):
    """DPM-Solver-2: second order, two evaluations a step (one over an infinite stretch of log-SNR).

    Equation:
        u = alpha_m / alpha_t x_t - sigma_m (exp(h/2) - 1) eps(x_t, t),   x_s = alpha_s / alpha_t x_t - sigma_s (exp(h) - 1) eps(u, m),   lambda_m = (lambda_t + lambda_s) / 2
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022, algorithm 1, https://arxiv.org/abs/2206.00927
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        return singlestep(EpsInLogSNR("bh2"), denoiser, x_t, t, s, cond, [1 / 2])


@dataclass(frozen=True)
class DPMSolver3(Sampler):
    """DPM-Solver-3: third order, three evaluations a step (one over an infinite stretch of log-SNR).

    Equation:
        x_s = alpha_s / alpha_t x_t - sigma_s (exp(h) - 1) eps_t - sigma_s / r_2 ((exp(h) - 1) / h - 1) (eps_2 - eps_t),   r_1 = 1/3, r_2 = 2/3
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022, algorithm 2, https://arxiv.org/abs/2206.00927
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        return singlestep(EpsInLogSNR(), denoiser, x_t, t, s, cond, [1 / 3, 2 / 3])


@dataclass(frozen=True)
class DPMpp2S(Sampler):
    """DPM-Solver++(2S): second order, two evaluations a step (one over an infinite stretch of log-SNR).

    Equation:
        u = sigma_m / sigma_t x_t - alpha_m (exp(-r h) - 1) x_0(x_t, t),   D = (1 - 1/(2r)) x_0(x_t, t) + 1/(2r) x_0(u, m),   x_s = sigma_s / sigma_t x_t - alpha_s (exp(-h) - 1) D,   r = 1/2
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022, algorithm 1, https://arxiv.org/abs/2211.01095
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        return singlestep(X0InLogSNR(single="bh2"), denoiser, x_t, t, s, cond, [1 / 2])


@dataclass(frozen=True)
class DPMpp2SAncestral(Sampler):
    """DPM-Solver++(2S) down to a noise level below that of s, and fresh noise up to s: two evaluations a step.

    Equation:
        std = eta · posterior_std(t, s);   DPM-Solver++(2S) to the noise level sqrt(sigma_s² - std²) at the signal scale alpha_s;   + std z
    Source:
        Crowson 2022, k-diffusion (sample_dpmpp_2s_ancestral), https://github.com/crowsonkb/k-diffusion
    """

    eta: float = 1.0
    """How much of DDPM's noise: 0 none (dpmpp_2s), 1 all."""

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        expansion = X0Ancestral(self.eta, "bh2")
        std = expansion.std(denoiser.process, t, s)
        x_s = singlestep(expansion, denoiser, x_t, t, s, cond, [1 / 2], std)
        return x_s + broadcast(std, x_t) * rng.normal_like(x_t) if std > 0 else x_s


# ---- one evaluation a step -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DPMpp2M(Multistep):
    """DPM-Solver++(2M): second order, one evaluation a step. The best first choice for 10 to 30 steps.

    First order in the first step, and in steps over an infinite stretch of log-SNR (to the data, or from alpha = 0).

    Equation:
        D = x_0(t) + h / (2 h_last) (x_0(t) - x_0(last)),   x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) D,   h = lambda_s - lambda_t, lambda = log(alpha / sigma)
    Source:
        Lu et al. 2022, algorithm 2, https://arxiv.org/abs/2211.01095
    """

    def scheme(self) -> tuple[Expansion, int]:
        return X0InLogSNR(single="bh2"), 2


@dataclass(frozen=True)
class DPMpp3M(Multistep):
    """DPM-Solver++(3M): the parabola in lambda through the last three beliefs. Third order, one evaluation a step.

    Equation:
        x_s = sigma_s / sigma_t x_t + alpha_s ∫ exp(lambda - lambda_s) P(lambda) dlambda,   P through x_0 at t and at the two times before
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022, https://arxiv.org/abs/2211.01095, whose code gives the second difference half of its weight here
    """

    def scheme(self) -> tuple[Expansion, int]:
        return X0InLogSNR(single="bh2"), 3


@dataclass(frozen=True)
class DPMpp2MSDE(Multistep):
    """SDE-DPM-Solver++(2M): the diffusion SDE with x_0 extrapolated as in 2M. One evaluation a step.

    Equation:
        x_s = sigma_s / sigma_t exp(-eta h) x_t + alpha_s (1 - exp(-(1 + eta) h)) D + sigma_s sqrt(1 - exp(-2 eta h)) z,   D as in DPM-Solver++(2M)
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022 (SDE-DPM-Solver++(2M), eta = 1), https://arxiv.org/abs/2211.01095; eta: Crowson 2022, k-diffusion
    """

    eta: float = 1.0
    """How much noise is replaced: 0 none (dpmpp_2m), 1 as much as the reverse SDE, and DDPM, does."""

    def scheme(self) -> tuple[Expansion, int]:
        return X0InLogSNR(self.eta, "bh2"), 2


@dataclass(frozen=True)
class DPMpp3MSDE(Multistep):
    """SDE-DPM-Solver++(3M): the diffusion SDE with x_0 extrapolated as in 3M. One evaluation a step.

    Equation:
        x_s = sigma_s / sigma_t exp(-eta h) x_t + alpha_s ∫ (1 + eta) exp(-(1 + eta) (lambda_s - lambda)) P(lambda) dlambda + sigma_s sqrt(1 - exp(-2 eta h)) z
    Source:
        Crowson 2023, k-diffusion (sample_dpmpp_3m_sde), https://github.com/crowsonkb/k-diffusion
    """

    eta: float = 1.0
    """How much noise is replaced: 0 none (dpmpp_3m), 1 as much as the reverse SDE, and DDPM, does."""

    def scheme(self) -> tuple[Expansion, int]:
        return X0InLogSNR(self.eta, "bh2"), 3
