"""Bits: the binomial diffusion of Sohl-Dickstein et al. 2015, for binary sequences. The one process here whose noise is not Gaussian.

The words fit better than expected, once a bit is written as -1 or 1. A chain that keeps a bit with probability 1 - beta_t and else
tosses a coin for it has E[x_t | x_0] = alpha_t x_0 and variance 1 - alpha_t²: the alpha and sigma of a variance-preserving process. A
belief about a bit is its mean, which is all of its distribution, so ``Prediction.x_0`` says everything that the reverse step needs. Hence
Process, Denoiser (and NetDenoiser), Prediction, Sampler, ``trajectory``, the grids, Objective and the training loop are used as they are.

What had to bend:

- the noise. x_t is not alpha x_0 + sigma eps for any eps drawn beforehand: ``add_noise`` and ``prior_sample`` take the same standard
  normal noise as everywhere, and look only at whether it exceeds a threshold. ``Prediction.eps`` has the right mean and variance, and is
  not Gaussian; what is derived from the normal density (the score, ``posterior_std``, the reverse SDE) is not for bits.
- the tables. ``PROCESSES``, ``SAMPLERS`` and ``OBJECTIVES`` promise that everything goes with everything, and of these things only the
  ones here go with each other. So they are in no table, and there is no recipe; they are used from Python, as tests/test_binomial.py does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unstir.denoiser import Denoiser, NetDenoiser
from unstir.objectives import Batch, DenoisingObjective, Loss, Objective
from unstir.objectives.objective import Companion
from unstir.prediction import Prediction
from unstir.process import Process, broadcast
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


def bits_of(mean: Tensor, noise: Tensor) -> Tensor:
    """Bits -1 or 1 of this mean (in [-1, 1]): 1 where standard normal noise lies below the quantile of their probability."""
    return torch.where(noise < torch.special.ndtri((1 + mean) / 2), 1.0, -1.0).to(noise.dtype)


@dataclass(frozen=True)
class BitFlip(Process):
    """The binomial process, t = 1..T, in which an equal share of the bits is lost at every step, and all are at the end.

    Equation:
        q(x_t = 1 | x_{t-1}) = x_{t-1} (1 - beta_t) + 0.5 beta_t for bits 0 and 1,   beta_t = 1 / (T - t + 1);
        for bits -1 and 1:   E[x_t | x_0] = alpha_t x_0,   alpha_t = prod (1 - beta_i) = 1 - t / T
    Source:
        Sohl-Dickstein et al. 2015, section 2.4.1 and table App.1, https://arxiv.org/abs/1503.03585
    """

    steps: int = 2000
    """Number of steps T of the chain."""

    @property
    def t_max(self) -> float:
        return float(self.steps)

    @property
    def t_min(self) -> float:
        return 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t / self.steps

    def sigma(self, t: Tensor) -> Tensor:
        return (t / self.steps * (2 - t / self.steps)).sqrt()  # sqrt(1 - alpha²)

    def snap(self, t: Tensor) -> Tensor:
        return t.round()

    def time_of_fraction(self, u: Tensor) -> Tensor:
        return (u * self.steps).floor() + 1

    def add_noise(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Jumps from data to time t; eps decides which bits flip, each with probability (1 - alpha_t) / 2.

        Equation:
            q(x_t | x_0) = bits of mean alpha_t x_0
        Source:
            Sohl-Dickstein et al. 2015, table App.1, https://arxiv.org/abs/1503.03585
        """
        return x_0 * bits_of(broadcast(self.alpha(t), x_0).expand_as(x_0), eps)

    def prior_sample(self, eps: Tensor, t: Tensor | None = None) -> Tensor:
        """Standard normal noise (B, ...) -> fair coins, which x_t is at t_max; x_0 still shows at any other t."""
        return bits_of(torch.zeros_like(eps), eps)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B,) log probability in nats of fair coins."""
        return torch.full((len(x),), -x[0].numel() * math.log(2), dtype=x.dtype, device=x.device)


def posterior_mean(process: Process, x_t: Tensor, x_0: Tensor | float, t: Tensor, s: Tensor) -> Tensor:
    """E[x_s | x_t, x_0] for bits, s < t: Bayes' rule, which for means is the addition of velocities.

    Equation:
        q(x_s | x_t, x_0) = bits of mean (rho x_t + alpha_s x_0) / (1 + alpha_t x_t x_0),   rho = alpha_t / alpha_s
    Source:
        Sohl-Dickstein et al. 2015, table App.1 (forward kernel) with Bayes' rule, https://arxiv.org/abs/1503.03585
    """
    alpha_t, alpha_s = process.alpha(t), process.alpha(s)
    rho = broadcast(alpha_t / alpha_s, x_t)
    return (rho * x_t + broadcast(alpha_s, x_t) * x_0) / (1 + broadcast(alpha_t, x_t) * x_t * x_0)


def reverse_mean(process: Process, prediction: Prediction, t: Tensor, s: Tensor) -> Tensor:
    """E[x_s | x_t] where x_0 is only believed: the posterior's, averaged over the two values that each bit of x_0 may have.

    Exact for every single bit if the belief is; that bits of one step are drawn independently of each other is the step's error.

    Equation:
        p(x_s | x_t) = sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t)
    Source:
        Sohl-Dickstein et al. 2015, table App.1 (reverse kernel), https://arxiv.org/abs/1503.03585; Austin et al. 2021, eq. 4 (through x_0), https://arxiv.org/abs/2107.03006
    """
    one, other = (posterior_mean(process, prediction.x_t, bit, t, s) for bit in (1.0, -1.0))
    return ((1 + prediction.x_0) * one + (1 - prediction.x_0) * other) / 2


def bit_divergence(mean: Tensor, believed: Tensor) -> Tensor:
    """(B, ...) -> (B,) nats: the divergence of bits with one mean from bits with another, summed."""
    p, q = (1 + mean) / 2, ((1 + believed) / 2).clamp(1e-7, 1 - 1e-7)
    terms = torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p) - torch.xlogy(p, q) - torch.xlogy(1 - p, 1 - q)
    return terms.flatten(1).sum(1)


def _bit_prediction(x_t: Tensor, x_0: Tensor, process: Process, t: Tensor) -> Prediction:
    alpha, sigma = process.scales(t, x_t)
    eps = torch.where(sigma == 0, torch.zeros_like(x_t), (x_t - alpha * x_0) / sigma)
    return Prediction(x_t, x_0, eps, alpha, sigma)


class BitDenoiser(NetDenoiser):
    """A network that gives the log odds of every bit of x_0.

    Equation:
        x_0 = 2 sigmoid(F) - 1 = tanh(F / 2),   F = network(x_t, c_noise)
    Source:
        Sohl-Dickstein et al. 2015, appendix D.1, https://arxiv.org/abs/1503.03585
    """

    def __init__(self, network: nn.Module, process: Process) -> None:
        super().__init__(network, process, "x_0")

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        F, _ = self.ask(x_t, t, cond)
        return _bit_prediction(x_t, (F / 2).tanh(), self.process, t)


class EnumeratedDenoiser(Denoiser):
    """The exact belief where the data are known sequences with known probabilities: an oracle for tests.

    Equation:
        p(x_0 = m_k | x_t) ~ w_k prod over bits of (1 + alpha_t x_t m_k) / 2
    Source:
        Bayes' rule, over the chain of Sohl-Dickstein et al. 2015, section 2, https://arxiv.org/abs/1503.03585

    Args:
        patterns: (K, *shape) of -1 and 1. weights: (K,), uniform if None.
    """

    patterns: Tensor
    log_weights: Tensor

    def __init__(self, process: Process, patterns: Tensor, weights: Tensor | None = None) -> None:
        super().__init__(process)
        weights = torch.ones(len(patterns), dtype=patterns.dtype) if weights is None else weights
        self.register_buffer("patterns", patterns)
        self.register_buffer("log_weights", (weights / weights.sum()).log())

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        alpha = broadcast(self.process.alpha(t), x_t)
        agreement = (alpha * x_t).unsqueeze(1) * self.patterns  # (B, K, ...)
        logits = self.log_weights + torch.log1p(agreement).flatten(2).sum(2)  # (B, K)
        x_0 = (logits.softmax(1) @ self.patterns.flatten(1)).reshape(x_t.shape)
        return _bit_prediction(x_t, x_0, self.process, t)


@dataclass(frozen=True)
class BitSampler(Sampler):
    """Ancestral sampling of bits: every bit of x_s is drawn from what is believed of it.

    Equation:
        x_s ~ p(x_s | x_t), bits of mean ``reverse_mean``
    Source:
        Sohl-Dickstein et al. 2015, section 2.2 and table App.1, https://arxiv.org/abs/1503.03585
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        return bits_of(reverse_mean(denoiser.process, denoiser(x_t, t, **cond), t, s), rng.normal_like(x_t))


