"""Exponential integrators: the one form behind the fast solvers of the probability-flow ODE and of the diffusion SDE.

In lambda = log(alpha / sigma), half of the log-SNR, the exact solution is linear in x_t plus an integral over the belief, which may be
that about the data or that about the noise:

    x_s = sigma_s / sigma_t x_t + alpha_s ∫ exp(lambda - lambda_s) x_0(lambda) dlambda
    x_s = alpha_s / alpha_t x_t - sigma_s ∫ exp(lambda_s - lambda) eps(lambda) dlambda

A belief that stays as it is at t makes DDIM's step of both. A polynomial through beliefs B_j at other places adds their differences:

    x_s = alpha_s x_0 + sqrt(sigma_s² - std²) eps + sum_j w_j (B_j - B_t)   [+ std z]

So a solver is an ``Expansion`` (which belief is a polynomial in what) and a choice of places: behind the step (multistep), inside it
(singlestep) or at its end (corrector). Where the variable is infinite, at the data or at pure noise, DDIM's step remains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unstir.prediction import Prediction
from unstir.process import Process, broadcast
from unstir.samplers.ancestral import mean_toward

Single = Literal["exact", "bh1", "bh2"]
"""How a single difference is weighted: a name in FIRST_MOMENTS."""

FIRST_MOMENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "exact": lambda c, m: m[1],
    "bh1": lambda c, m: c / 2,
    "bh2": lambda c, m: m[0] / 2,
}
"""(c, moments) -> the first moment m_1(c), or one of the papers' simpler ones that agree with it to first order in c.

"bh2" is the midpoint rule of DPM-Solver and DPM-Solver++; the names are those of UniPC's two choices of B(h)."""


def exponential_moments(c: Tensor, count: int) -> Tensor:
    """(count,) m_0 .. m_{count-1}: the integrals of powers over a step, seen through its exponential weight.

    Equation:
        m_k(c) = ∫_0^1 c exp(-c (1 - u)) u^k du = k! c phi_{k+1}(-c),   m_0 = 1 - exp(-c),   m_k = 1 - k / c m_{k-1}
    Source:
        Hochbruck & Ostermann 2010, section 2 (the phi-functions), https://doi.org/10.1017/S0962492910000048

    Args:
        c: () float64, the length of the step in the exponent; not 0, of either sign.
    """
    k = torch.arange(count, dtype=c.dtype).unsqueeze(1)
    if c.abs() < 1:  # the recursion would cancel; 20 terms of the power series are exact here
        i = torch.arange(20, dtype=c.dtype)
        return ((-c) ** i * torch.exp(torch.lgamma(k + 1) - torch.lgamma(i + k + 2))).sum(1) * c
    m = [-torch.expm1(-c)]
    for n in range(1, count):
        m.append(1 - n / c * m[-1])
    return torch.stack(m)


def weights(places: Tensor, moments: Tensor) -> Tensor:
    """The weights w_j of the differences B_j - B_t with which a step is exact for every polynomial through their places.

    Equation:
        sum_j w_j r_j^k = m_k,   k = 1..p,   for p places r_j in units of the step (0 is t, 1 is s)
    Source:
        Zhao, Bai, Rao, Zhou & Lu 2023, section 3 (a_p = R_p^-1 phi_p / B(h)), https://arxiv.org/abs/2302.04867

    Args:
        places: (p,) r_1 .. r_p, different from each other and from 0.
        moments: (p + 1,) m_0 .. m_p.
    """
    powers = torch.arange(1, len(places) + 1, dtype=places.dtype).unsqueeze(1)
    solution: Tensor = torch.linalg.solve(places**powers, moments[1:])
    return solution


def half_log_snr(process: Process, t: Tensor) -> Tensor:
    """DPM-Solver's lambda; +inf at the data, -inf at pure noise.

    Equation:
        lambda_t = log(alpha_t / sigma_t)
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022, section 3.1, https://arxiv.org/abs/2206.00927
    """
    return process.log_snr(t) / 2


class Expansion(ABC):
    """Which belief is taken to be a polynomial, and in which variable."""

    @abstractmethod
    def belief(self, prediction: Prediction) -> Tensor:
        """What is a polynomial: x_0 or eps, (B, ...)."""

    @abstractmethod
    def position(self, process: Process, t: Tensor) -> Tensor:
        """The polynomial's variable at time t."""

    @abstractmethod
    def moments(self, process: Process, t: Tensor, s: Tensor, count: int) -> Tensor:
        """(count,) the changes of x from t to s that the beliefs u^k, k = 0.., would cause; u goes from 0 at t to 1 at s."""

    def span(self, process: Process, t: Tensor, s: Tensor) -> Tensor:
        """The length of the step in the polynomial's variable."""
        return self.position(process, s) - self.position(process, t)

    def std(self, process: Process, t: Tensor, s: Tensor) -> Tensor:
        """The standard deviation of the fresh noise in x_s."""
        return torch.zeros_like(s)


