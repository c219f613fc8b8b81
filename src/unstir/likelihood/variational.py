"""The variational bound: how many nats a reverse chain needs to tell a sample, for any process on any grid of times.

    -log p(x_0) <= L_T + sum over the steps t -> s of L_s + L_0

L_T is what the prior does not know of x_T, L_s what the reverse step does not know of x_s, and L_0 what the last step to the data
costs. A process in whole steps has its paper's chain; any other process becomes a chain on a grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.errors import UserError
from unstir.likelihood.decoder import Decoder, GaussianDecoder
from unstir.prediction import Prediction
from unstir.process import Process, broadcast
from unstir.samplers.ancestral import mean_toward
from unstir.samplers.grids import LogSNR, Uniform
from unstir.sampling import Grid, SampleNoise

Noise = Literal["posterior", "large", "learned"]


def in_whole_steps(process: Process) -> bool:
    """Whether the process knows only whole times 1, 2, ..., t_max."""
    return bool(process.snap(torch.tensor(0.25, dtype=torch.float64)) == 0)


def chain_times(process: Process, steps: int = 0, grid: Grid | None = None) -> Tensor:
    """(K + 1,) float64, from t_max to 0: all the steps of a process in whole steps; of any other, 1,000 equal ones of log-SNR.

    Args:
        steps: K, where it should be another. grid: likewise.
    """
    whole = in_whole_steps(process)
    grid = grid or (Uniform() if whole else LogSNR())
    return grid.times(process, steps or (round(process.t_max) if whole else 1000))


def _normal_kl(difference: Tensor, log_std_p: Tensor, log_std_q: Tensor) -> Tensor:
    """KL(N(m, std_q²) || N(m + difference, std_p²)) of every entry, in nats."""
    log_ratio = log_std_p - log_std_q
    return 0.5 * (difference.square() * (-2 * log_std_p).exp() + torch.expm1(-2 * log_ratio)) + log_ratio


@dataclass(frozen=True)
class Chain:
    """A reverse chain: where it stops, how it steps, how it ends.

    Args:
        process: under which x_t is noisy.
        times: (K + 1,) float64, decreasing from t_max to 0. Step i goes from ``times[i]`` to ``times[i + 1]``.
        noise: standard deviation of the reverse steps, as of the sampler ddpm: the posterior's, the forward step's ("large"), or
            "learned" between the two.
        decoder: of the step to the data.
    """

    process: Process
    times: Tensor
    noise: Noise = "posterior"
    decoder: Decoder = field(default_factory=GaussianDecoder)

    def __len__(self) -> int:
        return len(self.times) - 1

    @cached_property
    def last_std(self) -> Tensor:
        """Standard deviation of the step to the data, where it is not learned."""
        t = self.times[-2]
        before = self.process.posterior_std(self.times[-3], t) if len(self) > 1 else torch.zeros_like(t)
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        return self.decoder.std(before, sigma / alpha.hypot(sigma))

    def log_stds(self, i: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Logarithms of the standard deviations of steps i (B,): the posterior's, and the reverse chain's own.

        Raises:
            UserError: learned noise, and a model that did not learn it.
        """
        t, s = self.times[i], self.times[i + 1]
        last = i == len(self) - 1
        small = torch.where(last, self.last_std, self.process.posterior_std(t, s))
        large = self.process.transition_std(t, s)
        x_t = prediction.x_t
        log_small = broadcast(small.log(), x_t)
        if self.noise == "posterior":
            return log_small, log_small
        if self.noise == "large":
            return log_small, broadcast(torch.where(last, small, large).log(), x_t)
        fraction = prediction.variance_fraction
        if fraction is None:
            raise UserError(
                "a learned variance needs a network that gives one (--denoiser.learn-variance) and an objective that trains it "
                "(hybrid or variational), as in the recipe improved-ddpm"
            )
        return log_small, fraction * broadcast(large.log(), x_t) + (1 - fraction) * log_small

    def term(self, prediction: Prediction, x_0: Tensor, eps: Tensor, i: Tensor) -> Tensor:
        """(B,) nats that step i costs: the divergence of the reverse step from the posterior, or the data's own cost in the last step.

        Equation:
            L_s = KL(q(x_s | x_t, x_0) || p(x_s | x_t)),   L_0 = -log p(x_0 | x_t)
        Source:
            Ho, Jain & Abbeel 2020, eq. 5, https://arxiv.org/abs/2006.11239; learned variance: Nichol & Dhariwal 2021, eqs. 4-7 and 15, https://arxiv.org/abs/2102.09672

        Args:
            prediction: the belief of x_t = alpha x_0 + sigma eps at t = ``times[i]``.
            i: (B,) int64, 0 (from the prior) to K - 1 (to the data).
        """
        s, last = self.times[i + 1], i == len(self) - 1
        log_q, log_p = self.log_stds(i, prediction)
        # The means are linear in the beliefs, so their difference is that of the beliefs: nothing of it is lost to rounding.
        wrong = replace(prediction, x_0=prediction.x_0 - x_0, eps=prediction.eps - eps)
        stds = torch.where(last, self.last_std, self.process.posterior_std(self.times[i], s))
        difference = mean_toward(self.process, wrong, s, stds)
        nats = _normal_kl(difference, log_p, log_q).flatten(1).sum(1)
        if bool(last.any()):
            decoded = -self.decoder.log_prob(x_0, prediction.x_0, log_p.exp()).flatten(1).sum(1)
            nats = torch.where(last.to(nats.device), decoded.to(nats.dtype), nats)
        return nats

    def prior_term(self, x_0: Tensor) -> Tensor:
        """(B,) nats by which the chain's beginning, noise, differs from what is left of the data there.

        Equation:
            L_T = KL(q(x_T | x_0) || p(x_T))
        Source:
            Ho, Jain & Abbeel 2020, eq. 5, https://arxiv.org/abs/2006.11239
        """
        T = self.times[0]
        prior = self.process.prior_sample(torch.ones(1, 1, dtype=torch.float64), T)[0, 0]
        alpha, sigma = self.process.alpha(T), self.process.sigma(T)
        nats = _normal_kl(alpha * x_0.double(), prior.log(), sigma.log())
        return nats.flatten(1).sum(1)