def bound_term(denoiser: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor, cond: Cond | None = None) -> Tensor:
    """(B,) nats: the t-th term of the bound on -log p(x_0); at t = 1 it is -log p(x_0 | x_1).

    Equation:
        L_{t-1} = KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) )
    Source:
        Sohl-Dickstein et al. 2015, eq. 14 and appendix B, https://arxiv.org/abs/1503.03585

    Args:
        t: (B,) or (), whole steps. eps: noise (B, ...) for ``add_noise``.
    """
    process = denoiser.process
    prediction = denoiser(process.add_noise(x_0, t, eps), t, **(cond or {}))
    true = posterior_mean(process, prediction.x_t, x_0, t, t - 1)
    return bit_divergence(true, reverse_mean(process, prediction, t, t - 1))


@torch.no_grad()
def bound(denoiser: Denoiser, x_0: Tensor, rng: SampleNoise) -> Tensor:
    """(B,) nats: the bound on -log p(x_0), all T terms, with fresh noise for each. The prior costs nothing: at T all is noise."""
    times = torch.arange(1, int(denoiser.process.t_max) + 1, dtype=torch.float64)
    return torch.stack([bound_term(denoiser, x_0, t, rng.normal_like(x_0)) for t in times]).sum(0)


@dataclass(frozen=True)
class BitObjective(Objective):
    """The variational bound in bits per bit of data, by one term of it, chosen uniformly and counted T times.

    Equation:
        L = E_t[ T L_{t-1} ] / (D ln 2)
    Source:
        Sohl-Dickstein et al. 2015, eqs. 13-14, https://arxiv.org/abs/1503.03585
    """

    trains: ClassVar[type[nn.Module]] = Denoiser

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, Denoiser)
        t = DenoisingObjective().draw_times(module, rng)
        term = bound_term(module, batch.x, t, rng.normal_like(batch.x), dict(batch.cond))
        total = term * (module.process.t_max / (batch.x[0].numel() * math.log(2)))
        return Loss(total, {"loss": total}, module.process.log_snr(t))


def heartbeats(length: int = 20, period: int = 5) -> Tensor:
    """(period, length) float32 of -1 and 1: the paper's binary sequences, a pulse every ``period`` bits, in each of its phases.

    Source:
        Sohl-Dickstein et al. 2015, section 3.1.2, https://arxiv.org/abs/1503.03585
    """
    phase, place = torch.arange(period).unsqueeze(1), torch.arange(length)
    return torch.where((place - phase) % period == 0, 1.0, -1.0)
