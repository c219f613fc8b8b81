"""The second word: a Denoiser, (x_t, t, **cond) -> Prediction.

``NetDenoiser`` is the only one that owns weights. Everything that changes a belief (guidance, clipping, inpainting, asking a model
in another process's coordinates) is a Denoiser around a Denoiser; samplers cannot tell the difference.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unstir.parameterization import PARAMETERIZATIONS, Parameterization
from unstir.prediction import Prediction
from unstir.process import Process, broadcast
from unstir.trainable import Trainable


class Denoiser(nn.Module, ABC):
    """What a noisy x_t is believed to have been.

    Call it with x_t (B, ...), t a float64 CPU tensor () or (B,), and conditions by name, (B, ...) each; an absent condition
    is null. It answers with a Prediction.
    """

    process: Process

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        """The belief about x_0 and eps."""

    def __call__(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        prediction: Prediction = super().__call__(x_t, t, **cond)
        return prediction


C_NOISE_LIMIT = 2.5  # ln(sigma/alpha) in [-10, 10]: beyond it nothing can be told apart, and the ends are infinite


def c_noise(process: Process, t: Tensor) -> Tensor:
    """The noise level as networks are told it, ln(sigma / alpha) / 4, in the shape of t."""
    return (-process.log_snr(t) / 8).clamp(-C_NOISE_LIMIT, C_NOISE_LIMIT)


def c_in(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """The factor that brings x_t to unit variance."""
    return (alpha.square() * sigma_data**2 + sigma.square()).rsqrt()


def ask(
    network: nn.Module, inputs: Tensor, level: Tensor, cond: dict[str, Tensor], autocast: torch.dtype | None
) -> Tensor:
    """What a network says to inputs (B, ...) at the noise level c_noise, () or (B,); in the precision of the inputs."""
    weight = next(network.parameters(), None)  # the sampler's precision may be higher than the network's
    dtype = torch.float64 if weight is not None and weight.dtype == torch.float64 else torch.float32
    level = level.to(dtype).expand(len(inputs)).to(inputs.device)
    with torch.autocast(inputs.device.type, autocast, enabled=autocast is not None):
        F: Tensor = network(inputs.to(dtype), level, **cond).to(inputs.dtype)
    return F


class NetDenoiser(Denoiser, Trainable):
    """A network and the meaning of its output.

    The network gets its input at unit scale and the noise level, not the clock: one rule for all processes, so a network can
    be asked under another process, and t may have any unit.

    Equation:
        F = network(c_in x_t, c_noise),   c_in = 1 / sqrt(alpha² sigma_data² + sigma²),   c_noise = ln(sigma / alpha) / 4
    Source:
        Karras, Aittala, Aila & Laine 2022, eq. 7 and table 1, https://arxiv.org/abs/2206.00364

    Args:
        network: ``(x, c_noise, **cond) -> F``; x (B, C, ...), c_noise (B,), F (B, C, ...), or (B, 2C, ...) with ``learn_variance``.
        process: under which x_t is noisy.
        parameterization: a name in PARAMETERIZATIONS: what F means.
        sigma_data: standard deviation of the data. With 1 (and a variance-preserving process) c_in is exactly 1.
        learn_variance: the second half of the channels is the variance fraction of Nichol & Dhariwal 2021, eq. 15, in [-1, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        parameterization: str = "eps",
        *,
        sigma_data: float = 1.0,
        learn_variance: bool = False,
    ) -> None:
        super().__init__(process)
        self.network = network
        self.parameterization: Parameterization = PARAMETERIZATIONS[parameterization]
        self.sigma_data = sigma_data
        self.learn_variance = learn_variance
        self.autocast = None

    def c_noise(self, t: Tensor) -> Tensor:
        """The noise level as the network is told it, in the shape of t."""
        return c_noise(self.process, t)

    def c_in(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The factor that brings x_t to unit variance."""
        return c_in(alpha, sigma, self.sigma_data)

    def ask(self, inputs: Tensor, t: Tensor, cond: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The network's raw output F on inputs at unit scale, and the variance fraction where it learns it."""
        F = ask(self.network, inputs, self.c_noise(t), cond, self.autocast)
        if not self.learn_variance:
            return F, None
        F, raw = F.chunk(2, dim=1)
        return F, (raw + 1) / 2

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        alpha, sigma = self.process.scales(t, x_t)
        F, fraction = self.ask(self.c_in(alpha, sigma) * x_t, t, cond)
        x_0, eps = self.parameterization.solve(F, x_t, alpha, sigma, self.sigma_data)
        return Prediction(x_t, x_0, eps, alpha, sigma, fraction)

    def raw_error(self, x_0_error: Tensor, eps_error: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The error of F that these errors of the belief, at one x_t, come from."""
        return self.parameterization.mix(x_0_error, eps_error, alpha, sigma, self.sigma_data)


def at_same_snr(x_t: Tensor, t: Tensor, here: Process, there: Process) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy data of one process in the coordinates of another: (x', t', c) with x' = c x_t at the same log-SNR.

    Where ``there`` never gets as noisy (or clean) as x_t is, t' is its end.
    """
    t_there = there.t_at_log_snr(here.log_snr(t))
    c = broadcast(there.alpha(t_there).hypot(there.sigma(t_there)) / here.alpha(t).hypot(here.sigma(t)), x_t)
    return c * x_t, t_there, c


class ChangeProcess(Denoiser):
    """A denoiser trained under one process, in the coordinates of another: the same log-SNR, another scale.

    Where the new process is noisier (or cleaner) than the old one ever gets, the old one is asked at its end.

    Equation:
        x'_{t'} = c x_t with log_snr'(t') = log_snr(t),   c = sqrt(alpha'² + sigma'²) / sqrt(alpha² + sigma²)
    Source:
        Karras, Aittala, Aila & Laine 2022, eqs. 3-4 and appendix B, https://arxiv.org/abs/2206.00364
    """

    def __init__(self, denoiser: Denoiser, process: Process) -> None:
        super().__init__(process)
        self.denoiser = denoiser

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        x_inner, t_inner, c = at_same_snr(x_t, t, self.process, self.denoiser.process)
        prediction = self.denoiser(x_inner, t_inner, **cond)
        alpha, sigma = self.process.scales(t, x_t)
        shift = prediction.score_shift  # a gradient in x', by the chain rule
        return replace(prediction, x_t=x_t, alpha=alpha, sigma=sigma, score_shift=None if shift is None else c * shift)


class MixtureDenoiser(Denoiser):
    """The exact denoiser of a mixture of Gaussians with diagonal covariances: an oracle for tests, and a teaching aid.

    With ``label`` (B,) it is the exact denoiser of that one component (-1: of the mixture), so guidance has an oracle too.

    Equation:
        q(x_t) = sum_k w_k N(alpha mu_k, v_k),   v_k = alpha² std_k² + sigma²,   r_k = posterior weight of component k
        E[x_0 | x_t] = sum_k r_k (mu_k + alpha std_k² (x_t - alpha mu_k) / v_k),   E[eps | x_t] = sum_k r_k sigma (x_t - alpha mu_k) / v_k
    Source:
        conditional expectation of a Gaussian; Karras et al. 2022, appendix B.3, for the empirical case std = 0

    Args:
        means: (K, *shape). stds: broadcastable to means, e.g. (K, 1) or (K, *shape). weights: (K,), uniform if None.
    """

    means: Tensor
    stds: Tensor
    log_weights: Tensor

    def __init__(self, process: Process, means: Tensor, stds: Tensor, weights: Tensor | None = None) -> None:
        super().__init__(process)
        weights = torch.ones(len(means), dtype=means.dtype) if weights is None else weights
        self.register_buffer("means", means)
        self.register_buffer("stds", stds.expand_as(means).clone())
        self.register_buffer("log_weights", (weights / weights.sum()).log())

    def _components(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t - alpha mu_k (B, K, ...), v_k (B or 1, K, ...) and log w_k N(x_t; alpha mu_k, v_k) (B, K)."""
        alpha, sigma = alpha.unsqueeze(1) if alpha.ndim else alpha, sigma.unsqueeze(1) if sigma.ndim else sigma
        difference = x_t.unsqueeze(1) - alpha * self.means  # (B, K, ...)
        total = alpha.square() * self.stds.square() + sigma.square()  # (B, K, ...)
        total = total.expand_as(difference)
        log_density = -0.5 * (difference.square() / total + total.log() + math.log(2 * math.pi))
        return difference, total, self.log_weights + log_density.flatten(2).sum(2)

    def forward(self, x_t: Tensor, t: Tensor, /, label: Tensor | None = None, **cond: Any) -> Prediction:
        alpha, sigma = self.process.scales(t, x_t)
        difference, total, logits = self._components(x_t, alpha, sigma)
        if label is not None:
            chosen = torch.nn.functional.one_hot(label.clamp(min=0), len(self.means)).bool()
            logits = torch.where(chosen | (label < 0).unsqueeze(1), logits, -torch.inf)
        r = logits.softmax(1).reshape(*logits.shape, *[1] * (x_t.ndim - 1))  # (B, K, 1...)
        a, s = (alpha.unsqueeze(1), sigma.unsqueeze(1)) if alpha.ndim else (alpha, sigma)
        x_0 = (r * (self.means + a * self.stds.square() * difference / total)).sum(1)
        eps = (r * s * difference / total).sum(1)
        return Prediction(x_t, x_0, eps, alpha, sigma)

    def log_posterior(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, ...) -> (B, K) log probabilities of the components given x_t: the perfect noisy classifier.

        Equation:
            p(k | x_t) = w_k N(x_t; alpha mu_k, v_k) / q(x_t)
        Source:
            Bayes' rule; what the classifier of Dhariwal & Nichol 2021, section 4, would learn, https://arxiv.org/abs/2105.05233
        """
        return self._components(x_t, *self.process.scales(t, x_t))[2].log_softmax(1)

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, ...) -> (B,) exact log density of x_t in nats; t = 0 is the data's."""
        return self._components(x_t, *self.process.scales(t, x_t))[2].logsumexp(1)


class GaussianDenoiser(MixtureDenoiser):
    """The exact denoiser of one Gaussian with diagonal covariance, whose probability flow is known in closed form.

    Args:
        mean: (*shape). std: broadcastable to mean.
    """

    def __init__(self, process: Process, mean: Tensor, std: Tensor) -> None:
        super().__init__(process, mean.unsqueeze(0), std.expand_as(mean).unsqueeze(0))

    def flow_map(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Where the probability-flow ODE carries x_t from time t to s: every percentile keeps its place.

        Equation:
            x_s = alpha_s mu + sqrt(alpha_s² std² + sigma_s²) / sqrt(alpha_t² std² + sigma_t²) (x_t - alpha_t mu)
        Source:
            Song et al. 2021, eq. 13 (the probability-flow ODE), solved for Gaussian data
        """
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.process.scales(t, x_t), self.process.scales(s, x_t)
        mean, std = self.means[0], self.stds[0]
        now, then = (alpha_t * std).hypot(sigma_t), (alpha_s * std).hypot(sigma_s)
        return alpha_s * mean + then / now * (x_t - alpha_t * mean)