@dataclass(frozen=True)
class Bound:
    """The terms of the bound, in nats: of probabilities, or of densities in model units.

    Args:
        prior: (B,) L_T.
        steps: (K, B) of each step from the prior to the data, the last of them L_0; or an unbiased estimate of their sum where only
            some were looked at.
        squared_errors: (K, B) mean squared error, in model units, of what is believed of x_0 before each step.
    """

    prior: Tensor
    steps: Tensor
    squared_errors: Tensor

    @property
    def total(self) -> Tensor:
        """(B,) the bound on -log p(x_0)."""
        return self.prior + self.steps.sum(0)

    @property
    def rates(self) -> Tensor:
        """(K, B) nats that have been told when step i begins: the rate to the distortion ``squared_errors[i]``.

        Equation:
            R(t) = L_T + sum of L_s over the steps s >= t,   D(t) = sqrt(|x_0 - x_0(x_t)|² / D)
        Source:
            Ho, Jain & Abbeel 2020, section 4.3 and figure 5, https://arxiv.org/abs/2006.11239
        """
        return self.prior + torch.cat([torch.zeros_like(self.steps[:1]), self.steps[:-1].cumsum(0)])


@torch.no_grad()
def variational_bound(
    denoiser: Denoiser,
    chain: Chain,
    x_0: Tensor,
    rng: SampleNoise,
    cond: Mapping[str, Tensor] | None = None,
    *,
    terms: int = 0,
) -> Bound:
    """The bound on -log p(x_0) of every sample.

    Equation:
        -log p(x_0) <= E_q[L_T + L_{T-1} + ... + L_0]
    Source:
        Ho, Jain & Abbeel 2020, eqs. 3 and 5, https://arxiv.org/abs/2006.11239; Sohl-Dickstein et al. 2015, eq. 14, https://arxiv.org/abs/1503.03585

    Args:
        denoiser: what the chain believes, with the clipping around it that it would be sampled with.
        x_0: (B, ...) in model units.
        rng: of the samples x_t, one for each step.
        cond: conditions by name, (B, ...) each.
        terms: look at so many steps only, at least two: the last one, and others spread at random over the chain, so that the sum stays
            right on average. 0: at all.
    """
    last = len(chain) - 1
    count = last if terms == 0 or terms > last else max(terms - 1, 1)
    steps, errors = [], []
    for k in range(count + 1):
        i, weight = torch.full((len(x_0),), last if k == count else k), 1.0
        if count < last and k < count:  # one of each of ``count`` equal parts of the steps before the last
            weight = last / count
            i = ((k + rng.uniform()) * weight).long().clamp(max=last - 1)
        t, eps = chain.times[i], rng.normal_like(x_0)
        prediction = denoiser(chain.process.add_noise(x_0, t, eps), t, **(cond or {}))
        steps.append(weight * chain.term(prediction, x_0, eps, i).double().cpu())
        errors.append((prediction.x_0 - x_0).double().square().flatten(1).mean(1).cpu())
    return Bound(chain.prior_term(x_0).cpu(), torch.stack(steps), torch.stack(errors))


def bits_per_dim(nats: Tensor, dimensions: int) -> Tensor:
    """Nats of a sample -> bits for each of its numbers."""
    return nats / (dimensions * math.log(2))