@dataclass(frozen=True)
class X0InLogSNR(Expansion):
    """x_0 as a polynomial in lambda: DPM-Solver++, UniPC, and for eta > 0 their forms for the SDE.

    Equation:
        x_s = sigma_s / sigma_t exp(-eta h) x_t + alpha_s ∫ (1 + eta) exp(-(1 + eta) (lambda_s - lambda)) x_0(lambda) dlambda + std z
        std = sigma_s sqrt(1 - exp(-2 eta h)),   h = lambda_s - lambda_t;   for eta = 1 this is DDPM's
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022 (DPM-Solver++), https://arxiv.org/abs/2211.01095; any eta: Xue et al. 2023 (SA-Solver, with tau² = eta), https://arxiv.org/abs/2305.14267
    """

    eta: float = 0.0
    single: Single = "exact"

    @property
    def rate(self) -> float:
        """Of the exponential under the integral."""
        return 1 + self.eta

    def belief(self, prediction: Prediction) -> Tensor:
        return prediction.x_0

    def position(self, process: Process, t: Tensor) -> Tensor:
        return half_log_snr(process, t)

    def moments(self, process: Process, t: Tensor, s: Tensor, count: int) -> Tensor:
        return process.alpha(s) * _moments(self.rate * self.span(process, t, s), count, self.single)

    def std(self, process: Process, t: Tensor, s: Tensor) -> Tensor:
        if not self.eta:
            return torch.zeros_like(s)
        if s > t:
            raise ValueError("a sampler that draws noise cannot walk up from data to noise; eta = 0 can")
        h = half_log_snr(process, s) - half_log_snr(process, t)
        return process.sigma(s) * (-torch.expm1(-2 * self.eta * h)).sqrt()


@dataclass(frozen=True)
class X0Ancestral(X0InLogSNR):
    """x_0 as a polynomial in lambda on the way down to a noise level below that of s, from where fresh noise leads up to s.

    Equation:
        std = eta · posterior_std(t, s),   lambda_down = log(alpha_s / sqrt(sigma_s² - std²))
    Source:
        Crowson 2022, k-diffusion (get_ancestral_step), https://github.com/crowsonkb/k-diffusion
    """

    @property
    def rate(self) -> float:
        return 1.0

    def span(self, process: Process, t: Tensor, s: Tensor) -> Tensor:
        down = (process.sigma(s).square() - self.std(process, t, s).square()).clamp(min=0).sqrt()
        return (process.alpha(s) / down).log() - half_log_snr(process, t)

    def std(self, process: Process, t: Tensor, s: Tensor) -> Tensor:
        if not self.eta:
            return torch.zeros_like(s)
        if s > t:
            raise ValueError("a sampler that draws noise cannot walk up from data to noise; eta = 0 can")
        return torch.minimum(self.eta * process.posterior_std(t, s), process.sigma(s))


@dataclass(frozen=True)
class EpsInLogSNR(Expansion):
    """eps as a polynomial in lambda: DPM-Solver, and DEIS in log rho (rho = sigma / alpha = exp(-lambda)).

    Equation:
        x_s = alpha_s / alpha_t x_t - sigma_s ∫ exp(lambda_s - lambda) eps(lambda) dlambda
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022, eq. 3.4, https://arxiv.org/abs/2206.00927
    """

    single: Single = "exact"

    def belief(self, prediction: Prediction) -> Tensor:
        return prediction.eps

    def position(self, process: Process, t: Tensor) -> Tensor:
        return half_log_snr(process, t)

    def moments(self, process: Process, t: Tensor, s: Tensor, count: int) -> Tensor:
        return process.sigma(s) * _moments(-self.span(process, t, s), count, self.single)


def _moments(c: Tensor, count: int, single: Single) -> Tensor:
    m = exponential_moments(c, count)
    return torch.stack([m[0], FIRST_MOMENTS[single](c, m)]) if count == 2 else m


@dataclass(frozen=True)
class Node:
    """A belief (B, ...) and where in the expansion's variable it is held."""

    position: Tensor
    belief: Tensor


def node(expansion: Expansion, process: Process, prediction: Prediction, t: Tensor) -> Node:
    """What an expansion keeps of the prediction at time t."""
    return Node(expansion.position(process, t), expansion.belief(prediction))


def advance(
    expansion: Expansion,
    process: Process,
    here: Prediction,
    t: Tensor,
    s: Tensor,
    nodes: Sequence[Node] = (),
    std: Tensor | None = None,
) -> Tensor:
    """The mean of x_s: DDIM's step, and the differences of the beliefs at the nodes from that at t.

    Equation:
        x_s = alpha_s x_0 + sqrt(sigma_s² - std²) eps + sum_j w_j (B_j - B_t)
    Source:
        Song, Meng & Ermon 2021, eq. 12, https://arxiv.org/abs/2010.02502; Zhao et al. 2023, section 3, https://arxiv.org/abs/2302.04867

    Args:
        here: the belief at time t.
        nodes: the beliefs at other places. Those at infinity cannot be used.
        std: of the noise that the caller will add; none by default.
    """
    x_s = mean_toward(process, here, s, torch.zeros_like(s) if std is None else std)
    nodes = [other for other in nodes if other.position.isfinite()]
    if not nodes or not (span := expansion.span(process, t, s)).isfinite():
        return x_s
    moments = expansion.moments(process, t, s, len(nodes) + 1)
    if not moments.isfinite().all():
        return x_s
    places = (torch.stack([other.position for other in nodes]) - expansion.position(process, t)) / span
    for w, other in zip(weights(places, moments), nodes):
        x_s = x_s + broadcast(w, x_s) * (other.belief - expansion.belief(here))
    return x_s
